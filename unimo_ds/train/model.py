"""The model that a run trains, at its first step."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch

from unimo_ds.config import ModelConfig, RunConfig
from unimo_ds.model.configuration import UnimoConfig, configuration_of
from unimo_ds.objectives.pretraining import UnimoForPreTraining
from unimo_ds.tokenizer import TOKENIZER_FILES, WordTokenizer, load_tokenizer
from unimo_ds.train.checkpoint import whole_checkpoints

BODY_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "image_feature_size",
    "pad_token_id",
    "bos_token_id",
    "mask_token_id",
    "tie_word_embeddings",
)
"""What decides the function of the body and of the language head."""

HEAD_FIELDS = {
    "class_head.bias": ("image_class_size",),
    "temperature.log_temperature": ("score", "initial_temperature"),
}
"""What decides the function of heads, by a weight that a folder has where it has been trained."""

FREE_FIELDS = {
    "hidden_dropout_prob": "noise of training, switched off where a model is used",
    "attention_probs_dropout_prob": "the same",
    "initializer_range": "draws only the weights that the folder lacks",
    "attention_backend": "all backends compute the same function",
    "eos_token_id": "where generate() stops, which training never asks",
}
"""What may differ between a folder and the run that starts from it, and why."""

_RUN_NAMES = {"initial_temperature": "temperature"}


class _Start(NamedTuple):
    """A folder to start from, and what it says of itself."""

    folder: Path
    config: UnimoConfig


def build_model(config: RunConfig, *, fresh: bool = False) -> UnimoForPreTraining:
    """Random weights from the run's seed, the same on every rank; or those of ``model.init``.

    A run that goes on from a checkpoint gets its weights from there and needs ``model.init`` no
    more; one that begins afresh (``fresh``) does.

    Raises:
        ValueError: ``model.init`` holds a model of another function, or of other words.
    """
    torch.manual_seed(config.seed)
    settings = configuration_of(config.model, config.train.attention)
    model = UnimoForPreTraining(settings, config.cmcl)
    resumes = not fresh and whole_checkpoints(config.run_folder)
    if resumes or not config.model.init:
        return model
    folder = Path(config.model.init)
    loaded = initialised(model, folder)
    _check_vocabulary(folder, config.data.tokenizer)
    return loaded


def initialised(model: UnimoForPreTraining, folder: Path) -> UnimoForPreTraining:
    """``model`` with the weights in ``folder``; what it lacks (RoBERTa: images) stays random.

    Raises:
        ValueError: no UNIMO model there, one of another function, or one that lacks weights of the
            body or has more of them.
    """
    start = _read_start(folder)
    _compare(start, model.config, BODY_FIELDS)
    loaded, report = UnimoForPreTraining.from_pretrained(
        folder,
        config=model.config,
        contrast=model.contrast,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused by name below
    )
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    for weight, names in HEAD_FIELDS.items():
        if weight not in missing:
            _compare(start, model.config, names)
    lost = [name for name in missing if name.startswith("unimo.") and ".region_" not in name]
    _refuse_weights(folder, lost, "lacks")
    _refuse_weights(folder, unexpected, "has, which this run has no place for,")
    _refuse_weights(folder, [name for name, *_ in report["mismatched_keys"]], "has other sizes of")
    return loaded


def _read_start(folder: Path) -> _Start:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"model.init {folder} holds no model: config.json is missing")
    kind = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    if kind != UnimoConfig.model_type:
        raise ValueError(
            f"model.init {folder} holds a {kind} model, expected a {UnimoConfig.model_type} one: "
            "convert it with `unimo-convert roberta`"
        )
    return _Start(folder, UnimoConfig.from_pretrained(folder))


def _compare(start: _Start, ours: UnimoConfig, names: Collection[str]) -> None:
    for name in names:
        folder_has, run_has = getattr(start.config, name), getattr(ours, name)
        if folder_has != run_has:
            key = _RUN_NAMES.get(name, name)
            settable = key in ModelConfig.__dataclass_fields__
            raise ValueError(
                f"model.init {start.folder} has {name} {folder_has}, this run has {run_has}: "
                + (f"set model.{key}={folder_has}" if settable else "UNIMO is trained with this")
                + ", or start from another folder"
            )


def _refuse_weights(folder: Path, names: Collection[str], verb: str) -> None:
    if names:
        shown = ", ".join(sorted(names)[:3])
        raise ValueError(
            f"model.init {folder} {verb} {len(names)} weights ({shown}): it is not whole, or its "
            "config.json is that of another model"
        )


def _check_vocabulary(folder: Path, tokenizer: str) -> None:
    """Refuses weights of other words, where the folder says what its words are."""
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return
    folder_words, words = load_tokenizer(folder), load_tokenizer(tokenizer)
    at = _first_difference(folder_words, words)
    if at is not None:
        raise ValueError(
            f"model.init {folder} was trained with other words: {at} is {folder_words.token(at)!r} "
            f"there and {words.token(at)!r} in data.tokenizer {tokenizer}: start from another "
            f"folder, or build the corpora with --tokenizer {folder}"
        )


def _first_difference(a: WordTokenizer, b: WordTokenizer) -> int | None:
    """The lowest id at which the words differ; sizes are compared elsewhere."""
    differing = {index for _, index in a.vocabulary.items() ^ b.vocabulary.items()}
    shared = min(a.vocab_size, b.vocab_size)
    return min((index for index in differing if index < shared), default=None)
