"""A whole movie: specimen, optics, motion and camera put together, with the truth beside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from vitriflow.simulate import optics
from vitriflow.simulate.detector import GRID_STEP, Camera, expose, make_camera
from vitriflow.simulate.field import Field, make_field
from vitriflow.simulate.motion import Motion, make_motion
from vitriflow.simulate.spec import LARGEST, MovieSpec
from vitriflow.simulate.workers import n_threads

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """What is known because it was put in.

    Attributes
    ----------
    spec
        Everything the movie was asked to be, the seed included.
    motion
        Global shifts and local field (px).
    particles_px
        ``(n, 2)``, y then x, centres on frame 1; the first pixel's centre is (0, 0).
    hot_pixels, dead_columns
        Defects of the camera.
    """

    spec: MovieSpec
    motion: Motion
    particles_px: NDArray[np.float64]
    hot_pixels: NDArray[np.int64]
    dead_columns: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values for JSON."""
        spec = self.spec
        return {
            "spec": spec.model_dump(mode="json"),
            "seed": spec.seed,
            "shape": list(spec.shape),
            "n_frames": spec.n_frames,
            "pixel_size_A": spec.pixel_size_A,
            "motion": {
                **self.motion.to_dict(),
                "frame_shifts_A": (self.motion.global_shifts_px * spec.pixel_size_A).tolist(),
            },
            "ctf": {
                "defocus_u_A": spec.defocus_u_A,
                "defocus_v_A": spec.defocus_v_A,
                "astigmatism_A": spec.defocus_u_A - spec.defocus_v_A,
                "defocus_angle_deg": spec.defocus_angle_deg,
                "phase_shift_deg": spec.phase_shift_deg,
                "voltage_kV": spec.voltage_kV,
                "spherical_aberration_mm": spec.spherical_aberration_mm,
                "amplitude_contrast": spec.amplitude_contrast,
            },
            "particles_px": self.particles_px.tolist(),
            "hot_pixels": self.hot_pixels.tolist(),
            "dead_columns": self.dead_columns.tolist(),
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Truth":
        """The truth that `to_dict` wrote."""
        spec = MovieSpec.model_validate(record["spec"])
        return cls(
            spec,
            Motion.from_dict(record["motion"], spec.shape),
            np.asarray(record["particles_px"], dtype=np.float64).reshape(-1, 2),
            np.asarray(record["hot_pixels"], dtype=np.int64).reshape(-1, 2),
            np.asarray(record["dead_columns"], dtype=np.int64),
        )


class SimulatedMovie:
    """A movie that makes its frames when asked, one at a time.

    Iterating gives `spec.n_frames` arrays ``(height, width)`` of `spec.dtype`; each round gives
    the same frames again.

    Attributes
    ----------
    spec, truth
        What was asked for, and what is true.
    gain
        ``(height, width)`` float32 to multiply raw counts by; 0 marks dead pixels.
    """

    def __init__(self, spec: MovieSpec, field: Field, motion: Motion, camera: Camera) -> None:
        self.spec = spec
        self.camera = camera
        self._field = field
        self.truth = Truth(spec, motion, field.particles_px, camera.hot_pixels, camera.dead_columns)
        shape = field.canvas
        ky, kx = optics.frequency_axes(shape, spec.pixel_size_A)
        self._k2 = kx * kx + ky * ky
        self._ky_px, self._kx_px = ky * spec.pixel_size_A, kx * spec.pixel_size_A
        self._seeds = np.random.default_rng([spec.seed, 0xF4A3E]).integers(0, 2**63, spec.n_frames)

    @property
    def gain(self) -> Float:
        """Gain reference, multiply convention."""
        return self.camera.gain

    @property
    def margin(self) -> int:
        """Pixels of the canvas of `contrast` before the frame's first row and column."""
        return self._field.margin

    def __len__(self) -> int:
        return self.spec.n_frames

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for number in range(self.spec.n_frames):
            yield self.frame(number)

    def contrast(self, number: int) -> Float:
        """Contrast of frame ``number`` without noise, ``canvas`` shape, moved by the global shift only."""
        spec, motion = self.spec, self.truth.motion
        spectrum = self._field.spectrum
        if spec.radiation_damage:
            dose = (number + 0.5) * spec.dose_per_frame_e_per_A2
            spectrum = spectrum * self._fade(dose)
        shift = motion.global_shifts_px[number]
        blur = motion.frame_blur_px(number) if spec.motion.blur else np.zeros(2)
        if number or np.any(blur):
            spectrum = spectrum * self._moved(shift, blur)
        return scipy.fft.irfft2(spectrum, s=self._field.canvas, workers=n_threads())

    def counts(self, number: int) -> NDArray[np.uint16]:
        """Raw counts of frame ``number`` before clipping to the recorded type."""
        spec, field = self.spec, self._field
        local = self.truth.motion.local_on_grid(number, GRID_STEP)
        image = self.contrast(number)
        seed = int(self._seeds[number])
        return expose(image, field.margin, local, spec.dose_per_pixel, self.camera, field.beam_slope, seed)

    def frame(self, number: int) -> NDArray[Any]:
        """Frame ``number`` as recorded, ``(height, width)``."""
        counts = self.counts(number)
        if self.spec.dtype == "float32":
            frame = counts.astype(np.float32)
            return frame * self.gain if self.spec.gain_applied else frame
        return np.minimum(counts, LARGEST[self.spec.dtype]).astype(self.spec.dtype)

    def sum(self) -> Float:
        """Sum of all frames as recorded, not aligned, float32."""
        total = np.zeros(self.spec.shape, dtype=np.float32)
        for frame in self:
            total += frame
        return total

    def _fade(self, dose: float) -> Float:
        """Amplitude left at each frequency after ``dose``: exp(-D / (2 N_e)), on the canvas's half-plane."""
        edges = np.linspace(0.0, float(np.sqrt(self._k2.max())) + 1e-6, 4096).astype(np.float32)
        left = np.exp(-0.5 * dose / optics.critical_dose(edges, self.spec.voltage_kV))
        scale = np.float32((edges.size - 1) / edges[-1])
        result: Float = left[(np.sqrt(self._k2) * scale + np.float32(0.5)).astype(np.int32)]
        return result

    def _moved(self, shift: NDArray[np.float64], blur: NDArray[np.float64]) -> NDArray[np.complex64]:
        """Filter that moves the specimen so that frame(q) shows specimen(q + shift), smeared by ``blur``."""
        phase_y = np.exp(2j * np.pi * self._ky_px * shift[0]).astype(np.complex64)
        phase_x = np.exp(2j * np.pi * self._kx_px * shift[1]).astype(np.complex64)
        ramp: NDArray[np.complex64] = phase_y * phase_x
        if np.hypot(*blur) > 0.05:
            along = self._ky_px * np.float32(blur[0]) + self._kx_px * np.float32(blur[1])
            ramp *= np.sinc(along)
        return ramp


def simulate_movie(spec: MovieSpec) -> SimulatedMovie:
    """Make a movie from its specification.

    Parameters
    ----------
    spec
        Optics, specimen, motion, detector and seed.

    Returns
    -------
    SimulatedMovie
        Its frames, gain reference and truth. The same ``spec`` gives the same bytes.

    Raises
    ------
    BadFile
        When the structure or the motion STAR that ``spec`` names can't be used.
    """
    motion = make_motion(spec, np.random.default_rng([spec.seed, 1]))
    return SimulatedMovie(spec, make_field(spec, motion), motion, make_camera(spec))
