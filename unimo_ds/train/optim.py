"""AdamW, its weight decay groups, and the learning rate as a function of the step."""

from torch import nn
from torch.optim import AdamW

from unimo_ds.config import OptimConfig


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Of the update at ``step`` (from 0) of ``steps``: linear warm-up, then linear to 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    return config.lr * (steps - step) / max(1, steps - config.warmup_steps)


def build_optimizer(model: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW in two groups: matrices decay, vectors and scalars (biases, LayerNorm, ...) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {
            "params": [p for p in parameters if p.ndim >= 2],
            "weight_decay": config.weight_decay,
            "name": "decayed",
        },
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0, "name": "undecayed"},
    ]
    return AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps)
