"""Real runs: DeepSpeed on two ranks, one rank and plain torch agree; resuming changes nothing."""

import json
import math

import pytest
import torch

from tests.cluster.launch import curve, launch, metrics, train
from tests.conftest import ROOT

pytestmark = pytest.mark.alone

STEPS = 20
KEYS = (
    "loss loss/mlm loss/seq2seq loss/mrfr loss/mrc loss/cmcl accuracy/mlm accuracy/seq2seq "
    "accuracy/mrc accuracy/cmcl lr grad_norm tokens_per_second samples_per_second mfu data_wait "
    "packing memory_gib"
)


def ds(stage):
    return f"train.deepspeed={ROOT}/ds_configs/zero{stage}.json"


@pytest.fixture(scope="module")
def zero3(small_toml, tmp_path_factory):
    """20 steps of ZeRO-3 on two ranks, in one go."""
    run = tmp_path_factory.mktemp("runs") / "zero3"
    printed = train("deepspeed", 2, small_toml, run)
    return run, printed


@pytest.fixture(scope="module")
def plain(small_toml, tmp_path_factory):
    """The same 20 steps in plain torch."""
    run = tmp_path_factory.mktemp("runs") / "plain"
    train("plain", 1, small_toml, run, "train.deepspeed=")
    return run


def assert_same_curve(left, right, relative):
    """``right`` and ``left`` are (losses..., the norm of the gradient) of every step.

    The norm jumps where a pooler's ReLU is at its kink: it may differ a hundred times as much.
    """
    assert len(left) == len(right) == STEPS
    for step, (a, b) in enumerate(zip(left, right, strict=True)):
        assert a[:-1] == pytest.approx(b[:-1], rel=relative), f"step {step}"
        assert a[-1] == pytest.approx(b[-1], rel=100 * relative), f"step {step}"


def test_zero3_on_two_ranks_is_plain_torch(zero3, plain):
    names = ["loss", "loss/mlm", "loss/seq2seq", "loss/mrfr", "loss/mrc", "loss/cmcl", "grad_norm"]
    assert_same_curve(curve(zero3[0], names), curve(plain, names), 1e-5)
    assert curve(plain)[-1][0] < curve(plain)[0][0]


def test_zero0_on_one_rank_is_plain_torch(small_toml, plain, tmp_path):
    train("plain", 1, small_toml, tmp_path / "zero0", ds(0))
    names = ["loss", "loss/cmcl"]  # stage 0 tells no norm in fp32
    assert_same_curve(curve(tmp_path / "zero0", names), curve(plain, names), 1e-5)


@pytest.mark.parametrize(("stage", "launcher"), [(1, "torchrun"), (2, "deepspeed")])
def test_the_other_stages_and_launchers_agree(small_toml, plain, tmp_path, stage, launcher):
    train(launcher, 2, small_toml, tmp_path / "run", ds(stage))
    assert_same_curve(curve(tmp_path / "run"), curve(plain), 1e-5)


