"""What the numbers show, in sentences that are computed from them, whatever they say."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from unimo_ds.ablation.corpora import PLENTY, SCARCE
from unimo_ds.ablation.table import METRICS, Difference, Metric, Table, difference
from unimo_ds.ablation.variants import FULL

ASKED = 15.0
"""Points that rewriting should add to the accuracy against word-level hard negatives."""

_METRIC = {metric.name: metric for metric in METRICS}
_PARTS = {
    "no-word-rewriting": ("word-level rewriting", "word_jointly"),
    "no-phrase-rewriting": ("phrase-level rewriting", "phrase_jointly"),
    "no-sentence-rewriting": ("sentence-level rewriting", "sentence_jointly"),
    "no-retrieved-images": ("retrieved images", "r1"),
    "no-retrieved-texts": ("retrieved texts", "r1"),
    "no-retrieval": ("all retrieval", "r1"),
    "no-in-batch-negatives": ("in-batch negatives", "r1"),
    "no-cmcl": ("all CMCL", "r1"),
}
_WITHOUT = {
    "no-rewriting": "without rewriting",
    "rewriting-off": "with rewriting off and nothing in its place",
}
_UNPAIRED = {
    "no-unpaired-texts": "unpaired texts",
    "no-unpaired-images": "unpaired images",
    "pairs-only": "both",
}
_JUDGED = ("r1", "word_jointly", "mlm")


class Claim(NamedTuple):
    """How much worse a run gets without unpaired data, points or loss; better where below zero."""

    taken: str
    metric: Metric
    costs: dict[str, Difference]  # by size
    more: Difference | None  # where pairs are scarce, less where they are plenty


class Findings(NamedTuple):
    """What is said below the tables."""

    rewriting: list[str]
    parts: list[str]
    claims: list[Claim]
    verdicts: list[str]


def findings(tables: Sequence[Table]) -> Findings:
    """All that the variants that there are allow to say."""
    claims = [
        claim
        for name in _UNPAIRED
        for metric in _JUDGED
        if (claim := _claim(tables, name, _METRIC[metric])).costs
    ]
    return Findings(
        [said for table in tables for name in _WITHOUT if (said := _rewriting(table, name))],
        [said for name in _PARTS if (said := _part(tables, name))],
        claims,
        _verdicts(claims) if claims else [],
    )


def _rewriting(table: Table, name: str) -> str:
    full, without = table.row(FULL), table.row(name)
    if full is None or without is None or not without.less:
        return ""
    metric = _METRIC["word_jointly"]
    adds = _turned(without.less[metric.name])
    shares = [row.cells[metric.name].mean for row in (full, without)]
    reached = "no fewer" if 100 * adds.mean >= ASKED else "fewer"
    return (
        f"{_where(table.size).capitalize()}, the full run prefers the true caption over a "
        f"word-level rewrite in {shares[0]:.1%} of cases, the run {_WITHOUT[name]} in "
        f"{shares[1]:.1%}: rewriting adds {spanned(adds, metric)} points, {reached} than the "
        f"{ASKED:.0f} asked for."
    )


def _part(tables: Sequence[Table], name: str) -> str:
    what, metric = _PARTS[name][0], _METRIC[_PARTS[name][1]]
    rows = {table.size: row for table in tables if (row := table.row(name)) and row.less}
    if not rows:
        return ""
    told = [
        f"{spanned(row.less[metric.name], metric)} points {_where(size)}"
        for size, row in rows.items()
    ]
    clear = sum(row.less[metric.name].is_clear for row in rows.values())
    settled = f"clear at {clear} of {len(rows)} sizes" if clear else "not settled by these seeds"
    return f"Without {what}, {metric.told} changes by {' and '.join(told)}: {settled}."


def _claim(tables: Sequence[Table], name: str, metric: Metric) -> Claim:
    by_size = {table.size: _costs(table, name, metric) for table in tables}
    costs = {size: difference(list(cost.values())) for size, cost in by_size.items() if cost}
    scarce, plenty = by_size.get(SCARCE, {}), by_size.get(PLENTY, {})
    both = sorted({*scarce} & {*plenty})
    more = difference([scarce[seed] - plenty[seed] for seed in both]) if both else None
    return Claim(_UNPAIRED[name], metric, costs, more)


def _costs(table: Table, name: str, metric: Metric) -> dict[int, float]:
    """By seed: how much worse the variant is than the full run."""
    full, row = table.row(FULL), table.row(name)
    if full is None or row is None:
        return {}
    ours, theirs = row.cells[metric.name].by_seed, full.cells[metric.name].by_seed
    sign = -1 if metric.is_share else 1
    return {seed: sign * (ours[seed] - theirs[seed]) for seed in sorted({*ours} & {*theirs})}


def _verdicts(claims: Sequence[Claim]) -> list[str]:
    """The two halves of the paper's claim."""
    costs = [cost for claim in claims for cost in claim.costs.values()]
    more = [claim.more for claim in claims if claim.more]
    helps = _counted(costs)
    said = [
        f"Unpaired data help: in {helps[0]} of {len(costs)} comparisons the run without them is "
        f"clearly worse, in {helps[1]} clearly better, {helps[2]} are not settled. "
        f"{_judged(helps)}"
    ]
    if more:
        most = _counted(more)
        said.append(
            f"They help most where pairs are scarce: in {most[0]} of {len(more)} comparisons "
            f"clearly so, in {most[1]} clearly the other way, {most[2]} are not settled. "
            f"{_judged(most)}"
        )
    return said


def _counted(differences: Sequence[Difference]) -> tuple[int, int, int]:
    """Clearly above zero, clearly below, neither."""
    above = sum(one.low > 0 for one in differences)
    below = sum(one.high < 0 for one in differences)
    return above, below, len(differences) - above - below


def _judged(counted: tuple[int, int, int]) -> str:
    above, below, _ = counted
    if not above + below:
        return "These runs neither support this half of the paper's claim nor contradict it."
    if not below:
        return "These runs support this half of the paper's claim where they settle anything."
    if not above:
        return "These runs contradict this half of the paper's claim where they settle anything."
    return "These runs support this half of the paper's claim in part and contradict it in part."


def spanned(one: Difference, metric: Metric) -> str:
    """ "+1.2 (+0.4 to +2.0)": the mean and its interval."""
    mean = signed(one.mean, metric)
    if math.isinf(one.low):
        return f"{mean} (one seed)"
    return f"{mean} ({signed(one.low, metric)} to {signed(one.high, metric)})"


def signed(value: float, metric: Metric) -> str:
    """The value in the unit of the metric, with its sign."""
    return f"{'-' if value < 0 else '+'}{metric.format(abs(value))}"


def _turned(one: Difference) -> Difference:
    return Difference(-one.mean, -one.high, -one.low, one.seeds)


def _where(size: str) -> str:
    known = {SCARCE: "where pairs are scarce", PLENTY: "where pairs are plenty"}
    return known.get(size, f"at size {size}")
