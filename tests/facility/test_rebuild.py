"""The catalog can be lost: it's made anew from what stands beside the data."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update

from tests.databases import new_sqlite, postgres
from tests.facility.command import House
from tests.facility.conftest import Played
from tests.facility.custody import NAMES, Custody
from tests.servers import PostgresServer
from tests.web.conftest import client_for
from vitriflow.acquisition.release_log import FreedLog
from vitriflow.catalog import (
    Base,
    Catalog,
    Event,
    Exposure,
    FileState,
    Measure,
    Person,
    Processing,
    ResultRow,
    Session,
    SourceFile,
    upgrade,
)
from vitriflow.errors import BadParameter
from vitriflow.facility import journal as journals
from vitriflow.facility.journal import SessionJournal, read_lines, write_journals
from vitriflow.facility.rebuild import rebuild
from vitriflow.facility.release import release_round
from vitriflow.web import create_app

__all__ = ["postgres"]
# Rows that say when something happened to the catalog itself, or who works on it now.
_OF_THE_MOMENT = {"alembic_version", "event", "lease", "node", "alarm", "source_file"}


def all_rows(url: str) -> dict[str, list[dict[str, Any]]]:
    catalog = Catalog(url)
    try:
        return {
            one.name: [
                dict(row)
                for row in catalog.read(
                    lambda orm, t=one: list(
                        orm.execute(select(t).order_by(*t.primary_key.columns)).mappings()
                    )
                )
            ]
            for one in Base.metadata.sorted_tables
            if one.name not in _OF_THE_MOMENT
        }
    finally:
        catalog.close()


def answers(url: str, key: str) -> dict[str, Any]:
    """What the pages are made from."""
    with client_for(create_app(url)) as client:
        found = {}
        for path in (
            f"/api/sessions/{key}",
            f"/api/sessions/{key}/columns",
            f"/api/sessions/{key}/exposures",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            found[path] = answer.json()
        return found


@pytest.mark.slow
def test_a_processed_session_is_the_same_after_its_catalog_was_lost_and_goes_on(
    house: House, copied: Callable[[int], Played]
) -> None:
    played = copied(2)
    house.vitriflow("run", played.source, "--once", *played.quick)
    url, lost = f"sqlite:///{house.root / 'catalog.db'}", house.root / "lost.db"
    key = house.session().key
    before, pages = all_rows(url), answers(url, key)
    assert len(before["result"]) == 4
    assert len(pages) == 3
    for path in house.root.glob("catalog.db*"):
        path.rename(lost.with_name(path.name.replace("catalog", "lost")))
    dry = house.json("rebuild", "--dry-run")
    assert not (house.root / "catalog.db").exists()
    report = house.json("rebuild")
    assert report["rows"] == dry["rows"]
    assert all_rows(url) == before
    assert answers(url, key) == pages
    files = house.read(lambda orm: {(r.key, r.blake3, r.state) for r in orm.scalars(select(SourceFile))})
    old = Catalog(f"sqlite:///{lost}")
    assert files == old.read(
        lambda orm: {
            (r.key, r.blake3, r.state)
            for r in orm.scalars(select(SourceFile).where(SourceFile.state == FileState.PROVED))
        }
    )
    old.close()
    # and it goes on: one more exposure, with new numbers
    for path in sorted(played.source.rglob("*_Fractions.mrc"))[:1]:
        shutil.copy2(path, path.with_name(path.name.replace("FoilHole_", "FoilHole_99")))
    house.vitriflow("run", played.source, "--once")
    counts = house.counts()
    assert counts.reconciles
    assert (counts.exposures.came_in, counts.exposures.done) == (3, 3)
    results = house.read(
        lambda orm: list(orm.execute(select(ResultRow.id, ResultRow.item_id).order_by(ResultRow.id)))
    )
    assert [number for number, _ in results][: len(before["result"])] == [r["id"] for r in before["result"]]
    assert len(results) == len(before["result"]) // 2 * 3


# -- without running anything ------------------------------------------------------------------


@pytest.fixture
def custody(tmp_path: Path) -> Iterator[Custody]:
    made = Custody(tmp_path, release={"high_water": 1.0})
    made.fill()
    yield made
    made.catalog.close()


def processed(custody: Custody, number: int = 3) -> int:
    """A processing with so many finished exposures, as a coordinator leaves it."""
    from vitriflow.catalog import now

    session = custody.session.id

    def work(orm: Any) -> int:
        processing = Processing(
            session_id=session,
            name="live",
            template="name: quick\n",
            parameters={"particle_diameter_A": 120.0},
            root=str(custody.home.processed("live")),
            created_at=now(),
        )
        orm.add(processing)
        orm.flush()
        for index in range(number):
            add_exposure(orm, session, processing.id, f"m{index}.mrc")
        processing.change = number
        return int(processing.id)

    return int(custody.catalog.write(work))


def add_exposure(orm: Any, session: int, processing: int, key: str) -> int:
    from vitriflow.catalog import Task, now

    exposure = Exposure(
        session_id=session, key=key, item=key[:-4], path=f"/x/{key}", state="complete", blake3="ab" * 32,
        first_seen_at=now(), complete_at=now(), details={"dose": 1.5}, optics_group=2,
    )  # fmt: skip
    orm.add(exposure)
    orm.flush()
    change = int(orm.scalar(select(func.max(Measure.change))) or 0) + 1
    orm.add(
        Measure(processing_id=processing, exposure_id=exposure.id, change=change, status="done", n_picks=7)
    )
    orm.add(Task(processing_id=processing, node="motion", item_id=exposure.id, state="done", attempts=1))
    orm.add(
        ResultRow(
            processing_id=processing, node="motion", item_id=exposure.id, status="done",
            record={"outputs": {}, "total_A": 3.5}, created_at=now(),
        )
    )  # fmt: skip
    return int(exposure.id)


def fresh(custody: Custody, name: str = "new.db") -> Catalog:
    return new_sqlite(custody.folder / name)


def number_of(catalog: Catalog, model: Any) -> int:
    return catalog.read(lambda orm: orm.scalar(select(func.count()).select_from(model))) or 0


def test_only_an_empty_catalog_is_filled(custody: Custody) -> None:
    with pytest.raises(BadParameter, match="one with 1 sessions"):
        rebuild(custody.config, custody.catalog)


def test_an_empty_folder_is_said_to_be_one(tmp_path: Path, custody: Custody) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadParameter, match=r"session\.json"):
        rebuild(custody.config, None, tmp_path / "empty", dry_run=True)


def test_files_come_back_with_what_was_freed_and_what_was_replaced(custody: Custody) -> None:
    release_round(custody.config, custody.catalog, free=True)
    other = custody.add("again.xml", data=b"one")
    custody.change("again.xml", state=FileState.REPLACED)
    other.unlink()
    custody.add("again.xml", data=b"two", generation=2, destination="raw/again.g2.xml")
    catalog = fresh(custody)
    rebuild(custody.config, catalog)
    rows = catalog.read(lambda orm: list(orm.scalars(select(SourceFile).order_by(SourceFile.id))))
    known = {(row.key, row.generation): row for row in rows}
    assert {key for key, _ in known} == {*NAMES, "again.xml"}
    assert all(known[name, 1].freed_at is not None for name in NAMES)
    assert known["again.xml", 1].state == FileState.REPLACED
    assert known["again.xml", 2].state == FileState.PROVED
    assert known["again.xml", 2].freed_at is None
    assert len(list(FreedLog(custody.root / "freed.jsonl").freed())) == 5
    catalog.close()


def test_a_rebuilt_catalog_frees_disks_by_the_same_permits(custody: Custody) -> None:
    catalog = fresh(custody)
    rebuild(custody.config, catalog)
    assert len(release_round(custody.config, catalog).files) == 5
    catalog.close()


def test_results_outcomes_and_numbers_come_back(custody: Custody) -> None:
    processing = processed(custody)
    write_journals(custody.catalog)
    before = all_rows(custody.config.catalog_url)
    catalog = fresh(custody)
    report = rebuild(custody.config, catalog)
    assert report.rows["result"] == 3
    after = all_rows(f"sqlite:///{custody.folder / 'new.db'}")
    assert after["session"][0].pop("state") == "paused"  # it was active
    before["session"][0].pop("state")
    assert after == before
    assert report.sessions[0].problems == ["it was active, and is paused now: start it again"]
    catalog.write(lambda orm: add_exposure(orm, custody.session.id, processing, "later.mrc"))
    assert number_of(catalog, Exposure) == 4
    catalog.close()


def test_a_storage_that_was_moved_is_found_where_it_is_now(custody: Custody) -> None:
    processed(custody)
    write_journals(custody.catalog)
    moved = custody.folder / "moved"
    shutil.copytree(custody.root, moved, symlinks=True, ignore=shutil.ignore_patterns("catalog.db*"))
    catalog = fresh(custody)
    rebuild(custody.config.with_root(moved), catalog)
    session, processing = catalog.read(
        lambda orm: (orm.scalars(select(Session)).one(), orm.scalars(select(Processing)).one())
    )
    assert Path(session.root).is_relative_to(moved)
    assert Path(processing.root) == Path(session.root) / "processed" / "live"
    assert number_of(catalog, ResultRow) == 3
    catalog.close()


def test_an_older_session_comes_back_from_session_json_and_its_manifest(custody: Custody) -> None:
    assert not (custody.home.root / "catalog.json").exists()
    catalog = fresh(custody)
    report = rebuild(custody.config, catalog)
    assert report.rows == {"session": 1, "source_file": 5}
    assert any("exposures aren't known" in text for text in report.sessions[0].problems)
    assert catalog.read(lambda orm: orm.scalars(select(Session.key)).one()) == "s1"
    catalog.close()


def test_a_session_that_can_not_be_read_is_told_and_leaves_nothing_half_done(custody: Custody) -> None:
    custody.add_session("s2")
    custody.home.record.write_text("{ torn")
    custody.add_session("s3")
    processed(custody)
    write_journals(custody.catalog)
    (custody.home.root / "catalog.json").write_text("{ torn")
    catalog = fresh(custody)
    found = {Path(one.root).name: one for one in rebuild(custody.config, catalog).sessions}
    assert found["s2"].rows == {}
    assert "left out" in found["s2"].problems[0]
    assert "catalog.json can't be read" in found["s3"].problems[0]
    assert set(catalog.read(lambda orm: list(orm.scalars(select(Session.key))))) == {"s1", "s3"}
    catalog.close()


def test_what_can_not_be_known_is_said(custody: Custody) -> None:
    report = rebuild(custody.config, None, dry_run=True).as_json()
    assert any("People" in text for text in report["not_known"])
    assert report["dry_run"] is True


def test_the_journal_follows_and_repeats_nothing(custody: Custody) -> None:
    processing = processed(custody)
    journal = SessionJournal(custody.catalog, custody.session.id)
    for _ in range(3):
        journal.update(sweep=True)
    root = custody.home.processed("live")
    files = (custody.home.root / "exposures.jsonl", root / "results.jsonl", root / "outcomes.jsonl")
    assert [len(list(read_lines(path))) for path in files] == [3, 3, 3]
    custody.catalog.write(lambda orm: add_exposure(orm, custody.session.id, processing, "m9.mrc"))
    custody.catalog.write(
        lambda orm: orm.execute(update(Exposure).where(Exposure.key == "m0.mrc").values(optics_group=5))
    )
    SessionJournal(custody.catalog, custody.session.id).update(sweep=True)  # another process
    journal.update(sweep=True)
    assert [len(list(read_lines(path))) for path in files] == [5, 4, 4]


def test_a_torn_line_is_written_again(custody: Custody) -> None:
    processed(custody)
    write_journals(custody.catalog)
    root = custody.home.processed("live")
    paths = [custody.home.root / "exposures.jsonl", root / "results.jsonl", root / "outcomes.jsonl"]
    whole = [path.read_bytes() for path in paths]
    for path, data in zip(paths, whole, strict=True):
        path.write_bytes(data[:-20])
    write_journals(custody.catalog)
    assert [path.read_bytes() for path in paths] == whole


def test_a_disk_that_is_full_leaves_no_half_line(custody: Custody, monkeypatch: pytest.MonkeyPatch) -> None:
    processed(custody)
    real = journals.os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 10:
            return real(descriptor, bytes(data)[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journals.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            journals.append_lines(custody.folder / "some.jsonl", [{"a": "b" * 11}])
    assert (custody.folder / "some.jsonl").read_bytes() == b""


def test_another_catalog_begins_its_files_anew(custody: Custody) -> None:
    processing = processed(custody)
    write_journals(custody.catalog)
    custody.catalog.write(lambda orm: orm.execute(delete(ResultRow)))  # an older backup was restored
    custody.catalog.write(lambda orm: orm.execute(update(Measure).values(change=0)))
    custody.catalog.write(lambda orm: add_exposure(orm, custody.session.id, processing, "m9.mrc"))
    write_journals(custody.catalog)
    root = custody.home.processed("live")
    assert len(list(read_lines(root / "results.jsonl"))) == 1
    assert len(list(read_lines(root / "outcomes.jsonl"))) == 4
    assert len(list(root.glob("*.before-*"))) == 2


def test_numbers_that_two_sessions_both_had_are_given_anew(custody: Custody) -> None:
    processed(custody)
    write_journals(custody.catalog)
    twin = custody.home.root.with_name("s1-twin")
    shutil.copytree(custody.home.root, twin, symlinks=True)
    for name in ("session.json", "catalog.json"):
        text = (twin / name).read_text().replace('"s1"', '"s1-twin"')
        (twin / name).write_text(text)
    catalog = fresh(custody)
    rebuild(custody.config, catalog)
    assert number_of(catalog, Session) == 2
    pairs = catalog.read(
        lambda orm: list(
            orm.execute(
                select(Session.key, func.count(ResultRow.id))
                .join(Exposure, Exposure.session_id == Session.id)
                .join(ResultRow, ResultRow.item_id == Exposure.id)
                .group_by(Session.key)
            )
        )
    )
    assert dict(tuple(row) for row in pairs) == {"s1": 3, "s1-twin": 3}
    catalog.close()


def test_who_wrote_something_is_left_open_when_people_are_not_known(custody: Custody) -> None:
    write_journals(custody.catalog)
    small = json.loads((custody.home.root / "catalog.json").read_text())
    assert "person" not in small["tables"]
    catalog = fresh(custody)
    rebuild(custody.config, catalog)
    assert number_of(catalog, Person) == 0
    assert number_of(catalog, Event) >= 1
    catalog.close()


@pytest.mark.service
def test_on_postgresql_new_numbers_follow_those_that_came_back(
    custody: Custody, postgres: PostgresServer
) -> None:
    processing = processed(custody)
    write_journals(custody.catalog)
    catalog = Catalog(postgres.new_database())
    upgrade(catalog)
    rebuild(custody.config, catalog)
    number = catalog.write(lambda orm: add_exposure(orm, custody.session.id, processing, "later.mrc"))
    assert number == 4
    assert number_of(catalog, ResultRow) == 4
    catalog.close()
