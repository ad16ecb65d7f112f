"""A simulated session: what is asked for, and the list of exposures that follows from it."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vitriflow.simulate.spec import MovieSpec

# Foil holes around one stage position, reached by beam shift: a lattice turned by 11 degrees,
# spaced as in EPU's own units
_AFIS_SPACING = 0.1
_AFIS_ANGLE_DEG = 11.0
_AFIS_JITTER = 0.0015


class LayoutName(StrEnum):
    """Whose folders and metadata are written."""

    EPU = "epu"
    SERIALEM = "serialem"
    TOMO5 = "tomo5"


class FileFormat(StrEnum):
    """Container and compression of the movies."""

    MRC = "mrc"
    TIFF = "tiff-none"
    TIFF_LZW = "tiff-lzw"
    TIFF_DEFLATE = "tiff-deflate"
    TIFF_ZSTD = "tiff-zstd"
    EER = "eer"

    @property
    def compression(self) -> str:
        """Compression of a TIFF."""
        return self.value.partition("-")[2]


class Fault(StrEnum):
    """What can be wrong with an exposure on purpose."""

    TRUNCATED = "truncated"
    EMPTY = "empty"
    ZEROS = "zeros"
    CONSTANT = "constant"
    NAN = "nan"
    WRONG_SIZE = "wrong-size"
    GARBAGE = "garbage"
    NO_METADATA = "no-metadata"
    BAD_METADATA = "bad-metadata"
    DUPLICATE = "duplicate"


class SessionSpec(BaseModel):
    """A session of a simulated microscope. Optics, specimen and camera come from ``movie``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: LayoutName = Field(default=LayoutName.EPU, description="epu, serialem or tomo5")
    name: str = Field(default="simulated", min_length=1, description="folder of the session, in any script")
    exposures: int = Field(default=10, ge=1, description="movies to write")
    every_s: float = Field(default=0.0, ge=0, description="time from one movie's start to the next's (s)")
    write_s: float = Field(default=0.0, ge=0, description="time over which a movie trickles to disk (s)")
    unique: int | None = Field(
        default=None, ge=1, description="different movies made; further ones are copies of these"
    )
    format: FileFormat = Field(default=FileFormat.TIFF_LZW, description="container and compression")
    eer_frames_per_fraction: int = Field(
        default=20, ge=2, le=2000, description="raw EER frames that share one simulated frame"
    )
    movie: MovieSpec = Field(default_factory=MovieSpec, description="what all movies have in common")
    defocus_A: tuple[float, float] = Field(
        default=(8000.0, 20000.0), description="range from which each movie's defocus is drawn (A)"
    )
    astigmatism_A: float = Field(default=400.0, ge=0, description="largest astigmatism drawn (A)")
    empty_share: float = Field(default=0.0, ge=0, le=1, description="share of holes without particles")
    dirty_share: float = Field(
        default=0.0, ge=0, le=1, description="share of holes with a carbon edge and ice crystals"
    )
    afis: bool = Field(default=True, description="nine holes a stage position by beam shift (EPU)")
    tilts: int = Field(default=0, ge=0, le=200, description="movies of a tilt series; 0 is no tilting")
    tilt_step_deg: float = Field(default=3.0, gt=0, le=30, description="between tilts (degrees)")
    faults: dict[Fault, float] = Field(default_factory=dict, description="share of movies with each fault")
    started_at: datetime | None = Field(default=None, description="the microscope's clock; None is now")
    seed: int = Field(default=1, ge=0, description="everything random follows from it")

    @field_validator("name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if "/" in name or name in {".", ".."}:
            raise ValueError("name is one folder: it can't hold a slash")
        return name

    @model_validator(mode="after")
    def _agree(self) -> "SessionSpec":
        if sum(self.faults.values()) > 1.0 + 1e-9 or any(share < 0 for share in self.faults.values()):
            raise ValueError("shares of faults lie between 0 and 1 and add up to at most 1")
        if self.defocus_A[0] > self.defocus_A[1]:
            raise ValueError("defocus_A is a range: the smaller comes first")
        if self.layout is LayoutName.TOMO5 and self.tilts == 0:
            raise ValueError("Tomo 5 writes tilt series: give tilts, for example 41")
        if self.layout is LayoutName.EPU and self.tilts:
            raise ValueError("EPU doesn't tilt: choose serialem or tomo5, or leave tilts out")
        if self.format is FileFormat.EER and self.movie.dtype == "float32":
            raise ValueError("EER holds events: choose a whole-number dtype")
        return self


@dataclass(frozen=True)
class Exposure:
    """One movie of the session, as planned.

    Attributes
    ----------
    number
        Counted from 1.
    pool
        Which of the unique movies it shows, counted from 0.
    movie
        Full specification of its pixels.
    acquired_at
        On the microscope's clock.
    position, order, tilt_deg, dose_before_e_per_A2
        Stage position, both counted from 1; order within the tilt series, its tilt and what the
        specimen got before.
    hole
        Foil hole around the position, counted from 0: with AFIS, the true optics group.
    beam_shift, stage_um
        As the metadata say (EPU's units; micrometres x, y, z).
    fault
        What is wrong with it on purpose, or None.
    """

    number: int
    pool: int
    movie: MovieSpec
    acquired_at: datetime
    position: int
    order: int
    tilt_deg: float
    dose_before_e_per_A2: float
    hole: int
    beam_shift: tuple[float, float]
    stage_um: tuple[float, float, float]
    fault: Fault | None

    @property
    def nominal_defocus_A(self) -> float:
        """What the operator asked for: the true mean to the nearest 1000 A."""
        return round(0.5 * (self.movie.defocus_u_A + self.movie.defocus_v_A) / 1000.0) * 1000.0


def tilt_of(order: int, step_deg: float) -> float:
    """Tilt (degrees) of the ``order``-th movie, from 0, of a dose-symmetric series (Hagen 2017, pairs)."""
    if order == 0:
        return 0.0
    pair, second = divmod(order - 1, 2)
    sign = 1 if (pair % 2 == 0) != bool(second) else -1
    return sign * (pair + 1) * step_deg


def plan_session(spec: SessionSpec) -> list[Exposure]:
    """All exposures of a session, in the order in which they're taken."""
    rng = np.random.default_rng([spec.seed, 10])
    unique = min(spec.unique or spec.exposures, spec.exposures)
    movies = [_movie(spec, index, rng) for index in range(unique)]
    faults = _draw_faults(spec, np.random.default_rng([spec.seed, 11]))
    shots = np.random.default_rng([spec.seed, 12])
    start = spec.started_at or datetime.now(UTC)
    per_position = spec.tilts or (9 if spec.afis and spec.layout is LayoutName.EPU else 1)
    angle = math.radians(_AFIS_ANGLE_DEG)
    turn = _AFIS_SPACING * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stages = shots.uniform(-300.0, 300.0, size=(spec.exposures // per_position + 1, 2))
    planned = []
    for number in range(1, spec.exposures + 1):
        position, order = divmod(number - 1, per_position)
        hole = order if not spec.tilts and per_position == 9 else 0
        beam = turn @ np.array([hole % 3 - 1.0, hole // 3 - 1.0]) if per_position == 9 else np.zeros(2)
        beam = beam + shots.normal(0.0, _AFIS_JITTER, 2)
        tilt = tilt_of(order, spec.tilt_step_deg) if spec.tilts else 0.0
        pool = (number - 1) % unique
        planned.append(
            Exposure(
                number=number,
                pool=pool,
                movie=movies[pool],
                acquired_at=start + timedelta(seconds=(number - 1) * max(spec.every_s, 1.0)),
                position=position + 1,
                order=order + 1,
                tilt_deg=tilt,
                dose_before_e_per_A2=order * spec.movie.total_dose_e_per_A2 if spec.tilts else 0.0,
                hole=hole,
                beam_shift=(float(beam[0]), float(beam[1])),
                stage_um=(float(stages[position, 0]), float(stages[position, 1]), -22.0),
                fault=faults[number - 1],
            )
        )
    return planned


def _movie(spec: SessionSpec, index: int, rng: np.random.Generator) -> MovieSpec:
    """One of the unique movies: its own defocus, astigmatism, motion, particles and noise."""
    mean = rng.uniform(*spec.defocus_A)
    half = 0.5 * rng.uniform(0.0, spec.astigmatism_A)
    changes: dict[str, float | int | bool] = {
        "defocus_u_A": round(mean + half, 1),
        "defocus_v_A": round(mean - half, 1),
        "defocus_angle_deg": round(float(rng.uniform(-90.0, 90.0)), 2),
        "seed": int(spec.seed * 1_000_003 + index),
    }
    hole = np.random.default_rng([spec.seed, 14, index])  # on its own, so that shares change nothing else
    if hole.uniform() < spec.empty_share:
        changes["n_particles"] = 0
    if hole.uniform() < spec.dirty_share:
        changes["carbon_edge"] = True
        changes["n_ice_crystals"] = int(hole.integers(2, 9))
    if spec.tilts:
        tilt = tilt_of(index % spec.tilts, spec.tilt_step_deg)
        changes["ice_thickness_A"] = spec.movie.ice_thickness_A / max(math.cos(math.radians(tilt)), 0.2)
    return spec.movie.model_copy(update=changes)


def _draw_faults(spec: SessionSpec, rng: np.random.Generator) -> list[Fault | None]:
    """Give each fault its share of the exposures, rounded, at random places."""
    drawn: list[Fault | None] = [None] * spec.exposures
    places = iter(rng.permutation(spec.exposures).tolist())
    for fault in sorted(spec.faults):
        share = spec.faults[fault]
        wanted = round(share * spec.exposures) or (1 if share > 0 else 0)
        for _ in range(wanted):
            place = next(places, None)
            if place is None:
                return drawn
            drawn[place] = fault
    return drawn
