"""Result records of one exposure, read as what RELION's tables need of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

_PIXEL_TOLERANCE = 1e-3  # relative; what two calibrations of one magnification may differ by
# What is read of a record, and of the provenance in it.
RECORD_FIELDS = (
    "outputs",
    "n_frames",
    "n_picks",
    "pixel_size_A",
    "movie_pixel_size_A",
    "total_A",
    "early_A",
    "late_A",
    "defocus_u_A",
    "defocus_v_A",
    "defocus_angle_deg",
    "phase_shift_deg",
    "cross_correlation",
    "fit_resolution_A",
)
PROVENANCE_FIELDS = ("inputs", "parameters")
NO_FIT_RESOLUTION_A = 999.0  # RELION wants a number: one that every "better than" selection leaves out


@dataclass(frozen=True)
class Item:
    """An exposure: what the tables name it by."""

    id: int
    key: str
    item: str
    path: str
    kind: str
    optics_group: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """One finished node of an exposure, with what is needed of its result record."""

    node: str
    record: Mapping[str, Any]

    @classmethod
    def of(cls, node: str, values: Sequence[Any]) -> "Done":
        """From values in the order of ``RECORD_FIELDS`` and ``PROVENANCE_FIELDS``."""
        record = dict(zip((*RECORD_FIELDS, *PROVENANCE_FIELDS), values, strict=True))
        return cls(node, {name: value for name, value in record.items() if value is not None})

    @property
    def role(self) -> str:
        """``motion``, ``ctf``, ``picks`` or nothing: told by what the record holds, not by a step's name."""
        for key, role in (("n_frames", "motion"), ("defocus_u_A", "ctf"), ("n_picks", "picks")):
            if key in self.record:
                return role
        return ""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The parameters that the step ran with."""
        found: Mapping[str, Any] = self.record.get("parameters") or {}
        return found

    def output(self, port: str) -> str | None:
        """Path of the file on an output port."""
        artifact = (self.record.get("outputs") or {}).get(port)
        return str(artifact["path"]) if artifact else None

    def inputs(self) -> set[str]:
        """Paths that the step read."""
        return {str(artifact["path"]) for artifact in (self.record.get("inputs") or {}).values()}

    def outputs(self) -> set[str]:
        """Paths that the step wrote."""
        return {str(artifact["path"]) for artifact in (self.record.get("outputs") or {}).values()}


@dataclass(frozen=True)
class Optics:
    """What RELION calls an optics group, as far as it's known."""

    original_pixel_A: float | None = None
    pixel_A: float | None = None
    voltage_kV: float | None = None
    spherical_aberration_mm: float | None = None
    amplitude_contrast: float | None = None

    def completed(self, other: "Optics") -> "Optics":
        """The same, with what it lacks taken from ``other``."""
        gaps = {one.name: getattr(other, one.name) for one in fields(self) if getattr(self, one.name) is None}
        return replace(self, **gaps)

    def conflicts(self, other: "Optics") -> Iterator[str]:
        """Names of quantities that both know and that differ."""
        for one in fields(self):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            if mine is None or theirs is None:
                continue
            if abs(mine - theirs) > _PIXEL_TOLERANCE * max(abs(mine), abs(theirs)):
                yield f"{one.name} {theirs:g} where the group has {mine:g}"


def optics_of(item: Item, done: list[Done]) -> Optics:
    """Optics of one exposure, from what its steps ran with and found."""
    voltage, aberration, contrast = (
        _first(one.parameters.get(name) for one in done)
        for name in ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast")
    )
    motion = next((one for one in done if one.role == "motion"), None)
    if motion is not None:
        pixel = _number(motion.record.get("pixel_size_A")) or None
        binning = _number(motion.parameters.get("bin_factor")) or 1.0
        # Sides are whole pixels, so that the micrograph's pixel isn't binning times the movie's to the last digit.
        original = _number(motion.record.get("movie_pixel_size_A")) or (pixel / binning if pixel else None)
    else:
        ctf = [one for one in done if one.role == "ctf"]
        pixel = original = (
            _first(one.parameters.get("pixel_size_A") for one in done)
            or _number(item.details.get("pixel_size_A"))
            or _first(one.record.get("pixel_size_A") for one in ctf)
        )
    return Optics(original, pixel, voltage, aberration, contrast)


def upstream_motion(one: Done, motions: list[Done]) -> Done | None:
    """The motion correction whose output a step read; the only one there is, if the paths don't say."""
    read = one.inputs()
    for motion in motions:
        if read & motion.outputs():
            return motion
    return motions[0] if motions else None


def motion_values(record: Mapping[str, Any]) -> tuple[float, float, float]:
    """Accumulated motion in A: total, early (to 4 e/A^2), late."""
    total, early, late = (float(record.get(name) or 0.0) for name in ("total_A", "early_A", "late_A"))
    return total, early, late


def ctf_values(record: Mapping[str, Any]) -> tuple[float, ...]:
    """Defocus U, V, |U-V| (A), angle, phase shift (degrees), figure of merit, resolution (A)."""
    u, v = float(record["defocus_u_A"]), float(record["defocus_v_A"])
    return (
        u,
        v,
        abs(u - v),
        float(record.get("defocus_angle_deg") or 0.0),
        float(record.get("phase_shift_deg") or 0.0),
        float(record.get("cross_correlation") or 0.0),
        float(record.get("fit_resolution_A") or NO_FIT_RESOLUTION_A),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _first(values: Iterator[Any]) -> float | None:
    return next((number for value in values if (number := _number(value)) is not None), None)
