"""Removal when something else happens at the same time: kills, replacements, disks that say no."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.facility.custody import NAMES, Custody
from tests.facility.test_release import free, reasons
from vitriflow.acquisition.release_log import FreedLog


@pytest.fixture
def custody(tmp_path: Path) -> Iterator[Custody]:
    made = Custody(tmp_path, release={"high_water": 1.0, "low_water": 0.9})
    yield made
    made.catalog.close()


def test_a_file_that_comes_under_the_same_name_during_the_removal_stays(
    custody: Custody, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = custody.add("a.xml")
    real = os.rename

    def replaced_just_before(src: str, dst: str, **folders: int) -> None:
        monkeypatch.setattr("vitriflow.acquisition.release.os.rename", real)
        path.unlink()
        path.write_bytes(b"a new image under the old name")
        real(src, dst, **folders)

    monkeypatch.setattr("vitriflow.acquisition.release.os.rename", replaced_just_before)
    report = free(custody)
    assert reasons(report) == {"changed": 1}
    assert path.read_bytes() == b"a new image under the old name"
    assert custody.on_disk() == {"a.xml"}
    (_, outcome) = (json.loads(line) for line in (custody.root / "freed.jsonl").read_text().splitlines())
    assert outcome["what"] == "kept"


class KilledError(BaseException):
    """As if the process had died here."""


@pytest.mark.parametrize("moment", ["before the rename", "after the rename", "after the removal"])
def test_a_kill_at_any_instant_is_settled_by_the_next_round(
    custody: Custody, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    custody.fill()
    name, real = ("unlink", os.unlink) if moment == "after the removal" else ("rename", os.rename)

    def die(*arguments: Any, **folders: Any) -> None:
        if moment != "before the rename":
            real(*arguments, **folders)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(f"vitriflow.acquisition.release.os.{name}", die)
        patch.setattr("vitriflow.facility.release.FreedLog.append", _only_intents(FreedLog.append))
        patch.setattr("vitriflow.facility.release._mark_freed", lambda *_: None)
        with pytest.raises(KilledError):
            free(custody)
    assert len(FreedLog(custody.root / "freed.jsonl").open_intents()) == 5
    report = free(custody)
    assert report["interrupted_resolved"] == 5
    assert len(report["freed"]) == (4 if moment == "after the removal" else 5)
    assert custody.on_disk() == set()
    assert all(row.freed_at is not None for row in custody.rows().values())
    assert FreedLog(custody.root / "freed.jsonl").open_intents() == []
    assert {line.key for line in FreedLog(custody.root / "freed.jsonl").freed()} == set(NAMES)


def _only_intents(real: Callable[..., None]) -> Callable[..., None]:
    def append(log: FreedLog, lines: list[Any]) -> None:
        if all(line.what == "intent" for line in lines):
            real(log, lines)

    return append


def test_a_torn_last_line_of_the_log_is_left_and_passed_over(custody: Custody) -> None:
    custody.add("a.xml")
    free(custody)
    log = custody.root / "freed.jsonl"
    with log.open("ab") as stream:
        stream.write(b'{"what": "intent", "tick')
    custody.add("b.xml")
    free(custody)
    assert [line.key for line in FreedLog(log).freed()] == ["a.xml", "b.xml"]


def test_a_disk_that_says_no_keeps_its_file(custody: Custody, monkeypatch: pytest.MonkeyPatch) -> None:
    custody.add("a.xml")

    def denied(*_arguments: Any, **_folders: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vitriflow.acquisition.release.os.rename", denied)
    assert reasons(free(custody)) == {"denied": 1}
    assert custody.on_disk() == {"a.xml"}
