"""A Hugging Face RoBERTa folder to a UNIMO folder: the same text model, with room for images.

RoBERTa's one token type is added to its position embeddings, which is exact. Its pooler (tanh) has
no counterpart and is dropped; UNIMO's image embedding is new and drawn at random.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import RobertaForMaskedLM

from unimo_ds.convert.destination import check_free, whole_folder
from unimo_ds.convert.roberta_logits import TOLERANCE, largest_difference
from unimo_ds.model.body import UnimoModel, UnimoPreTrainedModel
from unimo_ds.model.configuration import FIXED, UnimoConfig
from unimo_ds.model.modeling import UnimoForMaskedLM
from unimo_ds.model.processing import UnimoProcessor, hugging_face_tokenizer
from unimo_ds.model.vocabulary import check_vocabulary
from unimo_ds.tokenizer import (
    CLS_ID,
    PAD_ID,
    SEP_ID,
    TOKENIZER_FILES,
    WordTokenizer,
    load_tokenizer,
)

_EMBEDDINGS = {
    "word_embeddings": "word_embeddings",
    "position_embeddings": "position_embeddings",
    "LayerNorm": "layer_norm",
}
_LAYER = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_layer_norm",
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "output_layer_norm",
}
_HEAD = {"dense": "dense", "layer_norm": "layer_norm"}
_TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
_WORDS, _DECODER = "embeddings.word_embeddings.weight", "lm_head.decoder.weight"
_BIASES = "lm_head.bias", "lm_head.decoder.bias"
_SPECIAL_IDS = {"pad_token_id": PAD_ID, "bos_token_id": CLS_ID, "eos_token_id": SEP_ID}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "max_position_embeddings",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


@dataclass(frozen=True, kw_only=True)
class ConversionReport:
    """What a conversion did."""

    destination: Path
    parameters: int  # taken over
    new: tuple[str, ...]  # parameters that RoBERTa does not have, drawn at random
    dropped: tuple[str, ...]  # RoBERTa's that UNIMO does not have
    tokenizer: bool  # whether there was one to copy
    largest_difference: float | None  # of a logit, through either interface; None if not verified


def convert_roberta(
    source: Path,
    destination: Path,
    *,
    verify: bool,
    image_feature_size: int = 2048,
    image_class_size: int = 1601,
    seed: int = 1,
) -> ConversionReport:
    """Writes the RoBERTa model in the folder ``source`` as a UNIMO model into ``destination``.

    Args:
        source: RobertaForMaskedLM or RobertaModel as `transformers` saves it; without a language
            head, the result is a UnimoModel.
        verify: compare the logits of both models on sentences and special words, through the padded
            and the packed interface.
        image_feature_size: F of the images that will be trained on.
        image_class_size: K of their soft labels.
        seed: of the parameters that RoBERTa does not have.

    Raises:
        ValueError: no RoBERTa in ``source``, one of another architecture, with a head of its own
            or a padded vocabulary, ``destination`` in use, or logits that differ by more than
            TOLERANCE.
    """
    check_free(destination)
    config = _configuration(source, image_feature_size, image_class_size)
    words = _read_tokenizer(source, config)
    weights = _read_weights(source)
    _check_head(weights, source)
    mapped, dropped = _rename(weights, config)
    torch.manual_seed(seed)
    has_head = any(name.startswith("language_head.") for name in mapped)
    model = (UnimoForMaskedLM if has_head else UnimoModel)(config)
    new = _load(model, mapped, source)
    if verify and not has_head:
        raise ValueError(f"{source} has no language head, so there are no logits to verify")
    # What stands at the destination is whole, and verified if asked.
    with whole_folder(destination) as unfinished:
        model.save_pretrained(unfinished)
        if words:
            tokenizer = hugging_face_tokenizer(words, config.max_position_embeddings - 2)
            UnimoProcessor(tokenizer, grid=None).save_pretrained(unfinished)
        difference = _verified(source, unfinished, seed) if verify else None
    return ConversionReport(
        destination=destination,
        parameters=sum(tensor.numel() for tensor in mapped.values()),
        new=new,
        dropped=dropped,
        tokenizer=words is not None,
        largest_difference=difference,
    )


def _configuration(source: Path, image_feature_size: int, image_class_size: int) -> UnimoConfig:
    path = source / "config.json"
    if not path.is_file():
        raise ValueError(f"no model in {source}: config.json is missing")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if values.get("model_type") != "roberta":
        raise ValueError(f"{path} describes a {values.get('model_type')} model, not a roberta one")
    # RobertaConfig fills in what an old config.json leaves out.
    roberta = RobertaForMaskedLM.config_class(**values)
    # RoBERTa's positions are counted from the padding word's id.
    for name, wanted in (FIXED | _SPECIAL_IDS).items():
        if (there := values.get(name, getattr(roberta, name, wanted))) != wanted:
            raise ValueError(f"{path} has {name} {there!r}, UNIMO takes over {wanted!r} only")
    return UnimoConfig(
        **{name: getattr(roberta, name) for name in _SIZES},
        image_feature_size=image_feature_size,
        image_class_size=image_class_size,
    )


def _read_weights(source: Path) -> dict[str, Tensor]:
    """All tensors, float32, names without the leading ``roberta.``; safetensors before .bin."""
    weights: dict[str, Tensor] = {}
    if files := sorted(source.glob("*.safetensors")):
        for file in files:
            weights.update(load_file(file))
    elif files := sorted(source.glob("pytorch_model*.bin")):
        for file in files:
            weights.update(torch.load(file, map_location="cpu", weights_only=True))
    else:
        raise ValueError(f"no weights in {source}: expected *.safetensors or pytorch_model*.bin")
    return {
        name.removeprefix("roberta."): tensor.float()
        for name, tensor in weights.items()
        if tensor.is_floating_point()
    }


def _check_head(weights: dict[str, Tensor], source: Path) -> None:
    """Refuses a language head that UNIMO's, whose decoder is the word embedding, cannot be."""
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    has_head = any(name in weights for name in (_DECODER, *_BIASES))
    # Where they are tied, `transformers` does not look at a decoder that a file holds beside.
    if has_head and not values.get("tie_word_embeddings", True):
        decoder, words = weights.get(_DECODER), weights.get(_WORDS)
        if decoder is None or words is None or not torch.equal(decoder, words):
            raise ValueError(
                f"{source} has a decoder of its own (tie_word_embeddings false), UNIMO's is the "
                "word embedding: tie the two and train it on, or convert the body alone "
                "(RobertaModel)"
            )
    if all(name in weights for name in _BIASES):
        first, second = (weights[name] for name in _BIASES)
        if not torch.equal(first, second):
            raise ValueError(
                f"{source} has two biases of its language head, {' and '.join(_BIASES)}, that "
                "differ: remove the one that it was not trained with"
            )


