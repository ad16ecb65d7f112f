"""One session's acquisition in copy mode, run in this process, with short times and real files."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from sqlalchemy import select

from tests.databases import new_sqlite
from tests.facility.command import PATIENT_S
from vitriflow.acquisition.copying import is_temporary
from vitriflow.catalog import Event, Exposure, FileState, SourceFile
from vitriflow.config import Config
from vitriflow.elogbook import open_session
from vitriflow.facility.acquire import AcquireReport, SessionAcquisition
from vitriflow.formats import MrcWriter
from vitriflow.storage import ManifestLine, newest_lines

MOVED = (FileState.COPIED, FileState.PROVED)


def frames(seed: int = 1, count: int = 4) -> np.ndarray:
    """A tiny movie."""
    return np.random.default_rng(seed).poisson(1.0, (count, 64, 64)).astype(np.uint8)


def write_movie(path: Path, movie: np.ndarray) -> None:
    """Write a movie as a camera does: frame by frame under its own name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with MrcWriter(path, movie.shape[1:], movie.dtype, pixel_size_A=1.0, n_frames=len(movie)) as writer:
        for frame in movie:
            writer.write(frame)


class Acquiring:
    """A source folder, a session on it, and its acquisition."""

    def __init__(
        self, folder: Path, *, mode: str = "copy", source: Path | None = None, **settings: Any
    ) -> None:
        self.folder = folder
        self.source = source or folder / "tem1 disk"
        self.source.mkdir(parents=True, exist_ok=True)
        self.root = folder / "root"
        self.catalog = new_sqlite(folder / "catalog.db")
        times = {"scan_interval_s": 0.05, "quiet_s": 0.1, "patience_s": 0.6}
        microscopes = settings.pop("microscopes", {})
        self.config = Config.model_validate(
            {"acquisition": {**times, **settings}, "microscopes": microscopes}
        )
        self.session = open_session(
            self.catalog,
            key="s1",
            source=self.source,
            microscope="tem1",
            experiment="e1",
            sample="apo",
            settings={},
            root_of=lambda _when: self.root,
            mode=mode,
        )
        self.reports: list[AcquireReport] = []

    @contextmanager
    def running(self) -> Iterator[SessionAcquisition]:
        """The acquisition, in a thread; its error, if it died of one, is raised at the end."""
        acquisition = SessionAcquisition(self.config, self.catalog, self.session.id)
        stop, died = threading.Event(), []

        def run() -> None:
            try:
                acquisition.run(stop, self.reports.append)
            except BaseException as error:
                died.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield acquisition
        finally:
            stop.set()
            thread.join(PATIENT_S)
            acquisition.close()
        if died:
            raise died[0]

    def run_until(self, what: Callable[[], Any]) -> None:
        """Acquire until something holds."""
        with self.running():
            self.until(what)

    def run_until_settled(self, *, found: int | None = None) -> None:
        """Acquire until every file (so many) is proved or a problem."""
        with self.running() as acquisition:
            self.until_settled(acquisition, found=found)

    def until_settled(self, acquisition: SessionAcquisition, *, found: int | None = None) -> None:
        """Wait until every file (so many) is proved or a problem."""
        number = len(list(self.on_source())) if found is None else found

        def settled() -> bool:
            return len(self.newest()) >= number and acquisition.settled()

        self.until(lambda: settled() and (time.sleep(0.15) or settled()))

    def until(self, what: Callable[[], Any], timeout_s: float = PATIENT_S) -> Any:
        """Wait until something holds."""
        deadline = time.monotonic() + timeout_s
        while not (found := what()):
            assert time.monotonic() < deadline, (
                f"should have happened by now; {self.states()} {self.events()}"
            )
            time.sleep(0.02)
        return found

    # -- what there is --------------------------------------------------------------------

    def on_source(self) -> Iterator[Path]:
        """Files on the source."""
        return (path for path in self.source.rglob("*") if path.is_file())

    def rows(self) -> list[SourceFile]:
        """All rows of files."""
        return self.catalog.read(lambda orm: list(orm.scalars(select(SourceFile).order_by(SourceFile.id))))

    def newest(self) -> dict[str, SourceFile]:
        """The newest generation of each file."""
        return {row.key: row for row in sorted(self.rows(), key=lambda row: row.generation)}

    def states(self) -> dict[str, str]:
        """State of the newest generation of each file."""
        return {key: row.state for key, row in self.newest().items()}

    def exposures(self) -> dict[str, Exposure]:
        """Exposures by key."""
        return {row.key: row for row in self.catalog.read(lambda orm: list(orm.scalars(select(Exposure))))}

    def events(self) -> list[str]:
        """What people were told."""
        return self.catalog.read(lambda orm: list(orm.scalars(select(Event.text).order_by(Event.id))))

    def manifest(self) -> dict[str, ManifestLine]:
        """The manifest by path."""
        return newest_lines(self.root / "manifest.jsonl")

    def copies(self) -> dict[str, bytes]:
        """What stands in raw/, by path below it; without half-written files."""
        raw = self.root / "raw"
        return {
            str(path.relative_to(raw)): path.read_bytes()
            for path in raw.rglob("*")
            if path.is_file() and not is_temporary(path.name)
        }

    def check_proved(self) -> None:
        """Whatever the catalog or the manifest calls proved is on disk with the bytes of its hash; counts add up."""
        for row in self.rows():
            if row.proved_at is not None:
                data = (self.root / str(row.destination)).read_bytes()
                assert (len(data), blake3(data).hexdigest()) == (row.size, row.blake3), row.key
                assert self.manifest()[str(row.destination)].blake3 == row.blake3
        for path, line in self.manifest().items():
            assert blake3((self.root / path).read_bytes()).hexdigest() == line.blake3, path
        by_state: dict[str, int] = {}
        for row in self.rows():
            by_state[row.state] = by_state.get(row.state, 0) + 1
        if self.reports and self.reports[-1].files:
            assert sum(by_state.values()) >= sum(self.reports[-1].files.values())
