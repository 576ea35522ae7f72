"""UnimoModel: the encoder over one packed row, and the same body behind a padded interface.

Legend: T positions · B samples · L words · R regions · F feature width · D hidden width
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from unimo_ds.batch import Batch
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.embeddings import RegionProjection, UnimoEmbeddings
from unimo_ds.model.encoder import PackedRow, UnimoEncoder, View
from unimo_ds.model.heads import MatchHead, Temperature
from unimo_ds.model.padded import Columns, check_padded, pack, pad_back
from unimo_kernels.attention import attention_layout


class UnimoPreTrainedModel(PreTrainedModel):
    """What all UNIMO models share: configuration, initialisation, checkpointing per layer."""

    config_class = UnimoConfig
    base_model_prefix = "unimo"
    supports_gradient_checkpointing = True
    _no_split_modules = ("EncoderLayer",)
    # A folder may hold heads of pre-training that this class has no use for.
    _keys_to_ignore_on_load_unexpected = (
        r"^(language_head|image_pooler|text_pooler|match_head|feature_head|class_head|temperature)\.",
    )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal truncated at two sigma, biases 0, LayerNorm 1 and 0; Xavier for the match head.

        Sigma is ``initializer_range``, and their own for the projections of regions.
        """
        std = self.config.initializer_range
        if isinstance(module, MatchHead):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, RegionProjection):
            sigma = module.sigma
            init.trunc_normal_(module.weight, std=sigma, a=-2 * sigma, b=2 * sigma)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, Temperature):
            start = torch.tensor([self.config.initial_temperature]).log()
            init.copy_(module.log_temperature, start)


@dataclass
class UnimoModelOutput(ModelOutput):
    """``last_hidden_state`` [B, (1+R) + L, D]: [IMG] and regions, then words; zeros at blanks.

    ``image_state`` and ``text_state`` [B, D] are the states of [IMG] and [CLS] (of the first word
    that is there): zeros for a sample without them, None if no sample could have one.
    """

    last_hidden_state: Tensor | None = None
    image_state: Tensor | None = None
    text_state: Tensor | None = None


class UnimoModel(UnimoPreTrainedModel):
    """The UNIMO body: embeddings and encoder."""

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__(config)
        self.embeddings = UnimoEmbeddings(config)
        self.encoder = UnimoEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings.word_embeddings = value

    def view_of(self, batch: Batch) -> PackedRow:
        """Who sees whom in ``batch``, prepared once for all layers."""
        dropout_p = self.config.attention_probs_dropout_prob if self.training else 0.0
        # Drawn from torch's generator, so that seeding a step seeds the masks of all its layers.
        seed = int(torch.randint(2**31, ())) if dropout_p else 0
        layout = attention_layout(
            batch.segment,
            batch.order,
            dtype=self._projected_dtype(batch.segment.device.type),
            head_width=self.config.hidden_size // self.config.num_attention_heads,
            dropout_p=dropout_p,
            backend=self.config.attention_backend,
        )
        return PackedRow(layout, dropout_p, seed)

    def _projected_dtype(self, device_type: str) -> torch.dtype:
        """What the projections to q, k, v give: autocast's dtype, else that of the weights."""
        if torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
        return self.dtype

    def encode(self, batch: Batch, view: View | None = None) -> Tensor:
        """Hidden states [T, D] of the packed row; those of padding positions mean nothing."""
        return self.encoder(self.embeddings(batch), view or self.view_of(batch))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | Batch | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        boxes: Tensor | None = None,
        region_mask: Tensor | None = None,
    ) -> UnimoModelOutput | Tensor:
        """Hidden states of padded samples, or, given a Batch alone, ``encode(batch)``.

        Args:
            input_ids: int64 [B, L], [CLS] words [SEP] and padding.
            attention_mask: [B, L], which words are there; all but the padding word if None.
            features: float [B, R, F], regions only, the model puts [IMG] in front.
            boxes: float [B, R, 5]: x1/W, y1/H, x2/W, y2/H, area share.
            region_mask: [B, R], which regions are there; all if None. A sample without any has no
                [IMG] either.

        Raises:
            ValueError: nothing given, or shapes that do not fit.
        """
        if isinstance(input_ids, Batch):
            return self.encode(input_ids)
        inputs = check_padded(self.config, input_ids, attention_mask, features, boxes, region_mask)
        inputs = inputs._replace(features=inputs.features.to(self.dtype))
        batch, columns = pack(inputs, self.config)
        padded_BCD = pad_back(self.encode(batch), columns)
        return UnimoModelOutput(
            last_hidden_state=padded_BCD,
            image_state=padded_BCD[:, 0] if columns.image else None,
            text_state=_first_words(padded_BCD, columns) if columns.text else None,
        )


def _first_words(padded_BCD: Tensor, columns: Columns) -> Tensor:
    words = slice(columns.image, columns.image + columns.text)
    first_B = columns.filled[:, words].int().argmax(dim=1)
    samples_B = torch.arange(len(padded_BCD), device=padded_BCD.device)
    return padded_BCD[:, words][samples_B, first_B]