def _rename(
    weights: dict[str, Tensor], config: UnimoConfig
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under UNIMO's names, and the names of those that have none.

    The caller has checked that a decoder is the word embedding and that two biases are one.
    """
    names = {f"embeddings.{old}": f"unimo.embeddings.{new}" for old, new in _EMBEDDINGS.items()}
    for i in range(config.num_hidden_layers):
        names |= {
            f"encoder.layer.{i}.{old}": f"unimo.encoder.layers.{i}.{new}"
            for old, new in _LAYER.items()
        }
    names |= {f"lm_head.{old}": f"language_head.{new}" for old, new in _HEAD.items()}
    mapped, dropped = {}, []
    for name, tensor in weights.items():
        module, _, kind = name.rpartition(".")
        if name in _BIASES:
            mapped["language_head.decoder.bias"] = tensor
        elif module in names:
            mapped[f"{names[module]}.{kind}"] = tensor
        elif name not in (_DECODER, _TOKEN_TYPES):
            dropped.append(name)
    if _TOKEN_TYPES in weights:
        if len(weights[_TOKEN_TYPES]) > 1:
            dropped.append(f"{_TOKEN_TYPES}[1:]")
        positions = "unimo.embeddings.position_embeddings.weight"
        mapped[positions] = mapped[positions] + weights[_TOKEN_TYPES][0]
    return mapped, tuple(dropped)


def _load(model: UnimoPreTrainedModel, mapped: dict[str, Tensor], source: Path) -> tuple[str, ...]:
    """Fills ``model``; the names of its parameters that were not there."""
    if isinstance(model, UnimoModel):
        mapped = {name.removeprefix("unimo."): tensor for name, tensor in mapped.items()}
    try:
        missing, unexpected = model.load_state_dict(mapped, strict=False)
    except RuntimeError as error:
        raise ValueError(f"the weights in {source} do not fit its config.json: {error}") from error
    assert not unexpected, unexpected
    new = tuple(name for name in missing if name != "language_head.decoder.weight")
    lost = [name for name in new if ".region_" not in name and not name.startswith("region_")]
    if lost:
        raise ValueError(f"{source} has no weights for {', '.join(lost)}")
    return new


def _read_tokenizer(source: Path, config: UnimoConfig) -> WordTokenizer | None:
    if not any((source / name).is_file() for name in TOKENIZER_FILES):
        return None
    words = load_tokenizer(source)
    check_vocabulary(config, words, source)
    return words


def _verified(source: Path, destination: Path, seed: int) -> float:
    difference = largest_difference(source, destination, seed)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"logits of the UNIMO model differ from those of {source} by {difference:.2e}, "
            f"more than {TOLERANCE:.0e}"
        )
    return difference
