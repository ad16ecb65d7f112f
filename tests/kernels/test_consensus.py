"""Several answers made one."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitriflow.errors import BadParameter
from vitriflow.kernels.consensus import CtfEstimate, agreeing, ctf_agreement_A, mean_ctf, pick_clusters
from vitriflow.units import electron_wavelength_A


def estimate(
    u: float = 12000, v: float = 11800, angle: float = 20, phase: float = 0, **other: float
) -> CtfEstimate:
    return CtfEstimate(u, v, angle, phase, other.get("kV", 300.0), other.get("cs", 2.7), other.get("ac", 0.1))


def test_a_difference_of_defocus_agrees_to_the_square_root_of_two_lambda_dz() -> None:
    wavelength = electron_wavelength_A(300.0)
    found = ctf_agreement_A(estimate(12000, 12000), estimate(13000, 13000))
    assert found == pytest.approx(math.sqrt(2 * wavelength * 1000.0), rel=1e-9)
    assert found == pytest.approx(6.27, abs=0.01)  # by radius; by area it would be 9.84 A


def test_equal_ctfs_agree_to_all_resolutions() -> None:
    assert ctf_agreement_A(estimate(), estimate()) == 0.0
    # U and V the other way round with the angle turned is the same CTF
    assert ctf_agreement_A(estimate(12000, 11000, 10), estimate(11000, 12000, 100)) < 0.1


def test_the_angle_counts_only_where_there_is_astigmatism() -> None:
    assert ctf_agreement_A(estimate(12000, 12000, 0), estimate(12000, 12000, 80)) < 0.1
    assert ctf_agreement_A(estimate(12500, 11500, 0), estimate(12500, 11500, 90)) == pytest.approx(
        math.sqrt(2 * electron_wavelength_A(300.0) * 1000.0)
    )


def test_a_phase_shift_brings_disagreement_nearer_and_half_a_turn_everywhere() -> None:
    plain = ctf_agreement_A(estimate(), estimate(12500, 12300))
    assert ctf_agreement_A(estimate(phase=40), estimate(12500, 12300, phase=80)) > plain
    assert ctf_agreement_A(estimate(phase=0), estimate(phase=120)) == math.inf
    assert ctf_agreement_A(estimate(phase=1), estimate(phase=359)) < 0.1


def test_phases_are_pi_half_apart_where_agreement_ends() -> None:
    one, other = estimate(12000, 11500, 20, 10, cs=2.7), estimate(12700, 11800, 50, 25, cs=2.0)
    k = 1.0 / ctf_agreement_A(one, other)
    wavelength = electron_wavelength_A(300.0)
    theta = np.linspace(0, 2 * np.pi, 3600)

    def phase(ctf: CtfEstimate, at: float) -> np.ndarray:
        z = ctf.mean_A + (ctf.astigmatism * np.exp(-2j * theta)).real
        cs = 0.5 * np.pi * ctf.cs_mm * 1e7 * wavelength**3 * at**4
        return np.pi * wavelength * z * at**2 - cs + ctf.offset

    apart = np.abs(phase(one, k) - phase(other, k)).max()
    assert apart == pytest.approx(math.pi / 2, rel=1e-3)
    assert np.abs(phase(one, 0.9 * k) - phase(other, 0.9 * k)).max() < math.pi / 2


def test_two_voltages_are_refused() -> None:
    with pytest.raises(BadParameter, match="one voltage"):
        ctf_agreement_A(estimate(), estimate(kV=200.0))


def test_angles_are_averaged_as_doubled_ones() -> None:
    mean = mean_ctf([estimate(12000, 11000, 85), estimate(12000, 11000, -85)])
    assert abs(mean.angle_deg) == pytest.approx(90.0, abs=0.01)
    assert mean.defocus_u_A - mean.defocus_v_A == pytest.approx(1000 * math.cos(math.radians(10)), rel=1e-6)
    crossed = mean_ctf([estimate(12000, 11000, 0), estimate(12000, 11000, 90)])
    assert crossed.defocus_u_A == pytest.approx(crossed.defocus_v_A, abs=1e-6)
    assert mean_ctf([estimate(phase=170), estimate(phase=176)]).phase_shift_deg == pytest.approx(173.0)


numbers = st.builds(
    estimate,
    u=st.floats(9000, 15000),
    v=st.floats(8000, 9000),
    angle=st.floats(-90, 90),
    phase=st.sampled_from([0.0, 0.0, 30.0, 90.0]),
)


@given(st.lists(numbers, min_size=1, max_size=4), st.floats(3, 12), st.randoms())
@settings(max_examples=60)
def test_the_order_of_estimates_changes_nothing(some: list[CtfEstimate], resolution_A: float, dice) -> None:
    group = [some[i] for i in agreeing(some, resolution_A)]
    shuffled = list(some)
    dice.shuffle(shuffled)
    again = [shuffled[i] for i in agreeing(shuffled, resolution_A)]
    assert mean_ctf(group) == mean_ctf(again)
    for one, other in itertools.combinations(group, 2):
        assert ctf_agreement_A(one, other) <= resolution_A


def test_the_odd_one_out_is_left_out() -> None:
    some = [estimate(), estimate(30000, 29000), estimate(12050, 11800)]
    assert agreeing(some, 6.0) == [0, 2]


def points(*yx: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(yx, dtype=float).reshape(-1, 2), np.linspace(1.0, 2.0, len(yx))


def test_each_picker_has_one_vote_for_a_particle() -> None:
    twice = points((100, 100), (103, 100))
    found = pick_clusters([twice, points((101, 101)), points((300, 300))], 10.0)
    assert sorted(found.votes.tolist()) == [1, 1, 2]
    assert found.votes[0] == 2
    assert np.allclose(found.yx[0], (100.5, 100.5))


def test_particles_side_by_side_stay_two() -> None:
    found = pick_clusters([points((0, 0), (0, 30)), points((0, 4), (0, 27))], 20.0)
    assert found.votes.tolist() == [2, 2]
    assert sorted(found.yx[:, 1].tolist()) == [2.0, 28.5]


def test_an_empty_picker_votes_for_nothing() -> None:
    nothing = (np.zeros((0, 2)), np.zeros(0))
    found = pick_clusters([points((5, 5)), nothing], 10.0)
    assert found.votes.tolist() == [1]
    assert found.score[0] <= 0.5
    assert len(pick_clusters([nothing, nothing], 10.0).yx) == 0
    assert len(pick_clusters([], 10.0).yx) == 0


pickers = st.lists(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=12), min_size=1, max_size=4
)


@given(pickers, st.floats(1, 15), st.randoms())
@settings(max_examples=80)
def test_the_order_of_pickers_and_of_picks_changes_nothing(given_, radius: float, dice) -> None:
    picks = [
        (np.array(one, dtype=float).reshape(-1, 2), np.array([y * 100.0 + x for y, x in one]))
        for one in given_
    ]
    first = pick_clusters(picks, radius)
    order = list(range(len(picks)))
    dice.shuffle(order)
    mixed = []
    for index in order:
        rows = list(range(len(picks[index][0])))
        dice.shuffle(rows)
        mixed.append((picks[index][0][rows], picks[index][1][rows]))
    again = pick_clusters(mixed, radius)
    key = [
        (*yx, votes, round(score, 9))
        for yx, votes, score in zip(first.yx, first.votes, first.score, strict=True)
    ]
    other = [
        (*yx, votes, round(score, 9))
        for yx, votes, score in zip(again.yx, again.votes, again.score, strict=True)
    ]
    assert sorted(key) == sorted(other)
    for cluster in first.members:
        assert (cluster >= 0).any()
