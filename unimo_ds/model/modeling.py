"""UNIMO for masked words and for image-text retrieval, and all of UNIMO's place in `transformers`.

Importing this file makes AutoConfig, AutoModel and the AutoModelFor... know UNIMO.

Legend: B samples · L words · R regions · D hidden width · V words
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.utils import ModelOutput, can_return_tuple

from unimo_ds.batch import IGNORED_LABEL
from unimo_ds.model.body import UnimoModel, UnimoPreTrainedModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.generation import UnimoForConditionalGeneration
from unimo_ds.model.heads import LanguageHead, MatchHead, Pooler, Temperature


@dataclass
class UnimoMaskedLMOutput(ModelOutput):
    """``loss`` is the mean cross-entropy of the labels, ``logits`` are [B, L, V]."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class UnimoForMaskedLM(UnimoPreTrainedModel):
    """The UNIMO body and the language head over words."""

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
        labels: Tensor | None = None,
    ) -> UnimoMaskedLMOutput:
        """Logits of every word of ``input_ids``; arguments as in UnimoModel.

        Args:
            labels: int64 [B, L], -100 where nothing is asked.

        Raises:
            ValueError: no words, or shapes that do not fit.
        """
        if input_ids is None:
            raise ValueError("a masked language model needs input_ids")
        states = self.unimo(input_ids, attention_mask, features, boxes, region_mask)
        length = input_ids.shape[1]
        hidden_BLD = states.last_hidden_state[:, states.last_hidden_state.shape[1] - length :]
        logits_BLV = self.language_head(hidden_BLD)
        loss = None
        if labels is not None:
            if labels.shape != input_ids.shape:
                raise ValueError(
                    f"labels are {list(labels.shape)}, input_ids are {list(input_ids.shape)}"
                )
            loss = F.cross_entropy(
                logits_BLV.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED_LABEL
            )
        return UnimoMaskedLMOutput(loss=loss, logits=logits_BLV)


class RetrievalMixin:
    """Encoding images and texts one by one, for models that have poolers."""

    config: UnimoConfig
    unimo: UnimoModel
    image_pooler: Pooler
    text_pooler: Pooler

    def encode_images(
        self, features: Tensor, boxes: Tensor, region_mask: Tensor | None = None
    ) -> Tensor:
        """Pooled [IMG] of each image, [B, D]; of length one where the score is the cosine."""
        states = self.unimo(features=features, boxes=boxes, region_mask=region_mask)
        return self._embedding(self.image_pooler(states.image_state))

    def encode_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Pooled [CLS] of each text, [B, D]; of length one where the score is the cosine."""
        states = self.unimo(input_ids, attention_mask)
        return self._embedding(self.text_pooler(states.text_state))

    def _embedding(self, pooled_BD: Tensor) -> Tensor:
        return F.normalize(pooled_BD, dim=-1) if self.config.score == "cosine" else pooled_BD


class UnimoForImageTextRetrieval(RetrievalMixin, UnimoPreTrainedModel):
    """The UNIMO body, its poolers and its score of an image with a text."""

    def __init__(self, config: UnimoConfig) -> None:
        super().__init__(config)
        self.unimo = UnimoModel(config)
        self.image_pooler = Pooler(config)
        self.text_pooler = Pooler(config)
        self.match_head = MatchHead(config)
        self.temperature = Temperature(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        boxes: Tensor | None = None,
        region_mask: Tensor | None = None,
    ) -> Tensor:
        """Scores [B] of jointly encoded pairs, divided by the temperature."""
        states = self.unimo(input_ids, attention_mask, features, boxes, region_mask)
        if states.image_state is None or states.text_state is None:
            raise ValueError(
                "a pair has input_ids and features; one alone: encode_images, encode_texts"
            )
        image_BD = self.image_pooler(states.image_state)
        text_BD = self.text_pooler(states.text_state)
        return self.temperature() * self._scores(image_BD, text_BD)

    def _scores(self, image_BD: Tensor, text_BD: Tensor) -> Tensor:
        if self.config.score == "cosine":
            return F.cosine_similarity(image_BD.float(), text_BD.float(), dim=-1)
        return self.match_head(image_BD, text_BD, image_BD[:0]).pair.float()

    @torch.no_grad()
    def score_matrix(self, image_ID: Tensor, text_JD: Tensor) -> Tensor:
        """Scores [I, J] over the temperature, of what encode_images and encode_texts gave."""
        scale = self.temperature()
        if self.config.score == "cosine":
            return scale * (image_ID.float() @ text_JD.float().T)
        match = self.match_head(image_ID[:0], image_ID[:0], image_ID)
        return scale * (match.weighted_image.float() @ text_JD.float().T + match.bias.float())


AutoConfig.register(UnimoConfig.model_type, UnimoConfig)
AutoModel.register(UnimoConfig, UnimoModel)
AutoModelForMaskedLM.register(UnimoConfig, UnimoForMaskedLM)
AutoModelForSeq2SeqLM.register(UnimoConfig, UnimoForConditionalGeneration)
