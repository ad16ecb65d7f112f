"""CTF by Gctf: ``ctf.gctf``."""

from typing import ClassVar

from vitriflow.steps.programs.base import Job, number
from vitriflow.steps.programs.ctf_common import OutsideCtfParameters, OutsideCtfStep, judge, pixel_size_of
from vitriflow.steps.programs.tools import Tool
from vitriflow.steps.records import CtfResult


class Gctf(OutsideCtfStep[OutsideCtfParameters]):
    """Gctf of the MRC LMB, on a GPU."""

    name = "ctf.gctf"
    version: ClassVar[str] = "1"
    summary = "Gctf, held against the spectrum before it's believed (needs a GPU)"
    Parameters = OutsideCtfParameters
    uses_gpu = True
    tool = Tool(
        "gctf",
        "Gctf",
        ("Gctf", "gctf"),
        version_pattern=r"Gctf[_ -]*v?(\d+\.\d+)",
        versions=((0, 50), (2,)),
        source="www2.mrc-lmb.cam.ac.uk",
    )

    def work(self, job: Job[OutsideCtfParameters]) -> CtfResult:
        """Fit one micrograph."""
        pixel_A = pixel_size_of(job)
        job.run(*self.command(job, job.mrc("micrograph").name, pixel_A))
        return judge(job, job.output("result.star"), pixel_A)

    @staticmethod
    def command(job: Job[OutsideCtfParameters], name: str, pixel_A: float) -> list[str]:
        """The arguments for one micrograph."""
        parameters = job.parameters
        numbers = {
            "--apix": pixel_A,
            "--kV": parameters.voltage_kV,
            "--Cs": parameters.spherical_aberration_mm,
            "--ac": parameters.amplitude_contrast,
            "--resL": parameters.min_resolution_A,
            "--resH": parameters.max_resolution_A,
            "--defL": parameters.min_defocus_A,
            "--defH": parameters.max_defocus_A,
            "--defS": parameters.defocus_step_A,
            "--astm": parameters.max_astigmatism_A,
            "--boxsize": parameters.box_size,
        }
        if parameters.fit_phase_shift:
            numbers |= {
                "--phase_shift_L": parameters.min_phase_deg,
                "--phase_shift_H": parameters.max_phase_deg,
                "--phase_shift_S": parameters.phase_step_deg,
            }
        words = [word for flag, value in numbers.items() for word in (flag, number(value))]
        return [*words, "--gid", job.need_gpu(), "--ctfstar", "result.star", name]
