"""AreTomo3's motion correction, where ``VITRIFLOW_ARETOMO`` says it is (it needs a GPU of NVIDIA's).

AreTomo corrects movies only as parts of a tilt series, which it then aligns. So the movie is given to it
nine times under different names, as a series that is hardly tilted (it leaves its patches out past 5
degrees), and the time that its own log gives to the movies is divided by nine. It writes no shifts, so
that its error can't be told.
"""

import csv
import os
import shutil
from pathlib import Path

from benchmarks.inputs import EER_RAW_PER_FRACTION, Made
from benchmarks.measure import Failed, Turn, measure
from vitriflow.simulate import FileFormat

ARETOMO_VARIABLE = "VITRIFLOW_ARETOMO"
TILTS = 9
_LOG = "TiltSeries_TimeStamp.csv"
_FIRST, _LAST = "ProcessMovies:Start", "ProcessMovies:End"


def aretomo() -> str | None:
    """The AreTomo3 that the person who runs this named."""
    named = os.environ.get(ARETOMO_VARIABLE)
    return named if named and Path(named).is_file() else None


def aretomo_motion(made: Made, out: Path) -> Turn:
    """Run AreTomo3 on a series of the same movie; ``movie_s`` is what one movie of it took.

    Raises
    ------
    Failed
        When it fails, or leaves no log of its times (early versions don't).
    """
    spec = made.case.spec
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _write_series(made, out)
    command: list[str | Path] = [str(aretomo()), "-InPrefix", out / "series", "-InSuffix", ".mdoc"]
    command += ["-OutDir", f"{out / 'aligned'}/", "-Cmd", "0", "-Serial", "1", "-Gpu", "0"]
    command += ["-PixSize", f"{spec.pixel_size_A:g}", "-kV", f"{spec.voltage_kV:g}"]
    command += ["-Cs", f"{spec.spherical_aberration_mm:g}", "-FmDose", f"{spec.dose_per_frame_e_per_A2:g}"]
    command += ["-McPatch", "5", "5", "-McBin", f"{made.case.bin_factor:g}"]
    command += ["-AtBin", "8", "-VolZ", "0"]  # what follows the movies: as little as can be
    if made.gain is not None:
        command += ["-Gain", made.gain]
    if made.case.format is FileFormat.EER:
        command += ["-EerSampling", "1", "-FmIntFile", _write_fractions(made, out)]
    (out / "aligned").mkdir()
    usage = measure(command, cwd=out)
    return Turn(usage, {"movie_s": _movies_s(out / "aligned" / _LOG) / TILTS})


def _write_series(made: Made, out: Path) -> None:
    """An mdoc of links to the movie, tilted from -4 to 4 degrees."""
    lines = [f"PixelSpacing = {made.case.spec.pixel_size_A:g}", f"Voltage = {made.case.spec.voltage_kV:g}"]
    for number in range(TILTS):
        link = out / f"movie_{number:02d}{made.path.suffix}"
        link.symlink_to(made.path)
        lines += ["", f"[ZValue = {number}]", f"TiltAngle = {number - TILTS // 2}"]
        lines.append(f"SubFramePath = {link.name}")
    (out / "series.mdoc").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_fractions(made: Made, out: Path) -> Path:
    """Raw frames, how many make a fraction, and the dose of a raw frame."""
    spec = made.case.spec
    raw = spec.n_frames * EER_RAW_PER_FRACTION
    dose = spec.dose_per_frame_e_per_A2 / EER_RAW_PER_FRACTION
    path = out / "fractions.txt"
    path.write_text(f"{raw} {EER_RAW_PER_FRACTION} {dose:g}\n", encoding="utf-8")
    return path


def _movies_s(log: Path) -> float:
    """Seconds from the first movie's start to the last one's end."""
    if not log.is_file():
        raise Failed(f"AreTomo left no {log.name}: one that logs its times is needed")
    with log.open(encoding="utf-8") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file) if len(row) == 4]
    times = {row[2]: float(row[3]) for row in rows if row[2] in (_FIRST, _LAST)}
    if len(times) < 2:
        raise Failed(f"{log.name} of AreTomo doesn't say when its movies began and ended")
    return times[_LAST] - times[_FIRST]
