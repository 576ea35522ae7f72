"""model.init: what decides a model's function is compared by name, and so are words and weights."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unimo_ds.config import RunConfig
from unimo_ds.model.body import UnimoModel
from unimo_ds.model.configuration import UnimoConfig, configuration_of
from unimo_ds.pretrain import run
from unimo_ds.tokenizer import load_tokenizer, train_tokenizer
from unimo_ds.train.checkpoint import whole_checkpoints
from unimo_ds.train.model import BODY_FIELDS, FREE_FIELDS, HEAD_FIELDS, build_model


@pytest.fixture
def start(small_config: RunConfig, tmp_path: Path) -> Path:
    """A pre-trained model of the small run's sizes, whose word embeddings are all 0.25."""
    model = build_model(small_config)
    with torch.no_grad():
        model.unimo.embeddings.word_embeddings.weight.fill_(0.25)
    model.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.fixture
def config(small_config: RunConfig, start: Path) -> RunConfig:
    model = dataclasses.replace(small_config.model, init=str(start))
    return dataclasses.replace(small_config, model=model, folder=str(start.parent), name="run")


def _says(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_every_field_of_a_model_is_compared_or_free_to_differ() -> None:
    of_heads = {name for names in HEAD_FIELDS.values() for name in names}
    assert set(UnimoConfig.__annotations__) == {*BODY_FIELDS, *of_heads, *FREE_FIELDS}


DIFFERENT = {
    "num_attention_heads": (4, "set model.num_attention_heads=4"),
    "intermediate_size": (128, "set model.intermediate_size=128"),
    "image_feature_size": (48, "set model.image_feature_size=48"),
    "image_class_size": (7, "set model.image_class_size=7"),
    "score": ("match", "set model.score=match"),
    "initial_temperature": (0.2, "set model.temperature=0.2"),
    "layer_norm_eps": (1e-12, "UNIMO is trained with this, or start from another folder"),
    "pad_token_id": (0, "has pad_token_id 0, this run has 1"),
    "mask_token_id": (4, "has mask_token_id 4, this run has 399"),
    "tie_word_embeddings": (False, "has tie_word_embeddings False"),
    "hidden_act": ("gelu_new", "hidden_act 'gelu_new' is not UNIMO's"),
    "position_embedding_type": ("relative_key", "position_embedding_type 'relative_key'"),
    "model_type": ("roberta", "holds a roberta model, expected a unimo_ds one"),
    "num_hidden_layers": (1, "set model.num_hidden_layers=1"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_function_is_refused_by_name(config: RunConfig, start: Path, name: str) -> None:
    value, message = DIFFERENT[name]
    _says(start, **{name: value})
    with pytest.raises(ValueError, match=message):
        build_model(config)


def test_what_may_differ_may_differ(config: RunConfig, start: Path) -> None:
    values = {
        "hidden_dropout_prob": 0.3,
        "attention_probs_dropout_prob": 0.4,
        "initializer_range": 0.5,
        "attention_backend": "reference",
        "eos_token_id": 399,
    }
    assert values.keys() == FREE_FIELDS.keys()
    _says(start, **values)
    model = build_model(config)
    assert (model.unimo.embeddings.word_embeddings.weight == 0.25).all()
    assert model.config.hidden_dropout_prob == config.model.hidden_dropout_prob


def test_heads_that_a_folder_lacks_are_the_runs_own(config: RunConfig, tmp_path: Path) -> None:
    settings = configuration_of(config.model)
    settings.score, settings.initial_temperature, settings.image_class_size = "match", 0.3, 1601
    UnimoModel(settings).save_pretrained(tmp_path / "body")
    sizes = dataclasses.replace(config.model, init=str(tmp_path / "body"))
    model = build_model(dataclasses.replace(config, model=sizes))
    assert model.config.score == "cosine" and model.class_head.out_features == 16
    assert float(1 / model.temperature().detach()) == pytest.approx(0.07, rel=1e-4)


def _without(name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda weights: weights.pop(name)


def _with_a_layer_more(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if ".layers.1." in name]:
        weights[name.replace(".layers.1.", ".layers.2.")] = weights[name].clone()


def _wider(weights: dict[str, torch.Tensor]) -> None:
    weights["unimo.encoder.layers.0.up.weight"] = torch.zeros(96, 32)


WEIGHTS = {
    "a weight that is missing": (
        _without("unimo.encoder.layers.1.attention.key.bias"),
        r"lacks 1 weights \(unimo.encoder.layers.1.attention.key.bias\)",
    ),
    "a layer that config.json leaves out": (_with_a_layer_more, "has, which this run has no"),
    "sizes that config.json does not say": (_wider, "has other sizes of 1 weights"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_folder_that_is_not_whole_is_refused(config: RunConfig, start: Path, name: str) -> None:
    change, message = WEIGHTS[name]
    weights = load_file(start / "model.safetensors")
    change(weights)
    save_file(weights, start / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        build_model(config)


def test_weights_of_other_words_are_refused(config: RunConfig, start: Path) -> None:
    words = load_tokenizer(config.data.tokenizer)
    words.save(start / "tokenizer.json")
    build_model(config)
    others = train_tokenizer(["quite other words than those of the corpora, zebras!"] * 9, 400)
    others.save(start / "tokenizer.json")
    with pytest.raises(ValueError, match=r"was trained with other words: \d+ is '"):
        build_model(config)


def test_a_run_with_a_checkpoint_needs_its_init_no_more_unless_it_starts_afresh(
    config: RunConfig, start: Path
) -> None:
    changes = {"train": {"steps": 2, "save_every": 1, "deepspeed": "", "stop_after": 1}}
    changes |= {
        "optim": {"lr": 1e-9, "warmup_steps": 1},
        "data": {"workers": 0, "heldout_pairs": []},
    }
    for section, values in changes.items():
        changed = dataclasses.replace(getattr(config, section), **values)
        config = dataclasses.replace(config, **{section: changed})
    run(config, fresh=False, command=["first"])
    run(config, fresh=True, command=["afresh"])  # from the folder again, not at random
    (checkpoint,) = whole_checkpoints(config.run_folder)
    weights = torch.load(checkpoint / "plain_states.pt", weights_only=True)["model"]
    words = weights["unimo.embeddings.word_embeddings.weight"]
    torch.testing.assert_close(words, torch.full_like(words, 0.25), rtol=0, atol=1e-5)
    shutil.rmtree(start)
    whole = dataclasses.replace(config.train, stop_after=0)
    run(dataclasses.replace(config, train=whole), fresh=False, command=["resumed"])
    assert [path.name for path in whole_checkpoints(config.run_folder)][-1] == "step_00000002"
