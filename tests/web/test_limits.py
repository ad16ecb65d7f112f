"""Thresholds over stored results: who passes, in the page's own arithmetic, and rectangles drawn on plots."""

import json
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.conftest import client_of, fill
from tests.web.factory import World, make_world
from vitriflow.errors import BadParameter
from vitriflow.web.filters import read_brushes
from vitriflow.web.limits import within


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, httpx.Client]]:
    world = make_world(tmp_path_factory.mktemp("limits"))
    fill(world)
    with client_of(world) as client:
        yield world, client


def read_table(
    client: httpx.Client, world: World, **how: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The binary answer, as a page reads it."""
    data = client.get(f"/api/sessions/{world.key}/table", params=how).content
    (length,) = struct.unpack_from("<I", data)
    head = json.loads(data[4 : 4 + length])
    kinds = {"f64": "<f8", "f32": "<f4", "u8": "u1", "i32": "<i4"}
    columns, at = {}, 4 + length
    for name, kind in head["columns"]:
        assert at % np.dtype(kinds[kind]).itemsize == 0, "a typed array of a page must begin aligned"
        columns[name] = np.frombuffer(data, kinds[kind], head["rows"], at)
        at += columns[name].nbytes
    assert at == len(data)
    return head, columns


def test_the_table_holds_every_exposure_with_its_place(limited: tuple[World, httpx.Client]) -> None:
    world, client = limited
    head, columns = read_table(client, world)
    listed = client.get(f"/api/sessions/{world.key}/exposures", params={"order": "asc"}).json()["exposures"]
    assert columns["id"].tolist() == [one["id"] for one in listed]
    assert [head["statuses"][code] for code in columns["status"]] == [one["status"] for one in listed]
    for one, defocus in zip(listed, columns["defocus_A"], strict=True):
        assert (one["values"]["defocus_A"] is None) == bool(np.isnan(defocus))
    squares = [head["squares"][code] if code >= 0 else None for code in columns["square"]]
    assert squares[0] == "GridSquare_101"
    assert int(columns["usable"].sum()) == 7


def test_only_what_changed_comes_when_the_asker_says_what_it_has(
    limited: tuple[World, httpx.Client],
) -> None:
    world, client = limited
    head, _ = read_table(client, world)
    again, columns = read_table(client, world, since=head["change"], known=head["total"])
    assert (again["reset"], again["rows"]) == (False, 0)
    new = world.add()
    more, columns = read_table(client, world, since=head["change"], known=head["total"])
    assert more["reset"] is False
    assert columns["id"].tolist() == [new]
    assert columns["n"].tolist() == [more["total"]]
    assert read_table(client, world, since=10**9, known=0)[0]["reset"] is True


def test_saved_limits_count_on_every_page_until_they_are_taken_away(
    limited: tuple[World, httpx.Client],
) -> None:
    world, client = limited
    _, columns = read_table(client, world)
    middle = float(np.nanmedian(columns["defocus_A"]))
    address = f"/api/sessions/{world.key}/limits"
    answer = client.post(address, json={"values": {"defocus_A": [None, middle]}}).json()
    expected = int((columns["defocus_A"] <= middle).sum())
    assert 0 < expected < answer["total"] == len(columns["id"])
    assert answer["passing"] == expected
    summary = client.get(f"/api/sessions/{world.key}/counts").json()
    assert summary["people"]["passing"] == expected
    assert summary["usable"] <= expected
    passing = client.get(f"/api/sessions/{world.key}/exposures", params={"limits": "pass"}).json()["total"]
    outside = client.get(f"/api/sessions/{world.key}/exposures", params={"limits": "fail"}).json()["total"]
    assert (passing, passing + outside) == (expected, answer["total"])
    assert client.post(address, json={"values": {}}).json()["passing"] == answer["total"]
    assert client.get(address).json()["values"] == {}


@pytest.mark.parametrize(
    "values",
    [
        {"defocus_A": [2.0, 1.0]},
        {"nonsense": [0.0, 1.0]},
        {"defocus_A": [0.0]},
        {"defocus_A": "low"},
    ],
)
def test_limits_that_make_no_sense_are_refused(
    limited: tuple[World, httpx.Client], values: dict[str, Any]
) -> None:
    world, client = limited
    before = client.get(f"/api/sessions/{world.key}/limits").json()
    assert client.post(f"/api/sessions/{world.key}/limits", json={"values": values}).status_code == 422
    assert client.get(f"/api/sessions/{world.key}/limits").json() == before


@given(st.lists(st.floats(width=32), max_size=30), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_within_says_what_a_page_with_single_precision_says(
    values: list[float], low: float, high: float
) -> None:
    column = np.array(values, dtype=np.float64)
    on_page = [bool(np.float64(v) >= low and np.float64(v) <= high) for v in np.float32(column)]
    assert within(column, low, high).tolist() == on_page


def test_a_rectangle_drawn_on_a_plot_is_a_filter(limited: tuple[World, httpx.Client]) -> None:
    world, client = limited
    _, columns = read_table(client, world)
    inside = (columns["defocus_A"] >= 9000) & (columns["defocus_A"] <= 15000) & (columns["n"] <= 8)
    address = f"/api/sessions/{world.key}/exposures"
    found = client.get(address, params={"brush": "defocus_A:9000:15000:n:0.5:8.4"}).json()
    assert {one["id"] for one in found["exposures"]} == set(columns["id"][inside].astype(int).tolist())
    least = max(one["values"]["n_picks"] for one in found["exposures"])
    both = f"defocus_A:9000:15000:n:0.5:8.4;n_picks:{least}:inf"
    narrower = client.get(address, params={"brush": both}).json()
    assert 1 <= narrower["total"] < found["total"]


@pytest.mark.parametrize(
    "text", ["defocus_A", "defocus_A:a:b", "nonsense:1:2", "defocus_A:1:nan", "defocus_A:1:2:z:0:1"]
)
def test_a_rectangle_that_cant_be_understood_is_refused(text: str) -> None:
    with pytest.raises(BadParameter):
        read_brushes(text)
