"""What the contrast looks like from outside: who wins, how similar things are. No gradient."""

from typing import NamedTuple

import torch
from torch import Tensor

from unimo_ds.batch import NO_LEVEL, Batch
from unimo_ds.objectives.contrastive import Sides

FIGURES = (
    "won_word",
    "won_phrase",
    "won_sentence",
    "won_other",
    "positive",
    "negative",
    "retrieved_text",
    "retrieved_image",
    "temperature",
)
"""``won_*``: the share of jointly encoded negatives of a level that score below their original;
ties are lost. ``positive``, ``negative``, ``retrieved_*``: mean scores, before the temperature, of
an image with a caption of its own, of another, with a retrieved text, and of a caption with a
retrieved image."""


class _Sum(NamedTuple):
    total: Tensor
    count: Tensor


@torch.no_grad()
def contrast_figures(scores_S: Tensor, sides: Sides, scale: Tensor, batch: Batch) -> Tensor:
    """float64 [F, 2]: sum and count of each of ``FIGURES`` on this rank.

    Args:
        scores_S: of the jointly encoded pairs, divided by the temperature.
        sides: the individually encoded images and texts.
        scale: one over the temperature.
    """
    won_S, compared_S = _won(scores_S, batch)
    levels = batch.pair_level
    sums = [_of(won_S.double(), compared_S & (levels == level)) for level in (0, 1, 2, NO_LEVEL)]
    sums += _similarities(sides, batch)
    one = scale.new_ones((), dtype=torch.float64)
    sums.append(_Sum(1 / scale.double(), one))
    return torch.stack([torch.stack([s.total.double(), s.count.double()]) for s in sums])


def _won(scores_S: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """bool [S]: does the draw's first positive score higher? and: is it a negative with one?"""
    same_SS = batch.pair_draw[:, None] == batch.pair_draw[None, :]
    original_SS = same_SS & batch.pair_positive[None, :]
    has_S = original_SS.any(dim=1)
    if not len(scores_S):
        return has_S, has_S
    original_S = original_SS.int().argmax(dim=1)
    return scores_S[original_S] > scores_S, has_S & ~batch.pair_positive


def _of(values: Tensor, chosen: Tensor) -> _Sum:
    return _Sum(torch.where(chosen, values, 0.0).sum(), chosen.sum())


def _similarities(sides: Sides, batch: Batch) -> list[_Sum]:
    """Of positives, negatives, retrieved texts and images, in O(I + J): no matrix is made."""
    images, texts = sides.images_ID.double(), sides.texts_JD.double()
    image_of_J, has_J = _first_anchor(batch.text_group, batch.image_group, batch.image_anchor)
    text_of_I, has_I = _first_anchor(batch.image_group, batch.text_group, batch.text_anchor)
    own_J = _paired(images, texts, image_of_J)
    own_I = _paired(texts, images, text_of_I)
    every = (images.sum(0) * texts.sum(0)).sum()
    groups = torch.cat([batch.image_group, batch.text_group]).unique(return_inverse=True)[1]
    count = int(groups.max()) + 1 if len(groups) else 0
    of_image, of_text = groups.split([len(images), len(texts)])
    image_sums = images.new_zeros(count, images.shape[1]).index_add(0, of_image, images)
    text_sums = texts.new_zeros(count, texts.shape[1]).index_add(0, of_text, texts)
    sizes = torch.bincount(of_image, minlength=count) * torch.bincount(of_text, minlength=count)
    same = (image_sums * text_sums).sum()
    negatives = len(images) * len(texts) - sizes.sum()
    return [
        _of(own_J, has_J & batch.text_anchor),
        _Sum(every - same, negatives),
        _of(own_J, has_J & ~batch.text_anchor),
        _of(own_I, has_I & ~batch.image_anchor),
    ]


def _first_anchor(group_Q: Tensor, group_A: Tensor, anchor_A: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [Q]: an anchor of the same group; bool [Q]: is there one?"""
    at = torch.nonzero(anchor_A).flatten()
    order = torch.argsort(group_A[at], stable=True)
    at, groups = at[order], group_A[at][order]
    if not len(at):
        return torch.zeros_like(group_Q), torch.zeros_like(group_Q, dtype=torch.bool)
    place = torch.searchsorted(groups, group_Q).clamp(max=len(at) - 1)
    return at[place], groups[place] == group_Q


def _paired(sources: Tensor, queries_QD: Tensor, at_Q: Tensor) -> Tensor:
    if not len(sources):
        return queries_QD.new_zeros(len(queries_QD))
    return (sources[at_Q] * queries_QD).sum(dim=1)
