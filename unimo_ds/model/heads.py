"""What is asked of hidden states: words, features, classes, and how well image and text match.

Every head takes the rows it is asked about, [N, D] with N = 0 allowed, and owns its weights: they
are read inside its own forward only, where ZeRO-3 has gathered them.

Legend: N rows asked · D hidden width · V words · S pairs · I images · J texts
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unimo_ds.model.configuration import UnimoConfig

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.001, 0.5
"""Bounds of the learned temperature (those of UNIMO-2's release)."""


class LanguageHead(nn.Module):
    """Logits of the word at each row: decoder(LN(gelu(dense(h)))), tied to the word embedding.

    The decoder is a Linear that holds the embedding's own parameter, so that ZeRO-3, which follows
    parameters and not modules, gathers it here too.
    """

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = nn.GELU()
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return self.decoder(self.layer_norm(self.activation(self.dense(hidden_ND))))


class Pooler(nn.Module):
    """relu(dense(h)) of [IMG] or [CLS]: the paper's pooled_fc_image and pooled_fc_text."""

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        return torch.relu(self.dense(hidden_ND))


class FeatureHead(nn.Linear):
    """MRFR: the features of a masked region, [N, D] -> [N, F]."""

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__(config.hidden_size, config.image_feature_size)


class ClassHead(nn.Linear):
    """MRC: logits of the class of a masked region, [N, D] -> [N, K]."""

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__(config.hidden_size, config.image_class_size)


class MatchScores(NamedTuple):
    """Scores of the match head, not yet divided by the temperature.

    The score of image i and text t is ``weighted_image[i] @ text[t] + bias``; ``pair`` has its bias
    in it.
    """

    pair: Tensor  # [S]
    weighted_image: Tensor  # [I, D]
    bias: Tensor  # [1]


class MatchHead(nn.Linear):
    """The paper's match_fc, w . dropout(image * text) + b, for pairs and for whole matrices.

    The matrix form drops components per image, which every single entry sees as the pair form does.
    """

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__(config.hidden_size, 1)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, pair_image_SD: Tensor, pair_text_SD: Tensor, image_ID: Tensor) -> MatchScores:
        pair_S1 = F.linear(self.dropout(pair_image_SD * pair_text_SD), self.weight, self.bias)
        return MatchScores(pair_S1.squeeze(-1), self.dropout(image_ID) * self.weight, self.bias)


class Temperature(nn.Module):
    """The learned temperature tau; forward gives the scale 1 / tau, float32 [1]."""

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.full((1,), math.log(config.initial_temperature)))

    def forward(self) -> Tensor:
        bounds = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
        return torch.exp(-_Clamp.apply(self.log_temperature.float(), *bounds))


class _Clamp(torch.autograd.Function):
    """A clamp that can be left again: only gradients that push further outward are dropped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        outward = ((x <= low) & (grad > 0)) | ((x >= high) & (grad < 0))
        return grad.masked_fill(outward, 0), None, None
