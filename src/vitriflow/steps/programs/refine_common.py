"""What RELION's classification and refinement share: one table of all particles in, tables of classes out."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field

from vitriflow.errors import BadFile, ItemError, ProgramError, Reason
from vitriflow.steps.base import BatchItem
from vitriflow.steps.programs.base import Job, ProgramParameters, number
from vitriflow.steps.programs.relion import relion_tool

if TYPE_CHECKING:
    import pandas as pd

REFINE = relion_tool("relion_refine", "classification")
_HALF = 12  # MRC's mode of 16-bit floats, which RELION 3.1 can't read


class RefineParameters(ProgramParameters):
    """What classification and refinement are told alike."""

    time_limit_s: float = Field(
        default=86400.0, gt=0, le=30 * 86400, description="after which the program is killed (s)"
    )
    particle_diameter_A: float = Field(gt=20, le=5000, description="of the mask around the particle (A)")
    tau2_fudge: float = Field(
        default=2.0, gt=0, le=100, description="regularisation; 4 for three-dimensional classes"
    )
    offset_range_px: float = Field(default=5.0, gt=0, le=200, description="search of shifts (px)")
    offset_step_px: float = Field(default=1.0, gt=0, le=50, description="step of that search (px)")
    zero_mask: bool = Field(
        default=True, description="fill the outside of the mask with zeros, else with noise"
    )
    use_ctf: bool = Field(default=True, description="correct for the CTF, where particles have one")
    threads: int = Field(default=2, ge=1, le=256, description="CPU threads of each process")
    mpi: int = Field(default=1, ge=1, le=1024, description="MPI processes; 1 runs without MPI")
    nodes: int = Field(default=1, ge=1, le=256, description="nodes that they are spread over")
    mpi_launcher: tuple[str, ...] = Field(
        default=("mpirun", "-n", "{mpi}"), description="what starts MPI processes; {mpi} is their number"
    )
    pool: int = Field(default=3, ge=1, le=1000, description="particles that a thread takes at once")
    preread: bool = Field(default=False, description="read all particles into memory first")
    scratch: Path | None = Field(default=None, description="fast local folder that particles are copied to")
    random_seed: int = Field(default=-1, ge=-1, description="-1 takes another one each time")


P = TypeVar("P", bound=RefineParameters)


@dataclass
class Gathered:
    """Particles of a batch in the working folder.

    Attributes
    ----------
    origin
        From names of stacks there to where they came from.
    """

    n_particles: int
    n_items: int
    n_new: int
    pixel_size_A: float
    box_size_px: int
    has_ctf: bool
    skipped: list[str] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)


def gather(job: Job[P], items: Sequence[BatchItem]) -> Gathered:
    """Write ``particles.star`` of all members; one that can't be read is left out and named.

    Raises
    ------
    ItemError
        When nothing is left, or members differ in pixel or box size.
    """
    import pandas as pd

    from vitriflow.formats import write_particles

    (job.folder / "stacks").mkdir()
    gathered = Gathered(0, 0, 0, 0.0, 0, True)
    tables: list[pd.DataFrame] = []
    groups: dict[int, dict[str, Any]] = {}
    for index, item in enumerate(items, start=1):
        try:
            table, optics = _member(job, item, index, gathered)
        except (ItemError, KeyError, ValueError) as error:
            gathered.skipped.append(f"{item.item}: {error}")
            continue
        tables.append(table)
        for row in optics.to_dict("records"):
            groups.setdefault(int(row["rlnOpticsGroup"]), {str(key): value for key, value in row.items()})
        gathered.n_items += 1
        gathered.n_new += int(item.new)
    if not tables:
        raise BadFile(
            Reason.NO_PICKS,
            f"batch {job.context.item}",
            "particles",
            "; ".join(gathered.skipped[:3]) or "no members",
            "Extract first.",
        )
    optics = pd.DataFrame(list(groups.values())).dropna(axis=1)
    sizes = {(round(float(row["rlnImagePixelSize"]), 4), int(row["rlnImageSize"])) for row in groups.values()}
    if len(sizes) > 1:
        raise BadFile(
            Reason.METADATA_BROKEN,
            f"batch {job.context.item}",
            "particles of one pixel and box size",
            str(sorted(sizes)),
            "Extract all with the same scaled_box_px and box_size_px.",
        )
    gathered.pixel_size_A, gathered.box_size_px = sizes.pop()
    together = pd.concat(tables, ignore_index=True).dropna(axis=1)
    needed = {"rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"}
    gathered.has_ctf = needed <= set(together.columns) and "rlnVoltage" in optics
    gathered.n_particles = len(together)
    if "rlnVoltage" not in optics:  # its tables have to have them, used or not
        optics = optics.assign(rlnVoltage=300.0, rlnSphericalAberration=2.7, rlnAmplitudeContrast=0.1)
    write_particles(job.folder / "particles.star", together, optics)
    return gathered


def _member(
    job: Job[P], item: BatchItem, index: int, gathered: Gathered
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """A member's tables, its stacks linked (16-bit ones converted) under short names."""
    from vitriflow.formats import read_particles, read_stack, write_stack

    found = read_particles(item.inputs["particles"].path)
    if not len(found):
        raise BadFile(Reason.NO_PICKS, str(item.inputs["particles"].path), "particles", "an empty table", "")
    names: dict[Path, str] = {}
    for _, path in found.places():
        if path in names:
            continue
        name = f"stacks/{index:05d}_{len(names)}.mrcs"
        names[path], gathered.origin[name] = name, str(path)
        with path.open("rb") as stream:
            mode = int.from_bytes(stream.read(16)[12:16], "little")
        if mode == _HALF:
            write_stack(job.folder / name, read_stack(path), float(found.optics["rlnImagePixelSize"].iloc[0]))
        else:
            (job.folder / name).symlink_to(path.absolute())
    table = found.table.copy()
    table["rlnImageName"] = [f"{place + 1:06d}@{names[path]}" for place, path in found.places()]
    return table, found.optics


