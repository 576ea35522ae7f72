"""The Transformer: post-LayerNorm blocks over one packed row.

Legend: T positions · D hidden width · H heads · K head width
"""

from typing import NamedTuple, Protocol

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from unimo_ds.model.configuration import UnimoConfig
from unimo_kernels.attention import AttentionLayout, attention


class View(Protocol):
    """What the positions that go through the encoder see of each other, and of a cache."""

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, layer: int) -> Tensor: ...


class PackedRow(NamedTuple):
    """The view of one packed row: its layout decides, the same in all layers."""

    layout: AttentionLayout
    dropout_p: float
    seed: int

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, layer: int) -> Tensor:
        return attention(
            q_THK,
            k_THK,
            v_THK,
            self.layout,
            dropout_p=self.dropout_p,
            seed=self.seed + layer,
        )


class SelfAttention(nn.Module):
    """Biased projections around the view's attention."""

    def __init__(self, config: UnimoConfig, layer: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.layer = layer
        self.heads = (config.num_attention_heads, width // config.num_attention_heads)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, hidden_TD: Tensor, view: View) -> Tensor:
        q_THK, k_THK, v_THK = (
            project(hidden_TD).unflatten(-1, self.heads)
            for project in (self.query, self.key, self.value)
        )
        return self.output(view.attend(q_THK, k_THK, v_THK, self.layer).flatten(-2))


class EncoderLayer(GradientCheckpointingLayer):
    """Post-LN: y = LN(x + dropout(attention(x))), LN(y + dropout(down(gelu(up(y)))))."""

    def __init__(self, config: UnimoConfig, layer: int) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.layer_norm_eps
        self.attention = SelfAttention(config, layer)
        self.attention_layer_norm = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, config.intermediate_size)
        self.activation = nn.GELU()
        self.down = nn.Linear(config.intermediate_size, width)
        self.output_layer_norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_TD: Tensor, view: View) -> Tensor:
        attended_TD = self.dropout(self.attention(hidden_TD, view))
        hidden_TD = self.attention_layer_norm(hidden_TD + attended_TD)
        fed_TD = self.dropout(self.down(self.activation(self.up(hidden_TD))))
        return self.output_layer_norm(hidden_TD + fed_TD)


class UnimoEncoder(nn.Module):
    """All layers, one after the other; no LayerNorm at the end, the last layer has its own."""

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )

    def forward(self, hidden_TD: Tensor, view: View) -> Tensor:
        for layer in self.layers:
            hidden_TD = layer(hidden_TD, view)
        return hidden_TD
