"""UnimoForConditionalGeneration: text or image (or both) to text, as prefix-LM.

The source ([IMG] regions and/or [CLS] words [SEP]) sees itself; the target ([CLS] w1 w2 ...,
position ids from the beginning again) sees the source and its own past. [CLS] predicts w1.

Legend: B samples · L source words · R regions · Y target words · C source columns · V words ·
T positions · H heads · K head width
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from unimo_ds.batch import FIRST_POSITION, IGNORED_LABEL
from unimo_ds.model.body import UnimoModel, UnimoPreTrainedModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.encoder import PackedRow
from unimo_ds.model.generation_options import check_cache, check_options
from unimo_ds.model.heads import LanguageHead
from unimo_ds.model.padded import Columns, PaddedInputs, check_padded, pack, pad_back


class _FillingView:
    """The view of a packed row that leaves the keys and values of all columns in a cache."""

    def __init__(self, row: PackedRow, columns: Columns, cache: Cache) -> None:
        self.row, self.columns, self.cache = row, columns, cache

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, layer: int) -> Tensor:
        k_BHCK, v_BHCK = (pad_back(x, self.columns).transpose(1, 2) for x in (k_THK, v_THK))
        self.cache.update(k_BHCK, v_BHCK, layer)
        return self.row.attend(q_THK, k_THK, v_THK, layer)


class _CachedView:
    """The view of one new target word per sample: all filled columns before it, and itself."""

    def __init__(self, seen: Tensor, cache: Cache) -> None:
        self.seen_B11C, self.cache = seen[:, None, None, :], cache

    def attend(self, q_THK: Tensor, k_THK: Tensor, v_THK: Tensor, layer: int) -> Tensor:
        q_BH1K, k_BH1K, v_BH1K = (x[:, :, None] for x in (q_THK, k_THK, v_THK))
        k_BHCK, v_BHCK = self.cache.update(k_BH1K, v_BH1K, layer)
        scores = (q_BH1K @ k_BHCK.transpose(-1, -2)) * q_THK.shape[-1] ** -0.5
        scores = scores.masked_fill(~self.seen_B11C, torch.finfo(scores.dtype).min)
        return (scores.softmax(dim=-1) @ v_BHCK).squeeze(2)


class UnimoForConditionalGeneration(UnimoPreTrainedModel, GenerationMixin):
    """The UNIMO body and the language head, for fine-tuning on and generating text."""

    _tied_weights_keys = {  # noqa: RUF012 (transformers reads a dict)
        "language_head.decoder.weight": "unimo.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__(config)
        self.unimo = UnimoModel(config)
        self.language_head = LanguageHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.language_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.language_head.decoder = value

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        boxes: Tensor | None = None,
        region_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool = False,
        past_key_values: Cache | None = None,
    ) -> CausalLMOutputWithPast:
        """Logits [B, Y, V] of the words that follow each target word; their mean cross-entropy.

        Args:
            input_ids, attention_mask, features, boxes, region_mask: the source, as in UnimoModel.
            decoder_input_ids: int64 [B, Y], [CLS] w1 w2 ...; made of ``labels`` if None.
            labels: int64 [B, Y], w1 w2 ... and the end word; -100 where nothing is asked.
            cache: keys and values of the source and the target so far; only the last word of
                ``decoder_input_ids`` is computed then.
            use_cache: fill and return a cache.
            past_key_values: the name of ``cache`` in transformers before 5.24.

        Raises:
            ValueError: no source, no target, shapes that do not fit, or no DynamicCache.
        """
        if decoder_input_ids is None:
            if labels is None:
                raise ValueError("no target: give decoder_input_ids or labels")
            decoder_input_ids = self._shifted(labels)
        inputs = check_padded(
            self.config, input_ids, attention_mask, features, boxes, region_mask, decoder_input_ids
        )
        inputs = inputs._replace(features=inputs.features.to(self.dtype))
        cache = past_key_values if cache is None else cache
        check_cache(cache)
        if cache is not None and cache.get_seq_length() > 0:
            hidden_BYD = self._next_states(inputs, cache)
        else:
            if use_cache and cache is None:
                cache = DynamicCache(config=self.config)
            hidden_BYD = self._target_states(inputs, cache)
        logits_BYV = self.language_head(hidden_BYD)
        loss = None
        if labels is not None:
            if labels.shape != logits_BYV.shape[:2]:
                raise ValueError(
                    f"labels are {list(labels.shape)}, the target is {list(logits_BYV.shape[:2])}"
                )
            loss = F.cross_entropy(
                logits_BYV.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED_LABEL
            )
        # By position: transformers 5.24 renamed the third field.
        return CausalLMOutputWithPast(loss, logits_BYV, cache)

    def _shifted(self, labels: Tensor) -> Tensor:
        first = torch.full_like(labels[:, :1], self.config.bos_token_id)
        shifted = torch.cat([first, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == IGNORED_LABEL, self.config.pad_token_id)

    def _target_states(self, inputs: PaddedInputs, cache: Cache | None) -> Tensor:
        batch, columns = pack(inputs, self.config)
        view = row = self.unimo.view_of(batch)
        if cache is not None:
            view = _FillingView(row, columns, cache)
        padded_BCD = pad_back(self.unimo.encode(batch, view), columns)
        return padded_BCD[:, padded_BCD.shape[1] - columns.target :]

    def _next_states(self, inputs: PaddedInputs, cache: Cache) -> Tensor:
        """States [B, 1, D] of the last target word, its past being in ``cache``."""
        _, columns = pack(inputs, self.config)
        if cache.get_seq_length() != columns.filled.shape[1] - 1:
            raise ValueError(
                f"the cache holds {cache.get_seq_length()} columns, source and target without its"
                f" last word have {columns.filled.shape[1] - 1}: give the whole target so far"
            )
        last = inputs._replace(
            word_ids=inputs.word_ids[:, :0],
            word_mask=inputs.word_mask[:, :0],
            features=inputs.features[:, :0],
            boxes=inputs.boxes[:, :0],
            region_mask=inputs.region_mask[:, :0],
            target_ids=inputs.target_ids[:, -1:],
        )
        batch, _ = pack(last, self.config)
        position = FIRST_POSITION + columns.target - 1
        batch = batch._replace(position_ids=torch.full_like(batch.position_ids, position))
        return self.unimo.encode(batch, _CachedView(columns.filled, cache))[:, None]

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        source_ids: Tensor | None = None,
        source_mask: Tensor | None = None,
        features: Tensor | None = None,
        boxes: Tensor | None = None,
        region_mask: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        past_key_values: Cache | None = None,
        **_unused: Any,
    ) -> dict[str, Any]:
        """The arguments of ``forward`` for the next word; ``input_ids`` is the target so far."""
        return {
            "input_ids": source_ids,
            "attention_mask": source_mask,
            "features": features,
            "boxes": boxes,
            "region_mask": region_mask,
            "decoder_input_ids": input_ids,
            "cache": past_key_values if cache is None else cache,
            "use_cache": bool(use_cache),
        }

    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        boxes: Tensor | None = None,
        region_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Text for each source, with the options of `transformers` generation.

        ``eos_token_id`` is [SEP] unless given: UNIMO's captions end with it, its published text
        models end with [MASK] (``eos_token_id=config.mask_token_id``).

        Returns:
            int64 [B, Y]: [CLS] w1 w2 ... end word, padded with the padding word (or transformers'
            own output object with ``return_dict_in_generate=True``).

        Raises:
            ValueError: no source, shapes that do not fit, or an option that UNIMO cannot follow
                (generation_options.py).
        """
        check_options(options, self.generation_config, self.config.bos_token_id)
        inputs = check_padded(self.config, input_ids, attention_mask, features, boxes, region_mask)
        start = torch.full((len(inputs.word_ids), 1), self.config.bos_token_id, device=self.device)
        return super().generate(
            inputs=start,
            source_ids=inputs.word_ids.to(self.device),
            source_mask=inputs.word_mask.to(self.device),
            features=inputs.features.to(self.device),
            boxes=inputs.boxes.to(self.device),
            region_mask=inputs.region_mask.to(self.device),
            **options,
        )
