"""Motion correction against RELION's own: time, memory, and error against the truth.

Two times are shown for vitriflow, since a worker lives for many movies: the whole command, cold
(it starts Python and loads torch and compiled kernels), and the step in a worker that has done a
movie before. RELION's is its whole command, which is all that it does for one movie.
"""

import os
import shutil
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import peer_aretomo, peers
from benchmarks.inputs import Case, Made, make_movie
from benchmarks.measure import (
    CACHE_VARIABLE,
    CORES,
    Failed,
    Series,
    Spread,
    Turn,
    alternate,
    load_note,
    plot_scatter,
    results_folder,
    table,
    workspace,
)
from benchmarks.motion_cases import full_cases, short_cases
from vitriflow.kernels.motion_field import MotionField
from vitriflow.simulate import Truth

_EVALUATED = 16  # points along each side where errors are taken
GOAL_WORSE_PX = 0.02


@dataclass(frozen=True)
class Error:
    """RMS errors of shifts over the field, all frames and both axes (px of the movie).

    ``blurring_px`` leaves out what is the same in all frames at a place: that only moves or
    distorts the sum, and blurs nothing. ``anchored_px`` is that of shifts against frame 1, so the
    error of finding frame 1 counts in every frame.
    """

    blurring_px: float
    anchored_px: float


def field_error(found: MotionField, truth: Truth) -> Error:
    """Errors of a motion against the truth, at 16 x 16 points of the field."""
    height, width = truth.spec.shape
    grid = (np.arange(_EVALUATED) + 0.5) / _EVALUATED
    y, x = np.meshgrid(grid * height, grid * width, indexing="ij")
    frames = range(truth.motion.n_frames)
    true = np.stack([truth.motion.at(frame, y.ravel(), x.ravel()).T for frame in frames])
    difference = found.at(y.ravel(), x.ravel()) - true
    return Error(_rms(difference - difference.mean(axis=0)), _rms(difference - difference[:1]))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


@dataclass(frozen=True)
class Outcome:
    """One movie through both programs."""

    made: Made
    series: dict[str, Series]
    native: Error | None
    native_star: Error | None
    native_said: str
    relion: Error | None
    motioncor: Error | None
    file_MB: float

    def record(self) -> dict[str, Any]:
        spec = self.made.case.spec
        return {
            "case": self.made.case.name,
            "shape": list(spec.shape),
            "n_frames": spec.n_frames,
            "dose_per_pixel_and_frame": spec.dose_per_pixel,
            "format": str(self.made.case.format),
            "file_MB": self.file_MB,
            **{
                f"{name}_error": None if error is None else asdict(error)
                for name, error in (
                    ("native", self.native),
                    ("native_star", self.native_star),
                    ("relion", self.relion),
                    ("motioncor", self.motioncor),
                )
            },
            "native_said": self.native_said,
            "programs": {name: series.record() for name, series in self.series.items()},
        }


def race(made: Made, folder: Path, rounds: int, timed: bool = True) -> Outcome:
    """Let vitriflow, cold and warm, and the peers take turns on one movie; AreTomo only where time is told."""
    records: list[dict[str, Any]] = []
    stars: list[Path] = []
    logs: list[Path] = []
    settings = peers.motion_settings(made)
    folder.mkdir(parents=True, exist_ok=True)
    earlier = folder / f"earlier{made.path.suffix}"  # the same movie as the worker's one before
    earlier.symlink_to(made.path)

    def cold(_number: int) -> Turn:
        usage, found = peers.native_step("motion.native", [made.path], folder / "cold", settings, (0, 1))
        return Turn(usage, _told(found[0]))

    def warm(_number: int) -> Turn:
        files = [earlier, made.path]
        usage, found = peers.native_step("motion.native", files, folder / "warm", settings, (0, 1))
        records.append(found[1])
        return Turn(usage, _told(found[1]))

    def theirs(_number: int) -> Turn:
        turn, star = peers.relion_motion(made, folder / "relion")
        stars.append(star)
        return turn

    def other(_number: int) -> Turn:
        turn, log = peers.motioncor_motion(made, folder / "motioncor")
        logs.append(log)
        return turn

    programs = {"cold": cold, "warm": warm}
    if peers.relion() is not None:
        programs["relion"] = theirs
    if peers.motioncor() is not None:
        programs["motioncor"] = other
    if timed and peer_aretomo.aretomo() is not None:
        programs["aretomo"] = lambda _number: peer_aretomo.aretomo_motion(made, folder / "aretomo")
    series = alternate(programs, rounds)
    record, spec = records[-1], made.case.spec
    done = record["status"] == "done"
    return Outcome(
        made,
        series,
        field_error(peers.field_of_record(record, spec), made.truth) if done else None,
        field_error(peers.field_of_star(Path(record["motion"]), spec.shape), made.truth) if done else None,
        "; ".join([*(record["warnings"] or []), *([] if done else [record["reason"]])]),
        field_error(peers.field_of_star(stars[-1], spec.shape), made.truth) if stars else None,
        field_error(peers.field_of_motioncor(logs[-1], spec.shape), made.truth) if logs else None,
        round(made.path.stat().st_size / 1e6, 1),
    )


