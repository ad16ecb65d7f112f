"""A processing's folder as a RELION project that grows while results arrive."""

from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.catalog import (
    Catalog,
    Exposure,
    Measure,
    OpticsGroup,
    Processing,
    ResultRow,
    Session,
    Task,
    TaskState,
    views,
)
from vitriflow.elogbook.marks import verdicts_of
from vitriflow.errors import BadParameter
from vitriflow.exports._names import IMPORT, ProjectNames
from vitriflow.exports._pipeline import NODE_COORDINATES, NODE_MICROGRAPHS, NODE_MOVIES, Job, write_pipeline
from vitriflow.exports._records import PROVENANCE_FIELDS, RECORD_FIELDS, Done, Item, Optics
from vitriflow.exports._rows import LeftOutError, RowMaker
from vitriflow.exports._star import write_if_changed
from vitriflow.exports._tables import FALLBACK, Table

_CHUNK = 300
_OPEN = (TaskState.WAITING, TaskState.READY, TaskState.RUNNING)
_GIVEN = ("voltage_kV", "spherical_aberration_mm", "amplitude_contrast")
_ITEM_COLUMNS = ("id", "key", "item", "path", "kind", "optics_group", "details")  # as in Item
_NOTE = "Made by vitriflow; its tables grow while results arrive. Start new jobs; don't continue this one.\n"


def write_relion_project(catalog: Catalog, processing_id: int) -> list[Path]:
    """Bring the RELION project of a processing up to date, once.

    Returns
    -------
    list of Path
        Files that were written, that is, those that say something new.

    Raises
    ------
    BadParameter
        When there is no such processing.
    BadConfig
        When something that vitriflow didn't make stands where one of its links belongs.
    """
    return RelionProject(catalog, processing_id).update()


