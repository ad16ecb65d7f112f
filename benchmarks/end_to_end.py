"""Movies in, results out: the whole pipeline as a user runs it.

First a backlog: all movies are there when ``vitriflow run FOLDER --once`` starts; that gives the
rate and each part's share. Then a live session: movies are copied in one by one, more slowly than
that rate; that gives the latency, from the end of the copy to the result in the catalog.
All movies are one simulated movie under different names.
"""

import json
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from benchmarks import peers
from benchmarks.inputs import Case, Made, make_movie
from benchmarks.measure import (
    CORES,
    Usage,
    load_note,
    measure,
    on_cores,
    plot_bars,
    results_folder,
    table,
    workspace,
)
from vitriflow.catalog import Catalog, Exposure, Measure, ResultRow
from vitriflow.formats import open_movie
from vitriflow.simulate import MovieSpec

DIAMETER_A = 120.0
_SLOWER = 1.4  # a live session's interval over the time that a movie takes
_PATIENCE_S = 1800.0
_QUIET_S = 2.0  # the configuration's default: a file must not have changed for so long
_NODES = ("motion", "ctf", "pick", "preview")
SPEC = MovieSpec(
    shape=(4096, 4096),
    n_frames=40,
    dose_per_frame_e_per_A2=1.0,
    defocus_u_A=15200,
    defocus_v_A=14800,
    particle_diameter_A=DIAMETER_A,
    seed=101,
)


def run(
    full: bool, *, spec: MovieSpec = SPEC, counts: tuple[int, int] | None = None
) -> tuple[str, dict[str, Any]]:
    """Play both; ``counts`` are the movies of the backlog and of the live session."""
    backlog, live = counts or ((24, 20) if full else (5, 4))
    before = load_note()
    with workspace("end_to_end") as folder, tempfile.TemporaryDirectory() as passing:
        made = make_movie(Case("session", spec), folder)
        first = _backlog(made, Path(passing) / "backlog", backlog)
        each_s = first["seconds_per_movie"]
        second = _live(made, Path(passing) / "live", live, _SLOWER * each_s)
        alone = _alone(made)
    data = {"before": before, "backlog": first, "live": second, "alone": alone, "file_MB": alone["file_MB"]}
    return _report(spec, data), data


def _command(folder: Path, made: Made, out: Path, *more: str) -> list[str | Path]:
    spec = made.case.spec
    settings = {
        "pixel_size_A": spec.pixel_size_A,
        "voltage_kV": spec.voltage_kV,
        "spherical_aberration_mm": spec.spherical_aberration_mm,
        "amplitude_contrast": spec.amplitude_contrast,
        "dose_per_frame_e_per_A2": spec.dose_per_frame_e_per_A2,
        "particle_diameter_A": spec.particle_diameter_A,
        "gain_reference": made.gain,
    }
    words: list[str | Path] = [
        *peers.CLI,
        "run",
        folder,
        "--out",
        out,
        "--template",
        "single-particle",
        *more,
    ]
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    return words


def _backlog(made: Made, at: Path, count: int) -> dict[str, Any]:
    """Process movies that are all there from the start."""
    source = at / "microscope"
    source.mkdir(parents=True)
    for number in range(count):
        (source / f"movie_{number:04d}{made.path.suffix}").hardlink_to(made.path)
    usage = measure(_command(source, made, at / "out", "--once"))
    found = _results(at / "out")
    return {"movies": count, **_rates(found, usage), **_shares(found)}


def _live(made: Made, at: Path, count: int, interval_s: float) -> dict[str, Any]:
    """Copy movies in one by one while the pipeline runs; stop when all have results."""
    source, out = at / "microscope", at / "out"
    source.mkdir(parents=True)
    with on_cores(CORES), (at / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in _command(source, made, out)], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_for(lambda: (out / "catalog.db").is_file(), process)
        time.sleep(3.0)
        copied: dict[str, datetime] = {}
        for number in range(count):
            if number:
                time.sleep(interval_s)
            name = f"movie_{number:04d}{made.path.suffix}"
            shutil.copyfile(made.path, source / name)
            copied[name] = datetime.now(UTC)
        _wait_for(lambda: sum(m.finished_at is not None for _, m in _measures(out)) >= count, process)
        finished = {key: one.finished_at for key, one in _measures(out) if one.finished_at is not None}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    waits = [(finished[name] - copied[name]).total_seconds() for name in copied]
    return {
        "movies": count,
        "interval_s": interval_s,
        "latency_s": waits,
        "latency_p50_s": float(np.percentile(waits, 50)),
        "latency_p95_s": float(np.percentile(waits, 95)),
        "quiet_s": _QUIET_S,
    }


