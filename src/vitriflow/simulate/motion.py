"""True motion of a simulated movie: global shifts and a smooth local field, in pixels.

Sign and order, here and in every file: (y, x), what is ADDED to a frame's coordinates to bring it
onto the first frame, which is zero. A detail at ``p`` on frame 1 is at ``p - shift(t, p)`` on frame t.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import starfile
from numpy.typing import NDArray

from vitriflow.errors import BadFile, Reason
from vitriflow.simulate.spec import MovieSpec

Array = NDArray[np.float64]

N_BASIS = 6
BASIS = ("1", "u", "u^2", "v", "v^2", "u v")


def basis(y: Array, x: Array, shape: tuple[int, int]) -> Array:
    """RELION's spatial terms {1, u, u^2, v, v^2, u v}, ``(6, ...)``.

    u = x / width - 1/2 and v = y / height - 1/2.
    """
    u = x / shape[1] - 0.5
    v = y / shape[0] - 0.5
    return np.stack([np.ones_like(u), u, u * u, v, v * v, u * v])


@dataclass(frozen=True)
class Motion:
    """What moved and how much.

    Attributes
    ----------
    global_shifts_px
        ``(n_frames, 2)``, y then x; the first is zero.
    local_coefficients_px
        ``(n_frames, 2, 6)``: axis (y, x) by the terms of `basis`; added to the global shift.
    shape
        Height and width of the frames.
    """

    global_shifts_px: Array
    local_coefficients_px: Array
    shape: tuple[int, int]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.global_shifts_px)

    def local_at(self, frame: int, y: Array, x: Array) -> Array:
        """Local part of the shift (px), ``(2, ...)``, of the details at (y, x) on frame 1."""
        terms = basis(y, x, self.shape)
        return np.asarray(np.tensordot(self.local_coefficients_px[frame], terms, axes=(1, 0)))

    def at(self, frame: int, y: Array, x: Array) -> Array:
        """Whole shift (px), ``(2, ...)``, y then x, of the details at (y, x) on frame 1."""
        whole: Array = self.local_at(frame, y, x)
        whole += self.global_shifts_px[frame].reshape((2,) + (1,) * (whole.ndim - 1))
        return whole

    def local_on_grid(self, frame: int, step: int) -> Array:
        """Local shift (px) to look up from each node of a grid on frame ``frame``, ``(2, ny, nx)``.

        Nodes stand at multiples of ``step`` and reach past the far edges. A frame's own coordinate
        q shows the detail p = q + shift(p); two rounds of that equation find p closely enough.
        """
        rows = np.arange(0, self.shape[0] + step, step, dtype=np.float64)
        columns = np.arange(0, self.shape[1] + step, step, dtype=np.float64)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        shift = self.at(frame, y, x)
        for _ in range(2):
            shift = self.at(frame, y + shift[0], x + shift[1])
        return np.asarray(shift - self.global_shifts_px[frame][:, None, None])

    def largest_px(self) -> tuple[float, float]:
        """Largest global and largest local shift (px) along one axis anywhere in the field."""
        local = np.abs(self.local_coefficients_px) @ np.array([1, 0.5, 0.25, 0.5, 0.25, 0.25])
        return float(np.abs(self.global_shifts_px).max()), float(local.max())

    def frame_blur_px(self, frame: int) -> Array:
        """Path of the global shift during one frame, ``(2,)``, from its neighbours."""
        if self.n_frames == 1:
            return np.zeros(2)
        before, after = max(frame - 1, 0), min(frame + 1, self.n_frames - 1)
        path = self.global_shifts_px[after] - self.global_shifts_px[before]
        return np.asarray(path / (after - before))

    def to_dict(self) -> dict[str, Any]:
        """The motion as plain lists, with its conventions spelt out."""
        return {
            "convention": "(y, x) in px, added to a frame's coordinates to bring it onto frame 1",
            "global_shifts_px": self.global_shifts_px.tolist(),
            "local_basis": list(BASIS),
            "local_basis_variables": "u = x / width - 1/2, v = y / height - 1/2, from frame 1",
            "local_coefficients_px": self.local_coefficients_px.tolist(),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any], shape: tuple[int, int]) -> "Motion":
        """The motion that `to_dict` wrote."""
        return cls(
            np.asarray(record["global_shifts_px"], dtype=np.float64),
            np.asarray(record["local_coefficients_px"], dtype=np.float64),
            shape,
        )


def make_motion(spec: MovieSpec, rng: np.random.Generator) -> Motion:
    """Draw the motion of a movie, or replay that of a real one."""
    if spec.motion.relion_star is not None:
        return _from_star(spec, spec.motion.relion_star)
    m = spec.motion
    n, px = spec.n_frames, spec.pixel_size_A
    angle = rng.uniform(0, 2 * np.pi) if m.direction_deg is None else np.deg2rad(m.direction_deg)
    drift_angle = angle + rng.normal(0.0, 0.6)
    dose = (np.arange(n) + 0.5) * spec.dose_per_frame_e_per_A2
    settled = 1.0 - np.exp(-dose / m.settling_dose_e_per_A2)
    steady = np.arange(n) / max(n - 1, 1)
    walk = np.cumsum(rng.normal(0.0, m.jitter_A, size=(n, 2)), axis=0)
    shifts = m.settling_A * settled[:, None] * [np.sin(angle), np.cos(angle)]
    shifts = shifts + m.drift_A * steady[:, None] * [np.sin(drift_angle), np.cos(drift_angle)] + walk
    shifts = (shifts - shifts[0]) / px

    dome = rng.choice([-1.0, 1.0]) * 0.7 * m.doming_A / np.sqrt(0.5)  # a corner is sqrt(1/2) from the centre
    field = np.zeros((2, N_BASIS))
    field[0, 3] = field[1, 1] = dome
    field[:, 1:] += 0.5 * m.doming_A * rng.normal(size=(2, N_BASIS - 1))
    # the mean over the field stays zero, so that the global shift is the mean shift
    field[:, 0] = -(field[:, 2] + field[:, 4]) / 12.0
    grown = (settled - settled[0]) / max(settled[-1] - settled[0], 1e-9)
    return Motion(shifts, grown[:, None, None] * field[None] / px, spec.shape)


def _from_star(spec: MovieSpec, path: Path) -> Motion:
    """Motion from a RELION motion STAR, kept in A; stretched in time when it has fewer frames."""
    blocks = read_motion_star(path)
    general, track = blocks["general"], blocks["global_shift"]
    scale = float(general["rlnMicrographOriginalPixelSize"]) / spec.pixel_size_A
    pairs = np.stack([track["rlnMicrographShiftY"], track["rlnMicrographShiftX"]], axis=1).astype(np.float64)
    n_star = len(pairs)
    last = n_star - 1 if spec.n_frames > n_star else spec.n_frames - 1
    z = np.linspace(0.0, last, spec.n_frames)
    known = np.arange(n_star)
    shifts = np.stack([np.interp(z, known, pairs[:, axis]) for axis in (0, 1)], axis=1)
    coefficients = np.zeros((spec.n_frames, 2, N_BASIS))
    if "local_motion_model" in blocks:
        table = np.asarray(blocks["local_motion_model"]["rlnMotionModelCoeff"], dtype=np.float64)
        powers = np.stack([z, z**2, z**3])
        # RELION keeps x first: 6 terms by 3 powers of the frame number, then the same for y
        coefficients[:, 1] = (table[:18].reshape(6, 3) @ powers).T
        coefficients[:, 0] = (table[18:36].reshape(6, 3) @ powers).T
    return Motion((shifts - shifts[0]) * scale, coefficients * scale, spec.shape)


def read_motion_star(path: Path) -> dict[str, Any]:
    """Blocks of a RELION motion STAR; raises `BadFile` when it isn't one."""
    if not path.is_file():
        raise BadFile(Reason.VANISHED, str(path), "a RELION motion STAR", "no such file", "Check --motion.")
    blocks = starfile.read(path, always_dict=True)
    if "global_shift" not in blocks or "general" not in blocks:
        raise BadFile(
            Reason.UNSUPPORTED,
            str(path),
            "a RELION motion STAR with data_general and data_global_shift",
            f"blocks {sorted(blocks)}",
            "Give one of the STAR files that MotionCorr writes for each movie.",
        )
    return dict(blocks)
