"""What a session's exposures and pictures say of it together: optics groups, places, tilt series.

All of it is written in the transaction that makes an exposure complete, by :class:`SessionBook`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session as OrmSession

from vitriflow.acquisition.metadata import series_of_mdoc
from vitriflow.acquisition.optics import Group, OpticsGroups, evidence_of
from vitriflow.acquisition.recognise import FileKind, recognise
from vitriflow.acquisition.scan import FileSeen
from vitriflow.catalog import Exposure, OpticsGroup, Place, TiltSeries
from vitriflow.errors import ItemError
from vitriflow.formats import read_epu_xml, read_mdoc

PLACE_KINDS = {
    FileKind.GRID_SQUARE_IMAGE: "grid_square",
    FileKind.FOIL_HOLE_IMAGE: "foil_hole",
    FileKind.ATLAS: "atlas",
}
_SHOWN = (".jpg", ".jpeg", ".png")  # pages can show these as they are
_IMAGES = (*_SHOWN, ".mrc", ".tif", ".tiff")
_STAMP = re.compile(r"(\d{8})_(\d{4,6})")
_NOT_OF_SERIES = ("_override", ".tif", ".tiff", ".eer")  # the same again, and mdocs of one movie each
_COMMON = ("tilt_axis_deg", "pixel_size_A", "voltage_kV")
_GROUPED = "optics_basis"  # in an exposure's details: it has its group, and keeps it


@dataclass(frozen=True)
class PlaceNews:
    """What one file says of a place.

    Attributes
    ----------
    kind, name
        ``grid_square``, ``foil_hole`` or ``atlas``; EPU's number, or the atlas's folder.
    parent
        A foil hole's grid square.
    key
        The file.
    image
        Whether it's a picture.
    stage_um
        Where the place is: x, y.
    """

    kind: str
    name: str
    parent: str | None
    key: str
    image: bool
    stage_um: tuple[float, float] | None = None


def place_of(file: FileSeen, *, read: bool = True) -> PlaceNews | None:
    """What a file says of a grid square, a foil hole or an atlas; None for other files.

    Parameters
    ----------
    file
        A whole file.
    read
        Open XML for the stage's position; one that can't be understood says nothing.
    """
    found = recognise(file.key)
    kind = PLACE_KINDS.get(found.kind)
    if kind is None:
        return None
    path = PurePosixPath(file.key)
    square, hole = found.fields.get("grid_square"), found.fields.get("foil_hole")
    name = {"grid_square": square, "foil_hole": hole, "atlas": _atlas(path)}[kind]
    if not name:
        return None
    stage = None
    if read and path.suffix.lower() == ".xml" and file.size:
        try:
            said = read_epu_xml(file.path)
        except (ItemError, OSError):
            said = None
        if said is not None and said.stage_x_um is not None and said.stage_y_um is not None:
            stage = (said.stage_x_um, said.stage_y_um)
    image = path.suffix.lower() in _IMAGES and not (kind == "atlas" and path.name.lower().startswith("tile"))
    parent = square if kind == "foil_hole" else None
    return PlaceNews(kind, str(name)[:128], parent, file.key, image, stage)


def _atlas(path: PurePosixPath) -> str:
    """The folder above an atlas's own tells atlases of several samples apart."""
    folders = [part for part in path.parts[:-1] if not part.lower().startswith("atlas")]
    return folders[-1] if folders else "atlas"


@dataclass(frozen=True)
class SeriesNews:
    """What an mdoc says of a tilt series, for tilts that came in before it was written.

    Attributes
    ----------
    name, key
        The series, and the mdoc.
    common
        What holds for all tilts: axis, pixel size, voltage.
    tilts
        By name of the movie, in small letters: order, angle, doses.
    """

    name: str
    key: str
    common: dict[str, Any]
    tilts: dict[str, dict[str, Any]]


def series_news(file: FileSeen) -> SeriesNews | None:
    """What a whole file says of a tilt series; None when it's no mdoc of one, or can't be read."""
    path = PurePosixPath(file.key)
    stem = path.stem.lower()
    if path.suffix.lower() != ".mdoc" or stem.endswith(_NOT_OF_SERIES) or not file.size:
        return None
    try:
        mdoc = read_mdoc(file.path)
    except (ItemError, OSError):
        return None
    name = series_of_mdoc(file.key, mdoc)
    if name is None:
        return None
    tilts: dict[str, dict[str, Any]] = {}
    for exposure in mdoc.exposures:
        if exposure.movie_name:
            order = recognise(exposure.movie_name).fields.get("tilt_order", exposure.tilt_order)
            tilts[exposure.movie_name.lower()] = {
                "angle_deg": exposure.tilt_angle_deg,
                "order": order,
                "dose_e_per_A2": exposure.dose_e_per_A2,
                "prior_dose_said_e_per_A2": exposure.prior_dose_e_per_A2,
            }
    first = mdoc.exposures[0]
    common = {one: getattr(first, one) for one in _COMMON if getattr(first, one) is not None}
    return SeriesNews(name, file.key, common, tilts)


