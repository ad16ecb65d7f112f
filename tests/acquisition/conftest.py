from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.databases import new_sqlite
from vitriflow.catalog import Catalog
from vitriflow.elogbook import open_session


class Clock:
    """Our monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = new_sqlite(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "tem1 disk"
    folder.mkdir()
    return folder


@pytest.fixture
def session_id(catalog: Catalog, source: Path, tmp_path: Path) -> int:
    session = open_session(
        catalog,
        key="s1",
        source=source,
        microscope="tem1",
        experiment="e1",
        sample="apo",
        settings={},
        root_of=lambda _when: tmp_path / "root",
    )
    return session.id


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(1).poisson(1.0, (4, 32, 48)).astype(np.uint8)