def _told(record: dict[str, Any]) -> dict[str, float]:
    return {"step_s": record["seconds"], "step_peak_GB": record["peak_memory_bytes"] / 1e9}


def run(
    full: bool, *, cases: Iterable[Case] | None = None, rounds: int | None = None
) -> tuple[str, dict[str, Any]]:
    """Race all cases, the first several times, since that's the one whose time is told."""
    chosen = list(cases) if cases is not None else (full_cases() if full else short_cases())
    outcomes: list[Outcome] = []
    failures: dict[str, str] = {}
    before = load_note()
    with workspace("motion") as folder, tempfile.TemporaryDirectory() as outputs:
        for number, case in enumerate(chosen):
            repeats = 1 if number else (rounds or (5 if full else 3))
            made = make_movie(case, folder)
            try:
                outcomes.append(race(made, Path(outputs) / case.name, repeats, timed=not number))
            except Failed as error:
                failures[case.name] = str(error)
            shutil.rmtree(Path(outputs) / case.name, ignore_errors=True)
            if CACHE_VARIABLE not in os.environ:
                shutil.rmtree(made.path.parent)
    return _report(outcomes, failures, before)


def _report(
    outcomes: list[Outcome], failures: dict[str, str], before: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    lines = ["## Motion correction", "", (__doc__ or "").split("\n\n", 1)[1].strip(), ""]
    data: dict[str, Any] = {"before": before, "cases": [outcome.record() for outcome in outcomes]}
    if outcomes:
        lines += [_times(outcomes[0]), "", _errors(outcomes), ""]
        summary = _summary(outcomes)
        data["summary"] = summary
        lines += [_summary_text(summary), ""]
        if peers.relion() is None:
            lines += ["RELION isn't installed here, so there's no peer: `apt-get install relion`.", ""]
        else:
            _plot(outcomes)
            lines += ["![Error of each movie](motion.png)", ""]
    for name, said in failures.items():
        lines += [f"{name} failed: {said}", ""]
    data["failures"] = failures
    return "\n".join(lines), data


def _times(outcome: Outcome) -> str:
    """Time and memory of one movie, and ratios within the run."""
    spec, series = outcome.made.case.spec, outcome.series
    rows = [
        _time_row("vitriflow, whole command", series["cold"], series["cold"].wall()),
        _time_row("vitriflow, step in a warm worker", series["warm"], series["warm"].extra("step_s")),
    ]
    text = (
        f"{spec.shape[1]} x {spec.shape[0]} x {spec.n_frames} {spec.dtype}, {outcome.made.case.format} of "
        f"{outcome.file_MB:.0f} MB, {spec.dose_per_pixel:g} e/px/frame, 5 x 5 patches, "
        f"dose-weighted and plain sums written, {CORES} cores, {len(series['cold'].turns)} rounds; "
        "median (least..greatest):\n\n"
    )
    if "relion" in series:
        rows.append(_time_row("RELION, whole command", series["relion"], series["relion"].wall()))
    if "motioncor" in series:
        rows.append(_time_row("MotionCor, on its GPU", series["motioncor"], series["motioncor"].wall()))
    if "aretomo" in series:
        name = f"AreTomo, one of {peer_aretomo.TILTS} movies of a series, on its GPU"
        rows.append(_time_row(name, series["aretomo"], series["aretomo"].extra("movie_s")))
    text += table(("program", "wall s", "CPU s of the command", "peak memory GB"), rows)
    ratio = _ratio(outcome)
    if ratio is not None:
        text += (
            f"\n\nRELION's wall time is {ratio['time_cold']:.1f} times that of the whole command and "
            f"{ratio['time_warm']:.1f} times that of the step in a warm worker (goal: 6); "
            f"its peak memory {ratio['memory']:.1f} times."
        )
    return text


def _time_row(name: str, series: Series, wall: Spread) -> tuple[str, ...]:
    return name, wall.text(), series.cpu().text(), series.peak_GB().text(2)


def _ratio(outcome: Outcome) -> dict[str, float] | None:
    if "relion" not in outcome.series:
        return None
    relion = outcome.series["relion"]
    warm, cold = outcome.series["warm"], outcome.series["cold"]
    return {
        "time_cold": relion.wall().median / cold.wall().median,
        "time_warm": relion.wall().median / warm.extra("step_s").median,
        "memory": relion.peak_GB().median / cold.peak_GB().median,
    }


def _errors(outcomes: list[Outcome]) -> str:
    rows = []
    for outcome in outcomes:
        ratio = _ratio(outcome)
        spec = outcome.made.case.spec
        rows.append(
            (
                outcome.made.case.name,
                f"{spec.shape[1]} x {spec.shape[0]} x {spec.n_frames}",
                f"{spec.dose_per_pixel:.2g}",
                *(
                    _px(None if error is None else error.blurring_px)
                    for error in (outcome.native, outcome.relion)
                ),
                *(
                    _px(None if error is None else error.anchored_px)
                    for error in (outcome.native, outcome.native_star, outcome.relion)
                ),
                f"{outcome.series['warm'].extra('step_s').median:.1f}",
                "-" if ratio is None else f"{ratio['time_warm']:.1f}",
                "-" if ratio is None else f"{ratio['memory']:.1f}",
            )
        )
    head = (
        *("movie", "size", "e/px/frame", "error px", "RELION px"),
        *("from frame 1 px", "as STAR px", "RELION px", "step s", "x time", "x memory"),
    )
    note = (
        "Error is RMS over the field, all frames and both axes, against the truth. The first pair leaves "
        "out what is the same in all frames at a place, which moves or distorts the sum but blurs nothing; "
        "the others are of shifts against frame 1, so that an error of frame 1 counts in every frame: as "
        "applied, and as the STAR says it, whose local part is RELION's cubic in time. The last two are "
        "RELION's wall time and peak memory over ours (warm step, whole command).\n\n"
    )
    said = [
        f"- {o.made.case.name}: MotionCor's whole frames alone, without its patches: {o.motioncor.blurring_px:.3f} px"
        for o in outcomes
        if o.motioncor is not None
    ]
    said += [f"- {o.made.case.name}: vitriflow said: {o.native_said}" for o in outcomes if o.native_said]
    return note + table(head, rows) + ("\n\n" + "\n".join(said) if said else "")


def _px(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    found = [o.native.blurring_px for o in outcomes if o.native is not None]
    summary: dict[str, Any] = {"cases": len(outcomes), "ratio": _ratio(outcomes[0])}
    summary["native_median_px"] = statistics.median(found) if found else None
    both = {
        o.made.case.name: (o.native.blurring_px, o.relion.blurring_px)
        for o in outcomes
        if o.native is not None and o.relion is not None
    }
    if both:
        excess = {name: ours - theirs for name, (ours, theirs) in both.items()}
        worst = max(excess, key=lambda name: excess[name])
        summary["relion_median_px"] = statistics.median(theirs for _, theirs in both.values())
        summary["worst_case"] = {"case": worst, "native_minus_relion_px": excess[worst]}
        summary["cases_worse_than_goal"] = sum(value > GOAL_WORSE_PX for value in excess.values())
    summary["refused"] = [o.made.case.name for o in outcomes if o.native is None]
    return summary


def _summary_text(summary: dict[str, Any]) -> str:
    if "worst_case" not in summary:
        return f"Median error {_px(summary['native_median_px'])} px over {summary['cases']} movies."
    worst = summary["worst_case"]
    return (
        f"Median error over {summary['cases']} movies: {_px(summary['native_median_px'])} px, RELION's "
        f"{_px(summary['relion_median_px'])} px. Worst against RELION: {worst['case']}, by "
        f"{worst['native_minus_relion_px']:+.3f} px; {summary['cases_worse_than_goal']} of them more than "
        f"{GOAL_WORSE_PX} px worse. Refused: {', '.join(summary['refused']) or 'none'}."
    )


def _plot(outcomes: list[Outcome]) -> None:
    by_kind: dict[str, list[tuple[float, float]]] = {}
    for outcome in outcomes:
        if outcome.native is not None and outcome.relion is not None:
            kind = outcome.made.case.name.split("-")[0]
            by_kind.setdefault(kind, []).append((outcome.relion.blurring_px, outcome.native.blurring_px))
    plot_scatter(
        results_folder() / "motion.png",
        by_kind,
        ("RELION's error (px RMS)", "vitriflow's error (px RMS)"),
        "Motion against truth: below the line vitriflow is nearer",
        diagonal=True,
        log=True,
    )
