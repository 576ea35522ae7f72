"""Batch -> Losses: the model with every head, in one module, with one forward."""

from typing import NamedTuple

import torch
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
from unimo_ds.objectives.figures import contrast_figures
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
    figures: Tensor  # float64 [F, 2], see `unimo_ds.objectives.figures`
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
        scores_S, images_ID, texts_JD, scale = self.compare(hidden_TD, batch)
        sides = Sides(images_ID, texts_JD, batch.image_group, batch.text_group)
        cmcl = contrastive_term(scores_S, sides, scale, batch, self.contrast)
        figures = contrast_figures(scores_S, sides, scale, batch)
        embeddings = sides.images_ID.detach(), sides.texts_JD.detach()
        return Losses(mlm, seq2seq, mrfr, mrc, cmcl, figures, *embeddings)
