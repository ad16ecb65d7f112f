"""Plots as inline SVG: quantities over time with their distribution, and throughput. No scripts, no files."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from vitriflow import words
from vitriflow.facility.report_numbers import Columns

FloatArray = NDArray[np.float64]
PLOTTED = ("total_A", "defocus_A", "fit_resolution_A", "ice_ring", "n_picks", "mean_intensity", "latency_s")
_WIDTH, _HEIGHT = 560, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 92, 10, 30  # the distribution stands in the right margin
_DOTS = 1500  # more are drawn as a band
_BANDS = 240
_BINS = 30


def plots(columns: Columns) -> list[dict[str, Any]]:
    """One plot for each quantity that was measured, and one of throughput: title, svg and what it says in words."""
    made = []
    rate = throughput(columns)
    if rate is not None:
        made.append(rate)
    for name in PLOTTED:
        values = columns.values[name]
        known = np.isfinite(values)
        if np.count_nonzero(known) < 2:
            continue
        shown = words.QUANTITIES[name]
        timed = bool(np.isfinite(columns.times[known]).all())
        x = columns.times[known] if timed else (np.flatnonzero(known) + 1).astype(np.float64)
        title = f"{shown.label} ({shown.unit})" if shown.unit else shown.label
        middle = words.quantity(name, float(np.median(values[known])))
        alt = f"{shown.label} of {np.count_nonzero(known)} exposures, median {middle}"
        made.append({"name": name, "title": title, "alt": alt, "svg": _scatter(x, values[known], alt, timed)})
    return made


def throughput(columns: Columns) -> dict[str, Any] | None:
    """Exposures an hour over the session."""
    times = columns.times[np.isfinite(columns.times)]
    if len(times) < 2 or times.max() - times.min() < 1.0:
        return None
    counts, edges = np.histogram(times, bins=_BINS)
    rates = counts * 3600.0 / (edges[1] - edges[0])
    area = _Area(edges[0], edges[-1], 0.0, float(rates.max()))
    bars = "".join(
        f"M{area.x(left):.1f} {area.y(0):.1f}V{area.y(rate):.1f}H{area.x(right):.1f}V{area.y(0):.1f}Z"
        for left, right, rate in zip(edges[:-1], edges[1:], rates, strict=True)
    )
    alt = f"Throughput: {len(times)} exposures in {words.duration(float(times.max() - times.min()))}"
    body = f'<path class="bar" d="{bars}"/>'
    svg = _svg(alt, area.frame(timed=True) + body)
    return {"name": "throughput", "title": "Throughput (exposures an hour)", "alt": alt, "svg": svg}


class _Area:
    """Turns values into positions in the picture (px), with a little room above and below."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float) -> None:
        self.x0, self.x1 = x0, x1 if x1 > x0 else x0 + 1.0
        room = 0.04 * (y1 - y0) or max(abs(y1) * 0.05, 0.5)
        self.y0, self.y1 = (y0 if y0 == 0 else y0 - room), y1 + room

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - self.x0) / (self.x1 - self.x0)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - self.y0) / (self.y1 - self.y0)

    def frame(self, *, timed: bool) -> str:
        """Grid lines with their values, and what stands along the horizontal axis."""
        parts = []
        ticks = _ticks(self.y0, self.y1)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
        digits = max(0, -int(np.floor(np.log10(step) + 1e-9)))  # as many as the step between them needs
        for value in ticks:
            y, text = self.y(value), words.number(value, digits)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        places = [(self.x0, "start"), ((self.x0 + self.x1) / 2, "middle"), (self.x1, "end")]
        for value, anchor in places:
            text = _clock(value, self.x1 - self.x0) if timed else f"{value:.0f}"
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{escape(text)}</text>'
            )
        return "".join(parts)


def _scatter(x: FloatArray, y: FloatArray, alt: str, timed: bool) -> Markup:
    low, high = (float(value) for value in np.percentile(y, (0.5, 99.5)))
    area = _Area(float(x.min()), float(x.max()), low, high)
    inside = np.clip(y, area.y0, area.y1)  # what lies far outside is drawn at the edge
    body = _dots(area, x, inside) if len(x) <= _DOTS else _band(area, x, inside)
    middle = area.y(float(np.median(y)))
    body += f'<path class="median" d="M{_LEFT} {middle:.1f}H{_WIDTH - 8}"/>'
    return _svg(alt, area.frame(timed=timed) + _distribution(area, inside) + body)


def _dots(area: _Area, x: FloatArray, y: FloatArray) -> str:
    points = "".join(f"M{area.x(a):.1f} {area.y(b):.1f}h0" for a, b in zip(x, y, strict=True))
    return f'<path class="dots" d="{points}"/>'


def _band(area: _Area, x: FloatArray, y: FloatArray) -> str:
    """Median and the middle 90 % of runs of exposures."""
    order = np.argsort(x, kind="stable")
    runs = np.array_split(order, _BANDS)
    places = [float(np.median(x[run])) for run in runs]
    low, middle, high = np.array([np.percentile(y[run], (5, 50, 95)) for run in runs]).T
    upper = "L".join(f"{area.x(a):.1f} {area.y(b):.1f}" for a, b in zip(places, high, strict=True))
    lower = "L".join(f"{area.x(a):.1f} {area.y(b):.1f}" for a, b in zip(places[::-1], low[::-1], strict=True))
    line = "L".join(f"{area.x(a):.1f} {area.y(b):.1f}" for a, b in zip(places, middle, strict=True))
    return f'<path class="band" d="M{upper}L{lower}Z"/><path class="line" d="M{line}"/>'


def _distribution(area: _Area, y: FloatArray) -> str:
    counts, edges = np.histogram(y, bins=_BINS, range=(area.y0, area.y1))
    left, most = _WIDTH - _RIGHT + 8, max(int(counts.max()), 1)
    bars = "".join(
        f"M{left} {area.y(low):.1f}V{area.y(high):.1f}H{left + (_RIGHT - 16) * count / most:.1f}V{area.y(low):.1f}Z"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    )
    return f'<path class="bar" d="{bars}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """A few round numbers between two others."""
    step = 10.0 ** np.floor(np.log10((high - low) / 4))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 5:
            step *= factor
            break
    first = np.ceil(low / step) * step
    return [float(round(value, 10)) for value in np.arange(first, high + step * 1e-6, step)]


def _clock(seconds: float, span: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %H:%M" if span > 12 * 3600 else "%H:%M:%S")


def _svg(alt: str, body: str) -> Markup:
    # Everything in it was made here from numbers, and text was escaped.
    return Markup(f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(alt)}">{body}</svg>')
