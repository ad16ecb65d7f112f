from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tests.databases import new_sqlite
from vitriflow.catalog import (
    Alarm,
    Catalog,
    Event,
    FileState,
    Node,
    Session,
    SessionState,
    SourceFile,
    now,
)
from vitriflow.config import Config
from vitriflow.elogbook import open_session, set_session_state
from vitriflow.facility.service import AlarmWatch
from vitriflow.monitors import (
    DiskForecast,
    Level,
    Reading,
    copy_behind,
    level_of,
    nodes_lost,
    open_alarms,
    session_size,
    settle_alarms,
    silence,
)

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
Rows = Callable[..., None]


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    found = new_sqlite(tmp_path / "catalog.db")
    yield found
    found.close()


@pytest.fixture
def session(catalog: Catalog, tmp_path: Path) -> Session:
    return open_session(
        catalog,
        key="s1",
        source=tmp_path,
        microscope="tem1",
        experiment="e",
        sample="apo",
        settings={},
        root_of=lambda _when: tmp_path / "root",
        mode="copy",
    )


@pytest.fixture
def add(catalog: Catalog, session: Session) -> Rows:
    def add(key: str, **columns: Any) -> None:
        values = {
            "session_id": session.id,
            "key": key,
            "kind": "movie",
            "size": 10**9,
            "first_seen_at": now(),
        }
        catalog.write(lambda orm: orm.add(SourceFile(**(values | columns))))

    return add


def settle(catalog: Catalog, rule: str, *readings: Reading, unread: tuple[str, ...] = ()) -> list[bool]:
    """Whether alarms were raised or cleared, in order."""
    return catalog.write(
        lambda orm: [one.raised for one in settle_alarms(orm, rule, readings, now(), unread=unread)]
    )


def test_an_alarm_is_raised_once_and_cleared_once_and_each_is_told(catalog: Catalog) -> None:
    wrong = Reading("disk:a", Level.WRONG, "The disk is full", 1.0)
    between = Reading("disk:a", Level.BETWEEN, "The disk is nearly full", 2.0)
    over = Reading("disk:a", Level.OVER, "", 3.0)
    told = [
        settle(catalog, "disk_full", one)
        for one in (between, wrong, wrong, between, wrong, over, over, between)
    ]
    assert told == [[], [True], [], [], [], [False], [], []]
    assert catalog.read(lambda orm: list(orm.scalars(select(Event.text)))) == [
        "The disk is full",
        "Over: The disk is full",
    ]
    assert len(catalog.read(lambda orm: list(orm.scalars(select(Alarm))))) == 1


def test_a_subject_that_is_gone_is_over_but_one_that_could_not_be_read_is_not(catalog: Catalog) -> None:
    settle(catalog, "disk_full", Reading("disk:a", Level.WRONG, "A"), Reading("disk:b", Level.WRONG, "B"))
    assert settle(catalog, "disk_full", unread=("disk:b",)) == [False]
    assert [alarm["subject"] for alarm in catalog.read(open_alarms)] == ["disk:b"]
    assert settle(catalog, "silence") == []  # another rule's alarms aren't touched


@pytest.mark.parametrize(
    ("value", "wrong_at", "over_at", "level"),
    [
        (30, 30, 15, "wrong"),
        (20, 30, 15, "between"),
        (15, 30, 15, "over"),
        (2, 3, 4, "wrong"),
        (3.5, 3, 4, "between"),
        (9, 3, 4, "over"),
    ],
)
def test_limits_have_room_between_them_whichever_way_is_wrong(
    value: float, wrong_at: float, over_at: float, level: str
) -> None:
    assert level_of(value, wrong_at, over_at) == level


def test_silence_counts_from_the_newest_file_and_from_when_a_session_was_resumed(
    catalog: Catalog, session: Session, add: Rows
) -> None:
    def minutes(later_min: float) -> tuple[Level, float]:
        moment = now() + timedelta(minutes=later_min)
        (reading,) = catalog.read(lambda orm: silence(orm, 30, moment))
        return reading.level, round(reading.value or 0)

    assert minutes(10) == (Level.OVER, 10)
    assert minutes(31) == (Level.WRONG, 31)
    add("a.mrc", first_seen_at=now() + timedelta(minutes=25))
    assert minutes(31) == (Level.OVER, 6)
    set_session_state(catalog, "s1", SessionState.PAUSED)
    assert catalog.read(lambda orm: silence(orm, 30, now() + timedelta(hours=9))) == []
    set_session_state(catalog, "s1", SessionState.ACTIVE)
    assert minutes(20)[0] == Level.OVER