class SessionBook:
    """Writes what is known of a session as a whole, inside one transaction.

    Parameters
    ----------
    orm
        The transaction.
    session_id
        Whose.
    """

    def __init__(self, orm: OrmSession, session_id: int) -> None:
        self._orm = orm
        self._session_id = session_id
        self._groups: OpticsGroups | None = None
        self._group_rows: dict[int, OpticsGroup] = {}
        self._places: dict[tuple[str, str], Place] = {}

    # -- exposures ------------------------------------------------------------------------

    def complete(self, row: Exposure, before: Mapping[str, Any] | None = None) -> None:
        """Fill an exposure's place, series and optics group from its name and metadata.

        Parameters
        ----------
        row
            The exposure, with its new ``details``.
        before
            The details that it had before, if any: an exposure that has its group keeps it.
        """
        details = dict(row.details or {})
        row.grid_square = _text(details.get("grid_square"), 128)
        row.foil_hole = _text(details.get("foil_hole"), 128)
        row.tilt_series = _text(details.get("tilt_series"), 256)
        angle = details.get("tilt_angle_deg") if row.tilt_series else None
        row.tilt_angle_deg = float(angle) if isinstance(angle, int | float) else None
        basis = (before or {}).get(_GROUPED)
        if basis is None:
            group = self._group_of(row.key, details, tilted=row.tilt_series is not None)
            row.optics_group, basis = group.number, group.basis
        row.details = {**details, _GROUPED: basis}
        if row.grid_square:
            self._place("grid_square", row.grid_square, None)
        if row.foil_hole:
            self._place("foil_hole", row.foil_hole, row.grid_square)
        if row.tilt_series:
            self._tilt(row, details)

    def _group_of(self, key: str, details: Mapping[str, Any], *, tilted: bool) -> Group:
        groups = self._load_groups()
        group, changed = groups.assign(evidence_of(key, details, tilted=tilted))
        if changed:
            self._write_group(group, groups)
        return group

    def _load_groups(self) -> OpticsGroups:
        if self._groups is None:
            query = select(OpticsGroup).where(OpticsGroup.session_id == self._session_id)
            rows = list(self._orm.scalars(query.order_by(OpticsGroup.number)))
            self._group_rows = {row.number: row for row in rows}
            radii: dict[str, float] = {}
            for row in rows:  # the newest row of a basis knows its newest radius
                if "radius" in row.details and row.details.get("n_basis", 0) >= radii.get(
                    f"n {row.basis}", 0
                ):
                    radii[row.basis] = float(row.details["radius"])
                    radii[f"n {row.basis}"] = row.details.get("n_basis", 0)
            groups = [Group(row.number, row.basis, row.details.get("label"), _points(row)) for row in rows]
            self._groups = OpticsGroups(groups, {k: v for k, v in radii.items() if not k.startswith("n ")})
        return self._groups

    def _write_group(self, group: Group, groups: OpticsGroups) -> None:
        row = self._group_rows.get(group.number)
        if row is None:
            row = OpticsGroup(
                session_id=self._session_id, number=group.number, name=group.name, basis=group.basis
            )
            self._group_rows[group.number] = row
            self._orm.add(row)
        centre = group.centre
        row.centre_x, row.centre_y = centre if centre is not None else (None, None)
        details: dict[str, Any] = {"label": group.label, "points": [list(point) for point in group.points]}
        if group.basis in groups.radii:
            count = sum(len(one.points) for one in groups.groups if one.basis == group.basis)
            details |= {"radius": groups.radii[group.basis], "n_basis": count}
        row.details = details

    # -- places -----------------------------------------------------------------------------

    def note(self, news: PlaceNews) -> None:
        """Take in what a picture or its XML says of a place."""
        row = self._place(news.kind, news.name, news.parent)
        if news.image and _better(news.key, row.image):
            row.image = news.key
        if news.stage_um is not None:
            row.stage_x_um, row.stage_y_um = news.stage_um

    def _place(self, kind: str, name: str, parent: str | None) -> Place:
        known = self._places.get((kind, name))
        query = select(Place).where(
            Place.session_id == self._session_id, Place.kind == kind, Place.name == name
        )
        row = known or self._orm.scalar(query)
        if row is None:
            row = Place(session_id=self._session_id, kind=kind, name=name, parent=parent, details={})
            self._orm.add(row)
            self._orm.flush()
        self._places[kind, name] = row
        row.parent = row.parent or parent
        return row

    # -- tilt series ------------------------------------------------------------------------

    def _tilt(self, exposure: Exposure, details: Mapping[str, Any]) -> None:
        query = select(TiltSeries).where(
            TiltSeries.session_id == self._session_id, TiltSeries.name == exposure.tilt_series
        )
        row = self._orm.scalar(query)
        if row is None:
            row = TiltSeries(session_id=self._session_id, name=str(exposure.tilt_series), details={})
            row.software = exposure.software
            self._orm.add(row)
            self._orm.flush()
        known = dict(row.details)
        tilts: dict[str, Any] = dict(known.get("tilts", {}))
        tilts[exposure.item] = {
            "angle_deg": exposure.tilt_angle_deg,
            "order": details.get("tilt_order"),
            "dose_e_per_A2": details.get("dose_e_per_A2"),
            "prior_dose_said_e_per_A2": details.get("prior_dose_e_per_A2"),
        }
        for name in _COMMON:
            if name in details:
                known.setdefault(name, details[name])
        if "metadata_file" in details:
            known.setdefault("mdoc", details["metadata_file"])
        row.details = {**known, "tilts": with_prior_doses(tilts)}

    def note_series(self, news: SeriesNews) -> None:
        """Take in what an mdoc says of tilts that are known already, where their own files didn't say it."""
        query = select(TiltSeries).where(TiltSeries.session_id == self._session_id)
        grid = "/".join(part for part in PurePosixPath(news.key).parts[:-1])
        for row in self._orm.scalars(query):
            plain = row.name.rpartition("/")[2]
            if plain != news.name.rpartition("/")[2] or not grid.startswith(row.name.rpartition("/")[0]):
                continue
            tilts: dict[str, Any] = {}
            for item, tilt in row.details.get("tilts", {}).items():
                said = next((one for name, one in news.tilts.items() if _same_movie(name, item)), {})
                tilts[item] = {**said, **{name: value for name, value in tilt.items() if value is not None}}
            known = {**news.common, "mdoc": news.key, **row.details}
            row.details = {**known, "tilts": with_prior_doses(tilts)}


