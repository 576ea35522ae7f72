"""A training checkpoint -> a Hugging Face folder, without a GPU or the optimizer's moments."""

import json
from pathlib import Path

import torch
from torch import Tensor

from unimo_ds.config import RunConfig, check, config_from_dict
from unimo_ds.data.schema import RegionSource
from unimo_ds.data.shards import PairCorpus, open_corpus
from unimo_ds.model.configuration import configuration_of
from unimo_ds.model.processing import UnimoProcessor, hugging_face_tokenizer
from unimo_ds.objectives.pretraining import UnimoForPreTraining
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import load_tokenizer
from unimo_ds.train.checkpoint import read_checkpoint, whole_checkpoints
from unimo_ds.train.engine import PLAIN_STATES
from unimo_ds.train.group import trust_weights_only

PIXELS = "pixels"
"""The one region source that needs no model, so that the processor can cut pictures itself."""

ZERO_STATES = "mp_rank_00_model_states.pt"
"""Where DeepSpeed keeps the whole model at stage 0."""


def convert_zero(run: Path, destination: Path, step: int | None = None) -> Path:
    """Writes configuration, safetensors, tokenizer and processor of a run's checkpoint.

    Args:
        run: folder of the run.
        destination: folder to make; it must not exist or be empty.
        step: of the checkpoint; the newest if None.

    Raises:
        ValueError: no such run or checkpoint, damage, or a destination that holds something.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination} holds something already: name a new folder")
    config = read_config(run)
    checkpoint = find_checkpoint(run, step)
    state = read_weights(checkpoint)
    model = UnimoForPreTraining(configuration_of(config.model), config.cmcl)
    # The tied decoder is stored once; everything else must be there.
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if name not in model.all_tied_weights_keys]
    if missing or unexpected:
        raise ValueError(f"{checkpoint}: weights missing {missing}, unknown {unexpected}")
    model.save_pretrained(destination)
    save_processor(config, destination)
    return destination


def read_config(run: Path) -> RunConfig:
    """The resolved configuration of a run.

    Raises:
        ValueError: no run there.
    """
    path = run / "config.json"
    if not path.is_file():
        raise ValueError(f"{run} is no run: {path.name} is missing")
    config = config_from_dict(json.loads(path.read_text(encoding="utf-8")))
    check(config)
    return config


def find_checkpoint(run: Path, step: int | None) -> Path:
    """The checkpoint of ``step``, or the newest whole one; its files are of the right sizes."""
    found = {path.name: path for path in whole_checkpoints(run)}
    name = max(found, default="") if step is None else f"step_{step:08d}"
    if name not in found:
        have = ", ".join(found) or "none"
        raise ValueError(f"no checkpoint {name} in {run}: it has {have}")
    read_checkpoint(found[name])
    return found[name]


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """float32 master weights by parameter name, of plain torch and of every ZeRO stage.

    DeepSpeed's files are memory-mapped: of the optimizer only the master weights are read.
    """
    trust_weights_only()
    if (checkpoint / PLAIN_STATES).is_file():
        states = torch.load(checkpoint / PLAIN_STATES, weights_only=True, mmap=True)
        plain: dict[str, Tensor] = states["model"]
        return plain
    if not list(checkpoint.glob("*_optim_states.pt")):
        states = torch.load(checkpoint / ZERO_STATES, weights_only=True, mmap=True)
        return {name: weight.float() for name, weight in states["module"].items()}
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    lazy = get_fp32_state_dict_from_zero_checkpoint(
        str(checkpoint.parent), tag=checkpoint.name, lazy_mode=True
    )
    return {name: weight.contiguous() for name, weight in lazy.items()}


def save_processor(config: RunConfig, destination: Path) -> None:
    """The tokenizer and what makes regions of pictures, as the run's corpora were built."""
    words = load_tokenizer(config.data.tokenizer)
    source = region_source(config)
    cut = source is not None and source.name == PIXELS
    grid = PixelGrid(**source.parameters) if source and cut else None
    tokenizer = hugging_face_tokenizer(words, config.data.max_tokens)
    UnimoProcessor(tokenizer, grid).save_pretrained(destination)


def region_source(config: RunConfig) -> RegionSource | None:
    """Where the regions of the run's images came from; None if it had no images."""
    for folder in (*config.data.pairs, *config.data.images):
        corpus = open_corpus(folder, config.data.cache)
        images = corpus.images if isinstance(corpus, PairCorpus) else corpus
        return images.manifest.regions
    return None
