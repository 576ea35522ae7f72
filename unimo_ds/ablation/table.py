"""What many results say: means, spreads, and differences from the full run, seed by seed."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from unimo_ds.ablation.variants import FULL, VARIANTS

CONFIDENCE = 0.95


class Metric(NamedTuple):
    """A column."""

    name: str
    label: str
    told: str  # in a sentence
    is_share: bool  # higher is better; else a loss

    def format(self, value: float) -> str:
        return f"{100 * value:.1f}" if self.is_share else f"{value:.3f}"


METRICS = (
    Metric("r1", "R@1, both ways", "R@1 of retrieval", True),
    Metric("image_to_text_r1", "image to text R@1", "R@1 of captions", True),
    Metric("text_to_image_r1", "text to image R@1", "R@1 of pictures", True),
    Metric("word_jointly", "word-level", "accuracy against word-level rewrites", True),
    Metric("phrase_jointly", "phrase-level", "accuracy against phrase-level rewrites", True),
    Metric("sentence_jointly", "sentence-level", "accuracy against sentence-level rewrites", True),
    Metric("mlm", "masked words, loss", "the loss of masked words", False),
    Metric("seq2seq", "seq2seq, loss", "the loss of seq2seq", False),
)


class Cell(NamedTuple):
    """A metric of a variant at a size, over seeds."""

    by_seed: dict[int, float]

    @property
    def values(self) -> list[float]:
        return list(self.by_seed.values())

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation between seeds, n - 1 in the denominator; NaN of one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else math.nan


class Difference(NamedTuple):
    """A mean of differences between two runs of the same seed, and its interval."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def is_clear(self) -> bool:
        """Does the interval leave out zero?"""
        return self.low > 0 or self.high < 0


class Row(NamedTuple):
    """A variant at a size."""

    name: str
    label: str
    cells: dict[str, Cell]
    less: dict[str, Difference]  # this variant minus full


class Table(NamedTuple):
    """A size of the paired set."""

    size: str
    rows: list[Row]
    seeds: int

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)


def tables(results: Sequence[dict[str, Any]]) -> list[Table]:
    """One table a size, with the variants that have a result, in their order."""
    sizes = list(dict.fromkeys(result["size"] for result in results))
    return [_table(size, [r for r in results if r["size"] == size]) for size in sizes]


def _table(size: str, results: Sequence[dict[str, Any]]) -> Table:
    by_variant: dict[str, dict[int, dict[str, float]]] = {}
    for result in results:
        by_variant.setdefault(result["variant"], {})[result["seed"]] = result["values"]
    full = by_variant.get(FULL, {})
    rows = [
        _row(variant.name, variant.label, by_variant[variant.name], full)
        for variant in VARIANTS
        if variant.name in by_variant
    ]
    return Table(size, rows, max(len(seeds) for seeds in by_variant.values()))


def _row(
    name: str, label: str, own: dict[int, dict[str, float]], full: dict[int, dict[str, float]]
) -> Row:
    cells = {m.name: Cell({seed: values[m.name] for seed, values in own.items()}) for m in METRICS}
    both = sorted({*own} & {*full})
    less = {
        m.name: difference([own[seed][m.name] - full[seed][m.name] for seed in both])
        for m in METRICS
        if both and name != FULL
    }
    return Row(name, label, cells, less)


def difference(values: Sequence[float]) -> Difference:
    """The mean of ``values`` with Student's 95 % interval; without end for a single one."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Difference(mean, -math.inf, math.inf, count)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    reach = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Difference(mean, mean - reach, mean + reach, count)
