"""A Hugging Face RoBERTa folder to a UNIMO folder: the same text model, with room for images.

RoBERTa's one token type is added to its position embeddings, which is exact. Its pooler (tanh) has
no counterpart and is dropped; UNIMO's image embedding is new and drawn at random.

Legend: B samples · L words · V words of the vocabulary
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import RobertaForMaskedLM

from unimo_ds.model.body import UnimoModel, UnimoPreTrainedModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.modeling import UnimoForMaskedLM
from unimo_ds.model.padded import check_padded, pack
from unimo_ds.model.processing import UnimoProcessor, hugging_face_tokenizer
from unimo_ds.tokenizer import NUM_LEADING_SPECIALS, load_tokenizer

TOLERANCE = 1e-4
"""The largest difference of a logit that ``verify`` accepts."""

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
        verify: compare the logits of both models on random words, through the padded and the packed
            interface.
        image_feature_size: F of the images that will be trained on.
        image_class_size: K of their soft labels.
        seed: of the parameters that RoBERTa does not have.

    Raises:
        ValueError: no RoBERTa in ``source``, one of another architecture, ``destination`` in use,
            or logits that differ by more than TOLERANCE.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination} is not empty: remove it, or choose another folder")
    config = _configuration(source, image_feature_size, image_class_size)
    weights = _read_weights(source)
    mapped, dropped = _rename(weights, config)
    torch.manual_seed(seed)
    has_head = any(name.startswith("language_head.") for name in mapped)
    model = (UnimoForMaskedLM if has_head else UnimoModel)(config)
    new = _load(model, mapped, source)
    if verify and not has_head:
        raise ValueError(f"{source} has no language head, so there are no logits to verify")
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when all is well: what stands at the destination is whole, and verified if asked.
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=destination.parent) as folder:
        unfinished = Path(folder) / destination.name
        model.save_pretrained(unfinished)
        tokenizer = _copy_tokenizer(source, unfinished, config)
        difference = _verified(source, unfinished, seed) if verify else None
        os.replace(unfinished, destination)
    return ConversionReport(
        destination=destination,
        parameters=sum(tensor.numel() for tensor in mapped.values()),
        new=new,
        dropped=dropped,
        tokenizer=tokenizer,
        largest_difference=difference,
    )


def _configuration(source: Path, image_feature_size: int, image_class_size: int) -> UnimoConfig:
    path = source / "config.json"
    if not path.is_file():
        raise ValueError(f"no model in {source}: config.json is missing")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if values.get("model_type") != "roberta":
        raise ValueError(f"{path} describes a {values.get('model_type')} model, not a roberta one")
    for name, wanted in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if values.get(name, wanted) != wanted:
            raise ValueError(
                f"{path} has {name} {values[name]!r}, UNIMO takes over {wanted!r} only"
            )
    # RobertaConfig fills in what an old config.json leaves out.
    roberta = RobertaForMaskedLM.config_class(**values)
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


def _rename(
    weights: dict[str, Tensor], config: UnimoConfig
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under UNIMO's names, and the names of those that have none."""
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
        if name in ("lm_head.bias", "lm_head.decoder.bias"):
            mapped["language_head.decoder.bias"] = tensor
        elif module in names:
            mapped[f"{names[module]}.{kind}"] = tensor
        elif name not in ("lm_head.decoder.weight", _TOKEN_TYPES):
            dropped.append(name)
    if _TOKEN_TYPES in weights:
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


def _copy_tokenizer(source: Path, destination: Path, config: UnimoConfig) -> bool:
    if not any((source / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        return False
    words = load_tokenizer(source)
    if words.vocab_size > config.vocab_size:
        raise ValueError(
            f"the tokenizer in {source} has {words.vocab_size} words, the model {config.vocab_size}"
        )
    tokenizer = hugging_face_tokenizer(words, config.max_position_embeddings - 2)
    UnimoProcessor(tokenizer, grid=None).save_pretrained(destination)
    return True


def _verified(source: Path, destination: Path, seed: int) -> float:
    difference = largest_difference(source, destination, seed)
    if not difference <= TOLERANCE:
        raise ValueError(
            f"logits of the UNIMO model differ from those of {source} by {difference:.2e}, "
            f"more than {TOLERANCE:.0e}"
        )
    return difference


@torch.no_grad()
def largest_difference(source: Path, destination: Path, seed: int = 1) -> float:
    """The largest difference of a logit between both models, on random texts of uneven lengths.

    The UNIMO model is asked twice: padded, and as one packed row.
    """
    roberta = RobertaForMaskedLM.from_pretrained(source, dtype=torch.float32).eval()
    unimo = UnimoForMaskedLM.from_pretrained(destination, dtype=torch.float32).eval()
    config = unimo.config
    longest = min(64, config.max_position_embeddings - 2)
    generator = torch.Generator().manual_seed(seed)
    ids_BL = torch.randint(
        NUM_LEADING_SPECIALS, config.vocab_size, (4, longest), generator=generator
    )
    lengths_B = torch.tensor([longest, longest - 1, longest // 2, max(1, longest // 5)])
    mask_BL = torch.arange(longest) < lengths_B[:, None]
    ids_BL = ids_BL.masked_fill(~mask_BL, config.pad_token_id)
    expected_NV = roberta(ids_BL, attention_mask=mask_BL.long()).logits[mask_BL]
    padded_NV = unimo(ids_BL, mask_BL).logits[mask_BL]
    batch, _ = pack(check_padded(config, ids_BL, mask_BL, None, None, None), config)
    packed_NV = unimo.language_head(unimo.unimo(batch))
    return max(float((found - expected_NV).abs().max()) for found in (padded_NV, packed_NV))
