"""Copying with proof against dd with a sync and a comparison that bypasses the page cache, and a camera's bursts.

Both work on the same files and the same disk, taking turns. For the peer, each file is copied by
``dd conv=fsync``, and then compared by ``cmp`` with its source as the cache has it, the copy being
read by ``dd iflag=direct``. Ours is the acquisition as it runs: rows, hashes, manifest and all.
"""

import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from blake3 import blake3
from sqlalchemy import func, select

from benchmarks.measure import table
from vitriflow.catalog import Catalog, FileState, SourceFile, upgrade
from vitriflow.config import Config
from vitriflow.elogbook import open_session
from vitriflow.facility.acquire import SessionAcquisition
from vitriflow.storage import newest_lines

MB = 1e6
K2_BYTES_PER_S = 570 * MB
PARALLEL = 4


def run(full: bool) -> tuple[str, dict[str, Any]]:
    """Measure; a section of Markdown, and its data."""
    with tempfile.TemporaryDirectory(
        prefix="vitriflow-copying-", dir=os.environ.get("VITRIFLOW_BENCH_CACHE")
    ) as name:
        folder = Path(name)
        rates = _rates(folder, 12 if full else 6, int((300 if full else 48) * MB), 5 if full else 3)
        burst = _burst(folder / "burst", seconds=6.0 if full else 2.0, bursts=4 if full else 2)
    hashing = _hashing()
    data = {**rates, "burst": burst, "hashing_MB_per_s": hashing}
    rows = [
        (name, f"{values[1]:.0f}", f"{values[0]:.0f} to {values[2]:.0f}")
        for name, values in (
            ("dd and compare", rates["peer_MB_per_s"]),
            ("vitriflow", rates["ours_MB_per_s"]),
        )
    ]
    text = [
        "## Copy and proof",
        "",
        f"{rates['files']} files of {rates['file_MB']:.0f} MB, copied, synced and read back past the page cache by "
        f"{', '.join(rates['methods'])}; both take turns on one disk, {PARALLEL} files side by side. "
        f"Ratio: {rates['ratio']:.2f}. Hashing alone: {hashing:.0f} MB/s on one core. "
        f"Memory grew by {rates['memory_growth_MB']:.0f} MB from the first round to the last.",
        "",
        table(("", "MB/s (median)", "range"), rows),
        "",
        f"A camera that writes {burst['written_MB']:.0f} MB in {burst['bursts']} bursts at "
        f"{burst['rate_MB_per_s']:.0f} MB/s (asked: {K2_BYTES_PER_S / MB:.0f}) with pauses as long: "
        f"{burst['left_MB']:.0f} MB were not proved when it ended, and it took {burst['drain_s']:.1f} s to prove them.",
    ]
    return "\n".join(text), data


# -- the rate ---------------------------------------------------------------------------------------


def _rates(folder: Path, files: int, size: int, rounds: int) -> dict[str, Any]:
    source = folder / "source"
    source.mkdir()
    for number in range(files):
        _write(source / f"f{number}.dat", size, number)
    os.sync()
    peer, ours, methods, memory = [], [], set(), []
    for turn in range(rounds + 1):  # the first round warms the cache with the sources, and isn't counted
        seconds = _peer(source, folder / "peer")
        took, how = _ours(source, folder / f"ours{turn}")
        memory.append(psutil.Process().memory_info().rss)
        methods |= how
        if turn:
            peer.append(files * size / MB / seconds)
            ours.append(files * size / MB / took)
    return {
        "files": files,
        "file_MB": size / MB,
        "peer_MB_per_s": _spread(peer),
        "ours_MB_per_s": _spread(ours),
        "ratio": statistics.median(o / p for o, p in zip(ours, peer, strict=True)),
        "methods": sorted(methods),
        "memory_growth_MB": (memory[-1] - memory[0]) / MB,
    }


