"""What more collection would bring: resolution against the number of particles, carried on to a target.

Where nothing else limits, the particles needed grow as ``ln N = ln N0 + B / (2 d^2)`` with the resolution d
(Rosenthal & Henderson, J Mol Biol 333 (2003) 721). So ``1/d^2`` is a straight line in ``ln N`` of slope 2/B.
Such a line is fitted to what classes have reached so far. Plain numbers in and out: nothing is asked of the catalog.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]

_FEWEST_POINTS = 4
_NARROWEST = math.log(2.0)  # particles have to have doubled at least
_SURE = 2.0  # standard deviations that the slope has to lie above zero
_NEAR_LIMIT = 1.06  # resolutions this near to the finest that was compared say nothing of the sample
_SLOWEST = 0.1  # particles an hour
_MOST = 1e9  # more particles than any session gives
_FINEST_A, _COARSEST_A = 0.1, 1000.0


@dataclass(frozen=True)
class Point:
    """A class, or a map, at one time: how many particles, and which resolution (A)."""

    particles: int
    resolution_A: float


@dataclass(frozen=True)
class Outlook:
    """What to expect, with its uncertainty; numbers are None where nothing can be said.

    Attributes
    ----------
    b_factor_A2, b_factor_sd_A2
        2 over the line's slope (A^2), and its standard deviation.
    particles_now, resolution_now_A
        The latest point as the line has it.
    particles_needed, low_needed, high_needed
        For the target: estimate and 95 % interval.
    hours_left, low_hours, high_hours
        The same as time at the present rate (h); 0 where the target is reached.
    gain_A
        By how much the resolution improves when particles double from now on (A).
    n_points
        Points that the line goes through.
    reason
        Why there's no forecast, or what limits the one that there is; empty when nothing does.
    """

    n_points: int
    target_A: float
    rate_per_hour: float | None
    b_factor_A2: float | None = None
    b_factor_sd_A2: float | None = None
    particles_now: int | None = None
    resolution_now_A: float | None = None
    particles_needed: float | None = None
    low_needed: float | None = None
    high_needed: float | None = None
    hours_left: float | None = None
    low_hours: float | None = None
    high_hours: float | None = None
    gain_A: float | None = None
    reason: str = ""


def forecast(
    points: Sequence[Point], target_A: float, rate_per_hour: float | None, limit_A: float | None = None
) -> Outlook:
    """Fit the line and carry it on.

    Parameters
    ----------
    points
        In order of time; the last is where things stand.
    target_A
        Wanted resolution (A).
    rate_per_hour
        Particles kept an hour that go into one such class or map; None where nothing arrives.
    limit_A
        Finest resolution that could have been seen (A): of the comparison, or the images' Nyquist frequency.
    """
    if not (math.isfinite(target_A) and target_A > 0):
        raise ValueError(f"a target of {target_A} A isn't a resolution")
    held = [one for one in points if one.particles > 0 and _FINEST_A < one.resolution_A < _COARSEST_A]
    free = [one for one in held if limit_A is None or one.resolution_A > _NEAR_LIMIT * limit_A]
    plain = Outlook(len(free), target_A, rate_per_hour)
    if limit_A is not None and target_A < limit_A:
        return _without(
            plain,
            f"detail finer than {limit_A:.3g} A isn't compared, so nothing tells how {target_A:.3g} A comes near",
        )
    if held and len(free) < len(held) and held[-1] not in free:
        return _without(plain, f"classes have reached the {limit_A:.3g} A up to which they're compared")
    if len(free) < _FEWEST_POINTS:
        return _without(plain, f"{len(free)} points so far; {_FEWEST_POINTS} are needed for a line")
    x = np.log([one.particles for one in free])
    y = np.array([1.0 / one.resolution_A**2 for one in free])
    if float(np.ptp(x)) < _NARROWEST:
        return _without(plain, "particles haven't doubled yet since the first point")
    slope, offset, covariance = _line(x, y)
    sd = math.sqrt(covariance[0, 0])
    last = float(x.max())
    now = slope * last + offset
    if slope <= _SURE * sd or now <= 0:
        return _without(
            plain, "the resolution doesn't get better with more particles: something else limits it"
        )
    return _carried(plain, slope, offset, covariance, last, now)


def _line(x: Floats, y: Floats) -> tuple[float, float, Floats]:
    """Least squares; the covariance from the scatter, never below that of half a percent in resolution."""
    design = np.stack([x, np.ones_like(x)], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    slope, offset = inverse @ design.T @ y
    scatter = float(np.square(y - design @ [slope, offset]).sum()) / (x.size - 2)
    floor = float(np.mean(np.square(0.01 * y)))
    return float(slope), float(offset), inverse * max(scatter, floor)


def _carried(
    plain: Outlook,
    slope: float,
    offset: float,
    covariance: Floats,
    last: float,
    now: float,
) -> Outlook:
    """Numbers for the target: ln N there and its spread, by the law of propagation of errors."""
    wanted = 1.0 / plain.target_A**2
    at = (wanted - offset) / slope
    towards = np.array([at, 1.0]) / slope
    # few points know their own scatter badly: Student's distribution instead of the normal one
    spread = math.sqrt(float(towards @ covariance @ towards)) * float(stdtrit(plain.n_points - 2, 0.975))
    low, mid, high = (math.exp(min(at + sign * spread, 60.0)) for sign in (-1.0, 0.0, 1.0))
    particles = math.exp(last)
    doubled = now + slope * math.log(2.0)
    rate = plain.rate_per_hour

    def hours(needed: float) -> float | None:
        if needed <= particles:
            return 0.0
        return (needed - particles) / rate if rate and rate > _SLOWEST else None

    reason = ""
    if mid > _MOST:
        reason = f"{plain.target_A:.3g} A would take more than {_MOST:.0e} particles: not by collecting more"
    elif mid > particles and not (rate and rate > _SLOWEST):
        reason = "no particles arrive at present"
    return Outlook(
        plain.n_points,
        plain.target_A,
        rate,
        b_factor_A2=2.0 / slope,
        b_factor_sd_A2=2.0 / slope * math.sqrt(covariance[0, 0]) / slope,
        particles_now=round(particles),
        resolution_now_A=1.0 / math.sqrt(now),
        particles_needed=mid,
        low_needed=low,
        high_needed=high,
        hours_left=None if mid > _MOST else hours(mid),
        low_hours=hours(low),
        high_hours=None if high > _MOST else hours(high),
        gain_A=1.0 / math.sqrt(now) - 1.0 / math.sqrt(doubled),
        reason=reason,
    )


def _without(plain: Outlook, reason: str) -> Outlook:
    return Outlook(plain.n_points, plain.target_A, plain.rate_per_hour, reason=reason)
