"""``summary.json``: the numbers of a report for programs."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from unimo_ds.report.machine import peak_rss_gib
from unimo_ds.report.metrics_file import OBJECTIVES, Run, ends, series
from unimo_ds.report.scoring import Recall

SUMMARY_NAME = "summary.json"


class Summary(NamedTuple):
    """What came out of a run; shares are fractions of 1, None is what could not be measured."""

    retrieval: Mapping[str, float | None]
    caption: Mapping[str, float | None]
    losses: Mapping[str, Mapping[str, float]]  # only of measured objectives
    seconds: float
    peak_rss_gib: float

    def to_json(self) -> str:
        return json.dumps(self._asdict(), indent=1) + "\n"


def summarise(
    run: Run, recall: Recall | None, object_colours: float | None, started: float | None
) -> Summary:
    """The summary of ``run``, whose converted model reached ``recall`` and ``object_colours``.

    Args:
        started: when the whole thing began, in seconds since the epoch; None counts the run alone.
    """
    losses = {}
    for objective in OBJECTIVES:
        pair = ends(run.train, f"loss/{objective}")
        if pair:
            losses[objective] = {"first": pair[0], "last": pair[1]}
    return Summary(
        retrieval={
            "image_to_text_r1": recall.image_to_text[1] if recall else None,
            "text_to_image_r1": recall.text_to_image[1] if recall else None,
            "candidates": recall.candidates if recall else None,
        },
        caption={"object_colour_accuracy": object_colours},
        losses=losses,
        seconds=run.seconds if started is None else time.time() - started,
        peak_rss_gib=max([peak_rss_gib(), *series(run.train, "memory_gib").values]),
    )


def write_atomically(path: Path, text: str) -> None:
    """``text`` in the file ``path``, which is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)
