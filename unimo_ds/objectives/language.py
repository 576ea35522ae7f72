"""MLM and sequence to sequence: one cross-entropy over labelled positions, reported apart."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unimo_ds.batch import IGNORED_LABEL, Batch


class Term(NamedTuple):
    """An objective on one rank: sums, so that every rank's share weighs by what it holds."""

    loss: Tensor  # float32 [], summed
    count: Tensor  # float32 [], what the sum is over
    correct: Tensor  # float32 [], how many of them were right, where that means something


def labelled_positions(batch: Batch) -> Tensor:
    """int64 [N]: the positions that a language objective asks about."""
    return torch.nonzero(batch.labels != IGNORED_LABEL).squeeze(1)


def language_terms(logits_NV: Tensor, batch: Batch, positions_N: Tensor) -> tuple[Term, Term]:
    """(MLM, sequence to sequence) from the logits at the labelled positions.

    A label of a causal position (order > 0) is the next word, that of any other the word itself.
    """
    labels_N = batch.labels[positions_N]
    causal_N = batch.order[positions_N] > 0
    loss_N = F.cross_entropy(logits_NV.float(), labels_N, reduction="none")
    correct_N = logits_NV.argmax(dim=-1) == labels_N
    return _term(loss_N, correct_N, ~causal_N), _term(loss_N, correct_N, causal_N)


def _term(loss_N: Tensor, correct_N: Tensor, chosen_N: Tensor) -> Term:
    chosen = chosen_N.float()
    # torch.where rather than a product: a NaN elsewhere must not leak into this sum.
    return Term(
        torch.where(chosen_N, loss_N, 0.0).sum(),
        chosen.sum(),
        (correct_N.float() * chosen).sum(),
    )