def common_words(job: Job[P], gathered: Gathered) -> list[str]:
    """Arguments that classification and refinement share."""
    parameters = job.parameters
    words = ["--i", "particles.star", "--o", "out/run"]
    words += ["--particle_diameter", number(parameters.particle_diameter_A)]
    words += ["--tau2_fudge", number(parameters.tau2_fudge), "--flatten_solvent", "--norm", "--scale"]
    words += ["--oversampling", "1", "--offset_range", number(parameters.offset_range_px)]
    words += ["--offset_step", number(2.0 * parameters.offset_step_px), "--pad", "2"]
    words += ["--j", str(parameters.threads), "--pool", str(parameters.pool)]
    words += ["--dont_combine_weights_via_disc", "--no_parallel_disc_io"]
    words += ["--zero_mask"] if parameters.zero_mask else []
    words += ["--ctf"] if parameters.use_ctf and gathered.has_ctf else []
    words += ["--preread_images"] if parameters.preread else []
    words += ["--scratch_dir", str(parameters.scratch)] if parameters.scratch is not None else []
    words += ["--random_seed", str(parameters.random_seed)] if parameters.random_seed >= 0 else []
    return [*words, "--gpu", str(job.gpu)] if job.gpu is not None else words


def run_refine(job: Job[P], words: Sequence[str]) -> None:
    """Run it, under MPI where more than one process is asked for."""
    (job.folder / "out").mkdir(exist_ok=True)
    parameters = job.parameters
    if parameters.mpi == 1:
        job.run(*words)
        return
    launcher = [word.replace("{mpi}", str(parameters.mpi)) for word in parameters.mpi_launcher]
    given = shlex.split(os.environ.get("VITRIFLOW_MPIRUN", ""))  # of the batch job's pool
    if given and "mpi_launcher" not in parameters.model_fields_set:
        launcher = given
    job.run(*launcher[1:], job.found.beside("relion_refine_mpi"), *words, program=launcher[0])


def check_file(path: Path, what: str) -> None:
    """A file that a person named is there.

    Raises
    ------
    ProgramError
        ``parameter.bad``.
    """
    if not path.is_file():
        raise ProgramError(
            Reason.PARAMETER, what, "a file", f"none at {path}", "Name one that this worker can read."
        )


def last_iteration(job: Job[P], ending: str) -> tuple[int, Path]:
    """Number and file of the last iteration that left ``run_itNNN`` and this ending."""
    found = sorted(job.folder.glob(f"out/run_it*{ending}"))
    if not found:
        job.output(f"out/run_it*{ending}")
    said = re.search(r"run_it(\d+)", found[-1].name)
    assert said is not None
    if found[-1].stat().st_size == 0:
        job.output(f"out/{found[-1].name}")
    return int(said.group(1)), found[-1]


def table_of(path: Path, block: str) -> "pd.DataFrame":
    """A table of a STAR file, also when it has one row."""
    import pandas as pd

    from vitriflow.formats import read_star

    found: Any = read_star(path)[block]
    return pd.DataFrame([found]) if isinstance(found, dict) else found


def resolution_of(value: Any) -> float | None:
    """A resolution (A); RELION writes 999 or infinity where there's none."""
    number_of = float(value)
    return number_of if 0.0 < number_of < 900.0 else None


def data_table(job: Job[P], path: Path, gathered: Gathered) -> "pd.DataFrame":
    """The particles with their classes and angles: as many as went in.

    Raises
    ------
    ProgramError
        ``program.nonsense``.
    """
    table = table_of(path, "particles")
    if len(table) != gathered.n_particles:
        raise job.nonsense("particles", f"{gathered.n_particles}", f"{len(table)}")
    return table


def write_data(job: Job[P], path: Path, gathered: Gathered) -> Path:
    """Write that table as ``_data.star``, with the stacks' names as they came."""
    from vitriflow.formats import write_particles

    table = data_table(job, path, gathered)
    back = [name.partition("@") for name in table["rlnImageName"]]
    table["rlnImageName"] = [f"{place}@{gathered.origin.get(stack, stack)}" for place, _, stack in back]
    with job.context.writing("_data.star") as temporary:
        write_particles(temporary, table, table_of(path, "optics"))
    return job.context.path("_data.star")
