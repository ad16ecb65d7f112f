"""What a processing is for is kept, read and counted alike on each kind of server."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import select

from tests.databases import catalog, empty_url, postgres, sqlite_catalog
from tests.facility.test_reprocess_some import OLGA, TEMPLATE
from tests.pipeline.conftest import QUICK, House
from vitriflow.catalog import Catalog, Exposure, Processing, views
from vitriflow.facility.rebuild_rows import _renumber_selection
from vitriflow.facility.reprocess import reprocess
from vitriflow.pipeline import Coordinator, counts

__all__ = ["catalog", "empty_url", "postgres", "sqlite_catalog"]  # fixtures


def test_a_selection_is_kept_read_and_counted(catalog: Catalog, tmp_path: Path) -> None:
    house = House(catalog, tmp_path / "house")
    house.add("a", "b", "c")
    house.start(TEMPLATE)
    ids = catalog.read(lambda orm: list(orm.scalars(select(Exposure.id).order_by(Exposure.id))))
    begun = reprocess(
        catalog, OLGA, "s1", "p1", "some", {"seconds": 0.01}, exposures=ids[:2], chosen_by="the first two"
    )
    listed = catalog.read(lambda orm: views.list_processings(orm, house.session_id))
    assert [(one.name, one.selected, one.selection) for one in listed] == [
        ("some", 2, "the first two"),
        ("p1", None, ""),
    ]
    main = views.main_processing(listed)
    assert main is not None
    assert main.name == "p1"
    with ThreadPoolExecutor(2) as executor:
        Coordinator(catalog, begun.number, executor, QUICK).run(threading.Event(), until_idle=True)
    found = counts(catalog, begun.number)
    assert found.reconciles
    assert (found.exposures.done, found.arriving) == (2, 0)
    assert catalog.read(lambda orm: views.selection_of(orm, begun.number)) == frozenset(ids[:2])


def test_a_catalog_made_anew_keeps_it_by_the_numbers_that_exposures_have_then() -> None:
    row = {"selection": {"n": 3, "words": "x", "exposures": [1, 2, 9]}}
    _renumber_selection(row, {1: 11, 2: 12})  # 9 was never written beside the data
    assert row["selection"] == {"n": 2, "words": "x", "exposures": [11, 12]}
    assert Processing(**row).selection is row["selection"]
    whole: dict = {"selection": None}
    _renumber_selection(whole, {1: 11})
    assert whole == {"selection": None}
