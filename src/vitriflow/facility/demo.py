"""The demo: a simulated microscope, the pipeline and the pages, judged against the truth."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import Catalog, Exposure, Measure, ResultRow
from vitriflow.config import Config
from vitriflow.errors import BadParameter, VitriflowError
from vitriflow.facility.judging import Comparison, compare, load_truth
from vitriflow.facility.run import Progress, RunRequest, SessionRun
from vitriflow.simulate import MovieSpec

SHAPE, FRAMES = "2048x2048", 16
DIAMETER_A = 120.0
SESSION = "demo"
_MARK = ".vitriflow-demo"
_CLI = (sys.executable, "-m", "vitriflow.cli")


@dataclass(frozen=True)
class DemoRequest:
    """How large a demo: ``every_s`` is the microscope's rhythm (s)."""

    out: Path
    exposures: int = 12
    every_s: float = 12.0
    once: bool = False
    seed: int = 1


@dataclass
class DemoReport:
    """What was found, against what was put in."""

    comparisons: list[Comparison] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    expected: int = 0

    def failures(self) -> list[str]:
        """Everything outside its tolerance, and every movie without a result."""
        found = [f"{c.item}: {text}" for c in self.comparisons for text in c.failures()]
        missing = self.expected - len(self.comparisons)
        if missing:
            found.append(f"{missing} of {self.expected} movies have no result")
        return found

    def latency(self, percent: float) -> float | None:
        """Percentile of the time from file complete to result on the page (s)."""
        return float(np.percentile(self.latencies_s, percent)) if self.latencies_s else None


def clear_demo(out: Path) -> None:
    """Remove what an earlier demo left in its folder; refuse a folder that holds anything else.

    Raises
    ------
    BadParameter
        When the folder isn't empty and wasn't made by the demo.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise BadParameter(
            str(out), "a new folder, or one that a demo made", "other files in it", "Name another with --out."
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).write_text("Made by 'vitriflow demo', which replaces it.\n", encoding="utf-8")


class Microscope:
    """The simulator as a process of its own, as a real microscope is."""

    def __init__(self, request: DemoRequest) -> None:
        self.folder = request.out / "microscope" / SESSION
        self.truth = request.out / "truth"
        self._log = request.out / "microscope.log"
        command = [*_CLI, "simulate", str(request.out), "--name", SESSION, "--layout", "epu"]
        command += ["--exposures", str(request.exposures), "--every", str(request.every_s)]
        command += ["--write-seconds", str(min(4.0, request.every_s / 3)), "--format", "tiff-lzw"]
        command += ["--shape", SHAPE, "--frames", str(FRAMES), "--diameter", str(DIAMETER_A)]
        command += ["--defocus", "12000:18000", "--astigmatism", "250", "--dose", "2.0"]
        command += ["--seed", str(request.seed)]
        request.out.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def wait_for_folder(self) -> Path:
        """Return the gain reference when the microscope's folder is there with it."""
        waiting = threading.Event()
        while True:
            gains = sorted(self.folder.rglob("*ain*.*")) if self.folder.is_dir() else []
            if gains:
                return gains[0]
            if not self.running:
                raise VitriflowError("the simulated microscope", "a session", self.last_words())
            waiting.wait(0.2)

    @property
    def running(self) -> bool:
        """Whether it's still writing."""
        return self._process.poll() is None

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self._process.poll() not in (None, 0)

    def last_words(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace").strip()[-400:] or "no output"

    def stop(self) -> None:
        """End it."""
        if self.running:
            self._process.terminate()
        self._process.wait(30)


def run_demo(
    config: Config,
    catalog: Catalog,
    request: DemoRequest,
    on_start: Callable[[SessionRun], None],
    on_progress: Callable[[Progress], None],
    stopped: threading.Event,
) -> DemoReport:
    """Play the demo and judge it.

    With ``request.once`` it ends when the last movie is processed, else when ``stopped`` is set.

    Raises
    ------
    VitriflowError
        When the simulated microscope fails.
    """
    microscope = Microscope(request)
    try:
        gain = microscope.wait_for_folder()
        session_run = SessionRun(
            config,
            catalog,
            RunRequest(
                source=microscope.folder,
                experiment="demo",
                sample="phantom",
                session=SESSION,
                template="single-particle",
                parameters={
                    "particle_diameter_A": DIAMETER_A,
                    "gain_reference": str(gain),
                    "amplitude_contrast": MovieSpec().amplitude_contrast,  # no file says it
                },
            ),
        )
        on_start(session_run)
        watch = threading.Thread(
            target=_end_when_done, args=(session_run, microscope, request, stopped), daemon=True
        )
        watch.start()
        session_run.run(on_progress)
        if not stopped.is_set() and microscope.failed:
            raise VitriflowError("the simulated microscope", "to write its movies", microscope.last_words())
        return judge_session(catalog, session_run, microscope.truth)
    finally:
        microscope.stop()


def _end_when_done(
    session_run: SessionRun,
    microscope: Microscope,
    request: DemoRequest,
    stopped: threading.Event,
) -> None:
    """Stop the run when the person asks, or with ``once`` when nothing more will come."""
    while not stopped.wait(0.5):
        if request.once and not microscope.running and session_run.settled(request.exposures):
            break
    session_run.stop()


def judge_session(catalog: Catalog, session_run: SessionRun, truth_folder: Path) -> DemoReport:
    """Compare all results of a simulated session with its truth."""

    def work(orm: OrmSession) -> tuple[list[Exposure], list[ResultRow], list[float]]:
        exposures = list(orm.scalars(select(Exposure).where(Exposure.session_id == session_run.session.id)))
        where = ResultRow.processing_id == session_run.processing_id
        results = list(orm.scalars(select(ResultRow).where(where, ResultRow.status == "done")))
        latencies = select(Measure.latency_s).where(Measure.processing_id == session_run.processing_id)
        return exposures, results, [value for value in orm.scalars(latencies) if value is not None]

    exposures, results, latencies = catalog.read(work)
    records: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in results:
        records.setdefault(row.item_id, {})[row.record["step"]] = row.record
    report = DemoReport(latencies_s=latencies, expected=_expected(truth_folder))
    for exposure in sorted(exposures, key=lambda row: row.id):
        path = truth_folder / f"{Path(exposure.key).stem}.json"
        found = records.get(exposure.id, {})
        if path.is_file() and found:
            report.comparisons.append(
                compare(
                    Path(exposure.item).name,
                    load_truth(path),
                    found.get("motion.native"),
                    found.get("ctf.native"),
                    found.get("pick.dog"),
                )
            )
    return report


def _expected(truth_folder: Path) -> int:
    """Movies whose truth was written and that have no fault on purpose."""
    count = 0
    for path in truth_folder.glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        count += "particles_px" in record and not record.get("fault")
    return count
