"""Picking by Appion's DoG Picker: ``pick.dogpicker``."""

from typing import ClassVar

from pydantic import Field

from vitriflow.steps.programs.base import Job, number
from vitriflow.steps.programs.pick_common import OutsidePick, OutsidePickParameters, hand_on, micrograph_of
from vitriflow.steps.programs.tools import Tool
from vitriflow.steps.records import PickResult


class DogPickerParameters(OutsidePickParameters):
    """What DoG Picker is told."""

    threshold: float = Field(
        default=0.5, gt=0, le=100, description="least peak (standard deviations of its map)"
    )
    max_threshold: float | None = Field(
        default=None, gt=0, description="largest peak; above it's ice or dirt"
    )
    min_diameter_A: float | None = Field(
        default=None, gt=5, description="smallest particle (A); None: one size"
    )
    max_diameter_A: float | None = Field(
        default=None, gt=5, description="largest particle (A); None: one size"
    )
    n_sizes: int = Field(default=2, ge=2, le=50, description="sizes tried from the smallest to the largest")
    bin_factor: int = Field(
        default=4, ge=1, le=32, description="the micrograph is binned by this for the search"
    )
    invert: bool = Field(default=False, description="particles are bright, as in negative stain")


class DogPicker(OutsidePick[DogPickerParameters]):
    """Difference of Gaussians (Voss and others, 2009)."""

    name = "pick.dogpicker"
    version: ClassVar[str] = "1"
    summary = "DoG Picker of Appion: particles by their diameter"
    Parameters = DogPickerParameters
    tool = Tool(
        "dogpicker",
        "DoG Picker",
        ("ApDogPicker.py",),
        version_pattern=r"[Dd][Oo][Gg] ?[Pp]icker.{0,20}?(\d+(?:\.\d+)+)",
        source="emg.nysbc.org",
    )

    def work(self, job: Job[DogPickerParameters]) -> PickResult:
        """Pick one micrograph."""
        from vitriflow.formats.picks import read_xy

        parameters = job.parameters
        shape, pixel_A, warnings = micrograph_of(job)
        words = [f"--image={job.mrc('micrograph').name}", "--outfile=picks.txt"]
        words += [f"--diam={number(parameters.particle_diameter_A)}", f"--apix={number(pixel_A)}"]
        words += [f"--thresh={number(parameters.threshold)}", f"--bin={parameters.bin_factor}"]
        if parameters.max_threshold is not None:
            words.append(f"--max-thresh={number(parameters.max_threshold)}")
        if parameters.min_diameter_A is not None and parameters.max_diameter_A is not None:
            spread = parameters.max_diameter_A - parameters.min_diameter_A
            words += [f"--range={number(spread)}", f"--numslices={parameters.n_sizes}"]
        if parameters.max_picks is not None:
            words.append(f"--max-peaks={parameters.max_picks}")
        if parameters.invert:
            words.append("--invert")
        job.run(*words)
        yx, score = read_xy(job.output("picks.txt"))
        return hand_on(job, yx, score, shape, threshold=parameters.threshold, warnings=warnings)
