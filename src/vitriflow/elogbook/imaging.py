"""Imaging parameters: what an operator is asked of a session, in one typed model.

Every field says what it acts on, and a test holds it to that: ``pipeline`` (it becomes values of
steps, see :meth:`ImagingParameters.step_parameters`), ``template`` (it chooses or prunes the
graph), ``check`` (what arrives is compared with it, and people are told), or ``record`` (it's kept for
reports, ISPyB and deposition). The list is that of the design's metadata page: what
facilities' operators enter today, and the columns of Diamond's single-particle pipeline.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Acts = Literal["pipeline", "template", "check", "record"]
# In the operator's own words -> the step parameter that it becomes
DERIVED = {
    "phase_plate": "fit_phase_shift",
    "super_resolution": "bin_factor",
    "frames_thrown_away": "first_frame",
    "total_dose_e_per_A2": "dose_per_frame_e_per_A2",
}
_STEP_NAMES = (
    "voltage_kV",
    "spherical_aberration_mm",
    "amplitude_contrast",
    "pixel_size_A",
    "dose_per_frame_e_per_A2",
    "pre_exposure_e_per_A2",
    "gain_reference",
    "gain_orientation",
    "gain_convention",
    "defects",
    "particle_diameter_A",
    "min_diameter_A",
    "max_diameter_A",
    "min_defocus_A",
    "max_defocus_A",
    "max_astigmatism_A",
    "min_resolution_A",
    "max_resolution_A",
    "box_size",
    "patches_y",
    "patches_x",
    "write_unweighted",
    "write_half_sums",
    "write_aligned_movie",
    "eer_dose_per_fraction_e_per_A2",
)


def _ask(
    group: str, title: str, acts: Acts, doc: str, *, unit: str = "", default: Any = None, **limits: Any
) -> Any:
    extra: dict[str, Any] = {"group": group, "acts": acts, "unit": unit}
    return Field(default=default, title=title, description=doc, json_schema_extra=extra, **limits)


class ImagingParameters(BaseModel):
    """All that is asked; None means: not said, so the files, the microscope or the default decide."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # -- method
    imaging_method: Literal["single_particle", "tomography"] = _ask(
        "Method", "Imaging method", "template", "what the exposures are for", default="single_particle"
    )
    software: Literal["auto", "epu", "serialem", "tomo5", "plain"] = _ask(
        "Method", "Acquisition software", "check", "who writes the files; others are reported", default="auto"
    )
    movie_format: Literal["auto", "mrc", "tiff", "eer"] = _ask(
        "Method", "Movie format", "check", "what movies are written as; others are reported", default="auto"
    )
    preprocess: bool = _ask("Method", "Process while it arrives", "template", "off: only copy", default=True)
    picking: bool = _ask("Method", "Pick particles", "template", "off: no picking", default=True)

    # -- particle
    particle_diameter_A: float | None = _ask(
        "Particle", "Particle diameter", "pipeline", "longest extent", unit="Å", gt=10, le=10000
    )
    min_diameter_A: float | None = _ask(
        "Particle", "Smallest diameter", "pipeline", "smallest blob looked for", unit="Å", gt=5, le=10000
    )
    max_diameter_A: float | None = _ask(
        "Particle", "Largest diameter", "pipeline", "largest blob looked for", unit="Å", gt=5, le=10000
    )
    symmetry: str = _ask(
        "Particle",
        "Symmetry",
        "record",
        "point group, as RELION writes it",
        default="C1",
        pattern=r"^(?:[CDcd][1-9]\d{0,2}|[TOIto][1-5]?|I[1-5]|i[1-5]?)$",
    )
    extract_box_px: int | None = _ask(
        "Particle", "Box size", "record", "side of extracted boxes", unit="px", ge=16, le=2048
    )
    background_radius_nm: float | None = _ask(
        "Particle", "Background radius", "record", "for normalisation", unit="nm", gt=0, le=1000
    )

    # -- microscope and camera
    voltage_kV: float | None = _ask(
        "Microscope", "Voltage", "pipeline", "acceleration voltage", unit="kV", ge=80, le=400
    )
    spherical_aberration_mm: float | None = _ask(
        "Microscope", "Cs", "pipeline", "spherical aberration", unit="mm", ge=0, le=10
    )
    amplitude_contrast: float | None = _ask(
        "Microscope", "Amplitude contrast", "pipeline", "fraction", ge=0, le=1
    )
    phase_plate: bool = _ask(
        "Microscope", "Phase plate", "pipeline", "fit the phase shift too", default=False
    )
    c1_aperture_um: float | None = _ask("Microscope", "C1 aperture", "record", "diameter", unit="µm", gt=0)
    c2_aperture_um: float | None = _ask("Microscope", "C2 aperture", "record", "diameter", unit="µm", gt=0)
    c3_aperture_um: float | None = _ask("Microscope", "C3 aperture", "record", "diameter", unit="µm", gt=0)
    objective_aperture_um: float | None = _ask(
        "Microscope", "Objective aperture", "record", "diameter", unit="µm", gt=0
    )
    c1_lens_percent: float | None = _ask("Microscope", "C1 lens", "record", "current", unit="%")
    c2_lens_percent: float | None = _ask("Microscope", "C2 lens", "record", "current", unit="%")
    c3_lens_percent: float | None = _ask("Microscope", "C3 lens", "record", "current", unit="%")
    spot_size: int | None = _ask("Microscope", "Spot size", "record", "number", ge=1, le=20)
    energy_slit_eV: float | None = _ask(
        "Microscope", "Slit width", "check", "of the energy filter", unit="eV", ge=0, le=200
    )
    nominal_magnification: float | None = _ask(
        "Microscope", "Magnification", "check", "as the microscope shows it", unit="x", gt=0
    )
    camera: str = _ask("Microscope", "Camera", "check", "its name in the files", default="", max_length=64)
    pixel_size_A: float | None = _ask(
        "Microscope", "Pixel size", "pipeline", "of the movie as written", unit="Å", gt=0.1, lt=20
    )
    super_resolution: bool = _ask(
        "Microscope",
        "Super-resolution",
        "pipeline",
        "movies have twice the camera's pixels: halve them by Fourier cropping",
        default=False,
    )
    binning: int | None = _ask("Microscope", "Camera binning", "check", "of the camera", ge=1, le=8)

    # -- dose
    dose_per_frame_e_per_A2: float | None = _ask(
        "Dose", "Dose per frame", "pipeline", "of one frame as processed", unit="e/Å²", gt=0, le=1000
    )
    total_dose_e_per_A2: float | None = _ask(
        "Dose",
        "Total dose",
        "pipeline",
        "of one exposure; with the number of frames it gives the dose per frame",
        unit="e/Å²",
        gt=0,
        le=10000,
    )
    n_frames: int | None = _ask("Dose", "Frames", "check", "of one movie", ge=1, le=100000)
    frame_duration_s: float | None = _ask(
        "Dose", "Frame duration", "check", "of one frame", unit="s", gt=0, le=1000
    )
    exposure_time_s: float | None = _ask(
        "Dose", "Exposure time", "check", "of one exposure", unit="s", gt=0, le=10000
    )
    pre_exposure_e_per_A2: float | None = _ask(
        "Dose", "Dose before", "pipeline", "before the first frame", unit="e/Å²", ge=0, le=10000
    )

    # -- references
    gain_reference: Path | None = _ask("References", "Gain reference", "pipeline", "file; none: the newest")
    gain_orientation: str | None = _ask("References", "Gain orientation", "pipeline", "how it's turned")
    gain_convention: Literal["auto", "multiply", "divide"] | None = _ask(
        "References", "Gain convention", "pipeline", "multiply or divide"
    )
    defects: Path | None = _ask("References", "Defects", "pipeline", "list or map of bad pixels")

    # -- motion
    frames_thrown_away: int | None = _ask(
        "Motion", "Frames thrown away", "pipeline", "at the start of each movie", ge=0, le=1000
    )
    patches_y: int | None = _ask("Motion", "Patches in y", "pipeline", "0: global only", ge=0, le=15)
    patches_x: int | None = _ask("Motion", "Patches in x", "pipeline", "0: global only", ge=0, le=15)
    write_unweighted: bool | None = _ask(
        "Motion", "Sum without dose weighting", "pipeline", "written as well"
    )
    write_half_sums: bool | None = _ask("Motion", "Odd and even sums", "pipeline", "for denoising")
    write_aligned_movie: Literal["no", "float16", "float32"] | None = _ask(
        "Motion", "Aligned movie", "pipeline", "the aligned frames as a stack, in these numbers"
    )
    eer_dose_per_fraction_e_per_A2: float | None = _ask(
        "Motion", "EER dose per fraction", "pipeline", "how EER is grouped", unit="e/Å²", gt=0, le=100
    )

    # -- CTF
    box_size: int | None = _ask("CTF", "CTF box", "pipeline", "side of the spectrum", unit="px", ge=128)
    min_resolution_A: float | None = _ask("CTF", "Coarsest rings", "pipeline", "used", unit="Å", gt=0)
    max_resolution_A: float | None = _ask("CTF", "Finest rings", "pipeline", "used", unit="Å", gt=0)
    min_defocus_A: float | None = _ask("CTF", "Least defocus", "pipeline", "searched", unit="Å", gt=0)
    max_defocus_A: float | None = _ask("CTF", "Largest defocus", "pipeline", "searched", unit="Å", gt=0)
    max_astigmatism_A: float | None = _ask(
        "CTF", "Largest astigmatism", "pipeline", "searched", unit="Å", ge=0
    )
    target_defocus_min_A: float | None = _ask(
        "CTF", "Planned least defocus", "check", "underfocus positive", unit="Å", gt=0, le=100000
    )
    target_defocus_max_A: float | None = _ask(
        "CTF", "Planned largest defocus", "check", "underfocus positive", unit="Å", gt=0, le=100000
    )
    target_defocus_step_A: float | None = _ask(
        "CTF", "Planned defocus step", "record", "between exposures", unit="Å", gt=0, le=100000
    )

    # -- tomography and the plan
    tilt_min_deg: float | None = _ask("Tomography", "First tilt", "check", "lowest", unit="°", ge=-90, le=90)
    tilt_max_deg: float | None = _ask("Tomography", "Last tilt", "check", "highest", unit="°", ge=-90, le=90)
    tilt_step_deg: float | None = _ask("Tomography", "Tilt step", "record", "", unit="°", gt=0, le=30)
    planned_exposures: int | None = _ask(
        "Plan", "Planned exposures", "check", "for how far the session is", ge=1, le=10**7
    )
    comment: str = _ask("Plan", "Comment", "record", "anything else", default="", max_length=10000)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_said(cls, values: Any) -> Any:
        """An empty field of a form is left out."""
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if not (v is None or (isinstance(v, str) and not v.strip()))}

    @model_validator(mode="after")
    def _fits_together(self) -> "ImagingParameters":
        for low, high, what in (
            (self.min_diameter_A, self.max_diameter_A, "smallest diameter is above the largest"),
            (self.min_defocus_A, self.max_defocus_A, "least defocus is above the largest"),
            (self.max_resolution_A, self.min_resolution_A, "finest rings are coarser than the coarsest"),
            (
                self.target_defocus_min_A,
                self.target_defocus_max_A,
                "planned least defocus is above the largest",
            ),
            (self.tilt_min_deg, self.tilt_max_deg, "first tilt is above the last"),
            (self.frame_duration_s, self.exposure_time_s, "a frame lasts longer than the exposure"),
            (self.dose_per_frame_e_per_A2, self.total_dose_e_per_A2, "a frame's dose is above the total"),
        ):
            if low is not None and high is not None and low > high:
                raise ValueError(f"the {what}" if not what.startswith("a ") else what)
        whole = (self.dose_per_frame_e_per_A2, self.n_frames, self.total_dose_e_per_A2)
        if all(whole) and abs(whole[0] * whole[1] / whole[2] - 1) > 0.05:  # type: ignore[operator]
            product = whole[0] * whole[1]  # type: ignore[operator]
            raise ValueError(
                f"dose per frame times frames is {product:g} e/A2, not the total of {whole[2]:g}"
            )
        return self

    def step_parameters(self) -> dict[str, Any]:
        """What was said, as values of steps by the names that steps use. What wasn't said is left out."""
        said = {name: getattr(self, name) for name in _STEP_NAMES if getattr(self, name) is not None}
        values = {name: str(value) if isinstance(value, Path) else value for name, value in said.items()}
        if self.phase_plate:
            values["fit_phase_shift"] = True
        if self.super_resolution:
            values["bin_factor"] = 2.0
        if self.frames_thrown_away:
            values["first_frame"] = self.frames_thrown_away + 1
        if self.dose_per_frame_e_per_A2 is None and self.total_dose_e_per_A2 and self.n_frames:
            values["dose_per_frame_e_per_A2"] = self.total_dose_e_per_A2 / self.n_frames
        return values

    def said(self) -> dict[str, Any]:
        """Only what differs from 'not said', ready for JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)
