"""What is said of steps that are not trained on (``train.skip_steps``)."""

import json
from collections.abc import Set
from pathlib import Path

from unimo_ds.config import RunConfig
from unimo_ds.train.console import say
from unimo_ds.train.run_folder import METRICS_NAME


def with_skipped(config: RunConfig, step: int) -> str:
    """The override that takes ``step`` (from 0) out too, as a shell wants it."""
    return f"'train.skip_steps={json.dumps([*config.train.skip_steps, step + 1])}'"


def say_trained_before(run: Path, skipped: Set[int], start: int) -> None:
    """Names what is to be skipped and was trained on before the checkpoint of step ``start``."""
    trained = sorted(step for step in skipped - _skipped_before(run) if step <= start)
    if trained:
        say(
            f"train.skip_steps names steps that this run was trained on before step {start}, which "
            f"it resumes from: {' '.join(map(str, trained))}. They stay in its weights; to train "
            f"without them remove the checkpoints from step {trained[0]} on"
        )


def _skipped_before(run: Path) -> set[int]:
    """The steps that earlier starts of ``run`` skipped."""
    steps: set[int] = set()
    metrics = run / METRICS_NAME
    for text in metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else ():
        try:
            line = json.loads(text)
            if line["type"] == "skipped":
                steps.add(int(line["step"]))
            elif line["type"] == "start":  # what it goes on from holds no later step
                steps = {step for step in steps if step <= int(line["step"])}
        except (ValueError, KeyError, TypeError):  # the torn last line of a run that was killed
            continue
    return steps