def _spread(values: list[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


def _write(path: Path, size: int, seed: int) -> None:
    block = blake3(str(seed).encode()).digest(length=4 * 1024 * 1024)
    with path.open("wb", buffering=0) as stream:
        for place in range(0, size, len(block)):
            stream.write(place.to_bytes(8, "little"))
            stream.write(memoryview(block)[8 : min(len(block), max(size - place, 8))])


def _peer(source: Path, destination: Path) -> float:
    """dd with a sync, then a comparison of the copy, read with O_DIRECT, with its source; several side by side."""
    destination.mkdir()
    script = 'dd if="$1" of="$2" bs=4M conv=fsync status=none && dd if="$2" bs=4M iflag=direct status=none | cmp - "$1"'
    waiting = sorted(source.iterdir())
    started = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    while waiting or running:
        while waiting and len(running) < PARALLEL:
            path = waiting.pop()
            running.append(
                subprocess.Popen(["bash", "-c", script, "-", str(path), str(destination / path.name)])
            )
        done = running.pop(0)
        if done.wait():
            raise RuntimeError("dd or cmp failed")
    took = time.perf_counter() - started
    shutil.rmtree(destination)
    return took


def _ours(source: Path, folder: Path) -> tuple[float, set[str]]:
    """The acquisition, from the first file known to be whole to the last one proved."""
    catalog, acquisition = _acquisition(source, folder)
    stop = threading.Event()
    thread = threading.Thread(target=acquisition.run, args=(stop,))
    files = len(list(source.iterdir()))
    thread.start()
    while _proved(catalog)[0] < files:
        time.sleep(0.2)  # what counts is in the rows
    stop.set()
    thread.join()

    def span(orm: Any) -> float:
        first, last = orm.execute(
            select(func.min(SourceFile.complete_at), func.max(SourceFile.proved_at))
        ).one()
        return float((last - first).total_seconds())

    took = catalog.read(span)
    methods = {line.method for line in newest_lines(folder / "root" / "manifest.jsonl").values()}
    acquisition.close()
    catalog.close()
    shutil.rmtree(folder)
    return took, methods


def _acquisition(source: Path, folder: Path) -> tuple[Catalog, SessionAcquisition]:
    folder.mkdir()
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
        mode="copy",
    )
    settings = {"scan_interval_s": 0.5, "quiet_s": 0.5, "parallel_copies": PARALLEL}
    config = Config.model_validate({"acquisition": settings})
    return catalog, SessionAcquisition(config, catalog, session.id)


def _proved(catalog: Catalog) -> tuple[int, float]:
    query = select(func.count(), func.sum(SourceFile.size)).where(SourceFile.state == FileState.PROVED)
    number, size = catalog.read(lambda orm: orm.execute(query).one())
    return int(number), float(size or 0)


# -- a camera that writes in bursts --------------------------------------------------------------------


def _burst(folder: Path, *, seconds: float, bursts: int, movie: int = int(95 * MB)) -> dict[str, Any]:
    """A K2 writes movies as fast as it does, pauses, and writes again, on the disk that is copied to too."""
    folder.mkdir()
    source = folder / "source"
    source.mkdir()
    catalog, acquisition = _acquisition(source, folder / "ours")
    stop = threading.Event()
    thread = threading.Thread(target=acquisition.run, args=(stop,))
    thread.start()
    written, writing_s, number = 0, 0.0, 0
    for _ in range(bursts):
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            due = written / K2_BYTES_PER_S - writing_s - (time.perf_counter() - started)
            time.sleep(max(0.0, due))
            _write(source / f"m{number}.dat", movie, number)
            written, number = written + movie, number + 1
        writing_s += time.perf_counter() - started
        time.sleep(seconds)
    left = written - _proved(catalog)[1]
    ended = time.perf_counter()
    while _proved(catalog)[0] < number:
        time.sleep(0.05)
    drain = time.perf_counter() - ended
    stop.set()
    thread.join()
    acquisition.close()
    catalog.close()
    return {
        "bursts": bursts,
        "written_MB": written / MB,
        "rate_MB_per_s": written / MB / writing_s,
        "left_MB": left / MB,
        "drain_s": drain,
    }


def _hashing() -> float:
    block = os.urandom(64 * 1024 * 1024)
    started = time.perf_counter()
    for _ in range(4):
        blake3(block).hexdigest()
    return 4 * len(block) / MB / (time.perf_counter() - started)
