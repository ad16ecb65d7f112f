"""Optics groups: the right number of them on a real session, and numbers that never change."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.acquisition import Evidence, OpticsGroups, evidence_of
from vitriflow.acquisition.optics import START_RADIUS, Group, radius_from
from vitriflow.formats import ExposureMetadata, read_epu_xml

Shift = tuple[float, float]
SQUARE = "epu-afis-session/Images-Disc1/GridSquare_5324661/Data"


def numbers(groups: OpticsGroups, shifts: Sequence[Shift], basis: str = "beam_shift") -> list[int]:
    return [groups.assign(Evidence(basis, shift))[0].number for shift in shifts]


@pytest.fixture(scope="module")
def real(real_data: Path) -> list[ExposureMetadata]:
    """189 exposures of one grid square, in the order in which they were taken."""
    paths = [path for path in (real_data / SQUARE).glob("*.xml") if not path.stem.endswith("_Fractions")]
    return sorted(map(read_epu_xml, paths), key=lambda found: str(found.acquired_at))


@pytest.fixture(scope="module")
def truth(real: list[ExposureMetadata]) -> list[tuple[str, int]]:
    """Which shot of the hole (by name) and which hole of the pattern (by distance) each one is.

    The pattern's holes lie 0.1 apart, the exposures of one scatter by less than 0.01, so that the
    shots of one kind fall apart at any distance between.
    """
    found: list[tuple[str, int]] = []
    holes: dict[str, list[Shift]] = {}
    for exposure in real:
        shift, shot = exposure.beam_shift, str(exposure.position)
        assert shift is not None
        known = holes.setdefault(shot, [])
        near = [number for number, other in enumerate(known) if math.dist(shift, other) < 0.05]
        if not near:
            known.append(shift)
            near = [len(known) - 1]
        found.append((shot, near[0]))
    assert {shot: len(known) for shot, known in holes.items()} == dict.fromkeys(holes, 21)
    return found


def shifts_of(real: list[ExposureMetadata]) -> list[Shift]:
    return [exposure.beam_shift for exposure in real if exposure.beam_shift is not None]


def test_the_real_session_has_a_group_for_each_shot_of_each_hole_of_its_pattern(
    real: list[ExposureMetadata], truth: list[tuple[str, int]]
) -> None:
    groups = OpticsGroups()
    given_numbers = numbers(groups, shifts_of(real))
    assert len(groups.groups) == 63
    assert len(set(zip(given_numbers, truth, strict=True))) == 63 == len(set(truth))


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_arrival_changes_numbers_but_not_who_belongs_together(
    real: list[ExposureMetadata], truth: list[tuple[str, int]], seed: int
) -> None:
    order = list(range(len(real)))
    random.Random(seed).shuffle(order)
    shifts = shifts_of(real)
    found = numbers(OpticsGroups(), [shifts[i] for i in order])
    assert len(set(zip(found, (truth[i] for i in order), strict=True))) == 63 == len(set(found))


def test_a_restart_after_any_exposure_goes_on_with_the_same_numbers(real: list[ExposureMetadata]) -> None:
    shifts = shifts_of(real)
    whole = numbers(OpticsGroups(), shifts)
    for stop in range(0, len(shifts), 13):
        first = OpticsGroups()
        before = numbers(first, shifts[:stop])
        kept = [Group(g.number, g.basis, g.label, list(g.points)) for g in first.groups]
        assert before + numbers(OpticsGroups(kept, first.radii), shifts[stop:]) == whole


def test_two_groups_that_turn_out_near_stay_apart() -> None:
    groups = OpticsGroups()
    near = 1.4 * START_RADIUS["beam_shift"]
    assert numbers(groups, [(0.0, 0.0), (near, 0.0)]) == [1, 2]
    between = [(near * share, 0.0) for share in (0.3, 0.4, 0.45, 0.55, 0.6, 0.7)] * 4
    assert set(numbers(groups, between)) <= {1, 2}
    assert numbers(groups, [(0.0, 0.0), (near, 0.0)]) == [1, 2]


def test_exposures_that_say_nothing_are_group_1() -> None:
    groups = OpticsGroups()
    assert [groups.assign(evidence_of("a.tif", {}))[0].number for _ in range(3)] == [1, 1, 1]
    assert groups.groups[0].basis == "none"


@pytest.mark.parametrize(
    ("key", "details", "expected"),
    [
        (
            "a.tif",
            {"beam_shift": [0.1, -0.2], "image_shift": [0.0, 0.0]},
            Evidence("beam_shift", (0.1, -0.2)),
        ),
        ("a.tif", {"image_shift": [2.5, 1.0]}, Evidence("image_shift", (2.5, 1.0))),
        ("a.tif", {"beam_shift": [float("nan"), 0.0]}, Evidence("none")),
        ("a.tif", {"beam_shift": "nonsense"}, Evidence("none")),
        ("a.tif", {"beam_shift": [None, 1]}, Evidence("none")),
        ("g_X+1Y-1-2_0001.tif", {}, Evidence("name", label="X+1Y-1-2")),
        (
            "Data/FoilHole_9015883_Data_9017347_6_20250108_154915_EER.eer",
            {},
            Evidence("name", label="9017347_6"),
        ),
        ("frames/TS_01_000_0.0.tif", {}, Evidence("none")),
    ],
)
def test_metadata_go_before_the_name(key: str, details: dict[str, object], expected: Evidence) -> None:
    assert evidence_of(key, details) == expected


def test_shifts_of_a_tilt_series_make_no_groups() -> None:
    assert evidence_of("Position_1_001_3.0.tif", {"image_shift": [0.3, 0.1]}, tilted=True) == Evidence("none")


def test_names_alone_give_a_group_for_each_place() -> None:
    groups = OpticsGroups()
    names = [f"FoilHole_{hole}_Data_77_{hole % 4}_20250108_1549{hole:02d}_EER.eer" for hole in range(12)]
    assert [groups.assign(evidence_of(name, {}))[0].number for name in names] == [1, 2, 3, 4] * 3


def pattern(spacing: float, scatter: float, visits: int, seed: int = 3) -> tuple[list[Shift], list[int]]:
    rng = random.Random(seed)
    places = [(x * spacing, y * spacing) for x in range(-1, 2) for y in range(-1, 2)]
    order = [place for _ in range(visits) for place in range(9)]
    shifts = [
        (places[place][0] + rng.gauss(0, scatter), places[place][1] + rng.gauss(0, scatter))
        for place in order
    ]
    return shifts, order


@pytest.mark.parametrize(
    ("basis", "spacing", "scatter"),
    [
        ("beam_shift", 0.1, 0.0015),
        ("beam_shift", 0.03, 0.002),
        ("image_shift", 2.0, 0.05),
        ("image_shift", 1.2, 0.02),
        ("beam_shift", 1.0, 0.04),
        ("beam_shift", 40.0, 1.0),  # units that we don't know
    ],
)
def test_a_pattern_of_nine_gives_nine(basis: str, spacing: float, scatter: float) -> None:
    shifts, order = pattern(spacing, scatter, visits=12)
    found = numbers(OpticsGroups(), shifts, basis)
    assert found == [place + 1 for place in order]


def test_scatter_alone_is_one_group() -> None:
    rng = random.Random(5)
    shifts = [(rng.gauss(0, 0.0015), rng.gauss(0, 0.0015)) for _ in range(200)]
    assert set(numbers(OpticsGroups(), shifts)) == {1}


def test_the_radius_lies_between_scatter_and_spacing() -> None:
    shifts, _ = pattern(0.03, 0.001, visits=8)
    assert 0.004 < radius_from(shifts, START_RADIUS["beam_shift"]) < 0.026
    assert radius_from(shifts[:9], START_RADIUS["beam_shift"]) == START_RADIUS["beam_shift"]
    same = [(0.0, 0.0)] * 20
    assert radius_from(same, 0.012) == 0.012


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), max_size=80))
def test_numbers_count_up_and_a_second_run_gives_the_same(shifts: list[Shift]) -> None:
    found = numbers(OpticsGroups(), shifts)
    assert found == numbers(OpticsGroups(), shifts)
    highest = 0
    for number in found:
        assert number <= highest + 1
        highest = max(highest, number)
