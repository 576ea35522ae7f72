"""One run of the ablation: it trains, is evaluated, and leaves ``result.json``."""

import contextlib
import json
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unimo_ds.ablation.variants import variant
from unimo_ds.config import RunConfig, config_from_dict
from unimo_ds.config_rules import check
from unimo_ds.data.shards import PairCorpus, open_collection
from unimo_ds.pretrain import keep_heap_compact
from unimo_ds.report.summary import write_atomically
from unimo_ds.tasks.hard_negatives import hard_negatives, questions
from unimo_ds.tasks.packed import Scorer, ScoringModel
from unimo_ds.tasks.retrieval import retrieval
from unimo_ds.train.engine import PlainEngine
from unimo_ds.train.loop import train
from unimo_ds.train.model import build_model
from unimo_ds.train.run_folder import METRICS_NAME

RESULT_NAME = "result.json"
LEVELS = ("word", "phrase", "sentence")


class Planned(NamedTuple):
    """A run that is to be made."""

    size: str  # of the paired set: scarce, plenty
    variant: str
    seed: int
    config: RunConfig

    @property
    def result(self) -> Path:
        return self.config.run_folder / RESULT_NAME


def plan(base: RunConfig, sizes: dict[str, str], name: str, size: str, seed: int) -> Planned:
    """The run of a variant: plain torch in this process, in a folder of its own.

    Args:
        base: with everything on; its ``folder`` takes the runs.
        sizes: the pairs corpus of each size.

    Raises:
        ValueError: no such variant, or a configuration that cannot work.
    """
    if not sizes[size]:
        raise ValueError(f"--{size} is empty: name the corpus, or leave {size} out of --sizes")
    data = replace(base.data, pairs=[sizes[size]], workers=0)
    steps = base.train.steps
    train = replace(
        base.train, deepspeed="", threads=1, stop_after=0, eval_every=steps, save_every=steps
    )
    named = replace(base, name=f"{size}/{name}/seed-{seed}", seed=seed, data=data, train=train)
    config = variant(name).applied(named)
    check(config)
    return Planned(size, name, seed, config)


def heldout_pairs(config: RunConfig) -> tuple[PairCorpus, range]:
    """The corpus that runs are measured on, and the rows of it.

    Raises:
        ValueError: there is none.
    """
    if not config.data.heldout_pairs:
        raise ValueError("data.heldout_pairs is empty: name pairs that no run trains on")
    corpora = open_collection(config.data.heldout_pairs, PairCorpus, config.data.cache).corpora
    return corpora[0], range(min(len(corpora[0]), config.train.heldout_candidates))


def check_measurable(config: RunConfig) -> None:
    """Refuses, before hours of training, held-out pairs that do not tell the levels apart.

    Raises:
        ValueError: there are none, or they lack wrong rewrites of a level.
    """
    corpus, rows = heldout_pairs(config)
    found = {question.level.name.lower() for question in questions(corpus, rows)}
    if lacking := {*LEVELS} - found:
        raise ValueError(
            f"{corpus.folder} has no wrong rewrites of level {', '.join(sorted(lacking))}: run "
            f"`unimo-prep rewrite {corpus.folder} --tokenizer TOKENIZER --replace`"
        )


def finished(planned: Planned) -> dict[str, Any] | None:
    """What the run left, None if it has not ended.

    Raises:
        ValueError: it left the result of other settings.
    """
    if not planned.result.is_file():
        return None
    result = json.loads(planned.result.read_text(encoding="utf-8"))
    # Fields that are newer than the result have their default values.
    before, ours = asdict(config_from_dict(result["config"])), asdict(planned.config)
    for section, values in ours.items():
        if before[section] != values:
            raise ValueError(
                f"{planned.result} was made with {section} = {before[section]}, now it is "
                f"{values}: name a new folder with --out"
            )
    return result


def make(planned: Planned) -> dict[str, Any]:
    """Trains and evaluates; what a killed run left is thrown away."""
    config = planned.config
    folder = config.run_folder
    shutil.rmtree(folder, ignore_errors=True)
    began, cpu_began = time.perf_counter(), time.process_time()
    keep_heap_compact()
    torch.set_num_threads(config.train.threads)
    folder.mkdir(parents=True)
    with (folder / "log.txt").open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        engine = PlainEngine(build_model(config), config)
        train(engine, config, fresh=False, command=["unimo_ds.ablate"])
    values = measured(engine.model.eval(), config) | _last_losses(folder)
    result = {
        "size": planned.size,
        "variant": planned.variant,
        "seed": planned.seed,
        "values": values,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "config": asdict(config),
    }
    shutil.rmtree(folder / "checkpoints")  # a run that ended is not trained on
    write_atomically(planned.result, json.dumps(result, indent=1) + "\n")
    return result


def measured(model: ScoringModel, config: RunConfig) -> dict[str, float]:
    """Retrieval and hard negatives on the run's held-out pairs."""
    corpus, rows = heldout_pairs(config)
    scorer = Scorer(model, corpus)
    recall = retrieval(scorer, rows)["individually"]
    negatives = hard_negatives(scorer, rows)
    values = {f"{way}_r1": recall[way]["r1"] for way in ("image_to_text", "text_to_image")}
    values["r1"] = sum(values.values()) / 2
    for level in LEVELS:
        for how in ("jointly", "individually"):
            values[f"{level}_{how}"] = negatives[how][level]["pairwise"]["share"]
    return values


def _last_losses(folder: Path) -> dict[str, float]:
    """Held-out losses of language at the last step."""
    lines = (folder / METRICS_NAME).read_text(encoding="utf-8").splitlines()
    last = [line for line in map(json.loads, lines) if line["type"] == "heldout"][-1]
    return {name: last[f"loss/{name}"] for name in ("mlm", "seq2seq")}
