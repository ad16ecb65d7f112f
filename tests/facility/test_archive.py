"""A session goes to an archive, off the disk, and back: by proof on every way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from tests.facility.custody import NAMES, Custody
from tests.storage.hsm import Library
from vitriflow.catalog import ArchiveCopy, Event, FileState, Session
from vitriflow.cli import app
from vitriflow.errors import BadParameter, Busy
from vitriflow.facility.archive import archive_session, recall_session, remove_from_disk, verify_archive
from vitriflow.facility.archive_status import archive_status, check_tiers, storage_policy
from vitriflow.facility.findings import Health
from vitriflow.facility.release import release_round
from vitriflow.facility.release_holds import lift_holds, place_hold
from vitriflow.storage import ArchiveError, hash_past_cache


def set_up(folder: Path, **tiers: Any) -> Custody:
    custody = Custody(folder)
    names = tuple(tiers)
    storage = {"root": custody.root, "copies": ("disk", *names), "tiers": tiers}
    custody.config = custody.config.model_validate({"storage": storage})
    return custody


@pytest.fixture
def custody(tmp_path: Path) -> Iterator[Custody]:
    (tmp_path / "vault").mkdir()
    made = set_up(tmp_path, vault={"path": str(tmp_path / "vault")})
    made.fill()
    yield made
    made.catalog.close()


def archive(custody: Custody, **options: Any) -> dict[str, Any]:
    return archive_session(custody.config, custody.catalog, custody.key, **options)


def vacate(custody: Custody) -> dict[str, Any]:
    return remove_from_disk(custody.config, custody.catalog, custody.key)


def recall(custody: Custody) -> dict[str, Any]:
    return recall_session(custody.config, custody.catalog, custody.key)


def close(custody: Custody) -> None:
    custody.catalog.write(lambda orm: orm.execute(update(Session).values(state="closed")))


def copies(custody: Custody) -> list[ArchiveCopy]:
    return custody.catalog.read(lambda orm: list(orm.scalars(select(ArchiveCopy).order_by(ArchiveCopy.id))))


def hashes(custody: Custody) -> dict[str, str]:
    found = custody.home.raw.rglob("*")
    return {
        str(path.relative_to(custody.home.raw)): hash_past_cache(path) for path in found if path.is_file()
    }


def test_a_session_is_archived_removed_recalled_and_proved(custody: Custody) -> None:
    before = hashes(custody)
    processed = custody.home.processed("live") / "MotionCorr" / "a.mrc"
    processed.parent.mkdir(parents=True)
    processed.write_bytes(b"a result")
    done = archive(custody)
    assert (done["files"], done["already"], done["residence"]) == (5, 0, "both")
    close(custody)
    assert vacate(custody)["residence"] == "archived"
    assert hashes(custody) == {}
    assert processed.read_bytes() == b"a result"
    (entry,) = archive_status(custody.catalog)
    assert (entry["residence"], entry["copies"][0]["state"]) == ("archived", "proved")
    assert recall(custody)["residence"] == "both"
    assert hashes(custody) == before
    assert verify_archive(custody.catalog, custody.config, "s1")["proved"] is True
    assert custody.reread().residence == "both"


def test_release_waits_for_the_archive_copy_that_the_policy_asks_for(custody: Custody) -> None:
    first = release_round(custody.config, custody.catalog, free=True).as_json()
    assert first["refused"]["counts"] == {"copies_missing": 5}
    archive(custody)
    late = custody.add("late.xml")
    second = release_round(custody.config, custody.catalog, free=True).as_json()
    assert len(second["freed"]) == 5
    assert second["refused"]["counts"] == {"copies_missing": 1}
    assert late.exists()
    done = archive(custody)
    assert (done["files"], done["already"]) == (1, 5)
    assert [copy.n_files for copy in copies(custody)] == [5, 1]
    assert len(release_round(custody.config, custody.catalog, free=True).files) == 1


def test_a_list_that_was_changed_counts_for_no_copy(custody: Custody) -> None:
    archive(custody)
    (listed,) = (custody.home.root / "archives").glob("*.b3")
    listed.write_bytes(listed.read_bytes().replace(b"raw/", b"row/", 1))
    report = release_round(custody.config, custody.catalog, free=True).as_json()
    assert report["refused"]["counts"] == {"copies_missing": 5}


def test_only_what_is_proved_is_archived(custody: Custody) -> None:
    custody.add("coming.mrc", state=FileState.COMPLETE)
    custody.add("broken.mrc", state=FileState.PROBLEM)
    done = archive(custody)
    assert (done["files"], done["not_yet_proved"]) == (5, 1)


def test_nothing_is_archived_twice(custody: Custody) -> None:
    archive(custody)
    assert archive(custody)["files"] == 0
    assert len(copies(custody)) == 1


class KilledError(BaseException):
    """As if the process had died here."""


def test_an_interrupted_archive_goes_on_as_the_same_copy(custody: Custody) -> None:
    def die(_progress: object) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        archive(custody, watch=die)
    (copy,) = copies(custody)
    assert copy.state == "writing"
    assert archive_status(custody.catalog)[0]["residence"] == "resident"
    custody.add("later.xml")
    done = archive(custody)
    assert (done["files"], done["not_yet_proved"]) == (5, 1)
    assert archive(custody)["files"] == 1
    assert [copy.id for copy in copies(custody)] == [copy.id, copy.id + 1]
    assert {one.state for one in copies(custody)} == {"proved"}


def test_removal_waits_for_peace_and_for_holds(custody: Custody) -> None:
    archive(custody)
    with pytest.raises(Busy, match="it's active"):
        vacate(custody)
    close(custody)
    custody.add("coming.mrc", state=FileState.COPIED)
    with pytest.raises(Busy, match="1 of its files aren't proved"):
        vacate(custody)
    custody.change("coming.mrc", state=FileState.PROBLEM)
    place_hold(custody.catalog, "s1", "for a paper")
    with pytest.raises(Busy, match="held: for a paper"):
        vacate(custody)
    assert len(hashes(custody)) == 5
    lift_holds(custody.catalog, "s1")
    vacate(custody)
    assert hashes(custody) == {}


def test_nothing_is_removed_without_a_proved_copy_of_everything(custody: Custody) -> None:
    close(custody)
    with pytest.raises(ArchiveError, match="a proved copy of all 5 files"):
        vacate(custody)
    archive(custody)
    custody.add("late.xml")
    with pytest.raises(ArchiveError, match="1 without, such as raw/late"):
        vacate(custody)
    assert len(hashes(custody)) == 6


def test_nothing_is_removed_when_the_archive_is_not_there_or_was_found_broken(custody: Custody) -> None:
    archive(custody)
    close(custody)
    vault = custody.folder / "vault"
    vault.rename(custody.folder / "unmounted")
    with pytest.raises(ArchiveError, match="No such file"):
        vacate(custody)
    (custody.folder / "unmounted").rename(vault)
    (volume,) = vault.rglob("*.tar")
    volume.chmod(0o640)
    volume.write_bytes(volume.read_bytes().replace(b"GridSquare_1", b"GridSquare_9"))
    with pytest.raises(ArchiveError):
        verify_archive(custody.catalog, custody.config, "s1")
    assert copies(custody)[0].state == "broken"
    assert custody.reread().residence == "resident"
    with pytest.raises(ArchiveError, match="a proved copy of all"):
        vacate(custody)
    assert len(hashes(custody)) == 5


def test_a_damaged_copy_is_refused_at_recall_and_people_are_told(custody: Custody) -> None:
    archive(custody)
    close(custody)
    vacate(custody)
    (volume,) = (custody.folder / "vault").rglob("*.tar")
    volume.chmod(0o640)
    volume.write_bytes(volume.read_bytes().replace(b"Atlas.xml" * 2, b"Atlas.XML" * 2))
    with pytest.raises(ArchiveError, match="damaged"):
        recall(custody)
    assert "Atlas.xml" not in hashes(custody)
    events = custody.catalog.read(lambda orm: list(orm.scalars(select(Event.text))))
    assert any(text.startswith("Recall failed") for text in events)
    assert custody.reread().residence == "archived"


def test_files_in_place_are_never_removed(custody: Custody) -> None:
    archive(custody)
    custody.catalog.write(lambda orm: orm.execute(update(Session).values(state="closed", mode="in_place")))
    with pytest.raises(BadParameter, match="never removed"):
        vacate(custody)


def test_a_tape_library_keeps_stubs_on_the_disk(tmp_path: Path) -> None:
    library = Library(tmp_path / "library")
    custody = set_up(tmp_path, tape=library.settings)
    custody.fill()
    before = hashes(custody)
    assert archive(custody)["residence"] == "both"
    close(custody)
    assert vacate(custody)["residence"] == "archived"
    stubs = hashes(custody)
    assert stubs.keys() == before.keys()
    assert all(stubs[name] != before[name] for name in before)
    assert recall(custody)["residence"] == "both"
    assert hashes(custody) == before
    custody.catalog.close()


def test_rules_name_the_sessions_that_are_hot(tmp_path: Path) -> None:
    custody = set_up(tmp_path, tape={"kind": "hsm"})
    for key, state in (("s2", "closed"), ("s3", "closed"), ("s4", "paused")):
        custody.add_session(key)
        columns: dict[str, Any] = {"state": state}
        if state == "closed":
            columns["closed_at"] = custody.session.created_at
        custody.catalog.write(
            lambda orm, k=key, c=columns: orm.execute(update(Session).where(Session.key == k).values(**c))
        )
    place_hold(custody.catalog, "s3", "wanted")
    text = storage_policy(custody.config, custody.catalog, hot_days=0.0)
    assert [f"/{key}/%'" in text for key in ("s1", "s2", "s3", "s4")] == [True, False, True, True]
    assert "s3: held" in text
    assert "/s2/%'" in storage_policy(custody.config, custody.catalog, hot_days=1.0)
    custody.catalog.close()


def test_who_names_no_tier_where_there_are_two_is_asked(tmp_path: Path) -> None:
    custody = set_up(tmp_path, a={"path": "/a"}, b={"path": "/b"})
    custody.fill()
    with pytest.raises(BadParameter, match=r"2: a, b.*--tier"):
        archive(custody)
    with pytest.raises(BadParameter, match="Known: a, b"):
        archive(custody, tier="c")
    custody.catalog.close()


def test_everything_is_reached_by_commands(custody: Custody) -> None:
    config = custody.folder / "facility.toml"
    config.write_text(
        f'[storage]\nroot = "{custody.root}"\ncopies = ["disk", "vault"]\n'
        f'[storage.tiers.vault]\npath = "vault"\nformat = "files"\n'
    )

    def say(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*words, "--config", str(config)])
        assert done.exit_code == code, f"{done.output}{done.exception!r}"
        return done.output

    assert "Would remove 0 files" in say("release")
    assert "copies_missing" in say("release", "s1", "--verbose")
    assert "both" in say("archive", "s1")
    assert "s1" in say("archive", "--status")
    assert '"proved": true' in say("archive", "s1", "--verify", "--json")
    assert "Nothing was touched" in say("release", "tem1")
    assert len(custody.on_disk()) == len(NAMES)
    assert "Removed 5 files" in say("release", "tem1", "--free")
    assert custody.on_disk() == set()
    assert "held by" in say("hold", "s1", "--reason", "wanted")
    close(custody)
    done = CliRunner().invoke(app, ["archive", "s1", "--remove-from-disk", "--config", str(config)])
    assert isinstance(done.exception, Busy)
    assert "isn't held" in say("hold", "s1", "--lift")
    assert '"residence": "archived"' in say("archive", "s1", "--remove-from-disk", "--json")
    assert '"residence": "both"' in say("recall", "s1", "--json")


def test_the_doctor_looks_at_archives(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    custody = set_up(
        tmp_path,
        good={"path": str(tmp_path / "here")},
        away={"path": str(tmp_path / "there")},
        tape={"kind": "hsm", "migrate": ["/no/dsmmigrate", "{files}"]},
        odd={"kind": "cassette"},
    )
    found = {one.subject: one for one in check_tiers(custody.config)}
    assert found["tier 'good'"].health == Health.GOOD
    assert "Mount" in found["tier 'away'"].remedy
    assert "/no/dsmmigrate" in found["tier 'tape'"].text
    assert "one of directory, hsm" in found["tier 'odd'"].text
    custody.catalog.close()
