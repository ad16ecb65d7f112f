"""Grid squares: where they are, what each yields, and honesty where nobody said."""

from collections.abc import Iterator

import httpx
import pytest

from tests.web.conftest import client_of
from tests.web.factory import World, make_world
from vitriflow.catalog import Place


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, httpx.Client]]:
    world = make_world(tmp_path_factory.mktemp("places"))
    for outcome in ["done"] * 8 + ["done", "quarantined"] * 4 + ["quarantined"] * 8 + ["done"]:
        world.add(outcome)
    where = {"kind": "grid_square", "name": "GridSquare_101", "stage_x_um": 12.5, "stage_y_um": -3.0}
    world.catalog.write(lambda db: db.add(Place(session_id=world.session_id, **where)))
    with client_of(world) as client:
        yield world, client


def test_squares_are_ranked_by_what_they_yield(placed: tuple[World, httpx.Client]) -> None:
    world, client = placed
    squares = client.get(f"/api/sessions/{world.key}/squares").json()["squares"]
    names = [one["name"].removeprefix("GridSquare_") for one in squares]
    # One good exposure of one says less than eight of eight, and more than four of eight.
    assert names == ["101", "104", "102", "103"]
    assert [one["rank"] for one in squares] == [1, 2, 3, 4]
    assert [one["usable_fraction"] for one in squares] == [1.0, 1.0, 0.5, 0.0]
    assert sum(one["exposures"] for one in squares) == world.made
    assert squares[0]["picks_per_exposure"] > 50
    assert squares[-1]["fit_resolution_A"] is None


def test_a_square_is_where_its_own_metadata_says_or_amid_its_exposures(
    placed: tuple[World, httpx.Client],
) -> None:
    world, client = placed
    squares = {one["name"]: one for one in client.get(f"/api/sessions/{world.key}/squares").json()["squares"]}
    first, second = squares["GridSquare_101"], squares["GridSquare_102"]
    assert (first["stage_x_um"], first["stage_y_um"]) == (12.5, -3.0)
    assert (second["stage_x_um"], second["stage_y_um"]) == (-88.0, -98.0)


def test_a_square_and_a_hole_filter_the_gallery(placed: tuple[World, httpx.Client]) -> None:
    world, client = placed

    def shown(**how: str) -> list[int]:
        answer = client.get(f"/api/sessions/{world.key}/exposures", params={"order": "asc", **how})
        return [one["id"] for one in answer.json()["exposures"]]

    assert shown(square="GridSquare_102") == world.ids[8:16]
    assert shown(hole="FoilHole_7002") == world.ids[4:6]
    assert shown(square="GridSquare_102", status="done") == world.ids[8:16:2]
    assert shown(square="no such") == []


def test_metadata_that_comes_late_finds_its_exposure(world: World) -> None:
    world.add(square=None)
    world.add("growing", square=None)
    with client_of(world) as client:
        address = f"/api/sessions/{world.key}/squares"
        assert client.get(address).json()["squares"] == []
        page = client.get(f"/sessions/{world.key}").text
        assert "No exposure says which grid square it lies on" in page
        new = world.add(square="GridSquare_7")
        squares = client.get(address).json()["squares"]
        assert [(one["name"], one["exposures"]) for one in squares] == [("GridSquare_7", 1)]
        assert new in world.ids
