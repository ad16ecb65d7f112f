"""Typed records that finished steps leave. Names and units are those of the metadata table.

They're plain pydantic models: they cross process borders as JSON, are stored as JSON in the
catalog, and are what ``vitriflow step run --json`` prints.
"""

from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Status(StrEnum):
    """How a task ended."""

    DONE = "done"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    FAILED = "failed"


class Kind(StrEnum):
    """What travels along an edge of a pipeline."""

    MOVIE = "movie"
    MICROGRAPH = "micrograph"
    POWER_SPECTRUM = "power_spectrum"
    MOTION = "motion"
    CTF = "ctf"
    COORDINATES = "coordinates"
    PICTURE = "picture"
    PARTICLES = "particles"
    CLASSES = "classes"
    VOLUME = "volume"
    STATE = "state"  # what a batch step carries from one batch to the next; nobody else reads it


class Artifact(BaseModel):
    """One file handed from a step to the next.

    ``pixel_size_A`` is known for images made here (it follows binning) and None for files that
    a person or a microscope gave, where the parameter or the file's header decides.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    path: Path
    pixel_size_A: float | None = None
    blake3: str | None = Field(default=None, description="hash of the file's bytes, where known")


class Provenance(BaseModel):
    """How a result came to be."""

    step: str
    step_version: str
    vitriflow_version: str
    parameters: dict[str, Any]
    parameter_sources: dict[str, str] = Field(
        default_factory=dict, description="for each parameter where its value came from: set, file or default"
    )
    inputs: dict[str, Artifact]
    host: str
    device: str
    process_id: int
    started_at: str = Field(description="UTC, ISO 8601")
    finished_at: str = Field(description="UTC, ISO 8601")
    peak_memory_bytes: int
    log: list[str] = Field(default_factory=list, description="what the step said while it ran")


class Result(BaseModel):
    """What every step leaves, whatever it does."""

    step: str = ""
    status: Status = Status.DONE
    reason_code: str | None = Field(default=None, description="stable code, None when all is well")
    reason: str | None = Field(default=None, description="a sentence for people, None when all is well")
    warnings: list[str] = Field(default_factory=list)
    seconds: float = Field(default=0.0, description="wall time (s)")
    peak_memory_bytes: int = Field(default=0, description="peak resident memory while it ran")
    outputs: dict[str, Artifact] = Field(default_factory=dict, description="files handed on, by output port")
    program: str | None = Field(
        default=None, description="outside program that did it, with the version found"
    )
    provenance: Provenance | None = None

    def flat(self) -> dict[str, Any]:
        """The record as ``--json`` prints it: measured values plus the path of each output port."""
        record = self.model_dump(mode="json")
        for port, artifact in self.outputs.items():
            record[port] = str(artifact.path)
        return record


class BatchResult(Result):
    """What a batch step leaves, whatever it does. Subclass it and add your own numbers."""

    n_items: int = Field(default=0, description="members of the batch that were used")
    n_new: int = Field(default=0, description="of these, members that the state given didn't hold yet")
    n_particles: int = Field(default=0, description="particles used, of all members")
    skipped: list[str] = Field(
        default_factory=list,
        description="members that couldn't be used, each with why: they hold nobody back",
    )


class MotionResult(Result):
    """Beam-induced and stage motion of one movie.

    ``frame_shifts_A`` are (n_frames, 2), y then x: what is added to a frame's coordinates to
    bring it onto the first frame; the first is (0, 0).
    """

    n_frames: int = 0
    pixel_size_A: float = Field(default=0.0, description="of the corrected micrograph (A)")
    movie_pixel_size_A: float | None = Field(default=None, description="of the movie, before binning (A)")
    frame_shifts_A: list[tuple[float, float]] = Field(default_factory=list)
    early_A: float = Field(default=0.0, description="path length up to 4 e/A^2 (A)")
    late_A: float = Field(default=0.0, description="path length after 4 e/A^2 (A)")
    total_A: float = Field(default=0.0, description="path length over all frames (A)")
    net_A: float = Field(default=0.0, description="distance from first to last frame (A)")
    dose_weighted: bool = False
    dose_per_frame_e_per_A2: float | None = None
    mean_intensity: float = Field(default=0.0, description="mean counts per pixel and frame after gain")
    gain_applied: str = Field(default="none", description="none, multiplied or divided")
    hot_pixels: int = 0
    patch_grid: tuple[int, int] = Field(default=(0, 0), description="patches in y and x; 0 means global only")
    patch_fallbacks: int = Field(default=0, description="patches that fell back to the global shift")
    patch_shifts_A: list[list[tuple[float, float]]] = Field(
        default_factory=list,
        description="per patch (row by row) its track (n_frames, 2), y then x (A), global included",
    )


class CtfResult(Result):
    """Contrast transfer function of one micrograph. Defocus is positive underfocus."""

    defocus_u_A: float = Field(default=0.0, description="larger defocus (A)")
    defocus_v_A: float = Field(default=0.0, description="smaller defocus (A)")
    astigmatism_A: float = Field(default=0.0, description="defocus_u_A - defocus_v_A (A)")
    defocus_angle_deg: float = Field(
        default=0.0, description="from x towards y, of the larger defocus, as stored, -90 to 90 (degrees)"
    )
    phase_shift_deg: float = 0.0
    cross_correlation: float = 0.0
    fit_resolution_A: float | None = Field(default=None, description="where the rings stop fitting (A)")
    ice_ring: float | None = Field(default=None, description="strength of 3.6-4.0 A over 4.0-4.4 A")
    defocus_uncertainty_A: float | None = Field(
        default=None, description="of the mean defocus, one standard deviation (A)"
    )
    defocus_u_uncertainty_A: float | None = Field(
        default=None, description="of U, one standard deviation (A)"
    )
    defocus_v_uncertainty_A: float | None = Field(
        default=None, description="of V, one standard deviation (A)"
    )
    angle_uncertainty_deg: float | None = Field(default=None, description="one standard deviation (degrees)")
    phase_uncertainty_deg: float | None = Field(
        default=None, description="one standard deviation (degrees), None unless the phase was fitted"
    )
    tilt_deg: float | None = Field(
        default=None,
        description="of the specimen, 0 to 90 (degrees), found or given; None unless tilt was asked for",
    )
    tilt_axis_deg: float | None = Field(
        default=None,
        description="tilt axis from x towards y, as stored, -180 to 180 (degrees); underfocus grows in the "
        "direction 90 degrees further on",
    )
    tilt_uncertainty_deg: float | None = Field(
        default=None,
        description="of tilt_deg, one standard deviation (degrees); None where the tilt was given",
    )
    quality: str = Field(default="", description="good, doubtful or no rings")
    pixel_size_A: float = Field(default=0.0, description="of the image that was fitted (A)")
    curves: dict[str, list[float]] = Field(
        default_factory=dict,
        description="spatial_frequency_per_A, spectrum, fit, correlation: equiphase averages, for plots",
    )


class PickResult(Result):
    """Particle positions on one micrograph."""

    n_picks: int = 0
    particle_diameter_A: float = 0.0
    threshold: float = Field(default=0.0, description="score above which a pick counts")
    n_candidates: int = Field(default=0, description="all peaks kept in the STAR, below the threshold too")
    masked_fraction: float = Field(default=0.0, description="part of the image called carbon, ice or dirt")


class CtfConsensusResult(CtfResult):
    """The CTF that several estimates of one micrograph agree on."""

    n_estimates: int = Field(default=0, description="estimates that there were")
    n_agreeing: int = Field(default=0, description="of these, that the result is the mean of")
    agreement_A: float | None = Field(
        default=None,
        description="resolution up to which those that agree do so (A); None for one alone, or where none agree",
    )
    apart: list[str] = Field(default_factory=list, description="inputs that don't agree with the result")


class PickConsensusResult(PickResult):
    """Picks that several pickers share on one micrograph."""

    n_pickers: int = Field(default=0, description="pickers that answered, also with no pick")
    needed_votes: int = Field(default=0, description="pickers that a pick needs; 0 where the score decides")
    picks_of: dict[str, int] = Field(default_factory=dict, description="picks of each picker that answered")
    votes: list[int] = Field(default_factory=list, description="particles that 1, 2, ... pickers picked")


class ExtractResult(Result):
    """Particle boxes of one micrograph."""

    n_picks: int = 0
    n_particles: int = Field(default=0, description="boxes written; none is a valid answer")
    n_over_edge: int = Field(default=0, description="picks whose box reaches over the micrograph's edge")
    n_below_score: int = Field(default=0, description="picks below the least score")
    n_empty: int = Field(
        default=0, description="boxes that hold nothing: constant, broken, or below the contrast"
    )
    n_dust_pixels: int = Field(default=0, description="pixels replaced as dust")
    particle_diameter_A: float = 0.0
    box_size_px: int = Field(default=0, description="side of the images (px)")
    pixel_size_A: float = Field(default=0.0, description="of the images (A)")
    micrograph_pixel_size_A: float = Field(default=0.0, description="of the micrograph (A)")
    mean_contrast: float = Field(
        default=0.0, description="mean of what's inside over the background's deviation; 1 for noise alone"
    )


class ClassInfo(BaseModel):
    """One class of ``class2d.online``."""

    class_id: int = Field(description="its number for life")
    picture: int = Field(description="its place in the stack of averages, from 1")
    n_particles: int = 0
    resolution_A: float | None = Field(default=None, description="where its halves correlate by 0.5 (A)")
    noise_likeness: float = Field(default=0.0, description="0: nothing like noise; 1: no better than noise")
    score: float = Field(default=0.0, description="0 to 1; what automatic selection goes by")
    selected: bool = True
    selected_by: str = Field(default="automatic", description="automatic or person")


class Class2DResult(BatchResult):
    """Two-dimensional classes after a batch."""

    n_seen: int = Field(default=0, description="particles that came, in all batches")
    n_classified: int = Field(default=0, description="of these, that were given a class")
    n_waiting: int = Field(default=0, description="that wait for enough to come for the first classes")
    n_broken: int = Field(default=0, description="that aren't finite or are constant")
    n_left_out: int = Field(default=0, description="drawn out because more came than is carried")
    n_selected: int = Field(default=0, description="in classes that are selected")
    classes: list[ClassInfo] = Field(default_factory=list, description="largest first")
    born: list[int] = Field(default_factory=list, description="classes that came with this batch")
    died: list[int] = Field(default_factory=list, description="classes that went with this batch")
    best_resolution_A: float | None = None
    particles_per_s: float = Field(
        default=0.0, description="new particles over the time this batch took (1/s)"
    )
    carried_per_day: int = Field(default=0, description="particles a day at this speed")


class VolumeInfo(BaseModel):
    """One three-dimensional class."""

    class_id: int
    n_particles: int = 0
    share: float = Field(default=0.0, description="of all particles, 0 to 1")
    resolution_A: float | None = None
    rotation_accuracy_deg: float | None = None
    shift_accuracy_A: float | None = None


class Volume3DResult(BatchResult):
    """Three-dimensional classes, or one refined map."""

    iterations: int = 0
    symmetry: str = "C1"
    box_size_px: int = 0
    pixel_size_A: float = 0.0
    resolution_A: float | None = Field(
        default=None,
        description="where halves correlate by 0.143, of a refined map; else of the best class (A)",
    )
    converged: bool | None = Field(default=None, description="whether a refinement came to its end")
    classes: list[VolumeInfo] = Field(default_factory=list, description="largest first")


class PreviewResult(Result):
    """Small pictures for the pages."""

    width: int = 0
    height: int = 0
    scale: float = Field(default=1.0, description="preview pixels per micrograph pixel")
