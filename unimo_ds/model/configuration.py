"""The configuration of a UNIMO model as Hugging Face `transformers` knows it."""

import dataclasses

from transformers import PretrainedConfig

from unimo_ds.config import ModelConfig
from unimo_kernels.attention import BACKENDS
from unimo_kernels.dispatch import AUTO

SCORES = ("cosine", "match")

FIXED = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What configures other models of RoBERTa's family: UNIMO is this, whatever a config.json says."""


class UnimoConfig(PretrainedConfig):
    """Sizes and constants of a UNIMO model; names as in Hugging Face's RoBERTa.

    ``max_position_embeddings`` counts two unused leading positions (RoBERTa's offset).
    ``image_feature_size`` is F, ``image_class_size`` K. ``score`` says how image and text are
    compared: ``cosine``, or the paper's ``match`` head; ``initial_temperature`` is where the
    learning of its temperature starts.
    ``attention_backend`` names a backend of ``unimo_kernels.attention``, or is ``auto``.

    Raises:
        ValueError: heads that do not divide the hidden size, an unknown score or backend, or
            another activation, position embedding or attention than UNIMO has.
    """

    model_type = "unimo_ds"

    vocab_size: int = 50_265
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    max_position_embeddings: int = 514
    image_feature_size: int = 2048
    image_class_size: int = 1601
    score: str = "cosine"
    initial_temperature: float = 0.07  # `temperature` would be taken for that of sampling
    attention_backend: str = "auto"
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0  # [CLS]
    eos_token_id: int | None = 2  # [SEP]
    mask_token_id: int | None = None  # the last word if None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: object) -> None:
        if self.mask_token_id is None:
            self.mask_token_id = self.vocab_size - 1
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}"
            )
        if self.score not in SCORES:
            raise ValueError(f"score {self.score!r} is unknown, known are {', '.join(SCORES)}")
        for name, only in FIXED.items():
            if kwargs.get(name, only) != only:
                raise ValueError(f"{name} {kwargs[name]!r} is not UNIMO's, which is {only!r} only")
        backends = (AUTO, *BACKENDS)
        if self.attention_backend not in backends:
            raise ValueError(
                f"attention_backend {self.attention_backend!r} is unknown, known are "
                f"{', '.join(backends)}"
            )
        super().__post_init__(**kwargs)


def configuration_of(model: ModelConfig, attention_backend: str = "auto") -> UnimoConfig:
    """The configuration of the model that a run describes."""
    sizes = dataclasses.asdict(model)
    sizes["initial_temperature"] = sizes.pop("temperature")
    del sizes["init"]  # where weights come from is no property of the model
    return UnimoConfig(**sizes, attention_backend=attention_backend)