class RelionProject:
    """Keeps ``processing.root`` a RELION project; :meth:`update` is cheap enough for every few seconds.

    An exposure stands in a table when that table's node is done for it: what was quarantined,
    rejected or failed there doesn't, and goes again when a later decision marks it so. What a person
    rejected stands nowhere in the project until that is undone; limits don't count here (see
    :func:`vitriflow.exports.micrographs_star`). Optics
    groups carry the numbers of the catalog; their values never change once known, and an
    exposure that contradicts its group is left out and named in :attr:`problems`.

    Parameters
    ----------
    catalog
        The catalog.
    processing_id
        The processing; its ``root`` becomes the project.

    Raises
    ------
    BadParameter
        When there is no such processing.
    """

    def __init__(self, catalog: Catalog, processing_id: int) -> None:
        self._catalog = catalog
        self._id = processing_id
        self._change = -1
        self._pipeline_due = False
        self._tables: dict[str, Table] = {}
        self._problems: dict[int, str] = {}
        self._optics: dict[tuple[str, int], Optics] = {}  # as last written
        self._marks: tuple[int, int] | None = None  # the stamp of people's marks that the tables follow
        self._rejected: frozenset[int] = frozenset()  # by people
        processing, session = catalog.read(lambda db: _processing(db, processing_id))
        self.session_id = session.id
        self.root = Path(processing.root)
        self._fallback = _given(_settings(session, processing))
        raw, source = Path(session.root) / "raw", Path(session.source)
        shown = (raw, source) if raw.exists() else (source,)
        self._names = ProjectNames(self.root, shown[0], shown[1:])
        self._maker = RowMaker(self._names)

    @property
    def problems(self) -> list[str]:
        """Why exposures with results are missing from the project, one sentence each."""
        return [self._problems[exposure] for exposure in sorted(self._problems)]

    def update(self) -> list[Path]:
        """Write what changed since the last call.

        Returns
        -------
        list of Path
            Files that were written.

        Raises
        ------
        BadConfig
            When something that vitriflow didn't make stands where one of its links belongs.
        """
        change, exposures, n_nodes, marks, rejected = self._catalog.read(self._news)
        if change == self._change and marks == self._marks and not self._pipeline_due:
            return []
        # Whoever's mark came or went stands in other tables now.
        exposures = sorted({*exposures, *(rejected ^ self._rejected)})
        self._rejected = rejected
        self.fill(exposures)
        written = self._write(n_nodes)
        self._change, self._marks = change, marks
        return written

    @property
    def tables(self) -> list[Table]:
        """The tables as they stand."""
        return list(self._tables.values())

    def fill(self, exposures: list[int]) -> None:
        """Put some exposures into the tables; writes nothing, and asks nothing of people's marks."""
        for start in range(0, len(exposures), _CHUNK):
            for item, done in self._load(exposures[start : start + _CHUNK]):
                self._place(item, done)

    def text_of(self, table: Table) -> str:
        """A table as a file."""
        return table.text(self._optics_of(table), self._catalog.read(self._group_names))

    def _optics_of(self, table: Table) -> dict[int, Optics]:
        return {
            number: known.completed(self._fallback)
            for (branch, number), known in self._maker.optics.items()
            if branch == table.branch or not table.branch
        }

    def _news(self, db: OrmSession) -> tuple[int, list[int], int, tuple[int, int], frozenset[int]]:
        """The processing's change number, exposures that changed since the last call, number of nodes; marks.

        Of these: their stamp, and the exposures of this processing that people reject.
        """
        change = db.scalar(select(Processing.change).where(Processing.id == self._id)) or 0
        changed = select(Measure.exposure_id).where(
            Measure.processing_id == self._id, Measure.change > self._change
        )
        nodes = select(func.count(func.distinct(Task.node))).where(Task.processing_id == self._id)
        marks = views.marks_stamp(db, self.session_id)
        rejected = self._rejected
        if marks != self._marks:
            rejected = frozenset(
                n for n, kind in verdicts_of(db, self.session_id).items() if kind == "reject"
            )
        if change == self._change and marks == self._marks and not self._pipeline_due:
            return change, [], 0, marks, rejected
        return change, sorted(db.scalars(changed)), db.scalar(nodes) or 0, marks, rejected

    def _load(self, exposures: list[int]) -> list[tuple[Item, list[Done]]]:
        return self._catalog.read(lambda db: _load(db, self._id, exposures))

    def _place(self, item: Item, done: list[Done]) -> None:
        """Put one exposure's rows where they belong now, and take it out of everywhere else."""
        self._problems.pop(item.id, None)
        if item.id in self._rejected:
            done = []
        kept: set[str] = set()
        try:
            for table, group, values in self._maker.rows(item, done):
                self._tables.setdefault(table.path, table).put(item.id, group, values)
                kept.add(table.path)
        except LeftOutError as reason:
            self._problems[item.id] = f"{item.key}: {reason}"
        for path, table in self._tables.items():
            if path not in kept:
                table.drop(item.id)

    def _write(self, n_nodes: int) -> list[Path]:
        self.root.mkdir(parents=True, exist_ok=True)
        self._names.link_movies()
        written: list[Path] = []
        learned = self._maker.optics != self._optics
        names = self._catalog.read(self._group_names)
        for table in self._tables.values():
            path = self.root / table.path
            if not (table.dirty or learned) and path.exists():
                continue
            if write_if_changed(path, table.text(self._optics_of(table), names)):
                written.append(path)
            table.dirty = False
        self._optics = dict(self._maker.optics)
        jobs = [self._job(table) for table in self._tables.values()]
        written += self._suffix_files(jobs)
        # Numbers are kept free for nodes that have no result yet; job001 is the import.
        more = write_pipeline(self.root, jobs, max(n_nodes, len(jobs) - 1) + 2)
        self._pipeline_due = more is None
        return written + (more or [])

    def _group_names(self, db: OrmSession) -> dict[int, str]:
        query = select(OpticsGroup.number, OpticsGroup.name).where(OpticsGroup.session_id == self.session_id)
        return {row.number: row.name for row in db.execute(query)}

    def _job(self, table: Table) -> Job:
        if table.job == IMPORT:
            kind = NODE_MOVIES if table.block == "movies" else NODE_MICROGRAPHS
            return Job(table.job, table.path, kind, (), _NOTE)
        if table.block == "coordinate_files":
            return Job(table.job, _suffix_file(table), NODE_COORDINATES, (self._picked_from(table),), _NOTE)
        return Job(table.job, table.path, NODE_MICROGRAPHS, table.inputs, _NOTE)

    def _picked_from(self, picks: Table) -> str:
        """The micrographs that a picking job's list names: those with CTF, where there are any."""
        for path, table in self._tables.items():
            if table.file == "micrographs_ctf.star" and table.branch == picks.branch:
                return path
        return picks.inputs[0]

    def _suffix_files(self, jobs: list[Job]) -> list[Path]:
        """RELION 3.1 finds coordinates by a file whose name holds their suffix; later ones by a list."""
        written = []
        for job in jobs:
            path = self.root / job.node
            if job.node_type == NODE_COORDINATES and write_if_changed(path, f"{job.inputs[0]}\n"):
                written.append(path)
        return written


