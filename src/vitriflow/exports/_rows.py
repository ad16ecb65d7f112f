"""From the finished nodes of one exposure to its rows in the project's tables."""

from pathlib import Path
from typing import NamedTuple

from vitriflow.exports._names import IMPORT, ProjectNames
from vitriflow.exports._records import (
    Done,
    Item,
    Optics,
    ctf_values,
    motion_values,
    optics_of,
    upstream_motion,
)
from vitriflow.exports._tables import CTF_LABELS, MOTION_LABELS, Table

_RELION_READS = {".mrc", ".mrcs", ".tif", ".tiff"}
_MICROGRAPH = ("rlnMicrographName", "rlnOpticsGroup")
NONE = "None"  # RELION's word for a file that isn't there


class LeftOutError(Exception):
    """An exposure can't stand in the project; the text says why."""


class Row(NamedTuple):
    """A row and the table it belongs to (the first of a path founds the table)."""

    table: Table
    group: int
    values: list[object]


class RowMaker:
    """Makes rows, and keeps what is known of optics groups.

    Attributes
    ----------
    optics
        By (job of the motion correction, group number): a group's values never change once known.
    """

    def __init__(self, names: ProjectNames) -> None:
        self._names = names
        self.optics: dict[tuple[str, int], Optics] = {}

    def rows(self, item: Item, done: list[Done]) -> list[Row]:
        """All rows of one exposure.

        Raises
        ------
        LeftOutError
            When a value that RELION can't do without is unknown, or contradicts the group's.
        """
        motions = [one for one in done if one.role == "motion"]
        rest = [one for one in done if one.role in ("ctf", "picks")]
        if not motions:
            return self._ready(item, rest) if rest and item.kind == "micrograph" else []
        rows: list[Row] = []
        for motion in motions:
            mine = [one for one in rest if upstream_motion(one, motions) is motion]
            rows += self._corrected(item, motion, mine)
        return rows

    def _corrected(self, item: Item, motion: Done, rest: list[Done]) -> list[Row]:
        """Rows of a movie: import, motion correction, and what hangs on it."""
        job = self._job(motion)
        name = self._name(motion, "micrograph", item)
        if name == NONE:
            raise LeftOutError("its motion correction names no micrograph")
        self._agree(job, item, [motion, *rest])
        movies = Table(IMPORT, "movies.star", "movies", ("rlnMicrographMovieName", "rlnOpticsGroup"))
        source = Table(
            job,
            "corrected_micrographs.star",
            "micrographs",
            (*_MICROGRAPH, *MOTION_LABELS),
            (movies.path,),
            job,
        )
        group = item.optics_group
        files = (self._name(motion, port, item) for port in ("motion", "power_spectrum"))
        extra: list[object] = [*files, *motion_values(motion.record)]
        return [
            Row(movies, group, [self._names.movie(item.path), group]),
            Row(source, group, [name, group, *extra]),
            *self._downstream(item, source, name, extra, rest),
        ]

    def _ready(self, item: Item, rest: list[Done]) -> list[Row]:
        """Rows of a micrograph that came in ready."""
        suffix = Path(item.path).suffix
        if suffix.lower() not in _RELION_READS:
            raise LeftOutError(f"RELION reads MRC and TIFF, and this is {suffix or 'a file without suffix'}")
        self._agree("", item, rest)
        source = Table(IMPORT, "micrographs.star", "micrographs", _MICROGRAPH)
        name = self._names.imported(item.path, item.item)
        first = Row(source, item.optics_group, [name, item.optics_group])
        return [first, *self._downstream(item, source, name, [], rest)]

    def _downstream(
        self, item: Item, source: Table, name: str, extra: list[object], rest: list[Done]
    ) -> list[Row]:
        """Rows of CTF and picking; ``extra`` are the motion columns that CTF tables carry on."""
        group, rows = item.optics_group, []
        for one in rest:
            job = self._job(one)
            if one.role == "ctf":
                labels = (*_MICROGRAPH, *CTF_LABELS, *source.labels[len(_MICROGRAPH) :])
                table = Table(
                    job, "micrographs_ctf.star", "micrographs", labels, (source.path,), source.branch
                )
                picture = self._name(one, "diagnostic", item)
                picture += ":mrc" if picture.endswith(".ctf") else ""  # RELION goes by the suffix
                rows.append(Row(table, group, [name, group, picture, *ctf_values(one.record), *extra]))
            else:
                labels = ("rlnMicrographName", "rlnMicrographCoordinates")
                table = Table(job, "autopick.star", "coordinate_files", labels, (source.path,), source.branch)
                coordinates = self._name(one, "coordinates", item)
                if coordinates != NONE:
                    rows.append(Row(table, group, [name, coordinates]))
        return rows

    def _job(self, one: Done) -> str:
        """The job folder that a node's files lie in."""
        jobs = {self._names.job_of(path) for path in one.outputs()} - {None}
        if len(jobs) != 1:
            raise LeftOutError(
                f"the files of node '{one.node}' lie in {len(jobs)} job folders of {self._names.root}, not 1"
            )
        return str(jobs.pop())

    def _name(self, one: Done, port: str, item: Item) -> str:
        path = one.output(port)
        return (self._names.output(path, item.item) if path else None) or NONE

    def _agree(self, branch: str, item: Item, done: list[Done]) -> None:
        """Learn the optics of an exposure's group, or find that the exposure contradicts it."""
        mine = optics_of(item, done)
        if mine.pixel_A is None:
            raise LeftOutError("nothing says what its pixel size is; set pixel_size_A")
        known = self.optics.get((branch, item.optics_group))
        if known is not None:
            conflicts = ", ".join(known.conflicts(mine))
            if conflicts:
                raise LeftOutError(f"it contradicts optics group {item.optics_group}: {conflicts}")
            mine = known.completed(mine)
        self.optics[branch, item.optics_group] = mine
