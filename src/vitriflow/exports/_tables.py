"""The growing tables of a project: one for each job, one row for each exposure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vitriflow.exports._records import Optics
from vitriflow.exports._star import loop, row

_OPTICS = (
    "rlnOpticsGroupName",
    "rlnOpticsGroup",
    "rlnMicrographOriginalPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
MOTION_LABELS = (
    "rlnMicrographMetadata",
    "rlnCtfPowerSpectrum",
    "rlnAccumMotionTotal",
    "rlnAccumMotionEarly",
    "rlnAccumMotionLate",
)
CTF_LABELS = (
    "rlnCtfImage",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnCtfAstigmatism",
    "rlnDefocusAngle",
    "rlnPhaseShift",
    "rlnCtfFigureOfMerit",
    "rlnCtfMaxResolution",
)
# Where nobody says: what most microscopes have, and what ctf.native takes by default.
FALLBACK = Optics(
    original_pixel_A=None, voltage_kV=300.0, spherical_aberration_mm=2.7, amplitude_contrast=0.1
)


@dataclass
class Table:
    """One STAR file of a job.

    Attributes
    ----------
    job
        ``MotionCorr/job002``.
    file
        Its name in the job's folder.
    block
        ``movies``, ``micrographs`` or ``coordinate_files``.
    labels
        Columns.
    inputs
        Nodes that the job read.
    branch
        Job of the motion correction that its micrographs come from; empty for movies and for
        ready micrographs.
    """

    job: str
    file: str
    block: str
    labels: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    branch: str = ""
    rows: dict[int, str] = field(default_factory=dict)
    groups: dict[int, int] = field(default_factory=dict)
    dirty: bool = True

    @property
    def path(self) -> str:
        """The file, relative to the project."""
        return f"{self.job}/{self.file}"

    def put(self, exposure: int, group: int, values: Iterable[object]) -> None:
        """Add the row of an exposure, or replace it."""
        text = row(values)
        if self.rows.get(exposure) != text or self.groups.get(exposure) != group:
            self.rows[exposure], self.groups[exposure], self.dirty = text, group, True

    def drop(self, exposure: int) -> None:
        """Take an exposure out."""
        if self.rows.pop(exposure, None) is not None:
            self.groups.pop(exposure)
            self.dirty = True

    def text(self, optics: dict[int, Optics], names: Mapping[int, str] | None = None) -> str:
        """The whole file. ``optics`` and their names by group number; rows in order of arrival."""
        lines = (self.rows[exposure] for exposure in sorted(self.rows))
        body = loop(self.block, self.labels, lines)
        if self.block == "coordinate_files":
            return body
        with_pixel = self.block == "micrographs"
        labels = (*_OPTICS, "rlnMicrographPixelSize") if with_pixel else _OPTICS
        groups = sorted(set(self.groups.values()))
        rows = (_optics_row(g, (names or {}).get(g), optics[g], with_pixel) for g in groups)
        return loop("optics", labels, rows) + body


def _optics_row(number: int, name: str | None, optics: Optics, with_pixel: bool) -> str:
    values: list[object] = [
        name or f"opticsGroup{number}",
        number,
        optics.original_pixel_A,
        optics.voltage_kV,
        optics.spherical_aberration_mm,
        optics.amplitude_contrast,
    ]
    return row([*values, optics.pixel_A] if with_pixel else values)
