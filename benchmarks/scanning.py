"""What a look at an active session costs, and how soon a file that is complete is recognised.

20,000 exposures of four files each in 3 folders; the third one is still being written to. The same
with the exposures spread over many folders that can no longer change.
"""

import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from benchmarks.measure import table
from vitriflow.acquisition import Intake
from vitriflow.acquisition.scan import HOT_S
from vitriflow.catalog import Catalog, Exposure, ExposureState, upgrade
from vitriflow.config import Config
from vitriflow.elogbook import open_session
from vitriflow.formats import MrcWriter

SUFFIXES = ("_Fractions.mrc", ".xml", ".jpg", ".mrc")
LIMIT_CPU_S = 0.5


class Clock:
    """Our monotonic clock, moved by hand: a round may come when it likes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """Measure; a section of Markdown, and its data."""
    exposures = 20_000 if full else 3_000
    with tempfile.TemporaryDirectory(prefix="vitriflow-scanning-") as name:
        folder = Path(name)
        few = _rounds(folder / "few", exposures, folders=3)
        many = _rounds(folder / "many", exposures, folders=40)
        half = _rounds(folder / "half", exposures // 2, folders=3)
        latency = _latency(folder / "live", 40 if full else 10)
    rows = [
        (
            f"{one['exposures']:,} in {one['folders']} folders",
            *(f"{one[k] * 1e3:.0f}" for k in ("first_s", "active_s", "cold_s")),
        )
        for one in (few, many, half)
    ]
    text = [
        "## Looking at a session",
        "",
        f"CPU of one look at {len(SUFFIXES)} files for each exposure: the first one, one while a folder is being "
        "written to (one new exposure each), and one when no folder changed for a while. ",
        "",
        table(("exposures", "first (ms)", "active (ms)", "cold (ms)"), rows),
        "",
        f"From complete on disk to recognised in the catalog, at the default settings (scan every 1 s, quiet for 2 s): "
        f"p50 {latency['p50_s']:.1f} s, p95 {latency['p95_s']:.1f} s over {latency['exposures']} movies.",
    ]
    return "\n".join(text), {
        "few": few,
        "many": many,
        "half": half,
        "latency": latency,
        "limit_cpu_s": LIMIT_CPU_S,
    }


def _rounds(folder: Path, exposures: int, folders: int) -> dict[str, Any]:
    """CPU of whole looks, rows and all, once everything that's there is in the catalog."""
    contents = _contents(folder)
    source = folder / "source"
    for number in range(folders):
        (source / f"GridSquare_{number}" / "Data").mkdir(parents=True)
    for number in range(exposures):
        where = source / f"GridSquare_{number * folders // exposures}" / "Data"
        _expose(where / f"FoilHole_{number}_Data_1_2", contents)
    clock = Clock()
    catalog, session_id = _session(folder, source)
    intake = Intake(catalog, session_id, source, clock=clock)
    first = _cpu(intake.look)
    while (report := intake.look()).waiting or report.settling or report.completed:
        clock.now += 2.0
    active = []
    last = source / f"GridSquare_{folders - 1}" / "Data"
    for turn in range(10):
        clock.now += 3.0
        _expose(last / f"FoilHole_new{turn}_Data_1_2", contents)
        active.append(_cpu(intake.look))
    cold = []
    clock.now += 2 * HOT_S
    for turn in range(60):  # each folder that's cold is listed once more, and then left alone
        clock.now += 1.0
        cost = _cpu(intake.look)
        if turn >= 40:
            cold.append(cost)
    catalog.close()
    return {
        "exposures": exposures,
        "folders": folders,
        "first_s": first,
        "active_s": statistics.median(active),
        "cold_s": statistics.median(cold),
    }


def _contents(folder: Path) -> list[bytes]:
    """Contents of the files of one exposure, as small as they can be."""
    folder.mkdir(parents=True)
    found = []
    for frames in (2, 1):
        with MrcWriter(
            folder / "m.mrc", (8, 8), np.dtype(np.uint8), pixel_size_A=1.0, n_frames=frames
        ) as movie:
            for _ in range(frames):
                movie.write(np.ones((8, 8), np.uint8))
        found.append((folder / "m.mrc").read_bytes())
    return [found[0], b"<x/>", b"jpg", found[1]]


def _expose(stem: Path, contents: list[bytes]) -> None:
    for suffix, data in zip(SUFFIXES, contents, strict=True):
        Path(f"{stem}{suffix}").write_bytes(data)


def _session(folder: Path, source: Path) -> tuple[Catalog, int]:
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    upgrade(catalog)
    session = open_session(
        catalog,
        key="bench",
        source=source,
        microscope="tem1",
        experiment="e",
        sample="s",
        settings={},
        root_of=lambda _when: folder / "root",
    )
    return catalog, session.id


def _cpu(work: Any) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _latency(folder: Path, exposures: int) -> dict[str, Any]:
    """Movies that appear one after the other, watched at the default settings."""
    source = folder / "source"
    source.mkdir(parents=True)
    catalog, session_id = _session(folder, source)
    settings = Config().acquisition
    intake = Intake(catalog, session_id, source, quiet_s=settings.quiet_s, patience_s=settings.patience_s)
    frame = np.random.default_rng(1).poisson(1.0, (256, 256)).astype(np.uint8)
    written: dict[str, float] = {}

    def camera() -> None:
        for number in range(exposures):
            name = f"m{number}.mrc"
            with MrcWriter(source / name, frame.shape, frame.dtype, pixel_size_A=1.0, n_frames=8) as movie:
                for _ in range(8):
                    movie.write(frame)
            written[name] = time.time()
            time.sleep(0.37)

    thread = threading.Thread(target=camera)
    thread.start()
    done: dict[str, float] = {}
    while len(done) < exposures:
        intake.look()
        query = select(Exposure.key).where(Exposure.state == ExposureState.COMPLETE)
        moment = time.time()
        for key in catalog.read(lambda orm, query=query: list(orm.scalars(query))):  # type: ignore[misc]
            done.setdefault(key, moment)
        time.sleep(settings.scan_interval_s)
    thread.join()
    catalog.close()
    waits = sorted(done[key] - written[key] for key in done)
    return {
        "exposures": exposures,
        "p50_s": statistics.median(waits),
        "p95_s": waits[min(len(waits) - 1, int(0.95 * len(waits)))],
    }
