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

from vitriflow.acquisition.optics import Group, OpticsGroups, evidence_of
from vitriflow.acquisition.recognise import FileKind, recognise
from vitriflow.acquisition.scan import FileSeen
from vitriflow.catalog import Exposure, OpticsGroup, Place, TiltSeries
from vitriflow.errors import ItemError
from vitriflow.formats import read_epu_xml

PLACE_KINDS = {
    FileKind.GRID_SQUARE_IMAGE: "grid_square",
    FileKind.FOIL_HOLE_IMAGE: "foil_hole",
    FileKind.ATLAS: "atlas",
}
_SHOWN = (".jpg", ".jpeg", ".png")  # pages can show these as they are
_IMAGES = (*_SHOWN, ".mrc", ".tif", ".tiff")
_STAMP = re.compile(r"(\d{8})_(\d{4,6})")
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
        for name in ("tilt_axis_deg", "pixel_size_A", "voltage_kV"):
            if name in details:
                known.setdefault(name, details[name])
        if "metadata_file" in details:
            known.setdefault("mdoc", details["metadata_file"])
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


def _text(value: object, longest: int) -> str | None:
    return str(value)[:longest] if value not in (None, "") else None


def _better(key: str, known: str | None) -> bool:
    """Whether a picture is worth more than the one known: one that pages can show, then the newer."""
    return known is None or _rank(key) > _rank(known)


def _rank(key: str) -> tuple[bool, tuple[str, ...], str]:
    stamp = _STAMP.search(PurePosixPath(key).name)
    return PurePosixPath(key).suffix.lower() in _SHOWN, stamp.groups() if stamp else (), key
