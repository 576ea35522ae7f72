"""Means with their spread, variant by variant, as inline SVG in the colours of the page."""

from collections.abc import Sequence
from html import escape

import numpy as np

from unimo_ds.ablation.table import FULL, Metric, Table
from unimo_ds.report.charts import linear_axis, short_number

_WIDTH, _LEFT, _RIGHT, _TOP, _LINE = 560, 206, 14, 26, 22


def variant_chart(tables: Sequence[Table], metric: Metric) -> str:
    """An SVG element: a dot a size for each variant, whiskers of one standard deviation, a dashed
    line through the full run."""
    scale = 100 if metric.is_share else 1
    rows = {row.name: row.label for table in tables for row in table.rows}
    cells = [(t, r, r.cells[metric.name]) for t in tables for r in t.rows]
    reach = [np.nan_to_num(cell.spread) for _, _, cell in cells]
    means = [cell.mean for _, _, cell in cells]
    low = scale * min(m - r for m, r in zip(means, reach, strict=True))
    high = scale * max(m + r for m, r in zip(means, reach, strict=True))
    axis = linear_axis(low, high, _LEFT, _WIDTH - _RIGHT, ticks=5)
    height = _TOP + _LINE * len(rows) + 24
    parts = _ground(axis.ticks, axis.pixels(np.array(axis.ticks)).tolist(), height)
    at = {name: _TOP + _LINE * (i + 0.5) for i, name in enumerate(rows)}
    for name, label in rows.items():
        parts.append(
            f'<text class="tick" x="{_LEFT - 10}" y="{at[name] + 4:.1f}" text-anchor="end">'
            f"{escape(label)}</text>"
        )
    for (table, row, cell), spread in zip(cells, reach, strict=True):
        which = [t.size for t in tables].index(table.size)
        x, left, right = axis.pixels(
            scale * (cell.mean + np.array([0.0, -spread, spread]))
        ).tolist()
        y = at[row.name] + 7 * (which - (len(tables) - 1) / 2)
        style = f"c{which}"
        if row.name == FULL:
            parts.append(
                f'<line class="line chance {style}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" '
                f'y2="{height - 24}"/>'
            )
        parts.append(
            f'<line class="line {style}" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        )
    told = f"{metric.label} of every variant, mean and standard deviation between seeds"
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(told)}">{_legend(tables)}{"".join(parts)}</svg>'
    )


def _ground(ticks: Sequence[float], pixels: Sequence[float], height: int) -> list[str]:
    parts = []
    for tick, x in zip(ticks, pixels, strict=True):
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - 24}"/>'
            f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">'
            f"{short_number(tick)}</text>"
        )
    return parts


def _legend(tables: Sequence[Table]) -> str:
    return "".join(
        f'<circle class="dot c{i}" cx="{_LEFT + 90 * i}" cy="10" r="4"/>'
        f'<text class="tick" x="{_LEFT + 90 * i + 8}" y="14">{escape(table.size)}</text>'
        for i, table in enumerate(tables)
    )
