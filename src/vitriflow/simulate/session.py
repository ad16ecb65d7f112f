"""A microscope at work: makes movies, lets them trickle to disk in time, and keeps the truth aside.

::

    OUT/microscope/<session>/...   what the microscope writes; the only part to watch
    OUT/truth/session.json         what was asked for
    OUT/truth/<movie stem>.json    the truth of each movie
    OUT/.pool/                     finished movies on their way; gone at the end
"""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from vitriflow.errors import BadParameter, VitriflowError
from vitriflow.simulate.detector import make_camera
from vitriflow.simulate.layouts import LAYOUTS, Layout
from vitriflow.simulate.movie import simulate_movie
from vitriflow.simulate.plan import Exposure, Fault, FileFormat, SessionSpec, plan_session
from vitriflow.simulate.writing import spoil, trickle, write_gain, write_movie

MICROSCOPE, TRUTH, _POOL = "microscope", "truth", ".pool"
# Faults of the pixels need a movie of their own; those of the file are made on the way out
_PIXEL_FAULTS = {Fault.ZEROS, Fault.CONSTANT, Fault.NAN, Fault.WRONG_SIZE}


@dataclass(frozen=True)
class Written:
    """One movie that is on disk now.

    Attributes
    ----------
    exposure
        Its plan.
    movie
        Its path.
    truth
        Path of its truth.
    behind_s
        How late its start was against the plan (s).
    """

    exposure: Exposure
    movie: Path
    truth: Path
    behind_s: float


@dataclass
class SessionReport:
    """What a finished, or stopped, session left."""

    microscope: Path
    truth: Path
    gain: Path
    movies: list[Written] = field(default_factory=list)
    stopped: bool = False


@dataclass(frozen=True)
class _Made:
    """A movie of the pool."""

    path: Path
    jpeg: bytes
    truth: dict[str, Any]


class _Pool:
    """Makes each unique movie once and keeps its file while it's needed again."""

    def __init__(self, folder: Path, session: SessionSpec, planned: list[Exposure]) -> None:
        self._folder = folder
        self._session = session
        self._made: dict[tuple[int, Fault | None], _Made] = {}
        self._left: dict[tuple[int, Fault | None], int] = {}
        for exposure in planned:
            key = self._key(exposure)
            self._left[key] = self._left.get(key, 0) + 1

    @staticmethod
    def _key(exposure: Exposure) -> tuple[int, Fault | None]:
        return exposure.pool, exposure.fault if exposure.fault in _PIXEL_FAULTS else None

    def get(self, exposure: Exposure) -> _Made:
        """The movie that an exposure shows, made now if it's the first of its kind."""
        key = self._key(exposure)
        if key not in self._made:
            movie = simulate_movie(exposure.movie)
            path = self._folder / f"{key[0]}-{key[1] or 'sound'}"
            jpeg = write_movie(movie, path, self._session, key[1])
            self._made[key] = _Made(path, jpeg, movie.truth.to_dict())
        return self._made[key]

    def release(self, exposure: Exposure) -> None:
        """Forget a movie whose last copy was written."""
        key = self._key(exposure)
        self._left[key] -= 1
        if self._left[key] == 0:
            self._made.pop(key).path.unlink()


def simulate_session(
    session: SessionSpec,
    out: Path,
    on_written: Callable[[Written], None] | None = None,
    stop: Event | None = None,
) -> SessionReport:
    """Play a session into a folder, in real time.

    Movie n starts ``n x every_s`` after the first, or as soon after as it's made. The gain
    reference is there before the first movie; metadata follow each movie.

    Parameters
    ----------
    session
        What to play.
    out
        Folder for ``microscope`` and ``truth``; made if missing. Its ``microscope/<name>`` must
        not hold anything yet.
    on_written
        Called from the thread that writes, as soon as a movie and its metadata are on disk.
    stop
        Set it to end early; a movie on its way stays cut off, as when a microscope crashes.

    Returns
    -------
    SessionReport
        Where everything is.

    Raises
    ------
    BadParameter
        When the folder is in use, or the format can't hold the fault asked for.
    BadFile
        When the specimen or motion file can't be used.
    VitriflowError
        When the folder can't be written to, or its disk is full.
    """
    stop = stop or Event()
    out = Path(out)
    if session.started_at is None:
        session = session.model_copy(update={"started_at": datetime.now(UTC)})
    layout = LAYOUTS[session.layout](session, out / MICROSCOPE)
    planned = plan_session(session)
    report = SessionReport(layout.root, out / TRUTH, layout.gain_path)
    try:
        _prepare(session, layout, out)
        _play(session, layout, planned, report, on_written, stop)
    except OSError as error:
        raise VitriflowError(
            str(out), "a folder that can be written to", str(error), "Free space there or choose another."
        ) from error
    finally:
        shutil.rmtree(out / _POOL, ignore_errors=True)
    report.stopped = len(report.movies) < len(planned)
    return report


