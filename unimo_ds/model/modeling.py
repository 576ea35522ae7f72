"""UNIMO for masked words and for image-text retrieval, and all of UNIMO's place in `transformers`.

Importing this file makes AutoConfig, AutoModel and the AutoModelFor... know UNIMO.

Legend: B samples · L words · R regions · D hidden width · V words · T positions · S scored pairs ·
I individually encoded images · J texts
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSeq2SeqLM
from transformers.utils import ModelOutput, can_return_tuple

from unimo_ds.batch import IGNORED_LABEL, Batch
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


class Compared(NamedTuple):
    """How well the images and texts of a packed row go together."""

    pair_scores: Tensor  # float32 [S], of the jointly encoded pairs, divided by the temperature
    images: Tensor  # float32 [I, E]: score(i, j) = scale * <image_i, text_j>
    texts: Tensor  # float32 [J, E]
    scale: Tensor  # float32 [], one over the temperature


class RetrievalMixin:
    """Comparing images with texts, one by one and jointly encoded, for models that have poolers."""

    config: UnimoConfig
    unimo: UnimoModel
    image_pooler: Pooler
    text_pooler: Pooler
    match_head: MatchHead
    temperature: Temperature

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

    def compare(self, hidden_TD: Tensor, batch: Batch) -> Compared:
        """Scores of the row's pairs, and the embeddings whose products score its other parts.

        Args:
            hidden_TD: what ``unimo.encode`` makes of ``batch``.
        """
        jointly = len(batch.pair_image)
        pooled_image = self.image_pooler(hidden_TD[torch.cat([batch.pair_image, batch.image_at])])
        pooled_text = self.text_pooler(hidden_TD[torch.cat([batch.pair_text, batch.text_at])])
        images_ID, texts_JD = pooled_image[jointly:].float(), pooled_text[jointly:].float()
        # The match head runs whichever score is configured: no parameter may be left out of a step.
        match = self.match_head(
            pooled_image[:jointly], pooled_text[:jointly], pooled_image[jointly:]
        )
        scale = self.temperature().squeeze()
        if self.config.score == "match":
            # Its bias is the same for everything in a softmax of the matrix; it is added for the
            # pairs' sake, which may share that softmax.
            ones_J1 = texts_JD.new_ones(len(texts_JD), 1)
            bias_I1 = match.bias.float().expand(len(images_ID), 1)
            images_ID = torch.cat([match.weighted_image.float(), bias_I1], dim=1)
            texts_JD = torch.cat([texts_JD, ones_J1], dim=1)
            return Compared(scale * match.pair.float(), images_ID, texts_JD, scale)
        cosine_S = F.cosine_similarity(
            pooled_image[:jointly].float(), pooled_text[:jointly].float(), dim=-1
        )
        unused = 0.0 * (match.pair.sum() + match.weighted_image.sum() + match.bias.sum()).float()
        images_ID, texts_JD = F.normalize(images_ID, dim=-1), F.normalize(texts_JD, dim=-1)
        return Compared(scale * cosine_S + unused, images_ID, texts_JD, scale)

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
