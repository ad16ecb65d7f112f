"""What somebody at the microscope is told to do, and when they're told nothing."""

from typing import Any

import pytest

from vitriflow.facility.verdict.advice import GO_ON
from vitriflow.facility.verdict.trends import WATCHED, Trend
from vitriflow.web.verdict import Facts, judge

FACTS: dict[str, Any] = {
    "total": 100,
    "finished": 100,
    "usable": 95,
    "fit_A": 3.5,
    "motion_A": 12.0,
    "trends": [],
    "gain_alarm": "",
    "problems": [],
    "rejected_by_people": 0,
    "outside_limits": 0,
    "quiet_s": 0.0,
}


def advice(**changed: Any) -> str:
    return judge(Facts(**{**FACTS, **changed})).advice


def test_a_good_session_goes_on() -> None:
    assert advice() == GO_ON


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"gain_alarm": "The gain reference is flipped in y. Use flip_y."}, "Take no more movies"),
        ({"quiet_s": 1800.0}, "Look at the microscope"),
        ({"fit_A": 8.0}, "check focus and ice"),
        ({"motion_A": 80.0}, "Let the stage settle longer"),
        ({"usable": 30}, "CTF of many"),
        ({"usable": 30, "problems": [(60, "quarantined", "The file is cut off")]}, "The file is cut off"),
        ({"usable": 30, "outside_limits": 65}, "limits that people set"),
        ({"usable": 30, "rejected_by_people": 65}, "their comments"),
    ],
)
def test_what_is_wrong_says_what_to_do(changed: dict[str, Any], said: str) -> None:
    assert said in advice(**changed)


@pytest.mark.parametrize("watched", WATCHED, ids=lambda one: one.name)
def test_each_trend_has_its_advice(watched: Any) -> None:
    trend = Trend(watched.name, watched.words, 0.0, 1.0, 2.0, 20)
    assert advice(trends=[trend]) not in ("", GO_ON)


def test_there_is_nothing_to_do_before_the_first_result() -> None:
    assert advice(total=0, finished=0, usable=0) == ""
    assert advice(total=3, finished=0, usable=0) == ""
