"""A run that died of a sample goes on without the step that holds it, and is what it claims."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from unimo_ds.config import load_config
from unimo_ds.data.loader import Loader
from unimo_ds.data.shards import open_corpus
from unimo_ds.pretrain import main
from unimo_ds.train.engine import PLAIN_STATES, PlainEngine
from unimo_ds.train.loop import train_step
from unimo_ds.train.metrics import Tally
from unimo_ds.train.model import build_model
from unimo_ds.train.optim import learning_rate

STEPS = 6
POISONED = 11  # row of the pair whose image holds an infinite number


@pytest.fixture(scope="module")
def poisoned(corpora, tmp_path_factory):
    """The pairs with an image that `unimo-prep verify` would name."""
    folder = tmp_path_factory.mktemp("poisoned") / "pairs"
    shutil.copytree(corpora / "pairs", folder)
    pairs = open_corpus(folder)
    row = pairs.image_row(POISONED)
    features = pairs.images.regions(row).features.tobytes()
    (shard,) = (folder / "images").glob("*.arrow")
    content = shard.read_bytes()
    assert content.count(features) == 1
    at = content.index(features)
    infinite = np.float16(np.inf).tobytes()
    shard.write_bytes(content[:at] + infinite + content[at + len(infinite) :])
    return folder


@pytest.fixture
def arguments(small_toml, poisoned, tmp_path):
    overrides = f"folder={tmp_path} train.deepspeed= train.steps={STEPS} train.eval_every=2"
    return [str(small_toml), *overrides.split(), "train.save_every=3", f'data.pairs=["{poisoned}"]']


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steps_of(lines, kind):
    return [line["step"] for line in lines if line["type"] == kind]


def test_a_run_that_dies_of_a_sample_ends_without_its_steps(arguments, poisoned, capsys):
    sample = open_corpus(poisoned).pair_id(POISONED)
    skipped: list[str] = []
    remedy = re.compile(r"'(train\.skip_steps=\[[\d, ]+\])'")
    while main([*arguments, *skipped[-1:]]):
        message = capsys.readouterr().err
        assert f"{poisoned}:{sample}" in message
        skipped.append(remedy.search(message)[1])
        assert len(skipped) <= 2  # sixty pairs, twenty a step: once in an epoch of three steps
    config = load_config(arguments[0], [*arguments[1:], skipped[-1]])
    named = config.train.skip_steps
    assert len(skipped) == len(named) == 2  # the second remedy names the first step too
    printed = capsys.readouterr().out
    assert f"step {named[-1]}/{STEPS} is skipped" in printed

    run = config.run_folder
    lines = metrics(run)
    assert set(steps_of(lines, "skipped")) == set(named)
    assert set(steps_of(lines, "train")) == set(range(1, STEPS + 1))
    assert set(steps_of(lines, "heldout")) == {2, 4, 6}
    by_step = {line["step"]: line for line in lines if line["type"] == "train"}
    for step in range(1, STEPS + 1):
        assert (by_step[step]["loss"] is None) == (step in named)
        assert by_step[step]["lr"] == learning_rate(step - 1, STEPS, config.optim)
    checkpoints = sorted(path.name for path in (run / "checkpoints").glob("step_*"))
    assert checkpoints == ["step_00000003", "step_00000006"]
    assert_trained_without(config, set(named), run / "checkpoints" / "step_00000006")


def assert_trained_without(config, skipped, checkpoint):
    """The weights in ``checkpoint`` are those of a run in which the steps were never taken."""
    engine, loader = PlainEngine(build_model(config), config), Loader(config)
    engine.train(True)
    for step in range(STEPS):
        if step + 1 not in skipped:
            lr = learning_rate(step, STEPS, config.optim)
            train_step(engine, loader.step(step), step, lr, config, Tally())
    saved = torch.load(checkpoint / PLAIN_STATES, weights_only=True)["model"]
    assert all(torch.equal(value, saved[k]) for k, value in engine.model.state_dict().items())


def test_what_was_trained_on_already_is_told(small_toml, tmp_path, capsys):
    arguments = [str(small_toml), f"folder={tmp_path}", "train.deepspeed=", "data.heldout_pairs=[]"]
    arguments += ["train.steps=6", "train.save_every=2"]
    assert main([*arguments, "train.skip_steps=[1]", "train.stop_after=2"]) == 0
    assert "names steps that" not in capsys.readouterr().out
    assert main([*arguments, 'train.skip_steps=["1-3"]', "train.stop_after=4"]) == 0
    printed = capsys.readouterr().out
    assert "resumed from step 2" in printed
    assert "which it resumes from: 2. They stay in its weights" in printed
    assert "remove the checkpoints from step 2 on" in printed
    assert set(steps_of(metrics(tmp_path / "run"), "skipped")) == {1, 3}