def test_copying_that_falls_behind_says_how_much_waits(catalog: Catalog, add: Rows) -> None:
    add("a.mrc", state=FileState.PROVED, complete_at=now() - timedelta(hours=5))
    assert catalog.read(lambda orm: copy_behind(orm, 15, now()))[0].level == Level.OVER
    for name in ("b.mrc", "c.mrc"):
        add(name, state=FileState.COMPLETE, complete_at=now() - timedelta(minutes=16))
    (reading,) = catalog.read(lambda orm: copy_behind(orm, 15, now()))
    assert reading.level == Level.WRONG
    assert "2 files (2.0 GB) wait, the oldest for 16 min" in reading.text


def test_a_session_that_grows_beyond_its_microscopes_limit_is_told(catalog: Catalog, add: Rows) -> None:
    add("a.mrc")
    add("b.mrc")
    (reading,) = catalog.read(lambda orm: session_size(orm, {"tem1": 15 * 10**8}))
    assert reading.level == Level.WRONG
    assert "holds 2.0 GB; the limit of tem1 is 1.5 GB" in reading.text
    assert catalog.read(lambda orm: session_size(orm, {"tem1": 10**10}))[0].level == Level.OVER
    assert catalog.read(lambda orm: session_size(orm, {})) == []


def test_a_service_that_is_not_heard_of_is_lost_until_it_is_back_or_forgotten(catalog: Catalog) -> None:
    node = {"name": "host1:acquire", "service": "acquire", "started_at": NOON, "seen_at": NOON}
    catalog.write(lambda orm: orm.add(Node(**node, details={"host": "host1"})))

    def level(seconds: float) -> list[Level]:
        moment = NOON + timedelta(seconds=seconds)
        return [one.level for one in catalog.read(lambda orm: nodes_lost(orm, 60, moment))]

    assert [level(s) for s in (10, 45, 61, 8 * 86400)] == [[Level.OVER], [Level.BETWEEN], [Level.WRONG], []]
    (reading,) = catalog.read(lambda orm: nodes_lost(orm, 60, NOON + timedelta(seconds=61)))
    assert "'acquire' on host1" in reading.text


def test_a_disk_that_fills_up_is_told_by_the_hours_that_are_left() -> None:
    forecast = DiskForecast(limit_h=12)
    gb = 10**9
    levels = [
        forecast.read("tem1", "The disk", 1000 * gb - minute * gb, minute * 60.0).level for minute in range(9)
    ]
    assert levels == [Level.OVER] * 9  # too little is known for a forecast
    reading = forecast.read("tem1", "The disk", 900 * gb, 3000.0)
    assert reading.level == Level.WRONG
    assert reading.value == pytest.approx(900 / (100 / 3000) / 3600)
    assert "will be full in 7.5 h at the present rate: 900.0 GB are free" in reading.text
    assert forecast.read("tem1", "The disk", 1000 * gb, 3100.0).level == Level.OVER  # somebody freed it
    assert forecast.read("tem1", "The disk", 0, 3200.0).value == 0.0


def test_only_one_process_looks_and_another_goes_on_when_it_ends(
    catalog: Catalog, session: Session, tmp_path: Path
) -> None:
    values = {"storage": {"root": tmp_path}, "monitors": {"silence_min": 1e-6, "look_every_s": 0.05}}
    config = Config.model_validate(values)
    first, second = AlarmWatch(config, catalog), AlarmWatch(config, catalog)
    assert first.look()
    assert [alarm["rule"] for alarm in catalog.read(open_alarms)] == ["silence"]
    assert "vitriflow stop s1" in catalog.read(open_alarms)[0]["text"]
    first.start()
    first.stop()
    assert second.look()
    assert len(catalog.read(lambda orm: list(orm.scalars(select(Alarm))))) == 1
    set_session_state(catalog, "s1", SessionState.CLOSED)
    assert second.look()
    assert catalog.read(open_alarms) == []
