"""The configuration: what is read, what is refused, and how the refusal reads."""

import dataclasses
import json
from pathlib import Path

import pytest

from unimo_ds.config import config_from_dict, load_config
from unimo_ds.config_rules import skipped_steps
from unimo_kernels.attention import BACKENDS

CONFIGS = Path(__file__).parents[1] / "unimo_ds" / "configs"

REFUSED = {
    "train.stepz=3": r"unknown key train.stepz; the nearest known one is train.steps",
    "modle.hidden_size=8": r"unknown key modle; the nearest known one is model",
    "train.steps=many": r"train.steps = 'many' is str, expected int",
    "train.steps=true": r"train.steps = True is bool, expected int",
    "data.pairs=[1]": r"data.pairs = \[1\] is list, expected list\[str\]",
    "train=3": r"train is a section, not the value 3",
    "name.sub=3": r"name is a value, not a section",
    "justaword": r"not of the form key=value",
    "model.hidden_size=100": r"hidden_size 100 is not a multiple of .*num_attention_heads 8",
    "data.max_tokens=513": r"max_tokens 513 is more than the 128 words",
    "data.tokenizer=": r"data.tokenizer is empty",
    "data.texts=[]": r"text_weight is 1 but data.texts names no corpus",
    "data.text_weight=-1": r"text_weight -1 is negative",
    "batch.tokens_per_row=100": r"tokens_per_row 100 cannot hold one pair .* up to \d+ positions",
    "model.score=dot": r"model.score = 'dot', expected one of cosine, match",
    "train.precision=fp8": r"train.precision = 'fp8', expected one of bf16, fp32",
    "train.attention=fast": r"'fast', expected one of auto, reference, sdpa, flash_attn, flex, tri",
    "cmcl.exchange=broadcast": r"cmcl.exchange = 'broadcast', expected one of gather, ring",
    "corruption.mlm_probability=1.5": r"mlm_probability = 1.5, expected a share between 0 and 1",
    "corruption.fragment_min=40": r"fragment_min 40 is more than fragment_max 32",
    "optim.lr=0": r"optim.lr = 0.0, expected more than 0",
    "train.skip_steps=3": r"train.skip_steps = 3 is int, expected list\[int | str\]",
    "train.skip_steps=[true]": r"train.skip_steps = \[True\] is list",
    "train.skip_steps=[0]": r"names 0, expected steps from 1 to train.steps \d+",
    'train.skip_steps=[2, "9-5"]': r"names '9-5', expected steps .* the lower one first",
    'train.skip_steps=["3-99999999"]': r"names '3-99999999', expected steps from 1 to train.steps",
    'train.skip_steps=["3 to 5"]': r"names '3 to 5', expected a step such as 120 or a range",
    "train.skip_steps=[-4]": r"names -4, expected a step such as 120",
    "loss.mlm=-1": r"loss.mlm = -1.0, expected 0 or more",
    "optim.warmup_steps=100000000": r"warmup_steps 100000000 does not end before train.steps",
}


@pytest.mark.parametrize("name", ["demo", "base", "large"])
def test_built_in_configurations_are_whole(name):
    config = load_config(CONFIGS / f"{name}.toml")
    assert config_from_dict(json.loads(config.to_json())) == config


def test_base_and_large_are_the_papers_models():
    base, large = (load_config(CONFIGS / f"{name}.toml").model for name in ("base", "large"))
    sizes = [(m.num_hidden_layers, m.hidden_size, m.num_attention_heads) for m in (base, large)]
    assert sizes == [(12, 768, 12), (24, 1024, 16)]
    for model in (base, large):
        assert (model.vocab_size, model.max_position_embeddings) == (50265, 514)
        assert (model.image_feature_size, model.image_class_size) == (2048, 1601)
        assert model.intermediate_size == 4 * model.hidden_size


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_work_is_refused_with_its_remedy(override):
    with pytest.raises(ValueError, match=REFUSED[override]):
        load_config(CONFIGS / "demo.toml", [override])


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_every_attention_of_the_kernels_can_be_asked_for(backend):
    config = load_config(CONFIGS / "demo.toml", [f"train.attention={backend}"])
    assert config.train.attention == backend


def test_overrides_are_toml_and_fall_back_to_text():
    config = load_config(
        CONFIGS / "demo.toml",
        ["train.steps=1000", "name=other", 'data.pairs=["a", "b"]', "optim.lr=1"],
    )
    assert (config.train.steps, config.name, config.data.pairs) == (1000, "other", ["a", "b"])
    assert config.optim.lr == 1.0 and isinstance(config.optim.lr, float)


def test_steps_to_skip_are_numbers_and_ranges():
    overrides = ['train.skip_steps=[7, "3-5", "4 - 6", "9"]']
    train = load_config(CONFIGS / "demo.toml", overrides).train
    assert skipped_steps(train) == {3, 4, 5, 6, 7, 9}


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no configuration at"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(ValueError, match=r"bad.toml is not TOML"):
        load_config(tmp_path / "bad.toml")


def test_a_byte_order_mark_is_no_key(tmp_path):
    demo = CONFIGS / "demo.toml"
    (tmp_path / "run.toml").write_text("\ufeff" + demo.read_text("utf-8"), encoding="utf-8")
    assert load_config(tmp_path / "run.toml") == load_config(demo)


def test_configurations_cannot_change_under_a_run():
    config = load_config(CONFIGS / "demo.toml")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 2
