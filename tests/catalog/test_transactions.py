"""Transactions are retried whole on conflict; leases are held by one at a time."""

import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from vitriflow.catalog import Catalog, Experiment, Lease, now, take_lease, this_owner
from vitriflow.errors import Busy


def _add(catalog: Catalog, name: str) -> None:
    catalog.write(lambda session: session.add(Experiment(name=name, created_at=now())))


def test_a_timestamp_comes_back_with_its_zone_and_microseconds(catalog: Catalog) -> None:
    moment = now()
    catalog.write(lambda session: session.add(Experiment(name="e", created_at=moment)))
    found = catalog.read(lambda session: session.scalars(select(Experiment.created_at)).one())
    assert found == moment
    assert found.utcoffset() == timedelta(0)


def test_writers_that_count_together_lose_no_count(catalog: Catalog) -> None:
    _add(catalog, "e")

    def count() -> None:
        for _ in range(10):
            catalog.write(_one_more)

    def _one_more(session) -> None:
        row = session.scalars(select(Experiment)).one()  # read, then write what was read
        session.execute(update(Experiment).values(title=str(int(row.title or "0") + 1)))

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalog.read(lambda session: session.scalars(select(Experiment.title)).one()) == "30"


def test_an_error_that_is_no_conflict_is_not_retried(catalog: Catalog) -> None:
    _add(catalog, "e")
    tries = []

    def work(session) -> None:
        tries.append(1)
        session.add(Experiment(name="e", created_at=now()))

    with pytest.raises(IntegrityError):
        catalog.write(work)
    assert len(tries) == 1


def test_an_sqlite_writer_keeps_readers_working(sqlite_catalog: Catalog) -> None:
    _add(sqlite_catalog, "before")

    def work(session) -> list[str]:
        session.add(Experiment(name="uncommitted", created_at=now()))
        session.flush()
        return sqlite_catalog.read(lambda other: list(other.scalars(select(Experiment.name))))

    assert sqlite_catalog.write(work) == ["before"]


def test_a_lease_is_refused_to_a_second_owner_with_the_name_of_the_first(catalog: Catalog) -> None:
    take_lease(catalog, "processing/1", "elsewhere:boot/1:4242:99:a", 60)
    with pytest.raises(Busy, match="process 4242 on elsewhere"):
        take_lease(catalog, "processing/1", this_owner("b"), 60)


def test_a_lease_that_was_given_back_can_be_taken_at_once(catalog: Catalog) -> None:
    first = take_lease(catalog, "processing/1", this_owner("a"), 60)
    first.release(catalog)
    second = take_lease(catalog, "processing/1", this_owner("b"), 60)
    assert second.epoch == first.epoch + 1


def test_a_lease_that_ran_out_is_taken_over_and_its_old_owner_can_not_write(catalog: Catalog) -> None:
    first = take_lease(catalog, "processing/1", "elsewhere:boot/1:4242:99:a", 60)
    catalog.write(
        lambda session: session.execute(update(Lease).values(expires_at=now() - timedelta(seconds=1)))
    )
    take_lease(catalog, "processing/1", "b", 60)

    def late_write(session) -> None:
        session.add(Experiment(name="late", created_at=now()))
        first.fence(session)

    with pytest.raises(Busy, match="taken over by b"):
        catalog.write(late_write)
    assert catalog.read(lambda session: list(session.scalars(select(Experiment.name)))) == []


def test_a_lease_that_ran_out_but_was_not_taken_over_still_works(catalog: Catalog) -> None:
    lease = take_lease(catalog, "processing/1", "a", 60)
    past = now() - timedelta(seconds=1)
    catalog.write(lambda session: session.execute(update(Lease).values(expires_at=past)))
    lease.renew(catalog)
    assert catalog.read(lambda session: session.scalars(select(Lease.expires_at)).one()) > now()


def test_the_lease_of_a_process_that_died_on_this_machine_is_taken_over_at_once(
    sqlite_catalog: Catalog,
) -> None:
    code = (
        "import sys; from vitriflow.catalog import Catalog, take_lease, this_owner;"
        "take_lease(Catalog(sys.argv[1]), 'processing/1', this_owner(), 600)"
    )
    subprocess.run([sys.executable, "-c", code, sqlite_catalog.url], check=True)
    assert take_lease(sqlite_catalog, "processing/1", this_owner(), 60).epoch == 2


def test_of_many_that_want_a_lease_one_gets_it(catalog: Catalog) -> None:
    taken, refused = [], []

    def want(number: int) -> None:
        try:
            taken.append(take_lease(catalog, "processing/1", f"thread {number}", 60))
        except Busy as error:
            refused.append(error)

    threads = [threading.Thread(target=want, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 5)
