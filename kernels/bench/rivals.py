"""What others do for the same losses, and which of their packages are installed.

Formulas of packages that are not needed are written out here in plain torch; the packages
themselves are called where they can be imported.

Legend: B rows of each side · D width
"""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

PACKAGES = {
    "flash-attn": "flash_attn",
    "inf-cl": "inf_cl",
    "siglip-kernel": "siglip_kernel",
    "liger-kernel": "liger_kernel",
}
"""Distribution and import name."""


def missing() -> list[str]:
    """The packages that are not installed."""
    return [name for name, module in PACKAGES.items() if not _found(module)]


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def whole_matrix(a_BD: Tensor, b_BD: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE, both directions from one matrix of scores, rounded to the inputs' dtype: 6 B²D."""
    scores_BB = (a_BD @ b_BD.T).float() * scale
    both = scores_BB.logsumexp(1).mean() + scores_BB.logsumexp(0).mean()
    return both / 2 - scores_BB.diagonal().mean()


def open_clip_local(a_BD: Tensor, b_BD: Tensor, scale: Tensor) -> Tensor:
    """OpenCLIP's ClipLoss(local_loss=True), written out: two matrices of logits, 12 B²D.

    Under its amp_bf16 the logits are bfloat16 and cross_entropy casts them to float32.
    """
    labels = torch.arange(len(a_BD), device=a_BD.device)
    per_image_BB = (scale * a_BD @ b_BD.T).to(a_BD.dtype)
    per_text_BB = (scale * b_BD @ a_BD.T).to(a_BD.dtype)
    return (
        F.cross_entropy(per_image_BB.float(), labels) + F.cross_entropy(per_text_BB.float(), labels)
    ) / 2


def inf_cl(a_BD: Tensor, b_BD: Tensor, scale: Tensor) -> Tensor:
    """Inf-CL's loss on one device; one call for each direction."""
    from inf_cl import cal_flash_loss

    rows = cal_flash_loss(a_BD, b_BD, scale=scale).mean()
    return (rows + cal_flash_loss(b_BD, a_BD, scale=scale).mean()) / 2


def siglip(a_BD: Tensor, b_BD: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """siglip-kernel's loss, the one it chooses for bfloat16: a sigmoid and no softmax."""
    from siglip_kernel import fused_siglip_loss

    return fused_siglip_loss(a_BD, b_BD, log_scale, bias)


def siglip_formula(a_BD: Tensor, b_BD: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """-sum log sigmoid(+-(s a.b + bias)) / B, with plus on the diagonal."""
    logits_BB = a_BD @ b_BD.T * log_scale.exp() + bias
    sign_BB = 2 * torch.eye(len(a_BD), device=a_BD.device, dtype=a_BD.dtype) - 1
    return -F.logsigmoid(sign_BB * logits_BB).sum() / len(a_BD)
