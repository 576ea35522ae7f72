"""The engines in this process: settings, schedule, weight decay, NaN, plain torch checkpoints."""

import dataclasses
import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from unimo_ds.config import OptimConfig
from unimo_ds.data.loader import Loader, MicroStep
from unimo_ds.pretrain import main
from unimo_ds.train.checkpoint import load_checkpoint, save_checkpoint, whole_checkpoints
from unimo_ds.train.engine import OWNED_BY_RUN_CONFIG, PlainEngine, deepspeed_settings
from unimo_ds.train.heldout import rank_of_best
from unimo_ds.train.loop import train_step
from unimo_ds.train.metrics import Tally, peak_flops, useful_flops
from unimo_ds.train.model import build_model
from unimo_ds.train.nonfinite import NonFinite
from unimo_ds.train.optim import build_optimizer, learning_rate

ROOT = Path(__file__).parents[2]


def with_train(config, **changes):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


@pytest.fixture
def config(small_config, tmp_path):
    config = dataclasses.replace(small_config, folder=str(tmp_path), name="run")
    return with_train(config, deepspeed="")


@pytest.mark.parametrize("path", sorted((ROOT / "ds_configs").glob("*.json")), ids=lambda p: p.stem)
def test_every_deepspeed_configuration_leaves_the_runs_numbers_to_the_run(config, path):
    from deepspeed.runtime.config import DeepSpeedConfig

    settings = deepspeed_settings(with_train(config, deepspeed=str(path), precision="bf16"))
    read = DeepSpeedConfig(settings)
    assert read.gradient_clipping == config.optim.grad_clip
    assert read.zero_optimization_stage == int(path.stem[4])
    assert settings["bf16"] == {"enabled": True}


@pytest.mark.parametrize("key", OWNED_BY_RUN_CONFIG)
def test_numbers_with_two_owners_are_refused(config, tmp_path, key):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({key: 1}))
    with pytest.raises(ValueError, match=f"sets {key}, which .* owns"):
        deepspeed_settings(with_train(config, deepspeed=str(path)))


def test_unreadable_deepspeed_configurations_are_named(config, tmp_path):
    with pytest.raises(ValueError, match="no DeepSpeed configuration at"):
        deepspeed_settings(with_train(config, deepspeed=str(tmp_path / "none.json")))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        deepspeed_settings(with_train(config, deepspeed=str(tmp_path / "bad.json")))


def test_the_learning_rate_warms_up_and_decays_to_zero():
    optim = OptimConfig(lr=1.0, warmup_steps=10)
    rates = [learning_rate(step, 100, optim) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0 and rates[99] == pytest.approx(1 / 90)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_only_matrices_decay(config):
    model = build_model(config)
    decayed, undecayed = build_optimizer(model, config.optim).param_groups
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.01, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    without = {names[id(p)] for p in undecayed["params"]}
    expected = {n for n in names.values() if n.endswith(".bias") or "norm" in n.lower()}
    assert without == expected | {"temperature.log_temperature"}
    assert len(decayed["params"]) + len(undecayed["params"]) == len(names)


def test_retrieval_ranks_count_ties_against_the_query():
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.7, 0.7, 0.1], [0.2, 0.4, 0.3]])
    positive = torch.eye(3, dtype=torch.bool)
    assert rank_of_best(scores, positive).tolist() == [1, 2, 2]
    two = positive | torch.tensor([[False, False, False]] * 2 + [[False, True, False]])
    assert rank_of_best(scores, two).tolist() == [1, 2, 1]


def test_useful_flops_are_those_of_the_matrix_products(config):
    """Against torch's own counter, on a row of one bidirectional segment."""
    from torch.utils.flop_counter import FlopCounterMode

    texts = dataclasses.replace(config.data, images=[], pairs=[], image_weight=0, pair_weight=0)
    one = dataclasses.replace(
        config,
        data=texts,
        batch=dataclasses.replace(config.batch, samples=1, rows=1, round_to=1),
        corruption=dataclasses.replace(config.corruption, seq2seq_share=0.0),
    )
    batch = Loader(one).step(0)[0].batch
    model = build_model(with_train(one, attention="reference"))
    with FlopCounterMode(display=False) as counter:
        model(batch.to("cpu"))
    assert useful_flops(batch, one.model) / 3 == pytest.approx(counter.get_total_flops(), rel=0.01)
    assert peak_flops(torch.device("cpu"), torch.float32) > 1e8


def test_a_loss_that_is_not_finite_stops_before_the_update(config):
    engine = PlainEngine(build_model(config), config)
    micro = Loader(config).step(0)[0]
    features = micro.batch.features.clone()
    img = micro.batch.region_feature[micro.batch.region_at == micro.batch.image_at[0]]
    features[img] = torch.inf
    bad = MicroStep(micro.batch._replace(features=features), micro.names)
    before = {name: p.clone() for name, p in engine.model.named_parameters()}
    with pytest.raises(NonFinite) as stopped:
        train_step(engine, [bad], 7, 1e-3, config, Tally())
    message = str(stopped.value)
    assert "step 8" in message and "rank 0" in message and "cmcl" in message
    assert all(name in message for name in micro.names)
    assert all(torch.equal(p, before[name]) for name, p in engine.model.named_parameters())


def test_old_checkpoints_go_and_damaged_ones_are_named(config):
    config = with_train(config, keep_checkpoints=2)
    engine = PlainEngine(build_model(config), config)
    assert load_checkpoint(engine, config) is None
    for step in (1, 2, 3):
        save_checkpoint(engine, config, step, 0.5)
    found = whole_checkpoints(config.run_folder)
    assert [path.name for path in found] == ["step_00000002", "step_00000003"]
    states = found[-1] / "plain_states.pt"
    states.write_bytes(states.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"plain_states.pt has \d+ bytes, its manifest says \d+"):
        load_checkpoint(engine, config)


def test_plain_checkpoints_restore_weights_and_moments(config):
    engine = PlainEngine(build_model(config), config)
    step = Loader(config).step
    train_step(engine, step(0), 0, 1e-3, config, Tally())
    save_checkpoint(engine, config, 1, 2.5)
    train_step(engine, step(1), 1, 1e-3, config, Tally())
    again = PlainEngine(build_model(config), config)
    manifest = load_checkpoint(again, config)
    assert manifest is not None and (manifest.step, manifest.seconds) == (1, 2.5)
    train_step(again, step(1), 1, 1e-3, config, Tally())
    for left, right in zip(engine.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "none.toml")]) == 2
    assert "no configuration at" in capsys.readouterr().err


def test_runs_start_from_a_model_of_the_same_sizes(config, tmp_path):
    model = build_model(config)
    with torch.no_grad():
        model.unimo.embeddings.word_embeddings.weight.fill_(0.25)
    model.save_pretrained(tmp_path / "model")
    sizes = dataclasses.replace(config.model, init=str(tmp_path / "model"))
    started = build_model(dataclasses.replace(config, model=sizes))
    assert (started.unimo.embeddings.word_embeddings.weight == 0.25).all()
    deeper = dataclasses.replace(sizes, num_hidden_layers=3)
    with pytest.raises(ValueError, match="has num_hidden_layers 2, this run has 3"):
        build_model(dataclasses.replace(config, model=deeper))