def _prepare(session: SessionSpec, layout: Layout, out: Path) -> None:
    """Refuse what can't be played; else write what is there before the first movie."""
    if Fault.NAN in session.faults and session.format is FileFormat.EER:
        raise BadParameter("fault nan", "a format with float values: mrc or tiff", "eer", "Choose another.")
    if layout.root.exists() and any(layout.root.iterdir()):
        raise BadParameter(
            str(layout.root), "a new or empty folder", "files in it", "Choose another name or output folder."
        )
    for folder in (layout.root, out / TRUTH, out / _POOL):
        folder.mkdir(parents=True, exist_ok=True)
    _put(out / TRUTH / "session.json", json.dumps(session.model_dump(mode="json"), indent=1).encode())
    for path, content in layout.skeleton().items():
        _put(path, content)
    layout.gain_path.parent.mkdir(parents=True, exist_ok=True)
    write_gain(layout.gain_path, make_camera(session.movie).gain, session.movie.pixel_size_A)


def _play(
    session: SessionSpec,
    layout: Layout,
    planned: list[Exposure],
    report: SessionReport,
    on_written: Callable[[Written], None] | None,
    stop: Event,
) -> None:
    """Make the next movie while the last one is being written."""
    pool = _Pool(layout.root.parent.parent / _POOL, session, planned)
    started: float | None = None
    writing: Future[Written | None] | None = None

    def finish() -> None:
        written = writing.result() if writing is not None else None
        if written is not None:
            pool.release(written.exposure)
            report.movies.append(written)

    def write(exposure: Exposure, made: _Made, behind_s: float) -> Written | None:
        written = _write_one(session, layout, exposure, made, report.truth, behind_s, stop)
        if written is not None and on_written is not None:
            on_written(written)
        return written

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="microscope") as camera:
        for exposure in planned:
            if stop.is_set():
                break
            made = pool.get(exposure)
            finish()
            writing = None
            now = time.monotonic()
            started = now if started is None else started
            due = started + (exposure.number - 1) * session.every_s
            if stop.wait(max(due - now, 0.0)):
                break
            behind = max(time.monotonic() - due, 0.0) if session.every_s > 0 else 0.0
            writing = camera.submit(write, exposure, made, behind)
        finish()


def _write_one(
    session: SessionSpec,
    layout: Layout,
    exposure: Exposure,
    made: _Made,
    truth_folder: Path,
    behind_s: float,
    stop: Event,
) -> Written | None:
    """Truth first, then the movie, then what follows it; None when stopped half-way."""
    movie_path = layout.movie_path(exposure)
    truth_path = truth_folder / f"{movie_path.stem}.json"
    record = {
        "movie": str(movie_path.relative_to(layout.root.parent)),
        "number": exposure.number,
        "unique": exposure.pool,
        "fault": exposure.fault,
        "position": exposure.position,
        "hole": exposure.hole,
        "beam_shift": exposure.beam_shift,
        "tilt_angle_deg": exposure.tilt_deg,
        "dose_before_e_per_A2": exposure.dose_before_e_per_A2,
        "nominal_defocus_A": exposure.nominal_defocus_A,
        "gain": str(layout.gain_path.relative_to(layout.root.parent)),
        **made.truth,
    }
    _put(truth_path, json.dumps(record).encode())
    source = made.path
    if exposure.fault in {Fault.TRUNCATED, Fault.EMPTY, Fault.GARBAGE}:
        source = made.path.with_suffix(".spoilt")
        shutil.copyfile(made.path, source)
        spoil(source, exposure.fault, session.seed + exposure.number)
    targets = [movie_path]
    if exposure.fault is Fault.DUPLICATE:
        targets.append(layout.duplicate_path(exposure))
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not trickle(source, target, session.write_s, stop):
            return None
    if source is not made.path:
        source.unlink()
    for number, (path, content) in enumerate(layout.beside(exposure, made.jpeg).items()):
        metadata = number == 0
        if metadata and exposure.fault is Fault.NO_METADATA:
            continue
        _put(
            path,
            content[: len(content) // 2] if metadata and exposure.fault is Fault.BAD_METADATA else content,
        )
    return Written(exposure, movie_path, truth_path, behind_s)


def _put(path: Path, content: bytes) -> None:
    """Write a small file whole: it appears by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
