"""``default_pipeline.star`` and what else RELION's window wants to find in a project.

People start jobs of their own from RELION in the same project, and RELION then writes the
pipeline file too. So ours is merged into what stands there, under RELION's own lock.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitriflow.exports._star import loop, parse, row, single, write_if_changed

PIPELINE = "default_pipeline.star"
_LOCK = ".relion_lock"
_LOCK_FILE = f"lock_{PIPELINE}"
_CHANGED = ".pipeline_has_changed"  # an open window of RELION's reads the pipeline anew when it sees this
# RELION 3.1's numbers (pipeline_jobs.h); RELION 4 and 5 read them and turn them into words.
NODE_MOVIES, NODE_MICROGRAPHS, NODE_COORDINATES = 0, 1, 2
_PROCESS_TYPES = {"Import": 0, "MotionCorr": 1, "CtfFind": 2, "AutoPick": 4, "Extract": 5}
_PROCESS_EXTERNAL = 99
# The option of each kind of job that names its input (from job.star files that RELION wrote).
_INPUT_OPTION = {1: "input_star_mics", 2: "input_star_mics", 4: "fn_input_autopick", 5: "star_mics"}
_FINISHED = 2
_TABLES = {
    "pipeline_processes": (
        "rlnPipeLineProcessName",
        "rlnPipeLineProcessAlias",
        "rlnPipeLineProcessType",
        "rlnPipeLineProcessStatus",
    ),
    "pipeline_nodes": ("rlnPipeLineNodeName", "rlnPipeLineNodeType"),
    "pipeline_input_edges": ("rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess"),
    "pipeline_output_edges": ("rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode"),
}
# What makes two rows of a table the same row.
_KEYS = {"pipeline_processes": 1, "pipeline_nodes": 1, "pipeline_input_edges": 2, "pipeline_output_edges": 2}


@dataclass(frozen=True)
class Job:
    """One job folder as RELION sees it."""

    name: str  # MotionCorr/job002
    node: str  # its output table, relative to the project
    node_type: int
    inputs: tuple[str, ...]  # nodes of other jobs
    note: str

    @property
    def process_type(self) -> int:
        """RELION 3.1's number for this kind of job."""
        return _PROCESS_TYPES.get(self.name.split("/")[0], _PROCESS_EXTERNAL)


def merged(existing: str, jobs: Sequence[Job], counter: int) -> str:
    """The pipeline file with our jobs in it; rows of other jobs stay, in their order."""
    ours: dict[str, list[tuple[str, ...]]] = {table: [] for table in _TABLES}
    for job in jobs:
        process = f"{job.name}/"
        ours["pipeline_processes"].append((process, "None", str(job.process_type), str(_FINISHED)))
        ours["pipeline_nodes"].append((job.node, str(job.node_type)))
        ours["pipeline_input_edges"] += [(node, process) for node in job.inputs]
        ours["pipeline_output_edges"].append((process, job.node))
    found = parse(existing)
    numbers = [line.get("rlnPipeLineJobCounter", "0") for line in found.get("pipeline_general", [])]
    counter = max([counter, *(int(number) for number in numbers if number.isdigit())])
    text = single("pipeline_general", {"rlnPipeLineJobCounter": counter})
    for table, labels in _TABLES.items():
        rows = {
            values[: _KEYS[table]]: values
            for line in found.get(table, [])
            if all(values := tuple(line.get(label, "") for label in labels))
        }
        for values in ours[table]:
            # An alias that a person gave in RELION stays.
            rows.setdefault(values[: _KEYS[table]], values)
        if rows:
            text += loop(table, labels, (row(values) for values in rows.values()))
    return text


def write_pipeline(root: Path, jobs: Sequence[Job], counter: int) -> list[Path] | None:
    """Bring ``default_pipeline.star`` and the job folders up to date.

    Returns
    -------
    list of Path or None
        Files written; None when RELION held its lock, so that it has to be done later.
    """
    written = [path for job in jobs for path in _job_files(root, job)]
    marker = root / ".gui_projectdir"  # RELION's window asks whether to start a new project without it
    if not marker.exists():
        marker.touch(mode=0o640)
        written.append(marker)
    path = root / PIPELINE
    if _up_to_date(_read(path), jobs, counter):
        return written
    with _relion_lock(root) as held:
        if not held:
            return None
        if write_if_changed(path, merged(_read(path), jobs, counter)):
            written.append(path)
            (root / _CHANGED).touch(mode=0o640)
    return written


def _up_to_date(text: str, jobs: Sequence[Job], counter: int) -> bool:
    """Whether everything of ours stands there, however RELION laid out its lines."""
    return bool(text) and parse(text) == parse(merged(text, jobs, counter))


def _read(path: Path) -> str:
    return path.read_text(errors="surrogateescape") if path.exists() else ""


@contextlib.contextmanager
def _relion_lock(root: Path) -> Iterator[bool]:
    """RELION's lock: a folder that only one can make, with a file in it that RELION looks for."""
    folder = root / _LOCK
    try:
        folder.mkdir()
    except FileExistsError:
        yield False
        return
    try:
        (folder / _LOCK_FILE).write_text("vitriflow adds its jobs to the pipeline\n")
        yield True
    finally:
        (folder / _LOCK_FILE).unlink(missing_ok=True)
        folder.rmdir()


def _job_files(root: Path, job: Job) -> Iterator[Path]:
    """What RELION's window shows of a job; written once, since people may edit the note."""
    folder = root / job.name
    files = {
        "RELION_JOB_EXIT_SUCCESS": "",
        "note.txt": job.note,
        "job.star": single("job", {"rlnJobType": job.process_type, "rlnJobIsContinue": 0})
        + loop(
            "joboptions_values",
            ("rlnJobOptionVariable", "rlnJobOptionValue"),
            [row((_INPUT_OPTION.get(job.process_type, "other_args"), (*job.inputs, "")[0]))],
        ),
    }
    for name, text in files.items():
        path = folder / name
        if not path.exists() and write_if_changed(path, text):
            yield path
