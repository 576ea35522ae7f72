"""Charts of a page as SVG text that takes its colours from the page."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 10, 34
_BINS = 24
_WIDEST_BAR = 44
_WIDE = 720
_ROW_HEIGHT, _ROW_GAP = 16, 5


class Chart(NamedTuple):
    """A drawing with its title and one line about it."""

    title: str
    svg: str
    note: str


class Ranked(NamedTuple):
    """One line of a list of bars: what, how often, share of the most frequent."""

    label: str
    count: str
    share: float


def histogram_chart(
    title: str, bins: Sequence[tuple[str, int]], axis: str, note: str = ""
) -> Chart:
    """Bars of equal width; ``bins`` are (label, count), ``axis`` says what the labels measure."""
    most = max((count for _, count in bins), default=0)
    ticks = _ticks(most)
    top = max(ticks[-1], most, 1)
    inner, foot = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM
    parts = [_level(tick, foot - (foot - TOP) * tick / top) for tick in ticks]
    step = min(inner / max(len(bins), 1), _WIDEST_BAR)
    start = LEFT + (inner - step * len(bins)) / 2
    every = -(-len(bins) // 6)
    for number, (label, count) in enumerate(bins):
        x, height = start + number * step, (foot - TOP) * count / top
        gap = min(2.0, step / 6)
        if count:
            shown = max(height, 1.0)
            parts.append(
                f'<rect class="bar" x="{x + gap / 2:.1f}" y="{foot - shown:.1f}" '
                f'width="{step - gap:.1f}" height="{shown:.1f}" rx="{min(2.5, step / 4):.1f}">'
                f"<title>{escape(label)}: {count:,}</title></rect>"
            )
        if number % every == 0:
            parts.append(_text(x + step / 2, foot + 14, "middle", label))
    parts.append(_text(LEFT + inner / 2, HEIGHT - 4, "middle", axis))
    told = ", ".join(f"{label}: {count:,}" for label, count in bins if count)
    return Chart(title, _svg(HEIGHT, f"{title}. {axis}: {told}", parts), note)


def length_bins(counts: np.ndarray) -> list[tuple[str, int]]:
    """At most 24 bins over the lengths that occur; ``counts[n]`` rows have length n."""
    found = np.flatnonzero(counts)
    if not len(found):
        return []
    low, high = int(found[0]), int(found[-1])
    step = _round_step((high - low + 1) / _BINS)
    first = low // step * step
    starts = range(first, high + 1, step)
    sums = [int(counts[max(start, 0) : start + step].sum()) for start in starts]
    return [(f"{start:,}", count) for start, count in zip(starts, sums, strict=True)]


def share_bins(shares: np.ndarray, bins: int = 20) -> list[tuple[str, int]]:
    """Bins of equal width over shares between 0 and 1, labelled in per cent."""
    counts, _ = np.histogram(shares, bins=bins, range=(0.0, 1.0))
    return [(f"{round(100 * i / bins)}", int(n)) for i, n in enumerate(counts)]


def rows_chart(rows: Sequence[Sequence[int]], limit: int, description: str) -> str:
    """Packed rows as an SVG: every row a bar of its samples, in a frame of ``limit`` positions."""
    height = len(rows) * (_ROW_HEIGHT + _ROW_GAP) - _ROW_GAP
    scale = (_WIDE - 2) / limit
    parts = []
    for number, samples in enumerate(rows):
        y = number * (_ROW_HEIGHT + _ROW_GAP)
        parts.append(
            f'<rect class="room" x="1" y="{y}" width="{_WIDE - 2}" height="{_ROW_HEIGHT}"/>'
        )
        x = 1.0
        for turn, length in enumerate(samples):
            width = length * scale
            parts.append(
                f'<rect class="piece p{turn % 2}" x="{x:.2f}" y="{y}" width="{width:.2f}" '
                f'height="{_ROW_HEIGHT}"/>'
            )
            x += width
    return _svg(height, description, parts, _WIDE)


def ranked(items: Sequence[tuple[str, int]]) -> list[Ranked]:
    """For a list of bars, the most frequent first."""
    most = max((count for _, count in items), default=1)
    return [Ranked(label, f"{count:,}", count / most) for label, count in items]


def short_number(value: float) -> str:
    """12,345,678 -> 12.3M"""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            scale = 1e3 if name == "k" else unit
            return f"{value / scale:.3g}{name}"
    return f"{value:,.4g}"


def _round_step(rough: float) -> int:
    if rough <= 1:
        return 1
    power = 10 ** math.floor(math.log10(rough))
    return int(next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough))


def _ticks(most: int) -> list[int]:
    step = _round_step(most / 4) if most else 1
    return list(range(0, most + step, step))


def _level(tick: int, y: float) -> str:
    line = f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + _text(LEFT - 6, y + 3.5, "end", short_number(tick))


def _text(x: float, y: float, anchor: str, text: str) -> str:
    return (
        f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _svg(height: int, description: str, parts: Sequence[str], width: int = WIDTH) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(description)}">{"".join(parts)}</svg>'
    )
