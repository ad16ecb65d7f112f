"""What an operator said of a session is compared with what arrives; no such field is ignored."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.monitors.day import day
from vitriflow.catalog import now
from vitriflow.monitors import checked_fields, expectations, open_alarms, settle_alarms

# Field: what was said, columns of exposures that differ, of exposures that agree, what people are told.
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "software": ("epu", {"software": "serialem"}, {"software": "EPU"}, "epu was expected, but .* serialem"),
    "movie_format": ("eer", {"suffix": ".tiff"}, {"suffix": ".eer"}, "eer was expected, but .* tiff"),
    "energy_slit_eV": (10, {"details": {"energy_slit_eV": 20.0}}, {"details": {"energy_slit_eV": 10.0}}, "10 eV .* 20 eV"),  # noqa: E501
    "nominal_magnification": (
        105000, {"details": {"nominal_magnification": 81000.0}}, {"details": {"nominal_magnification": 105000.0}},
        "105000 x .* 81000 x",
    ),
    "camera": ("K3", {"details": {"camera": "BM-Falcon"}}, {"details": {"camera": "Gatan K3"}}, "K3 .* BM-Falcon"),
    "binning": (1, {"details": {"binning": 2.0}}, {"details": {"binning": 1.0}}, "1 was expected, .* 2"),
    "n_frames": (40, {"details": {"n_fractions": 50}}, {"details": {"n_fractions": 40}}, "40 .* 50"),
    "frame_duration_s": (
        0.05, {"details": {"n_fractions": 50, "exposure_time_s": 5.0}},
        {"details": {"n_fractions": 50, "exposure_time_s": 2.5}}, "0.05 s .* 0.1 s",
    ),
    "exposure_time_s": (2.0, {"details": {"exposure_time_s": 4.0}}, {"details": {"exposure_time_s": 2.01}}, "2 s .* 4 s"),  # noqa: E501
    "target_defocus_min_A": (8000, {"defocus_A": 5000.0}, {"defocus_A": 9000.0}, "8,000 Å .* 5,000 Å"),
    "target_defocus_max_A": (20000, {"defocus_A": 25000.0}, {"defocus_A": 15000.0}, "20,000 Å .* 25,000 Å"),
    "tilt_min_deg": (-60, {"tilt_angle_deg": -66.0}, {"tilt_angle_deg": -60.01}, "-60 ° .* -66 °"),
    "tilt_max_deg": (60, {"tilt_angle_deg": 66.0}, {"tilt_angle_deg": 60.01}, "60 ° .* 66 °"),
    "planned_exposures": (24, {}, {}, "24 were expected, and 40 are there"),
}  # fmt: skip


def test_every_parameter_that_is_said_to_be_checked_is() -> None:
    assert set(checked_fields()) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_what_differs_is_told_once_and_cleared_when_it_agrees(tmp_path: Path, name: str) -> None:
    value, bad, good, said = CASES[name]
    with day(tmp_path, {name: value, "other": 1}) as session:

        def look() -> list[bool]:
            def work(orm: Any) -> list[bool]:
                return [one.raised for one in settle_alarms(orm, "expected", expectations(orm), now())]

            return session.catalog.write(work)

        assert look() == []
        session.add(20, **good)
        assert look() == []
        session.add(20, **bad)
        assert look() == [True]
        (alarm,) = session.catalog.read(open_alarms)
        assert alarm["subject"] == f"session:s1:{name}"
        assert re.search(said, alarm["text"]), alarm["text"]
        assert look() == []
        if name != "planned_exposures":
            session.add(20, **good)
            assert look() == [False]


def test_what_nobody_said_or_no_file_tells_is_not_judged(tmp_path: Path) -> None:
    with day(
        tmp_path, {"software": "auto", "camera": "", "energy_slit_eV": 20, "binning": "many"}
    ) as session:
        session.add(20, details={"camera": "K3"})
        readings = session.catalog.read(expectations)
        assert [(one.subject, one.level) for one in readings] == [("session:s1:energy_slit_eV", "between")]


def test_one_odd_exposure_is_no_alarm(tmp_path: Path) -> None:
    with day(tmp_path, {"exposure_time_s": 2.0}) as session:
        session.add(9, details={"exposure_time_s": 2.0})
        session.add(1, details={"exposure_time_s": 1.0})
        assert [one.level for one in session.catalog.read(expectations)] == ["between"]