def _wait_for(done: Any, process: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + _PATIENCE_S
    while not done():
        if process.poll() is not None:
            raise RuntimeError(f"vitriflow run ended with {process.returncode} before its time")
        if time.monotonic() > limit:
            raise TimeoutError("the session didn't come to its end")
        time.sleep(0.5)


def _measures(out: Path) -> list[tuple[str, Measure]]:
    catalog = Catalog(f"sqlite:///{out / 'catalog.db'}")
    try:
        query = select(Exposure.key, Measure).join(Measure, Measure.exposure_id == Exposure.id)
        return catalog.read(lambda orm: [(key, one) for key, one in orm.execute(query)])
    finally:
        catalog.close()


def _results(out: Path) -> dict[str, Any]:
    """Records by exposure and node, and when each exposure came and went."""
    catalog = Catalog(f"sqlite:///{out / 'catalog.db'}")

    def work(orm: OrmSession) -> dict[str, Any]:
        records: dict[int, dict[str, Any]] = defaultdict(dict)
        for row in orm.scalars(select(ResultRow)):
            records[row.item_id][row.node] = row.record
        exposures = {row.id: row for row in orm.scalars(select(Exposure))}
        measures = {row.exposure_id: row for row in orm.scalars(select(Measure))}
        return {
            "records": dict(records),
            "seen": {key: row.first_seen_at for key, row in exposures.items()},
            "complete": {key: row.complete_at for key, row in exposures.items()},
            "finished": {key: row.finished_at for key, row in measures.items()},
            "status": [row.status for row in measures.values()],
        }

    try:
        return catalog.read(work)
    finally:
        catalog.close()


def _rates(found: dict[str, Any], usage: Usage) -> dict[str, Any]:
    ends = sorted(end for end in found["finished"].values() if end is not None)
    # From the first result to the last: what starting up takes once isn't a movie's.
    steady = (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1) if len(ends) > 1 else usage.wall_s
    return {
        "status": {name: found["status"].count(name) for name in sorted(set(found["status"]))},
        "wall_s": usage.wall_s,
        "seconds_per_movie": steady,
        "movies_per_hour": 3600.0 / steady,
        "movies_per_hour_with_start": 3600.0 * len(ends) / usage.wall_s,
        "cpu_s_per_movie": usage.cpu_s / max(len(ends), 1),
        "peak_GB_of_all_processes": usage.peak_bytes / 1e9,
    }


def _shares(found: dict[str, Any]) -> dict[str, Any]:
    """Seconds of each node: the median over movies but the first, which warms the worker up."""
    ordered = sorted(found["records"], key=lambda item: found["finished"][item])
    warm = ordered[1:] or ordered
    nodes = {
        node: statistics.median(found["records"][item][node]["seconds"] for item in warm)
        for node in _NODES
        if all(node in found["records"][item] for item in warm)
    }
    records = [record for nodes in found["records"].values() for record in nodes.values()]
    return {
        "node_s": nodes,
        "first_movie_s": sum(record["seconds"] for record in found["records"][ordered[0]].values()),
        "worker_peak_GB": max(record["peak_memory_bytes"] for record in records) / 1e9,
    }


def _alone(made: Made) -> dict[str, float]:
    """What reading, hashing and decoding one movie take by themselves, on the same cores."""
    block = 1 << 22
    with on_cores(CORES):
        started = time.perf_counter()
        digest = blake3()
        with made.path.open("rb") as file:
            while piece := file.read(block):
                digest.update(piece)
        hashed = time.perf_counter() - started
        started = time.perf_counter()
        with open_movie(made.path) as movie:
            for _ in movie.frames(0, movie.n_frames, workers=CORES):
                pass
        decoded = time.perf_counter() - started
    return {"hash_s": hashed, "decode_s": decoded, "file_MB": made.path.stat().st_size / 1e6}


def _report(spec: MovieSpec, data: dict[str, Any]) -> str:
    backlog, live, alone = data["backlog"], data["live"], data["alone"]
    total, nodes = backlog["seconds_per_movie"], backlog["node_s"]
    parts = dict(nodes)
    if "motion" in parts:
        parts = {
            "motion: decoding (as measured alone)": min(alone["decode_s"], nodes["motion"]),
            "motion: the rest": nodes["motion"] - min(alone["decode_s"], nodes["motion"]),
            **{name: value for name, value in nodes.items() if name != "motion"},
        }
    parts["everything else: intake, hashing, engine, catalog, RELION project"] = max(
        total - sum(nodes.values()), 0.0
    )
    plot_bars(results_folder() / "end_to_end.png", {"one movie": parts}, "s", "Where a movie's time goes")
    rows = [(name, f"{value:.2f}", f"{value / total:.0%}") for name, value in parts.items()]
    status = ", ".join(f"{number} {name}" for name, number in backlog["status"].items())
    return "\n".join(
        [
            "## End to end",
            "",
            (__doc__ or "").split("\n\n", 1)[1].strip(),
            "",
            f"{backlog['movies']} movies of {spec.shape[1]} x {spec.shape[0]} x {spec.n_frames}, LZW TIFF of "
            f"{data['file_MB']:.0f} MB, {CORES} cores, no GPU ({status}):",
            "",
            f"- **{backlog['movies_per_hour']:.0f} movies/hour** ({total:.1f} s a movie from the first result to "
            f"the last; {backlog['movies_per_hour_with_start']:.0f} with the start of all programs counted)",
            f"- peak memory of a worker {backlog['worker_peak_GB']:.2f} GB (goal: under 3); of all processes "
            f"together {backlog['peak_GB_of_all_processes']:.2f} GB",
            f"- latency of a live session of {live['movies']} movies, one every {live['interval_s']:.0f} s: "
            f"p50 {live['latency_p50_s']:.1f} s, p95 {live['latency_p95_s']:.1f} s, of which "
            f"{live['quiet_s']:g} s are waiting whether a file still grows",
            f"- hashing one movie alone takes {alone['hash_s']:.2f} s, decoding it {alone['decode_s']:.2f} s",
            "",
            table(("part", "s a movie", "share"), rows),
            "",
            "![Where a movie's time goes](end_to_end.png)",
            "",
        ]
    )


if __name__ == "__main__":
    text, values = run(full=False)
    print(text)
    print(json.dumps(values, indent=2))
