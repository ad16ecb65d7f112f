"""The full micrograph in pieces: right side up, no larger than it is, and only of this session."""

from collections.abc import Iterator
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.web.conftest import client_of
from tests.web.factory import World, make_world
from vitriflow.web.tiles import TILE, make_pyramid


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, httpx.Client]]:
    world = make_world(tmp_path_factory.mktemp("tiles"))
    world.add(full=True)
    world.add()
    with client_of(world) as client:
        yield world, client


def picture(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    return np.asarray(Image.open(BytesIO(answer.content)), dtype=float)


def test_a_tile_is_the_part_that_it_says_with_row_0_at_the_top(tiled: tuple[World, httpx.Client]) -> None:
    world, client = tiled
    base = f"/api/sessions/{world.key}/exposures/{world.ids[0]}"
    full = client.get(base).json()["full"]
    assert (full["width"], full["height"]) == (4096, 4096)
    top, bottom = (picture(client.get(f"{base}/tile/0/3/{row}")) for row in (0, 7))
    assert top.shape == bottom.shape == (TILE, TILE)
    assert top.mean() > bottom.mean() + 40
    whole = picture(client.get(f"{base}/tile/3/0/0"))
    assert whole.shape == (512, 512)
    assert whole[:250].mean() > whole[260:].mean() + 40
    assert client.get(f"{base}/tile/0/8/0").status_code == 404
    assert client.get(f"{base}/tile/4/0/0").status_code == 404


def test_without_a_micrograph_there_are_no_tiles_and_the_page_knows(
    tiled: tuple[World, httpx.Client],
) -> None:
    world, client = tiled
    base = f"/api/sessions/{world.key}/exposures/{world.ids[1]}"
    assert client.get(base).json()["full"] is None
    answer = client.get(f"{base}/tile/0/0/0")
    assert answer.status_code == 404
    assert "micrograph" in answer.json()["error"]["what"]


def test_odd_sizes_and_images_without_contrast_have_pictures() -> None:
    levels = make_pyramid(np.arange(1030 * 517, dtype=np.float32).reshape(1030, 517)).levels
    assert [level.shape for level in levels] == [(1030, 517), (515, 258), (257, 129)]
    assert np.unique(make_pyramid(np.full((64, 64), 3.0)).levels[0]).tolist() == [128]
    broken = np.ones((64, 64), dtype=np.float32)
    broken[3, 3] = np.nan
    assert make_pyramid(broken).levels[0].dtype == np.uint8
