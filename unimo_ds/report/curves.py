"""The charts of a run: losses, accuracies, retrieval over time, speed and memory."""

from collections.abc import Callable
from typing import NamedTuple

from unimo_ds.report.charts import Curve, line_chart, percent, short_number
from unimo_ds.report.metrics_file import OBJECTIVES, Run, Series, series
from unimo_ds.report.scoring import RECALL_AT

NAMES = {
    "mlm": "Masked words (MLM)",
    "seq2seq": "Fragments (seq2seq)",
    "mrfr": "Region features (MRFR)",
    "mrc": "Region classes (MRC)",
    "cmcl": "Image-text contrast (CMCL)",
}
DIRECTIONS = {"image_to_text": "Image to text", "text_to_image": "Text to image"}
MOST_LINEAR = 30.0
"""A curve whose largest value is more than so many times its smallest is drawn on a log scale."""


class Chart(NamedTuple):
    """A chart with its heading and, where it has one, its own legend."""

    title: str
    svg: str
    legend: list[tuple[str, str]]  # CSS class, text
    log: bool = False


class _Meter(NamedTuple):
    """A number of the training lines that says how well the machine is used."""

    key: str
    title: str
    write: Callable[[float], str] = short_number
    share: bool = False
    log: bool = False


_METERS = (
    _Meter("tokens_per_second", "Tokens per second"),
    _Meter("samples_per_second", "Samples per second"),
    _Meter("mfu", "Model FLOP utilisation", percent),
    _Meter("data_wait", "Waiting for data", percent),
    _Meter("packing", "Packing efficiency", percent, share=True),
    _Meter("memory_gib", "Peak memory, all ranks (GiB)"),
    _Meter("lr", "Learning rate"),
    _Meter("grad_norm", "Gradient norm", log=True),
)


def loss_charts(run: Run) -> list[Chart]:
    """One chart for the weighted sum of the losses and one for each objective that was measured."""
    charts = [_learning(run, "loss", "All objectives", "c5", share=False)]
    for i, objective in enumerate(OBJECTIVES):
        charts.append(_learning(run, f"loss/{objective}", NAMES[objective], f"c{i}", share=False))
    return [chart for chart in charts if chart]


def accuracy_charts(run: Run) -> list[Chart]:
    """One chart for each objective that has an accuracy."""
    charts = [
        _learning(run, f"accuracy/{objective}", NAMES[objective], f"c{i}", share=True)
        for i, objective in enumerate(OBJECTIVES)
    ]
    return [chart for chart in charts if chart]


def _learning(run: Run, key: str, title: str, style: str, *, share: bool) -> Chart | None:
    train, heldout = series(run.train, key), series(run.heldout, key)
    values = train.values + heldout.values
    if not values:
        return None
    log = not share and min(values) > 0 and max(values) / min(values) > MOST_LINEAR
    curves = [
        Curve("training", *train, style=style, smooth=True),
        Curve("held out", *heldout, style="heldout", dots=True),
    ]
    described = [
        f"{curve.label} {_course(s)}" for curve, s in zip(curves, (train, heldout), strict=True)
    ]
    kind = key.partition("/")[0]
    svg = line_chart(
        curves,
        description=f"{kind} of {title}: {'; '.join(described)}",
        format_value=percent if share else short_number,
        log=log,
        floor=0.0,
        ceiling=1.0 if share and max(values) > 0.5 else None,
    )
    return Chart(title, svg, [], log)


def _course(measured: Series) -> str:
    if not measured.values:
        return "was not measured"
    first, last = measured.values[0], measured.values[-1]
    return (
        f"went from {short_number(first)} at step {measured.steps[0]} "
        f"to {short_number(last)} at step {measured.steps[-1]}"
    )


def retrieval_charts(run: Run) -> list[Chart]:
    """Recall at 1, 5 and 10 over the run in both directions, with what guessing would reach."""
    charts = []
    for direction, title in DIRECTIONS.items():
        found = {k: series(run.heldout, f"{direction}_r{k}") for k in RECALL_AT}
        curves, described, legend = [], [], []
        for i, k in enumerate(RECALL_AT):
            if found[k].values:
                curves.append(Curve(f"R@{k}", *found[k], style=f"r{i}", dots=True))
                described.append(f"R@{k} {_course(found[k])}")
                legend.append((f"r{i}", f"R@{k}"))
        if not curves:
            continue
        chance = series(run.heldout, "candidates")
        for i, k in enumerate(RECALL_AT if chance.values else ()):
            level = [min(1.0, k / count) for count in chance.values]
            curves.append(Curve("chance", [0, *chance.steps], [level[0], *level], f"r{i} chance"))
        if chance.values:
            legend.append(("chance", f"chance ({chance.values[-1]:.0f} candidates)"))
        svg = line_chart(
            curves,
            description=f"{title}: {'; '.join(described)}",
            format_value=percent,
            floor=0.0,
            ceiling=1.0,
        )
        charts.append(Chart(title, svg, legend))
    return charts


def speed_charts(run: Run) -> list[Chart]:
    """How fast the run was and what it used, where it was measured."""
    charts = []
    for meter in _METERS:
        measured = series(run.train, meter.key)
        if not measured.values:
            continue
        log = meter.log and min(measured.values) > 0
        svg = line_chart(
            [Curve(meter.title, *measured, style="c5", smooth=meter.key != "lr")],
            description=f"{meter.title} {_course(measured)}",
            format_value=meter.write,
            log=log,
            floor=0.0,
            ceiling=1.0 if meter.share else None,
        )
        charts.append(Chart(meter.title, svg, [], log))
    return charts