def _points(row: OpticsGroup) -> list[tuple[float, float]]:
    """The shifts that a group was founded on; its centre, when nobody noted them."""
    points = row.details.get("points")
    if points:
        return [(float(x), float(y)) for x, y in points]
    if row.centre_x is None or row.centre_y is None:
        return []
    return [(row.centre_x, row.centre_y)]


def with_prior_doses(tilts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Tilts in the order in which they were taken, with the dose that the specimen had before each (e/A^2).

    What the file says holds; else the doses of those before are added up, when all are known.
    """

    def order(pair: tuple[str, Mapping[str, Any]]) -> tuple[bool, float, str]:
        number = pair[1].get("order")
        return number is None, float(number or 0), pair[0]

    total: float | None = 0.0
    found: dict[str, dict[str, Any]] = {}
    for item, tilt in sorted(tilts.items(), key=order):
        said, dose = tilt.get("prior_dose_said_e_per_A2"), tilt.get("dose_e_per_A2")
        found[item] = {**tilt, "prior_dose_e_per_A2": said if said is not None else total}
        total = total + dose if total is not None and dose is not None else None
    return found


def _same_movie(name: str, item: str) -> bool:
    """Whether a movie's name (small letters, with suffix) is that of an exposure."""
    return PurePosixPath(name).stem == PurePosixPath(item).name.lower()


def _text(value: object, longest: int) -> str | None:
    return str(value)[:longest] if value not in (None, "") else None


def _better(key: str, known: str | None) -> bool:
    """Whether a picture is worth more than the one known: one that pages can show, then the newer."""
    return known is None or _rank(key) > _rank(known)


def _rank(key: str) -> tuple[bool, tuple[str, ...], str]:
    stamp = _STAMP.search(PurePosixPath(key).name)
    return PurePosixPath(key).suffix.lower() in _SHOWN, stamp.groups() if stamp else (), key
