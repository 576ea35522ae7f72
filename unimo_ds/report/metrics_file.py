"""What a run folder says: its configuration, its command and the lines of ``metrics.jsonl``."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unimo_ds.train.run_folder import COMMAND_NAME, CONFIG_NAME, METRICS_NAME

TRAIN, HELDOUT, SKIPPED, START = "train", "heldout", "skipped", "start"
OBJECTIVES = ("mlm", "seq2seq", "mrfr", "mrc", "cmcl")

END_SHARE = 0.05
"""The first and the last loss of a run are means over this share of its lines."""


class Line(NamedTuple):
    """One line of ``metrics.jsonl``; what was not measured is not in ``values``."""

    step: int
    seconds: float  # since the start of the run, summed over resumes
    values: Mapping[str, float]


class Run(NamedTuple):
    """A run as its folder holds it."""

    name: str
    config: dict[str, Any]  # empty if there is no config.json
    command: str
    train: list[Line]  # by step, one line a step
    heldout: list[Line]
    skipped: list[int]  # steps that were not trained on
    unreadable: int  # lines that are no metrics, such as the last one of a killed run
    not_finite: int  # lines with a value that is infinite or not a number

    def section(self, name: str) -> Mapping[str, Any]:
        """One section of the configuration, empty if the run has none."""
        return self.config.get(name, {})

    @property
    def seconds(self) -> float:
        return max((line.seconds for line in (*self.train, *self.heldout)), default=0.0)


class Series(NamedTuple):
    """One key over the steps at which it was measured."""

    steps: list[int]
    values: list[float]


def read_run(folder: Path) -> Run:
    """The run in ``folder``; a missing file is an empty part of it.

    Raises:
        ValueError: ``folder`` is none, or its configuration is not JSON.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no run folder: name the one that holds {METRICS_NAME}")
    config_text, metrics = _text(folder / CONFIG_NAME), _text(folder / METRICS_NAME)
    try:
        config = json.loads(config_text) if config_text else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / CONFIG_NAME} is not JSON: {error}") from error
    lines, unreadable = parse_metrics(metrics.splitlines())
    every = [*lines[TRAIN], *lines[HELDOUT]]
    return Run(
        name=str(config.get("name") or folder.resolve().name),
        config=config,
        command=_text(folder / COMMAND_NAME).strip(),
        train=lines[TRAIN],
        heldout=lines[HELDOUT],
        skipped=[line.step for line in lines[SKIPPED]],
        unreadable=unreadable,
        not_finite=sum(not all(map(math.isfinite, line.values.values())) for line in every),
    )


def parse_metrics(texts: Iterable[str]) -> tuple[dict[str, list[Line]], int]:
    """The lines of each type by step, and how many texts are no metrics.

    A resumed run repeats the steps after its checkpoint: the last line of a step wins, and what was
    skipped there before is forgotten.
    """
    found: dict[str, dict[int, Line]] = {TRAIN: {}, HELDOUT: {}, SKIPPED: {}}
    unreadable = 0
    for text in texts:
        if not text.strip():
            continue
        try:
            record = json.loads(text)
            line = Line(int(record["step"]), float(record["seconds"]), _numbers(record))
            if record["type"] == START:
                past = {step: by for step, by in found[SKIPPED].items() if step <= line.step}
                found[SKIPPED] = past
            else:
                found[record["type"]][line.step] = line
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            unreadable += 1
    return {kind: [by[step] for step in sorted(by)] for kind, by in found.items()}, unreadable


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    skipped = ("type", "step", "seconds")
    return {
        key: float(value)
        for key, value in record.items()
        if key not in skipped and isinstance(value, int | float) and not isinstance(value, bool)
    }


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def series(lines: Sequence[Line], key: str) -> Series:
    """``key`` at the steps that measured it as a finite number."""
    values = ((line.step, line.values.get(key, math.nan)) for line in lines)
    measured = [(step, value) for step, value in values if math.isfinite(value)]
    return Series([step for step, _ in measured], [value for _, value in measured])


def ends(lines: Sequence[Line], key: str) -> tuple[float, float] | None:
    """Mean of ``key`` over the first and over the last 5 % of its lines; None if never measured."""
    values = series(lines, key).values
    if not values:
        return None
    count = max(1, int(len(values) * END_SHARE))
    return sum(values[:count]) / count, sum(values[-count:]) / count
