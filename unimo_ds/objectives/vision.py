"""MRFR and MRC: features and soft labels of masked regions (Li et al. 2021, section 2.2)."""

import torch
from torch import Tensor

from unimo_ds.batch import Batch
from unimo_ds.objectives.language import Term


def masked_regions(batch: Batch) -> Tensor:
    """int64 [N]: which of the regions were masked."""
    return torch.nonzero(batch.region_masked).squeeze(1)


def feature_term(predicted_NF: Tensor, batch: Batch, regions_N: Tensor) -> Term:
    """Masked region feature regression: ||r(h) - v||² / F, summed over masked regions.

    The paper sums over the F features; the mean keeps the loss, and so its weight, independent of
    F.
    """
    error_NF = predicted_NF.float() - batch.features[batch.region_feature[regions_N]].float()
    loss_N = error_NF.square().mean(dim=1)
    return Term(loss_N.sum(), loss_N.new_tensor(len(regions_N)), loss_N.new_zeros(()))


def class_term(logits_NK: Tensor, batch: Batch, regions_N: Tensor) -> Term:
    """Masked region classification: cross-entropy with the soft label, summed over masked regions.

    The k kept classes have their probabilities p; what is left of the mass lies evenly, r each, on
    the other K - k: CE = -Σ_kept (p - r) log q - r Σ_all log q. Right = the likeliest kept class
    wins.
    """
    log_q_NK = torch.log_softmax(logits_NK.float(), dim=-1)
    vectors_N = batch.region_feature[regions_N]
    ids_Nk, p_Nk = batch.class_ids[vectors_N], batch.class_probs[vectors_N]
    others = log_q_NK.shape[1] - ids_Nk.shape[1]
    r_N1 = (1 - p_Nk.sum(dim=1, keepdim=True)).clamp(min=0) / max(others, 1)
    kept_N = ((p_Nk - r_N1) * log_q_NK.gather(1, ids_Nk)).sum(dim=1)
    loss_N = -kept_N - r_N1.squeeze(1) * log_q_NK.sum(dim=1)
    likeliest_N1 = ids_Nk.gather(1, p_Nk.argmax(dim=1, keepdim=True))
    correct_N = log_q_NK.argmax(dim=1) == likeliest_N1.squeeze(1)
    return Term(loss_N.sum(), loss_N.new_tensor(len(regions_N)), correct_N.float().sum())
