"""Stop or go on: the line through resolution and particles, and what is said of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitriflow.monitors import Outlook, Point, forecast

B_A2, FIRST = 200.0, 20.0


def _resolution(particles: float, b_A2: float = B_A2) -> float:
    """Where N particles get to: ln N = ln N0 + B / (2 d^2)."""
    return math.sqrt(b_A2 / (2.0 * math.log(particles / FIRST)))


def _points(noise: float = 0.0, seed: int = 0) -> list[Point]:
    rng = np.random.default_rng(seed)
    counts = [200, 400, 800, 1600, 3200, 6400]
    return [Point(n, _resolution(n) * (1.0 + noise * rng.standard_normal())) for n in counts]


def test_a_straight_line_is_carried_on_to_the_target() -> None:
    target = _resolution(25_600)
    found = forecast(_points(), target, rate_per_hour=1000.0)
    assert found.b_factor_A2 == pytest.approx(B_A2, rel=1e-3)
    assert found.particles_needed == pytest.approx(25_600, rel=1e-3)
    assert found.hours_left == pytest.approx((25_600 - 6400) / 1000.0, rel=1e-2)
    assert found.gain_A == pytest.approx(_resolution(6400) - _resolution(12_800), rel=1e-2)
    assert found.low_needed is not None
    assert found.high_needed is not None
    assert found.low_needed < 25_600 < found.high_needed


def test_the_interval_holds_the_truth_nineteen_times_of_twenty() -> None:
    target, held = _resolution(25_600), 0
    for seed in range(200):
        found = forecast(_points(0.01, seed), target, 1000.0)
        assert found.low_needed is not None
        assert found.high_needed is not None
        held += found.low_needed <= 25_600 <= found.high_needed
    assert held >= 180


def test_a_target_that_is_reached_needs_no_more_hours() -> None:
    assert forecast(_points(), _resolution(1000), 1000.0).hours_left == 0.0


@pytest.mark.parametrize(
    ("points", "limit", "said"),
    [
        ([], None, "0 points"),
        (_points()[:3], None, "3 points"),
        ([Point(1000 + n, 8.0 - 0.01 * n) for n in range(6)], None, "doubled"),
        ([Point(200 * 2**n, 8.0 + 0.1 * n) for n in range(6)], None, "something else limits"),
        ([Point(200 * 2**n, 8.0) for n in range(6)], None, "something else limits"),
        (_points(), 6.0, "isn't compared"),
        ([*_points()[:5], Point(12_800, 3.05)], 3.0, "have reached"),
    ],
)
def test_without_grounds_there_is_no_forecast_but_a_reason(
    points: list[Point], limit: float | None, said: str
) -> None:
    found = forecast(points, 4.0, 1000.0, limit)
    assert found.hours_left is None
    assert found.b_factor_A2 is None
    assert said in found.reason


def test_what_no_session_can_collect_is_said_to_be_so() -> None:
    found = forecast(_points(), 1.5, 1000.0)
    assert found.hours_left is None
    assert "not by collecting more" in found.reason


def test_nothing_arriving_gives_particles_but_no_hours() -> None:
    found = forecast(_points(), _resolution(25_600), None)
    assert found.particles_needed is not None
    assert found.hours_left is None
    assert found.reason == "no particles arrive at present"


@given(
    points=st.lists(
        st.builds(
            Point, st.integers(-5, 10**9), st.floats(allow_nan=True, allow_infinity=True) | st.floats(2, 40)
        ),
        max_size=12,
    ),
    target=st.floats(0.5, 100),
    rate=st.none() | st.floats(0, 1e7),
)
def test_whatever_comes_numbers_are_finite_and_in_order(
    points: list[Point], target: float, rate: float | None
) -> None:
    found: Outlook = forecast(points, target, rate)
    for value in (found.particles_needed, found.hours_left, found.low_hours, found.high_hours, found.gain_A):
        assert value is None or math.isfinite(value)
    if found.low_needed is not None and found.high_needed is not None and found.particles_needed is not None:
        assert found.low_needed <= found.particles_needed <= found.high_needed
