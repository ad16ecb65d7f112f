"""Small movies and damaged copies of them, shared by the tests of formats."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitriflow.formats import EerWriter, write_mrc, write_tiff_movie


@pytest.fixture(scope="session")
def counts() -> NDArray[np.uint8]:
    """Frames (5, 24, 32) of electron counts, no symmetry in them."""
    return np.random.default_rng(7).poisson(1.0, (5, 24, 32)).astype(np.uint8)


@pytest.fixture(scope="session")
def events() -> NDArray[np.uint8]:
    """Raw EER frames (12, 64, 48) of zeros and ones."""
    return (np.random.default_rng(8).random((12, 64, 48)) < 0.03).astype(np.uint8)


@pytest.fixture(scope="session")
def whole(
    tmp_path_factory: pytest.TempPathFactory, counts: NDArray[np.uint8], events: NDArray[np.uint8]
) -> dict[str, Path]:
    """A good file of each format, by name."""
    folder = tmp_path_factory.mktemp("whole")
    files = {name: folder / f"movie.{name}" for name in ("mrc", "tif", "eer")}
    write_mrc(files["mrc"], counts.astype(np.int16), 1.1)
    write_tiff_movie(files["tif"], counts, "lzw", 1.1)
    with EerWriter(files["eer"], (64, 48), {"numberOfFrames": "12"}) as writer:
        for frame in events:
            writer.write(frame)
    return files


@pytest.fixture
def cut(tmp_path: Path, whole: dict[str, Path]) -> Callable[[str, int], Path]:
    """A copy of a good file cut after some bytes."""

    def _cut(name: str, n_bytes: int) -> Path:
        path = tmp_path / f"cut.{name}"
        path.write_bytes(whole[name].read_bytes()[:n_bytes])
        return path

    return _cut
