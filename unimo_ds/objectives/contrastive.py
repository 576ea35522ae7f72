"""CMCL: -log( Σ_positives exp(s) / Σ_all exp(s) ) per anchor, in both of its forms.

(a) scored pairs: image and text encoded jointly; the anchor is a draw, which lies in one row: a
    pair drawn twice in a step is two anchors, whichever ranks hold them;
(b) the similarity matrix between individually encoded images and texts of all ranks; same group id
    = positive; every image and every text of a pair that has a positive is an anchor.

Retrieved texts are positives of their pair's image and retrieved images of its captions; for all
others they are negatives like any text or image, and never anchors themselves: the expectation
in Li et al. 2021, section 2.1, is over pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unimo_ds.batch import Batch
from unimo_ds.config import ContrastConfig
from unimo_ds.objectives.language import Term
from unimo_kernels.similarity_across_ranks import similarity_logsumexp_across_ranks


class Masses(NamedTuple):
    """Per anchor, log Σ exp(score) over everything in its softmax and over its positives."""

    all_A: Tensor
    positive_A: Tensor


class Sides(NamedTuple):
    """Individually encoded images and texts, as the similarity matrix takes them."""

    images_ID: Tensor
    texts_JD: Tensor
    image_group_I: Tensor
    text_group_J: Tensor


def contrastive_term(
    scores_S: Tensor, sides: Sides, scale: Tensor, batch: Batch, config: ContrastConfig
) -> Term:
    """The sum over this rank's anchors.

    Args:
        scores_S: of the jointly encoded pairs, already divided by the temperature.
        sides: this rank's images and texts; score(i, j) = scale * <image_i, text_j>.
        scale: [] one over the temperature.
    """
    pairs = scored_pair_masses(scores_S, batch.pair_draw, batch.pair_positive)
    images, texts = matrix_masses(sides, scale, config)
    images = _of_anchors(images, batch.image_anchor)
    texts = _of_anchors(texts, batch.text_anchor)
    if config.softmax == "shared":
        images = _shared(images, batch.image_draw, scores_S, batch)
        texts = _shared(texts, batch.text_draw, scores_S, batch)
        return _term(images, texts)
    return _term(images, texts, pairs)


def scored_pair_masses(scores_S: Tensor, draw_S: Tensor, positive_S: Tensor) -> Masses:
    """Form (a): one anchor per draw, told of at its first pair; -inf elsewhere counts nothing."""
    same_SS = draw_S[:, None] == draw_S[None, :]
    earlier_SS = torch.ones_like(same_SS).tril(-1)
    first_S = ~(same_SS & earlier_SS).any(dim=1)
    member_SS = same_SS & first_S[:, None]
    return Masses(
        _masked_logsumexp(scores_S[None, :], member_SS),
        _masked_logsumexp(scores_S[None, :], member_SS & positive_S[None, :]),
    )


def matrix_masses(sides: Sides, scale: Tensor, config: ContrastConfig) -> tuple[Masses, Masses]:
    """Form (b): this rank's images against all ranks' texts, and its texts against all images."""
    images, texts = similarity_logsumexp_across_ranks(
        sides.images_ID,
        sides.texts_JD,
        sides.image_group_I,
        sides.text_group_J,
        scale=scale,
        exchange=config.exchange,
    )
    if not config.in_batch_negatives:
        return Masses(images.positive, images.positive), Masses(texts.positive, texts.positive)
    return Masses(*images), Masses(*texts)


def count_anchors(batch: Batch, config: ContrastConfig) -> Tensor:
    """int64 []: anchors of this rank, known before the forward.

    A positive always shares its anchor's rank.
    """
    images = torch.isin(batch.image_group[batch.image_anchor], batch.text_group).sum()
    texts = torch.isin(batch.text_group[batch.text_anchor], batch.image_group).sum()
    pairs = batch.pair_draw[batch.pair_positive].unique().numel()
    return images + texts + (pairs if config.softmax == "separate" else 0)


def _of_anchors(masses: Masses, anchor_A: Tensor) -> Masses:
    """``masses`` with nothing in those that are no anchors."""
    return Masses(masses.all_A, torch.where(anchor_A, masses.positive_A, -torch.inf))


def _shared(own: Masses, draw_A: Tensor, scores_S: Tensor, batch: Batch) -> Masses:
    """One softmax for both forms: the scored pairs of an anchor's draw join its matrix row."""
    # What is no anchor has no positive yet and gets none here.
    anchor_A1 = ~torch.isneginf(own.positive_A)[:, None]
    member_AS = anchor_A1 & (draw_A[:, None] == batch.pair_draw[None, :])
    joint_all = _masked_logsumexp(scores_S[None, :], member_AS)
    joint_positive = _masked_logsumexp(scores_S[None, :], member_AS & batch.pair_positive[None, :])
    return Masses(_logaddexp(own.all_A, joint_all), _logaddexp(own.positive_A, joint_positive))


def _masked_logsumexp(scores_1S: Tensor, member_AS: Tensor) -> Tensor:
    """[A]; -inf, with no gradient, where nothing is a member."""
    scores_AS = torch.where(member_AS, scores_1S.float(), -torch.inf)
    some_A = member_AS.any(dim=1)
    safe_AS = torch.where(some_A[:, None], scores_AS, 0.0)
    return torch.where(some_A, torch.logsumexp(_padded(safe_AS), dim=1), -torch.inf)


def _padded(scores_AS: Tensor) -> Tensor:
    # logsumexp over no columns at all has no maximum; one column of -inf gives it one.
    return torch.cat([scores_AS, scores_AS.new_full((len(scores_AS), 1), -torch.inf)], dim=1)


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """logaddexp whose gradient is 0, not NaN, where both are -inf."""
    neither = torch.isneginf(a) & torch.isneginf(b)
    total = torch.logaddexp(torch.where(neither, 0.0, a), torch.where(neither, 0.0, b))
    return torch.where(neither, -torch.inf, total)


def _term(*masses: Masses) -> Term:
    all_A = torch.cat([mass.all_A for mass in masses])
    positive_A = torch.cat([mass.positive_A for mass in masses])
    anchor_A = ~torch.isneginf(positive_A)
    log_share_A = torch.where(anchor_A, positive_A, 0.0) - torch.where(anchor_A, all_A, 0.0)
    # Right = the positives hold more than half of the probability.
    correct_A = anchor_A & (log_share_A > -0.6931)
    return Term(-log_share_A.sum(), anchor_A.float().sum(), correct_A.float().sum())