def _suffix_file(picks: Table) -> str:
    return f"{picks.job}/coords_suffix_autopick.star"


def _processing(db: OrmSession, processing_id: int) -> tuple[Processing, Session]:
    processing = db.get(Processing, processing_id)
    session = db.get(Session, processing.session_id) if processing else None
    if processing is None or session is None:
        raise BadParameter(
            f"processing {processing_id}",
            expected="one that stands in the catalog",
            found="none of that number",
            remedy="Run 'vitriflow status' to see which there are.",
        )
    return processing, session


def _settings(session: Session, processing: Processing) -> dict[str, Any]:
    """What was set for this processing, the facility's table below it."""
    said = dict(session.settings or {})
    return {**(said.pop("facility", None) or {}), **said, **(processing.parameters or {})}


def _given(settings: dict[str, Any]) -> Optics:
    """What people said about the optics, for values that no step ran with."""
    values = {name: settings.get(name) for name in _GIVEN}
    given = {name: float(value) for name, value in values.items() if isinstance(value, (int, float))}
    return Optics(**given).completed(FALLBACK)


def _load(db: OrmSession, processing_id: int, exposures: list[int]) -> list[tuple[Item, list[Done]]]:
    """Exposures with their finished nodes, in the order given."""
    tasks = db.execute(
        select(Task.item_id, Task.node, Task.revision, Task.state).where(
            Task.processing_id == processing_id,
            Task.item_type == "exposure",
            Task.item_id.in_(exposures),
        )
    ).all()
    wanted = _standing(tasks)
    # The database picks out what is needed: whole records carry curves and tracks, 40 kB an exposure.
    parts = [ResultRow.record[name] for name in RECORD_FIELDS]
    parts += [ResultRow.record[("provenance", name)] for name in PROVENANCE_FIELDS]
    results = db.execute(
        select(ResultRow.item_id, ResultRow.node, ResultRow.revision, *parts)
        .where(
            ResultRow.processing_id == processing_id,
            ResultRow.item_type == "exposure",
            ResultRow.item_id.in_(exposures),
            ResultRow.status == "done",
        )
        .order_by(ResultRow.item_id, ResultRow.node)
    )
    done: dict[int, list[Done]] = {exposure: [] for exposure in exposures}
    for item_id, node, revision, *values in results:
        if wanted.get((item_id, node)) == revision:
            done[item_id].append(Done.of(node, values))
    columns = [getattr(Exposure, name) for name in _ITEM_COLUMNS]
    rows = db.execute(select(*columns).where(Exposure.id.in_(exposures)).order_by(Exposure.id))
    return [(Item(*row), done[row[0]]) for row in rows]


def _standing(tasks: Any) -> dict[tuple[int, str], int]:
    """For each (exposure, node) the revision that counts: the newest that has ended, if it's done.

    While a newer revision is still open, the older one stands.
    """
    ended: dict[tuple[int, str], tuple[int, str]] = {}
    for item_id, node, revision, state in tasks:
        if state not in _OPEN:
            ended[item_id, node] = max(ended.get((item_id, node), (0, "")), (revision, state))
    return {key: revision for key, (revision, state) in ended.items() if state == TaskState.DONE}