def test_accumulation_and_checkpointing_change_memory_not_numbers(small_toml, tmp_path):
    # The contrast spans one micro-step, so it is the one objective that accumulation may change.
    shared = (ds(3), "train.steps=5", "batch.samples=56", "loss.cmcl=0")
    train("deepspeed", 2, small_toml, tmp_path / "whole", *shared)
    saving = ("train.activation_checkpointing=true", "batch.tokens_per_row=1400")
    train("deepspeed", 2, small_toml, tmp_path / "saving", *shared, *saving)
    names = ["loss/mlm", "loss/seq2seq", "loss/mrfr", "loss/mrc", "grad_norm"]
    whole, accumulated = (curve(tmp_path / run, names) for run in ("whole", "saving"))
    assert curve(tmp_path / "whole", ["loss/cmcl"]) != curve(tmp_path / "saving", ["loss/cmcl"])
    for a, b in zip(whole, accumulated, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(small_toml, zero3, tmp_path):
    run = tmp_path / "resumed"
    train("deepspeed", 2, small_toml, run, "train.stop_after=10")
    printed = train("deepspeed", 2, small_toml, run)
    assert "resumed from step 10" in printed
    assert curve(run) == curve(zero3[0])
    heldout = [
        {k: v for k, v in line.items() if k != "seconds"} for line in metrics(run, "heldout")
    ]
    assert heldout == [
        {k: v for k, v in line.items() if k != "seconds"} for line in metrics(zero3[0], "heldout")
    ]


EVERYTHING = (
    "cmcl.captions=2",
    "cmcl.retrieved_texts=1",
    "cmcl.retrieved_images=1",
    "cmcl.rewritten_positives=1",
    "cmcl.word_negatives=1",
    "cmcl.phrase_negatives=1",
    "cmcl.sentence_negatives=1",
    "cmcl.hardness_steps=6",
    "batch.tokens_per_row=4096",
)
"""Of the contrast; a run without it is the base of the other tests."""


def test_bf16_with_dropout_and_the_whole_contrast_resumes_to_the_bit(small_toml, tmp_path):
    settings = (ds(2), "train.precision=bf16", "model.hidden_dropout_prob=0.1", "train.steps=6")
    settings += (
        "model.attention_probs_dropout_prob=0.1",
        "train.save_every=3",
        "data.heldout_pairs=[]",
        *EVERYTHING,
    )
    train("deepspeed", 2, small_toml, tmp_path / "once", *settings)
    train("deepspeed", 2, small_toml, tmp_path / "twice", *settings, "train.stop_after=3")
    train("deepspeed", 2, small_toml, tmp_path / "twice", *settings)
    assert curve(tmp_path / "twice") == curve(tmp_path / "once")
    assert len(set(curve(tmp_path / "once"))) == 6
    told = metrics(tmp_path / "once")
    for name in ("won_word", "won_phrase", "won_sentence", "retrieved_text", "retrieved_image"):
        values = [line[f"contrast/{name}"] for line in told]
        assert values[-1] is not None and all(v is None or -1 <= v <= 1 for v in values), name
    assert told[0]["contrast/won_word"] is None  # words come last in the schedule


def test_what_a_run_leaves_behind(zero3, small_config):
    run, printed = zero3
    lines = metrics(run)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for key in KEYS.split():
        assert all(key in line for line in lines)
        assert any(line[key] is not None and math.isfinite(line[key]) for line in lines), key
    assert all(line["packing"] > 0.5 and 0 <= line["data_wait"] <= 1 for line in lines)
    heldout = metrics(run, "heldout")
    assert [line["step"] for line in heldout] == [10, 20]
    for direction in ("image_to_text", "text_to_image"):
        r1, r5, r10 = (heldout[-1][f"{direction}_r{depth}"] for depth in (1, 5, 10))
        assert 0 <= r1 <= r5 <= r10 <= 1
    assert heldout[-1]["candidates"] == 16
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["hidden_size"] == small_config.model.hidden_size
    assert "ranks=2" in (run / "command.txt").read_text()
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert "step 20/20" in printed and "tok/s" in printed and "fill" in printed
    manifest = json.loads((run / "checkpoints" / "step_00000020" / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (20, 2)
    assert (run / "checkpoints" / "latest").read_text() == "step_00000020\n"


def test_checkpoints_are_not_taken_for_what_they_are_not(zero3, small_toml):
    run, _ = zero3
    where = (small_toml, f"folder={run.parent}", f"name={run.name}")
    other_model = launch("plain", 1, *where, "model.hidden_size=64")
    assert other_model.returncode == 2
    assert "was trained with model.hidden_size 32 (here 64)" in other_model.stderr
    other_world = launch("plain", 1, *where)
    assert other_world.returncode == 2
    assert "written by 2 ranks, this run has 1: start 2 ranks" in other_world.stderr


def test_plain_torch_refuses_several_ranks(small_toml, tmp_path):
    done = launch("torchrun", 2, small_toml, f"folder={tmp_path}", "train.deepspeed=")
    assert done.returncode != 0
    assert "plain torch is for 1 process, 2 were launched" in done.stderr
    assert torch.distributed.is_available()
