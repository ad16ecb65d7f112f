"""Our own LZW decoder gives what the library gives, and leaves to the library what it can't take."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.errors import BadFile
from vitriflow.formats import open_movie, tiff
from vitriflow.formats._lzw import decode_lzw


@given(
    pieces=st.lists(
        st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 400)), min_size=1, max_size=12
    )
)
def test_it_decodes_what_the_library_encodes(pieces: list[tuple[bytes, int]]) -> None:
    data = b"".join(piece * times for piece, times in pieces)  # long runs, and strings of strings
    found = decode_lzw(imagecodecs.lzw_encode(data), len(data))
    assert found is not None
    assert found.tobytes() == data


def test_the_table_fills_and_is_cleared_many_times() -> None:
    data = np.random.default_rng(4).integers(0, 256, 300_000, dtype=np.uint8)
    found = decode_lzw(imagecodecs.lzw_encode(data.tobytes()), data.size)
    assert found is not None
    assert np.array_equal(found, data)


@given(places=st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_damage_is_never_read_past_the_end(places: list[tuple[int, int]]) -> None:
    data = np.random.default_rng(1).integers(0, 3, 4000, dtype=np.uint8).tobytes()
    damaged = bytearray(imagecodecs.lzw_encode(data))
    for place, value in places:
        damaged[1 + place % (len(damaged) - 1)] = value
    found = decode_lzw(bytes(damaged), len(data))
    assert found is None or found.size == len(data)


@pytest.mark.parametrize("cut", [0, 1, 5, 100])
def test_a_strip_that_ends_early_is_left_to_the_library(cut: int) -> None:
    data = np.random.default_rng(1).integers(0, 3, 4000, dtype=np.uint8).tobytes()
    assert decode_lzw(imagecodecs.lzw_encode(data)[:cut], len(data)) is None


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "int16", "float32"])
@pytest.mark.parametrize("rows", [None, 7])
def test_movies_read_the_same_with_and_without_it(
    dtype: str, rows: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    movie = np.random.default_rng(2).poisson(1.0, (2, 60, 51)).astype(dtype)
    path = tmp_path / "movie.tif"
    order = ">" if dtype.startswith(">") else None
    tifffile.imwrite(path, movie, compression="lzw", predictor=False, rowsperstrip=rows, byteorder=order)
    for largest in (1, 1 << 20):
        monkeypatch.setattr(tiff, "_LARGE", largest)
        with open_movie(path) as opened:
            frames = list(opened.frames())
        assert np.array_equal(np.stack(frames)[:, ::-1], movie)


def test_a_damaged_strip_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiff, "_LARGE", 1)
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="lzw", predictor=False, rowsperstrip=64)
    with tifffile.TiffFile(path) as opened:
        at = opened.pages[0].dataoffsets[0]
    damaged = bytearray(path.read_bytes())
    damaged[at + 1 : at + 4] = b"\xff\xff\xff"
    path.write_bytes(damaged)
    with pytest.raises(BadFile, match=r"movie\.tif"), open_movie(path) as opened_movie:
        list(opened_movie.frames())
