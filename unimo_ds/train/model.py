"""The model that a run trains, at its first step."""

import torch

from unimo_ds.config import RunConfig
from unimo_ds.model.configuration import UnimoConfig, configuration_of
from unimo_ds.objectives.pretraining import UnimoForPreTraining


def build_model(config: RunConfig) -> UnimoForPreTraining:
    """Random weights from the run's seed, the same on every rank; or those of ``model.init``.

    Raises:
        ValueError: ``model.init`` holds a model of other sizes.
    """
    torch.manual_seed(config.seed)
    settings = configuration_of(config.model, config.train.attention)
    model = UnimoForPreTraining(settings, config.cmcl)
    return initialised(model, config.model.init) if config.model.init else model


def initialised(model: UnimoForPreTraining, folder: str) -> UnimoForPreTraining:
    """``model`` with the weights in ``folder``; what it lacks (RoBERTa: images) stays random."""
    found = UnimoConfig.from_pretrained(folder)
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"):
        theirs, ours = getattr(found, name), getattr(model.config, name)
        if theirs != ours:
            raise ValueError(
                f"model.init {folder} has {name} {theirs}, this run has {ours}: set it"
            )
    loaded: UnimoForPreTraining = UnimoForPreTraining.from_pretrained(
        folder, config=model.config, contrast=model.contrast, dtype=torch.float32
    )
    return loaded
