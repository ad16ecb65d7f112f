"""The same on a facility's database: a real PostgreSQL server, named by its URL alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.databases import postgres
from tests.facility.command import House
from tests.facility.conftest import Played
from tests.servers import PostgresServer

__all__ = ["postgres"]
pytestmark = [pytest.mark.service, pytest.mark.slow]


def test_a_session_runs_on_postgresql_and_is_asked_about_there(
    postgres: PostgresServer, tmp_path: Path, copied: Callable[[int], Played]
) -> None:
    played = copied(2)
    url = postgres.new_database()
    house = House(tmp_path / "house", more=f'[catalog]\nurl = "{url}"\n')
    house.vitriflow("run", played.source, "--once", *played.settings)
    assert not (house.root / "catalog.db").exists()
    counts = house.counts(url)
    assert counts.reconciles
    assert counts.exposures.came_in == counts.exposures.done == 2
    (entry,) = house.json("status")
    assert entry["counts"]["done"] == 2
    chain = house.json("explain", entry["session"], played.report.movies[0].movie.name)
    assert {result["node"] for result in chain["results"]} == {"motion", "ctf", "pick", "preview"}
    doctor = house.vitriflow("doctor").stdout
    assert "catalog: 127.0.0.1" in doctor
    assert url.split("@")[0] not in doctor  # no password in what people paste into tickets
    house.vitriflow("run", played.source, "--once")
    assert house.counts(url).exposures.done == 2
