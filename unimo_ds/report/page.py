"""The page of a run: what is known about it, laid out by ``page.html.jinja``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from unimo_ds.report import curves
from unimo_ds.report.charts import percent, short_number
from unimo_ds.report.gallery import Gallery
from unimo_ds.report.machine import machine, versions
from unimo_ds.report.metrics_file import Run, ends, series
from unimo_ds.report.pictures import colours_of, data_uri, heat_map_picture
from unimo_ds.report.scoring import RECALL_AT
from unimo_ds.report.summary import Summary


class Card(NamedTuple):
    """One headline number."""

    label: str
    value: str
    note: str


class HeatMap(NamedTuple):
    """The similarity matrix as a picture, one pixel an entry, and its scale."""

    picture: str  # data URI
    scale: str  # a CSS gradient, high to low
    low: str
    high: str
    size: int
    own: str  # mean score of true pairs
    others: str


class Outcome(NamedTuple):
    """All that the page shows."""

    run: Run
    summary: Summary
    gallery: Gallery | None  # what the model answered; None without a model or held-out pairs
    similarity: np.ndarray  # [N, N], N = 0 without them
    missing: Sequence[str]  # what the page cannot show, and why
    sources: Mapping[str, str]  # which files it was made from


def render(outcome: Outcome) -> str:
    """The whole page as HTML that needs nothing else."""
    environment = Environment(
        loader=PackageLoader("unimo_ds.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    template = environment.get_template("page.html.jinja")
    run = outcome.run
    return template.render(
        run=run,
        verdict=verdict(outcome),
        cards=cards(outcome),
        missing=[*outcome.missing, *_doubts(run)],
        losses=curves.loss_charts(run),
        accuracies=curves.accuracy_charts(run),
        retrieval=curves.retrieval_charts(run),
        speed=curves.speed_charts(run),
        heat_map=heat_map(outcome.similarity) if len(outcome.similarity) else None,
        recalls=recall_table(outcome),
        gallery=outcome.gallery,
        sources=outcome.sources,
        config=json.dumps(run.config, indent=2),
        machine=machine(),
        versions=versions(),
    )


def _doubts(run: Run) -> list[str]:
    found = []
    if run.unreadable:
        found.append(f"{run.unreadable} line(s) of metrics.jsonl are no metrics and were left out.")
    if run.not_finite:
        found.append(
            f"{run.not_finite} line(s) of metrics.jsonl hold values that are infinite or not a "
            "number; the charts leave those values out."
        )
    if run.skipped:
        steps = ", ".join(map(str, run.skipped))
        found.append(f"Steps that were not trained on (train.skip_steps): {steps}.")
    return found


def verdict(outcome: Outcome) -> str:
    """One sentence: how long the run was and what it was made of."""
    run = outcome.run
    last = max((line.step for line in (*run.train, *run.heldout)), default=0)
    planned = run.section("train").get("steps")
    steps = f"{last:,} of {planned:,} steps" if planned else f"{last:,} steps"
    model = run.section("model")
    size = ""
    if "num_hidden_layers" in model and "hidden_size" in model:
        size = f", {model['num_hidden_layers']} layers, {model['hidden_size']} wide"
    return f"{steps} in {duration(run.seconds)}{size}."


def cards(outcome: Outcome) -> list[Card]:
    """The headline numbers, those that were measured."""
    run, summary = outcome.run, outcome.summary
    found = [*_result_cards(summary)]
    for key, label in (("mlm", "Masked words"), ("mrc", "Region classes")):
        heldout = series(run.heldout, f"accuracy/{key}").values
        if heldout:
            found.append(Card(f"{label} right", percent(heldout[-1]), "held out, last evaluation"))
    total = ends(run.train, "loss")
    if total:
        found.append(
            Card("Training loss", short_number(total[1]), f"from {short_number(total[0])}")
        )
    for key, label, write in (
        ("tokens_per_second", "Tokens per second", short_number),
        ("mfu", "FLOP utilisation", percent),
    ):
        values = series(run.train, key).values
        if values:
            found.append(Card(label, write(float(np.median(values))), "median of the run"))
    found.append(Card("Time", duration(summary.seconds), "wall clock"))
    found.append(Card("Peak memory", f"{summary.peak_rss_gib:.2f} GiB", "all ranks together"))
    return found


def _result_cards(summary: Summary) -> list[Card]:
    found, candidates = [], summary.retrieval["candidates"]
    for direction, title in curves.DIRECTIONS.items():
        share = summary.retrieval[f"{direction}_r1"]
        if share is not None and candidates:
            chance = f"chance {percent(1 / candidates)}, {candidates} candidates"
            found.append(Card(f"{title} R@1", percent(share), chance))
    accuracy = summary.caption["object_colour_accuracy"]
    if accuracy is not None:
        found.append(Card("Captions right", percent(accuracy), "they name only what is there"))
    return found


def recall_table(outcome: Outcome) -> list[tuple[str, list[str]]]:
    """Rows of (what, values at 1, 5 and 10) for the converted model."""
    if outcome.gallery is None:
        return []
    recall = outcome.gallery.recall
    rows = [
        (title, [percent(getattr(recall, direction)[k]) for k in RECALL_AT])
        for direction, title in curves.DIRECTIONS.items()
    ]
    rows.append(("Chance", [percent(min(1.0, k / recall.candidates)) for k in RECALL_AT]))
    return rows


def heat_map(similarity: np.ndarray) -> HeatMap:
    """``similarity`` [N images, N texts] between its 0.5th and 99.5th percentile."""
    low, high = (float(edge) for edge in np.nanpercentile(similarity, (0.5, 99.5)))
    high = max(high, float(np.nanmedian(np.diagonal(similarity))))
    scale = [f"rgb({r},{g},{b})" for r, g, b in colours_of(np.linspace(1, 0, 9)).tolist()]
    apart = ~np.eye(len(similarity), dtype=bool)
    others = similarity[apart].mean() if apart.any() else np.nan
    return HeatMap(
        data_uri(heat_map_picture(similarity, low, high), exact=True),
        f"linear-gradient({', '.join(scale)})",
        f"{low:.2f}",
        f"{high:.2f}",
        len(similarity),
        f"{np.diagonal(similarity).mean():.2f}",
        f"{others:.2f}",
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 95 -> 1 min 35 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole / 86400:.1f} days"


def source_names(
    run_folder: Path, model_folder: Path, pairs: str, scenes: Path | None
) -> dict[str, str]:
    """Which files a page was made from."""
    names = {"Run": str(run_folder), "Model": str(model_folder), "Held-out pairs": pairs or "none"}
    return {**names, "Scenes": str(scenes or "none")}
