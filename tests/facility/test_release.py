"""A microscope's disk is freed by permit: only what is proved, and only when asked."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from tests.facility.custody import NAMES, Custody
from vitriflow.acquisition import release as removal
from vitriflow.catalog import FileState, Session, now, take_lease
from vitriflow.errors import BadParameter, Busy
from vitriflow.facility.release import release_round
from vitriflow.facility.release_holds import lift_holds, list_holds, place_hold


@pytest.fixture
def custody(tmp_path: Path) -> Iterator[Custody]:
    made = Custody(tmp_path, release={"high_water": 1.0, "low_water": 0.9})
    yield made
    made.catalog.close()


def free(custody: Custody, **options: Any) -> dict[str, Any]:
    return release_round(custody.config, custody.catalog, free=True, **options).as_json()


def reasons(report: dict[str, Any]) -> dict[str, int]:
    return dict(report["refused"]["counts"])


def test_a_dry_run_says_what_would_go_and_touches_nothing(custody: Custody) -> None:
    custody.fill()
    custody.add("young.xml", hours=1.0)
    report = release_round(custody.config, custody.catalog).as_json()
    assert report["dry_run"] is True
    assert {one["key"] for one in report["would_free"]} == set(NAMES)
    assert report["bytes"] == sum((custody.source / name).stat().st_size for name in NAMES)
    assert reasons(report) == {"too_young": 1}
    assert custody.on_disk() == {*NAMES, "young.xml"}
    assert not (custody.root / "freed.jsonl").exists()


def test_what_is_proved_and_old_goes_and_everything_else_stays(custody: Custody) -> None:
    custody.fill()
    for state in FileState:
        if state != FileState.PROVED:
            custody.add(f"{state}.mrc", state=state, hours=90_000.0)
    custody.add("young.mrc", hours=23.0)
    report = free(custody)
    assert {one["key"] for one in report["freed"]} == set(NAMES)
    assert reasons(report) == {"not_proved": 3, "problem": 1, "replaced": 1, "too_young": 1}
    assert custody.on_disk() == {f"{state}.mrc" for state in FileState if state != FileState.PROVED} | {
        "young.mrc"
    }
    assert all((custody.home.raw / name).is_file() for name in NAMES)
    assert all(custody.rows()[name].freed_at is not None for name in NAMES)
    assert free(custody)["files"] == 0


def test_everything_freed_stands_in_the_log_with_an_intent_before(custody: Custody) -> None:
    custody.fill()
    free(custody, by="an operator")
    lines = [json.loads(line) for line in (custody.root / "freed.jsonl").read_text().splitlines()]
    assert Counter(line["what"] for line in lines) == {"intent": 5, "freed": 5}
    for line in lines[5:]:
        assert line["by"] == "an operator"
        assert line["blake3"] == custody.rows()[line["key"]].blake3
        assert line["path"] == str(custody.source / line["key"])
    assert [line["ticket"] for line in lines[:5]] == [line["ticket"] for line in lines[5:]]


def spoil_size(custody: Custody, name: str) -> None:
    with (custody.source / name).open("ab") as stream:
        stream.write(b"more")


def spoil_stamp(custody: Custody, name: str) -> None:
    os.utime(custody.source / name, ns=(1, 1))


def spoil_link(custody: Custody, name: str) -> None:
    path = custody.source / name
    path.rename(custody.folder / "elsewhere")
    path.symlink_to(custody.folder / "elsewhere")


def spoil_folder(custody: Custody, name: str) -> None:
    folder = (custody.source / name).parent
    folder.rename(custody.folder / "elsewhere")
    folder.symlink_to(custody.folder / "elsewhere")


def spoil_copy(custody: Custody, name: str) -> None:
    (custody.home.raw / name).unlink()


def shorten_copy(custody: Custody, name: str) -> None:
    os.truncate(custody.home.raw / name, 40)


def same_file(custody: Custody, name: str) -> None:
    spoil_copy(custody, name)
    os.link(custody.source / name, custody.home.raw / name)


def empty_movie(custody: Custody, name: str) -> None:
    custody.change(name, decodable=False)


def hollow_movie(custody: Custody, name: str) -> None:
    custody.change(name, decodable=None)
    size = (custody.home.raw / name).stat().st_size
    (custody.home.raw / name).write_bytes(bytes(size))


def no_manifest(custody: Custody, name: str) -> None:
    custody.home.manifest.unlink()


def other_hash(custody: Custody, name: str) -> None:
    custody.change(name, blake3="0" * 64)


def climb(custody: Custody, name: str) -> None:
    custody.change(name, key=f"../{custody.key}/{name}")


def vanish(custody: Custody, name: str) -> None:
    (custody.source / name).unlink()


def in_place(custody: Custody, name: str) -> None:
    custody.catalog.write(lambda orm: orm.execute(update(Session).values(mode="in_place")))


def hold(custody: Custody, name: str) -> None:
    place_hold(custody.catalog, custody.key, "wanted for a paper")


def newer(custody: Custody, name: str) -> None:
    custody.add(name, state=FileState.SEEN, generation=2, data=b"other bytes")


def not_dated(custody: Custody, name: str) -> None:
    custody.change(name, proved_at=None)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_size, "changed"),
        (spoil_stamp, "changed"),
        (spoil_link, "unsafe_path"),
        (spoil_folder, "unsafe_path"),
        (spoil_copy, "destination_missing"),
        (shorten_copy, "destination_size"),
        (same_file, "same_file"),
        (empty_movie, "not_decodable"),
        (hollow_movie, "not_decodable"),
        (no_manifest, "not_in_manifest"),
        (other_hash, "not_in_manifest"),
        (climb, "unsafe_path"),
        (vanish, "gone"),
        (in_place, "in_place"),
        (hold, "held"),
        (newer, "replaced"),
        (not_dated, "not_proved"),
    ],
)
def test_a_condition_that_is_not_provable_is_a_refusal_with_its_reason(
    custody: Custody, spoil: Callable[[Custody, str], None], reason: str
) -> None:
    name = NAMES[0]
    custody.add(name)
    spoil(custody, name)
    before = custody.on_disk()
    report = free(custody)
    assert report["freed"] == []
    assert reason in reasons(report), report["refused"]
    assert all(one["why"] for one in report["refused"]["files"])
    assert custody.on_disk() == before
    assert all(row.freed_at is None for row in custody.rows().values())


def test_a_file_with_other_bytes_but_the_same_size_and_stamp_is_found_by_reading_it_again(
    custody: Custody,
) -> None:
    path = custody.add(NAMES[0])
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert reasons(free(custody, rehash=True)) == {"rehash_differs": 1}
    assert path.exists()


def test_the_disk_being_away_frees_nothing_and_says_so(custody: Custody) -> None:
    custody.fill()
    custody.source.rename(custody.folder / "unmounted")
    assert reasons(free(custody)) == {"source_away": 5}
    (custody.folder / "unmounted").rename(custody.source)
    assert len(free(custody)["freed"]) == 5


def disk_of(monkeypatch: pytest.MonkeyPatch, used: int, total: int) -> None:
    """Let the disk seem so full, in bytes."""
    fake = SimpleNamespace(f_blocks=total, f_frsize=1, f_bfree=total - used)
    monkeypatch.setattr("vitriflow.facility.release_permits.os.statvfs", lambda _path: fake)


def test_above_the_high_water_mark_the_oldest_go_until_the_low_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    custody = Custody(tmp_path, release={"high_water": 0.8, "low_water": 0.5})
    for number in range(8):
        custody.add(f"{number}.xml", hours=8.0 - number, data=bytes(100))
    disk_of(monkeypatch, used=900, total=1000)
    report = free(custody)
    assert [one["key"] for one in report["freed"]] == [f"{n}.xml" for n in range(4)]  # 900 to 500
    assert reasons(report) == {"too_young": 4}
    assert report["disks"][0]["full"] is True
    disk_of(monkeypatch, used=500, total=1000)
    assert free(custody)["freed"] == []
    custody.catalog.close()


def test_a_full_disk_never_frees_what_is_not_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    custody = Custody(tmp_path)
    custody.add("a.xml", state=FileState.COPIED)
    custody.add("b.xml", state=FileState.PROBLEM, problem="truncated")
    disk_of(monkeypatch, used=1000, total=1000)
    assert free(custody)["freed"] == []
    assert custody.on_disk() == {"a.xml", "b.xml"}
    custody.catalog.close()


def test_our_clock_going_backwards_frees_nothing(custody: Custody) -> None:
    custody.fill(hours=100.0)
    report = release_round(
        custody.config, custody.catalog, free=True, moment=now() - timedelta(hours=200)
    ).as_json()
    assert reasons(report) == {"too_young": 5}


def test_copies_that_the_policy_asks_for_have_to_be_there(tmp_path: Path) -> None:
    custody = Custody(tmp_path)
    storage = {"root": custody.root, "copies": ["disk", "tape"], "tiers": {"tape": {"path": "/nowhere"}}}
    custody.config = custody.config.model_validate({"storage": storage})
    custody.fill()
    assert reasons(free(custody)) == {"copies_missing": 5}
    assert custody.on_disk() == set(NAMES)
    custody.catalog.close()


def test_a_hold_keeps_a_session_until_it_is_lifted(custody: Custody) -> None:
    custody.fill()
    place_hold(custody.catalog, "s1", "under review", by="pi")
    (held,) = list_holds(custody.catalog)
    assert (held["session"], held["reason"], held["placed_by"]) == ("s1", "under review", "pi")
    assert reasons(free(custody)) == {"held": 5}
    lift_holds(custody.catalog, "s1")
    assert list_holds(custody.catalog) == []
    assert len(free(custody)["freed"]) == 5
    with pytest.raises(BadParameter, match="a hold on it"):
        lift_holds(custody.catalog, "s1")
    with pytest.raises(BadParameter, match="a reason"):
        place_hold(custody.catalog, "s1", "  ")


def test_a_hold_placed_while_a_round_runs_stops_it(custody: Custody, monkeypatch: pytest.MonkeyPatch) -> None:
    custody.fill()
    monkeypatch.setattr("vitriflow.facility.release._BATCH", 2)
    real = removal.remove

    def remove_then_hold(candidate: removal.Candidate, aside: str) -> None:
        real(candidate, aside)
        if not list_holds(custody.catalog):
            place_hold(custody.catalog, "s1", "stop")

    monkeypatch.setattr("vitriflow.facility.release.remove", remove_then_hold)
    report = free(custody)
    assert len(report["freed"]) == 2  # the batch that had begun
    assert reasons(report) == {"held": 3}
    assert len(custody.on_disk()) == 3


@pytest.mark.parametrize("closed", [False, True])
def test_what_another_session_on_the_same_folder_still_needs_stays(custody: Custody, closed: bool) -> None:
    path = custody.add("a.xml")
    source = custody.source
    custody.add_session("s2", source=source)
    if closed:
        custody.catalog.write(
            lambda orm: orm.execute(update(Session).where(Session.key == "s2").values(state="closed"))
        )
    report = free(custody, which="s1")
    assert path.exists() is not closed
    assert reasons(report) == ({} if closed else {"needed_elsewhere": 1})


def test_what_a_session_in_place_reads_stays_for_ever(custody: Custody) -> None:
    path = custody.add("sub/a.xml")
    custody.add_session("s2", source=custody.source / "sub")
    custody.catalog.write(
        lambda orm: orm.execute(
            update(Session).where(Session.key == "s2").values(mode="in_place", state="closed")
        )
    )
    assert reasons(free(custody, which="s1")) == {"needed_elsewhere": 1}
    assert path.exists()


def test_only_the_session_or_the_microscope_that_is_named_is_freed(custody: Custody) -> None:
    custody.add("a.xml")
    custody.add_session("s2", microscope="tem2")
    custody.add("b.xml")
    assert [one["key"] for one in free(custody, which="tem2")["freed"]] == ["b.xml"]
    assert [one["key"] for one in free(custody, which="s1")["freed"]] == ["a.xml"]
    with pytest.raises(BadParameter, match=r"a session or a microscope.*s1, s2"):
        free(custody, which="nobody")


def test_two_rounds_at_once_are_refused(custody: Custody) -> None:
    custody.fill()
    lease = take_lease(custody.catalog, "release", "elsewhere:0:0:0", 60.0)
    with pytest.raises(Busy):
        free(custody)
    lease.release(custody.catalog)
    assert len(free(custody)["freed"]) == 5


# -- folders ---------------------------------------------------------------------------------


def test_folders_that_became_empty_go_but_not_the_source_nor_those_in_use(custody: Custody) -> None:
    custody.fill()
    custody.add("GridSquare_3/Data/new.xml", hours=2.0)
    (custody.source / "GridSquare_4" / "Data").mkdir(parents=True)  # made ahead by the microscope
    report = free(custody)
    left = {str(path.relative_to(custody.source)) for path in custody.source.rglob("*") if path.is_dir()}
    assert left == {"GridSquare_3", "GridSquare_3/Data", "GridSquare_4", "GridSquare_4/Data"}
    assert len(report["folders_removed"]) == 4


def test_a_folder_freed_early_stays_until_nothing_came_for_the_whole_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    custody = Custody(tmp_path, release={"high_water": 0.8, "low_water": 0.0})
    custody.add("GridSquare_1/a.xml", hours=3.0)
    disk_of(monkeypatch, used=990, total=1000)
    assert len(free(custody)["freed"]) == 1
    assert (custody.source / "GridSquare_1").is_dir()
    free(custody, moment=now() + timedelta(hours=22))
    assert not (custody.source / "GridSquare_1").exists()
    assert custody.source.is_dir()
    custody.catalog.close()
