"""Rules over quantities: windows, limits that don't move, hysteresis, and what people are told."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.monitors.day import Day, day
from vitriflow.catalog import Node, SessionState, now
from vitriflow.config import Config, RuleSection
from vitriflow.config.monitoring import MACHINE
from vitriflow.elogbook import set_session_state
from vitriflow.facility.monitoring_machine import MachineLook, read_gpus
from vitriflow.monitors import Level, MachineWatch, Reading, look_at_sessions, open_alarms, settle_rules

SHIPPED = {rule.name: rule for rule in Config().monitors.rules}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Day]:
    with day(tmp_path) as made:
        yield made


def read(session: Day, rule: RuleSection, later_min: float = 0.0) -> Reading:
    moment = now() + timedelta(minutes=later_min)
    (found,) = session.catalog.read(lambda orm: look_at_sessions(orm, [rule], moment))[rule.name]
    return found


def changes(session: Day, rule: RuleSection) -> list[bool]:
    """Look once, as the service does; whether alarms were raised or cleared."""

    def work(orm: Any) -> list[bool]:
        found = look_at_sessions(orm, [rule], now())
        return [one.raised for one in settle_rules(orm, found, now())]

    return session.catalog.write(work)


# What makes each shipped rule go off, and what makes it over: columns of the first, bad and good exposures.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "defocus_far": ({}, {"defocus_A": 60000.0}, {"defocus_A": 12000.0}),
    "fit_resolution_worse": ({"fit_resolution_A": 4.0}, {"fit_resolution_A": 7.0}, {"fit_resolution_A": 4.2}),
    "fit_resolution_poor": ({}, {"fit_resolution_A": 12.0}, {"fit_resolution_A": 5.0}),
    "motion_rising": ({"total_A": 10.0}, {"total_A": 25.0}, {"total_A": 11.0}),
    "ice_thicker": ({"ice_ring": 1.0}, {"ice_ring": 1.7}, {"ice_ring": 1.0}),
    "intensity_drop": ({"mean_intensity": 1.0}, {"mean_intensity": 0.4}, {"mean_intensity": 0.9}),
    "picks_drop": ({"n_picks": 200}, {"n_picks": 50}, {"n_picks": 190}),
    "many_set_aside": ({}, {"status": "rejected"}, {"status": "done"}),
    "many_quarantined": ({}, {"status": "quarantined"}, {"status": "done"}),
    "many_failed": ({}, {"status": "failed"}, {"status": "done"}),
    "latency_high": ({}, {"latency_s": 2000.0}, {"latency_s": 20.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_shipped_rule_raises_one_alarm_and_clears_it_when_it_is_over(session: Day, name: str) -> None:
    first, bad, good = CASES[name]
    rule = SHIPPED[name]
    session.add(40, **first)
    assert changes(session, rule) == []
    session.add(30, **bad)
    assert changes(session, rule) == [True]
    (alarm,) = session.catalog.read(open_alarms)
    assert (alarm["rule"], alarm["severity"], alarm["microscope"]) == (f"rule:{name}", rule.severity, "tem1")
    assert "s1" in alarm["text"]
    assert "{{" not in alarm["text"]
    assert changes(session, rule) == []  # said once, however often it's looked at
    session.add(30, **good)
    assert changes(session, rule) == [False]
    assert session.catalog.read(open_alarms) == []


def test_all_shipped_rules_are_tried() -> None:
    """One of CASES, of the machines below, or the backlog below."""
    machines = {name for name, rule in SHIPPED.items() if rule.quantity in MACHINE}
    assert set(SHIPPED) == set(CASES) | machines | {"processing_behind"}


def test_what_worsens_slowly_does_not_become_the_new_measure(session: Day) -> None:
    rule = SHIPPED["motion_rising"]
    told = []
    for motion in (10, 12, 14, 16, 18, 20.5, 21, 30):
        session.add(30, total_A=float(motion))
        told += changes(session, rule)
    assert told == [True]
    session.add(30, total_A=17.0)  # between the two limits
    assert changes(session, rule) == []


def test_too_few_values_say_nothing_and_keep_an_alarm(session: Day) -> None:
    rule = RuleSection(name="x", quantity="defocus_A", above=30000, minutes=30, least=5)
    session.add(4, defocus_A=40000.0)
    assert read(session, rule).level == Level.BETWEEN
    session.add(1, defocus_A=40000.0)
    assert read(session, rule).level == Level.WRONG
    assert read(session, rule, later_min=31).level == Level.BETWEEN  # none in the window: nothing is known


def test_an_exposure_without_a_value_or_on_its_way_is_no_part_of_a_window(session: Day) -> None:
    session.add(10, defocus_A=10000.0)
    session.add(25, status="quarantined")
    session.add(25, status="open")
    assert read(session, SHIPPED["defocus_far"]).value == 10000.0
    assert read(session, SHIPPED["many_quarantined"]).value == pytest.approx(25 / 30, abs=1e-3)


def test_an_exposure_that_waits_for_too_long_is_told_even_if_nothing_processes(session: Day) -> None:
    rule = SHIPPED["processing_behind"]
    session.add(3, latency_s=3.0)
    assert read(session, rule, later_min=60).level == Level.OVER
    session.add(1, status="open")
    assert read(session, rule, later_min=10).level == Level.OVER
    reading = read(session, rule, later_min=60)
    assert reading.level == Level.WRONG
    assert "the oldest exposure waits for 60 min" in reading.text


def test_a_rule_that_is_turned_off_or_gone_has_its_alarm_cleared(session: Day) -> None:
    rule = RuleSection(name="own", quantity="defocus_A", below=5000)
    session.add(30, defocus_A=4000.0)
    assert changes(session, rule) == [True]
    assert changes(session, rule.model_copy(update={"enabled": False})) == [False]
    assert changes(session, rule) == [True]
    assert changes(session, SHIPPED["defocus_far"]) == [False]


def test_a_closed_session_has_no_alarms_and_a_rule_holds_for_the_microscopes_it_names(session: Day) -> None:
    rule = RuleSection(name="own", quantity="defocus_A", below=5000)
    session.add(30, defocus_A=4000.0)
    elsewhere = rule.model_copy(update={"microscopes": ("tem2",)})
    assert changes(session, elsewhere) == []
    assert changes(session, rule) == [True]
    set_session_state(session.catalog, "s1", SessionState.CLOSED)
    assert changes(session, rule) == [False]


def test_a_message_is_a_template_that_cannot_reach_into_the_program(session: Day) -> None:
    session.add(30, defocus_A=4000.0)
    text = "{{ label }}, {{ value }} {{ unit }} ({{ window }}), not {{ limit }}: {{ sample }} of {{ experiment }}"
    rule = RuleSection(name="own", quantity="defocus_A", below=5000, message=text)
    assert read(session, rule).text == "Defocus, 4,000 Å (30 exposures), not 5,000: apo of e"
    evil = rule.model_copy(update={"message": "{{ value.__class__.__mro__ }}"})
    with pytest.raises(Exception, match="unsafe"):
        read(session, evil)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"quantity": "defocus"}, "one of early_A"),
        ({"quantity": "defocus_A"}, "a limit, above or below"),
        ({"quantity": "defocus_A", "above": 1, "clear_below": 2}, "good side"),
        ({"quantity": "defocus_A", "above": 1, "minutes": 5, "exposures": 5}, "one window"),
        ({"quantity": "failed", "above": 1}, "fraction or count"),
        ({"quantity": "cpu_percent", "above": 1, "exposures": 9}, "about a machine"),
        ({"quantity": "defocus_A", "above": 1, "message": "{{ password }}"}, "names only"),
        ({"quantity": "defocus_A", "above": 1, "message": "{% if %}"}, "Jinja2 template"),
        ({"quantity": "defocus_A", "above": 1, "quiet_hours": "at night"}, "22:00-07:00"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_is_refused_with_the_reason(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RuleSection.model_validate({"name": "x", **values})


def test_a_facility_changes_a_shipped_rule_by_its_name() -> None:
    own = [{"name": "fit_resolution_poor", "above": 6.0, "clear_below": 5.0, "severity": "alarm"}]
    rules = Config.model_validate({"monitors": {"rules": own}}).monitors.rules
    changed = {rule.name: rule for rule in rules}
    assert set(changed) == set(SHIPPED)
    assert (changed["fit_resolution_poor"].above, changed["fit_resolution_poor"].quantity) == (
        6.0,
        "fit_resolution_A",
    )


# ---- machines


def beat(session: Day, name: str, **machine: Any) -> None:
    def work(orm: Any) -> None:
        node = orm.get(Node, name) or Node(name=name, service=name.partition(":")[2], started_at=now())
        node.seen_at, node.details = now(), {"host": name.partition(":")[0], "machine": machine}
        orm.add(node)

    session.catalog.write(work)


MACHINES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "load_high": ({"load_per_core": 6.0}, {"load_per_core": 1.0}),
    "memory_full": ({"memory_percent": 99.0}, {"memory_percent": 40.0}),
    "gpu_memory_full": ({"gpus": [{"gpu_memory_percent": 10}, {"gpu_memory_percent": 99}]}, {"gpus": [{"gpu_memory_percent": 5}]}),  # noqa: E501
    "gpu_hot": ({"gpus": [{"gpu_temperature_C": 95}]}, {"gpus": [{"gpu_temperature_C": 50}]}),
    "network_errors": ({"network_errors_per_s": 50.0}, {"network_errors_per_s": 0.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, rule in SHIPPED.items() if rule.quantity in MACHINE])
def test_a_machine_in_trouble_is_told_once_for_all_its_services(session: Day, name: str) -> None:
    rule = SHIPPED[name]
    bad, good = MACHINES[name]
    watch, told = MachineWatch(), []

    def look() -> None:
        def work(orm: Any) -> list[bool]:
            found = watch.look(orm, [rule], now())
            return [one.raised for one in settle_rules(orm, found, now())]

        told.extend(session.catalog.write(work))

    for _ in range(rule.least - 1):
        beat(session, "host1:acquire", **bad)
        beat(session, "host1:process", **bad)
        look()
    assert told == []
    for _ in range(2):
        beat(session, "host1:process", **bad)
        look()
    assert told == [True]
    assert "host1" in session.catalog.read(open_alarms)[0]["text"]
    for _ in range(2 * rule.least + 4):
        beat(session, "host1:process", **good)
        look()
    assert told == [True, False]


def test_this_machine_is_measured_as_the_rules_want_it() -> None:
    values = MachineLook().values()
    known = set(values) | {"gpu_percent", "gpu_memory_percent", "gpu_temperature_C"}
    assert set(MACHINE) <= known
    assert 0 < values["memory_percent"] <= 100


def test_gpus_are_read_from_their_table_and_what_they_do_not_know_is_left_out() -> None:
    first, second = read_gpus("97, 70000, 140000, 61\n[N/A], 10, [N/A], 30\nno such device\n")
    assert first == {"number": 0, "gpu_percent": 97, "gpu_memory_percent": 50, "gpu_temperature_C": 61}
    assert second == {"number": 1, "gpu_temperature_C": 30}
