"""A step of two MPI processes, installed as a facility would: by an entry point."""

import os
import subprocess
from collections.abc import Mapping

from vitriflow.steps import Artifact, Context, Kind, Port, Resources, Result, Step, StepParameters


class RanksResult(Result):
    ranks: str = ""
    job: str = ""


class Ranks(Step[StepParameters, RanksResult]):
    name = "ranks.any"
    version = "1"
    summary = "Says which MPI processes it had"
    inputs = {"movie": Port(Kind.MOVIE, "a movie", optional=True)}
    outputs = {}
    Parameters = StepParameters
    Record = RanksResult

    def resources(self, parameters: StepParameters) -> Resources:
        return Resources(mpi=2, time_limit_s=60.0)

    def run(
        self, inputs: Mapping[str, Artifact], parameters: StepParameters, context: Context
    ) -> RanksResult:
        command = [*os.environ["VITRIFLOW_MPIRUN"].split(), "sh", "-c", "echo rank $OMPI_COMM_WORLD_RANK"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("JOB_ID", "")
        return RanksResult(ranks=" ".join(sorted(said.split("\n"))).strip(), job=job)
