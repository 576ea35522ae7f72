"""Batch -> Losses: the model with every head, in one module, with one forward."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimo_ds.batch import Batch
from unimo_ds.config import ContrastConfig, LossConfig
from unimo_ds.model.body import UnimoModel, UnimoPreTrainedModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.heads import (
    ClassHead,
    FeatureHead,
    LanguageHead,
    MatchHead,
    Pooler,
    Temperature,
)
from unimo_ds.model.modeling import RetrievalMixin
from unimo_ds.objectives.contrastive import Sides, contrastive_term, count_anchors
from unimo_ds.objectives.language import Term, labelled_positions, language_terms
from unimo_ds.objectives.vision import class_term, feature_term, masked_regions

OBJECTIVES = ("mlm", "seq2seq", "mrfr", "mrc", "cmcl")


class Losses(NamedTuple):
    """What a rank's row says: a term per objective, and the embeddings that CMCL compared."""

    mlm: Term
    seq2seq: Term
    mrfr: Term
    mrc: Term
    cmcl: Term
    # score(i, j) = <image_i, text_j>, not yet divided by the temperature
    image_embeddings: Tensor  # float32 [I, D]
    text_embeddings: Tensor  # float32 [J, D]


def terms(losses: Losses) -> dict[str, Term]:
    """The terms by the name of their objective."""
    return {name: getattr(losses, name) for name in OBJECTIVES}


def count_terms(batch: Batch, contrast: ContrastConfig) -> Tensor:
    """float64 [5]: the counts that ``forward`` will report, known from the data before it runs."""
    labels = labelled_positions(batch)
    causal = int((batch.order[labels] > 0).sum())
    regions = int(batch.region_masked.sum())
    anchors = int(count_anchors(batch, contrast))
    return torch.tensor(
        [len(labels) - causal, causal, regions, regions, anchors], dtype=torch.float64
    )


def total_loss(losses: Losses, counts: list[float], weights: LossConfig) -> Tensor:
    """Σ weight * sum / global count: summed over ranks and micro-steps, the loss of the step."""
    total = losses.mlm.loss.new_zeros(())
    for (name, term), count in zip(terms(losses).items(), counts, strict=True):
        total = total + getattr(weights, name) * term.loss / max(count, 1.0)
    return total


class UnimoForPreTraining(RetrievalMixin, UnimoPreTrainedModel):
    """UNIMO with its language, vision and match heads. Every head runs in every forward.

    Args:
        config: of the model.
        contrast: which softmax CMCL takes, and whether the rest of the batch is a negative.
    """

    _tied_weights_keys = {  # noqa: RUF012 (transformers reads a dict)
        "language_head.decoder.weight": "unimo.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: UnimoConfig, contrast: ContrastConfig | None = None) -> None:
        super().__init__(config)
        self.contrast = contrast or ContrastConfig()
        self.unimo = UnimoModel(config)
        self.language_head = LanguageHead(config)
        self.image_pooler = Pooler(config)
        self.text_pooler = Pooler(config)
        self.match_head = MatchHead(config)
        self.temperature = Temperature(config)
        self.feature_head = FeatureHead(config)
        self.class_head = ClassHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.language_head.decoder

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.language_head.decoder = value

    def forward(self, batch: Batch) -> Losses:
        """Losses of one packed row; see ``Batch`` for its fields."""
        hidden_TD = self.unimo.encode(batch)
        labelled_N = labelled_positions(batch)
        logits_NV = self.language_head(hidden_TD[labelled_N])
        mlm, seq2seq = language_terms(logits_NV, batch, labelled_N)
        masked_N = masked_regions(batch)
        region_ND = hidden_TD[batch.region_at[masked_N]]
        mrfr = feature_term(self.feature_head(region_ND), batch, masked_N)
        mrc = class_term(self.class_head(region_ND), batch, masked_N)
        scores_S, sides, scale = self._compare(hidden_TD, batch)
        cmcl = contrastive_term(scores_S, sides, scale, batch, self.contrast)
        return Losses(
            mlm, seq2seq, mrfr, mrc, cmcl, sides.images_ID.detach(), sides.texts_JD.detach()
        )

    def _compare(self, hidden_TD: Tensor, batch: Batch) -> tuple[Tensor, Sides, Tensor]:
        """Scores of jointly encoded pairs, both sides of the matrix, one over the temperature."""
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
            sides = Sides(
                images_ID,
                torch.cat([texts_JD, ones_J1], dim=1),
                batch.image_group,
                batch.text_group,
            )
            return scale * match.pair.float(), sides, scale
        cosine_S = F.cosine_similarity(
            pooled_image[:jointly].float(), pooled_text[:jointly].float(), dim=-1
        )
        unused = 0.0 * (match.pair.sum() + match.weighted_image.sum() + match.bias.sum()).float()
        sides = Sides(
            F.normalize(images_ID, dim=-1),
            F.normalize(texts_JD, dim=-1),
            batch.image_group,
            batch.text_group,
        )
        return scale * cosine_S + unused, sides, scale
