"""The ablation as ``ablation.md``, ``ablation.html`` and ``ablation.json``."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from unimo_ds.ablation.findings import Claim, findings, signed, spanned
from unimo_ds.ablation.plots import variant_chart
from unimo_ds.ablation.table import METRICS, Row, Table, tables
from unimo_ds.config import RunConfig
from unimo_ds.report.summary import write_atomically


class Setting(NamedTuple):
    """What the runs have in common, in words."""

    runs: int
    planned: int
    seeds: int
    model: str
    steps: str
    cost: str  # what a run took


def write_pages(
    out: Path, results: Sequence[dict[str, Any]], planned: int, base: RunConfig
) -> list[Path]:
    """Writes the three files into ``out``; their paths.

    Raises:
        ValueError: there is no result.
    """
    if not results:
        raise ValueError(f"0 of {planned} runs have ended: give it more --minutes")
    found = tables(results)
    setting = setting_of(results, planned, base)
    paths = [out / f"ablation.{ending}" for ending in ("md", "html", "json")]
    texts = (
        markdown(found, setting),
        html(found, setting),
        json.dumps(list(results), indent=1) + "\n",
    )
    for path, text in zip(paths, texts, strict=True):
        write_atomically(path, text)
    return paths


def setting_of(results: Sequence[dict[str, Any]], planned: int, base: RunConfig) -> Setting:
    """Of the results of a base configuration, of which so many were planned."""
    model, batch, data = base.model, base.batch, base.data
    weights = data.text_weight + data.image_weight + data.pair_weight
    parts = [
        f"{batch.samples * weight // weights} {kind}"
        for kind, weight in (
            ("pairs", data.pair_weight),
            ("texts", data.text_weight),
            ("images", data.image_weight),
        )
    ]
    cpu = [result["cpu_seconds"] for result in results]
    return Setting(
        len(results),
        planned,
        len({result["seed"] for result in results}),
        f"{model.num_hidden_layers} layers, {model.hidden_size} wide",
        f"{base.train.steps} steps of {', '.join(parts)}",
        f"{sum(cpu) / len(cpu):.0f} seconds of one core on average, evaluation included",
    )


def markdown(found: Sequence[Table], setting: Setting) -> str:
    """The page as Markdown."""
    return _environment(escaped=False).get_template("page.md.jinja").render(_values(found, setting))


def html(found: Sequence[Table], setting: Setting) -> str:
    """The page as HTML that needs nothing else."""
    charts = [(metric.label, variant_chart(found, metric)) for metric in METRICS]
    template = _environment(escaped=True).get_template("page.html.jinja")
    return template.render(_values(found, setting), charts=charts)


def _values(found: Sequence[Table], setting: Setting) -> dict[str, Any]:
    about = _environment(escaped=False).get_template("about.txt.jinja").render(setting=setting)
    return {
        "about": about.strip().split("\n\n"),
        "tables": found,
        "metrics": METRICS,
        "findings": findings(found),
        "cell": cell_text,
        "less": less_text,
        "cost": cost_text,
    }


def _environment(*, escaped: bool) -> Environment:
    return Environment(
        loader=ChoiceLoader(
            [PackageLoader("unimo_ds.ablation", "."), PackageLoader("unimo_ds.report", ".")]
        ),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def cell_text(row: Row, name: str) -> str:
    """Mean ± standard deviation."""
    metric = next(metric for metric in METRICS if metric.name == name)
    cell = row.cells[name]
    if math.isnan(cell.spread):
        return metric.format(cell.mean)
    return f"{metric.format(cell.mean)} ± {metric.format(cell.spread)}"


def less_text(row: Row, name: str) -> str:
    """This variant less the full run; with a star where the interval leaves out zero."""
    metric = next(metric for metric in METRICS if metric.name == name)
    less = row.less[name]
    return signed(less.mean, metric) + (" *" if less.is_clear else "")


def cost_text(claim: Claim, size: str) -> str:
    """What is lost at a size without the unpaired data, or "more" of it where pairs are scarce."""
    one = claim.more if size == "more" else claim.costs.get(size)
    if one is None:
        return ""
    return spanned(one, claim.metric) + (" *" if one.is_clear else "")
