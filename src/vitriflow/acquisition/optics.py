"""Optics groups while a session streams: clusters of beam shift whose numbers never change.

Aberrations change with the shift of the beam, so that exposures taken at one place of the pattern
belong together. The pattern isn't known beforehand and exposures come one by one, in any order. So
an exposure joins the nearest group within a radius, or founds a group with the next number. What was
given once stays: groups are never merged, split or numbered anew.

The radius starts at what separates shots on microscopes that we know, and is set between the scatter
within groups and the distance of groups as soon as the exposures show both.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from vitriflow.acquisition.recognisers import recognise

BEAM_SHIFT, IMAGE_SHIFT, NAME, NONE = "beam_shift", "image_shift", "name", "none"
# In the units of the program that wrote them: EPU's are about 25 um each, SerialEM's are um.
START_RADIUS = {BEAM_SHIFT: 0.012, IMAGE_SHIFT: 0.25}
_POINTS_PER_GROUP = 16  # enough for a centre; more would only cost
_SPREAD_AT, _SPREAD, _SHARE = 8, 25.0, 0.3  # see OpticsGroups._look_at_spacing
_FIRST_LOOK = 16  # points before scatter and distances are looked at; then at each doubling
_MOST_POINTS = 2048
_WINDOW = (0.25, 2.0)  # how far from the first radius one from data may be
_CLEAR = 1.8  # distances of groups have to be larger than the scatter by this factor
_MEMBERS = 8  # distances within groups that have to be seen before they're believed


@dataclass(frozen=True)
class Evidence:
    """What an exposure says of where its beam was.

    Attributes
    ----------
    basis
        ``beam_shift`` (EPU's XML), ``image_shift`` (mdoc), ``name`` or ``none``.
    shift
        x, y in the program's units, for the first two.
    label
        The place's name, for ``name``.
    """

    basis: str
    shift: tuple[float, float] | None = None
    label: str | None = None


NOTHING = Evidence(NONE)


def evidence_of(key: str, details: Mapping[str, Any], *, tilted: bool = False) -> Evidence:
    """What an exposure's metadata and name say of its beam's place; the metadata go before.

    Parameters
    ----------
    key
        Path below the source folder.
    details
        Metadata by our names (:class:`~vitriflow.formats.ExposureMetadata` as JSON).
    tilted
        Whether it belongs to a tilt series: the shifts there follow the specimen from tilt to
        tilt, and make no pattern.
    """
    if tilted:
        return NOTHING
    for basis in (BEAM_SHIFT, IMAGE_SHIFT):
        shift = _pair(details.get(basis))
        if shift is not None:
            return Evidence(basis, shift)
    label = recognise(key).fields.get("shift_position")
    return Evidence(NAME, label=str(label)) if label else NOTHING


def _pair(value: object) -> tuple[float, float] | None:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    try:
        x, y = float(value[0]), float(value[1])
    except (TypeError, ValueError):
        return None
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None


@dataclass
class Group:
    """One optics group.

    Attributes
    ----------
    number
        Counted from 1 in the order in which groups were founded.
    basis, label
        As in :class:`Evidence`.
    points
        The first shifts that joined; their mean is the centre.
    """

    number: int
    basis: str
    label: str | None = None
    points: list[tuple[float, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As it stands in STAR files."""
        return f"opticsGroup{self.number}"

    @property
    def centre(self) -> tuple[float, float] | None:
        """Mean of the points; None for a group that isn't of shifts."""
        if not self.points:
            return None
        return (
            sum(x for x, _ in self.points) / len(self.points),
            sum(y for _, y in self.points) / len(self.points),
        )

    def join(self, shift: tuple[float, float]) -> bool:
        """Take in a shift; False when the centre is settled already."""
        if len(self.points) >= _POINTS_PER_GROUP:
            return False
        self.points.append(shift)
        return True


class OpticsGroups:
    """The groups of one session. The same exposures in the same order always give the same groups.

    Parameters
    ----------
    groups
        Those known already.
    radii
        The radius in use for each basis, where one was found from data.
    """

    def __init__(self, groups: Sequence[Group] = (), radii: Mapping[str, float] | None = None) -> None:
        self.groups = list(groups)
        self.radii = {**START_RADIUS, **(radii or {})}

    def assign(self, evidence: Evidence) -> tuple[Group, bool]:
        """The group of an exposure, founded if it's a new one.

        Returns
        -------
        group, changed
            ``changed`` says that the group is new or learned something.
        """
        if evidence.shift is None:
            known = next(
                (g for g in self.groups if g.basis == evidence.basis and g.label == evidence.label), None
            )
            return (known, False) if known is not None else (self._found(evidence), True)
        group = self._nearest(evidence.basis, evidence.shift)
        if group is None:
            group = self._found(evidence)
        changed = group.join(evidence.shift)
        if changed:
            self._look_at_spacing(evidence.basis)
        return group, changed

    def _found(self, evidence: Evidence) -> Group:
        number = max((group.number for group in self.groups), default=0) + 1
        group = Group(number, evidence.basis, evidence.label)
        self.groups.append(group)
        return group

    def _nearest(self, basis: str, shift: tuple[float, float]) -> Group | None:
        reach: list[tuple[float, int, Group]] = []
        for group in self.groups:
            centre = group.centre
            if group.basis == basis and centre is not None:
                distance = math.dist(centre, shift)
                if distance <= self.radii[basis]:
                    reach.append((distance, group.number, group))
        return min(reach, key=lambda one: one[:2])[2] if reach else None

    def _look_at_spacing(self, basis: str) -> None:
        """Choose the radius anew, at 8, 16, 32 ... shifts.

        When the first eight all lie apart by far more than the radius, the pattern is a huge
        one, or the program's units are others than we know: then a share of the distance.
        """
        points = [point for group in self.groups if group.basis == basis for point in group.points]
        n = len(points)
        if n == _SPREAD_AT:
            nearest = min(math.dist(a, b) for a, b in combinations(points, 2))
            if nearest > _SPREAD * self.radii[basis]:
                self.radii[basis] = _SHARE * nearest
        elif _FIRST_LOOK <= n <= _MOST_POINTS and not n & (n - 1):
            self.radii[basis] = radius_from(points, self.radii[basis])


def radius_from(points: Sequence[tuple[float, float]], start: float) -> float:
    """The radius that lies between scatter within groups and the distance of groups.

    The lengths of the shortest tree that joins all points (single linkage) are sorted; a pattern
    with scatter shows as a gap in them. Of clear gaps near ``start`` the one at the longest
    distance counts: above it lies the next order of the pattern (holes above shots).

    Parameters
    ----------
    points
        Shifts.
    start
        What holds without a clear gap, and the scale around which one is believed.

    Returns
    -------
    float
        In the units of the points.
    """
    from scipy.cluster.hierarchy import linkage  # only here: heavy to import

    lengths = sorted(float(length) for length in linkage(points, "single")[:, 2])
    for below, above in reversed(list(zip(range(len(lengths)), lengths[1:], strict=False))):
        inside = lengths[below]
        if below + 1 < _MEMBERS or above < _CLEAR * inside:
            continue
        middle = math.sqrt(above * max(inside, above / 100))
        if _WINDOW[0] * start <= middle <= _WINDOW[1] * start:
            return middle
    return start
