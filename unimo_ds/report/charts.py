"""Line charts as inline SVG; their colours come from the page's style sheet, light or dark."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 360, 214
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
MOST_POINTS = 300
SMOOTHING_SHARE = 0.05


class Curve(NamedTuple):
    """One line of a chart. ``style`` is a CSS class of the page: c0 ... c4, and "chance"."""

    label: str
    steps: Sequence[int]
    values: Sequence[float]
    style: str = "c0"
    smooth: bool = False  # the measured line faint, its running mean over it
    dots: bool = False


class Axis(NamedTuple):
    """A scale from values to pixels, with its ticks."""

    low: float
    high: float
    pixel_low: float
    pixel_high: float
    log: bool
    ticks: list[float]

    def pixels(self, values: np.ndarray) -> np.ndarray:
        low, high = self.low, self.high
        if self.log:
            low, high, values = math.log10(low), math.log10(high), np.log10(np.maximum(values, low))
        share = (values - low) / (high - low)
        return self.pixel_low + share * (self.pixel_high - self.pixel_low)


def line_chart(
    curves: Sequence[Curve],
    *,
    description: str,
    format_value: Callable[[float], str] = lambda value: short_number(value),
    log: bool = False,
    floor: float | None = None,
    ceiling: float | None = None,
) -> str:
    """An SVG element that draws ``curves`` over training steps.

    Args:
        curves: at least one of them with at least one finite value.
        description: what a person who cannot see the chart is told.
        format_value: writes the ticks of the vertical axis.
        log: logarithmic vertical axis; values that are not positive lie at its foot.
        floor: the axis begins no higher than here.
        ceiling: the axis ends no lower than here.
    """
    drawn = [finite(curve) for curve in curves]
    steps = np.concatenate([steps for steps, _ in drawn])
    values = np.concatenate([values for _, values in drawn])
    assert len(steps), description
    across = linear_axis(0.0, float(steps.max()), LEFT, WIDTH - RIGHT, ticks=4, widen=False)
    down = _vertical_axis(values, log, floor, ceiling)
    parts = [_grid(across, down, format_value)]
    for curve, (curve_steps, curve_values) in zip(curves, drawn, strict=True):
        if len(curve_steps):
            parts.append(_curve(curve, across.pixels(curve_steps), down, curve_values))
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )


def finite(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values where the value is a number, as float64."""
    steps, values = np.asarray(curve.steps, float), np.asarray(curve.values, float)
    kept = np.isfinite(values)
    return steps[kept], values[kept]


def linear_axis(
    low: float, high: float, pixel_low: float, pixel_high: float, *, ticks: int, widen: bool = True
) -> Axis:
    """An axis whose ticks are round numbers; with ``widen`` it begins and ends at ticks."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    marks = [i * step for i in range(first, last + 1)]
    if widen:
        return Axis(marks[0], marks[-1], pixel_low, pixel_high, False, marks)
    marks = [mark for mark in marks if low <= mark <= high * (1 + 1e-9)]
    return Axis(low, high, pixel_low, pixel_high, False, marks)


def _vertical_axis(
    values: np.ndarray, log: bool, floor: float | None, ceiling: float | None
) -> Axis:
    low, high = float(values.min()), float(values.max())
    foot, head = HEIGHT - BOTTOM, TOP
    positive = values[values > 0]
    if log and len(positive):
        first = math.floor(math.log10(positive.min()))
        last = max(first + 1, math.ceil(math.log10(positive.max())))
        ticks = [10.0**power for power in range(first, last + 1)]
        return Axis(ticks[0], ticks[-1], foot, head, True, ticks)
    if floor is not None:
        low = min(low, floor)
    if ceiling is not None:
        high = max(high, ceiling)
    return linear_axis(low, high, foot, head, ticks=4)


def _grid(across: Axis, down: Axis, format_value: Callable[[float], str]) -> str:
    parts = []
    for tick, y in zip(down.ticks, down.pixels(np.array(down.ticks)), strict=True):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{escape(format_value(tick))}</text>"
        )
    foot = HEIGHT - BOTTOM
    for tick, x in zip(across.ticks, across.pixels(np.array(across.ticks)), strict=True):
        anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{foot + 14}" text-anchor="{anchor}">'
            f"{short_number(tick)}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">step</text>'
    )
    return "".join(parts)


def _curve(curve: Curve, x: np.ndarray, down: Axis, values: np.ndarray) -> str:
    style = escape(curve.style)
    smoothed = running_mean(values)
    x, raw_y, smooth_y = thin(x, down.pixels(values), down.pixels(smoothed))
    faint = " raw" if curve.smooth else ""
    parts = [f'<polyline class="line {style}{faint}" points="{_points(x, raw_y)}"/>']
    if curve.smooth:
        parts.append(f'<polyline class="line {style}" points="{_points(x, smooth_y)}"/>')
    if curve.dots or len(x) == 1:
        shown = x if len(x) <= 40 else x[-1:]
        parts += [
            f'<circle class="dot {style}" cx="{a:.1f}" cy="{b:.1f}" r="2.6"/>'
            for a, b in zip(shown, raw_y[-len(shown) :], strict=True)
        ]
    return "".join(parts)


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def running_mean(values: np.ndarray) -> np.ndarray:
    """The centred mean of each value and its neighbours; the window shrinks at both ends."""
    half = int(len(values) * SMOOTHING_SHARE / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    reach = np.minimum(half, np.minimum(at, len(values) - 1 - at))
    return (sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1)


def thin(*arrays: np.ndarray) -> list[np.ndarray]:
    """At most MOST_POINTS points: means of equal stretches, the same for every array."""
    count = len(arrays[0])
    if count <= MOST_POINTS:
        return list(arrays)
    edges = np.linspace(0, count, MOST_POINTS + 1).astype(int)
    widths = np.diff(edges)
    return [np.add.reduceat(array, edges[:-1]) / widths for array in arrays]


def short_number(value: float) -> str:
    """A number as short as a tick needs: 12000 -> 12k, 0.25 -> 0.25, 1e-05 -> 1e-5."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.4g}M"
    if size >= 1e4:
        return f"{value / 1e3:.4g}k"
    if value and size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """A share of 1 as a percentage."""
    return f"{share * 100:.3g} %"
