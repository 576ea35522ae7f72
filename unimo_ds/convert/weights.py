"""The float32 master weights in a training checkpoint, by parameter name, without its moments."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unimo_ds.config import OptimConfig
from unimo_ds.train.group import trust_weights_only
from unimo_ds.train.optim import build_optimizer
from unimo_ds.train.sharding import MODEL_STATES, OPTIMIZER_STATES, PLAIN, PLAIN_STATES, layout_of


def read_weights(checkpoint: Path, model: nn.Module, optim: OptimConfig) -> dict[str, Tensor]:
    """What the optimizer steps, of plain torch and of every ZeRO stage and precision.

    Files are memory-mapped: of the optimizer only the master weights are read.

    Args:
        checkpoint: its folder.
        model: of the same architecture; stage 0 in bf16 lists its masters in the optimizer's order.
        optim: of the run.

    Raises:
        ValueError: files that do not belong together.
    """
    trust_weights_only()
    layout = layout_of(checkpoint)
    if layout == PLAIN:
        plain: dict[str, Tensor] = _load(checkpoint / PLAIN_STATES)["model"]
        return plain
    if layout == "ZeRO 0":
        return _unsharded(checkpoint / MODEL_STATES, model, optim)
    return _sharded(checkpoint)


def _load(path: Path) -> dict[str, Any]:
    states: dict[str, Any] = torch.load(path, weights_only=True, mmap=True)
    return states


def _unsharded(path: Path, model: nn.Module, optim: OptimConfig) -> dict[str, Tensor]:
    states = _load(path)
    weights = {name: weight.float() for name, weight in states["module"].items()}
    masters = states["optimizer"].get("fp32_groups", [])  # of bf16; fp32 steps the model's own
    names = {id(weight): name for name, weight in model.named_parameters()}
    for group, saved in zip(build_optimizer(model, optim).param_groups, masters, strict=False):
        of_group = [names[id(weight)] for weight in group["params"]]
        weights |= dict(zip(of_group, saved, strict=True))
    return weights


def _sharded(checkpoint: Path) -> dict[str, Tensor]:
    from deepspeed.utils import zero_to_fp32  # slow to import

    files = zero_to_fp32.get_optim_files(str(checkpoint))
    states = [_load(Path(file))["optimizer_state_dict"] for file in files]
    if "zero_stage" in states[0]:
        lazy = zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(
            str(checkpoint.parent), tag=checkpoint.name, lazy_mode=True
        )
        return {name: weight.contiguous() for name, weight in lazy.items()}
    # Of DeepSpeed's BF16_Optimizer (stage 1 with data_types.grad_accum_dtype fp32), which lays its
    # partitions out as stage 2 does but does not say so: zero_to_fp32 refuses them.
    ranks = max(states[0]["partition_count"])
    if len(files) != ranks:
        raise ValueError(f"{checkpoint} has {OPTIMIZER_STATES} of {len(files)} ranks, not {ranks}")
    partitions = [state["single_partition_of_fp32_groups"] for state in states]
    model_states = zero_to_fp32.parse_model_states([str(checkpoint / MODEL_STATES)])
    merged: dict[str, Tensor] = zero_to_fp32._get_fp32_state_dict_from_zero2_checkpoint(
        ranks, partitions, model_states, False
    )
    return {name: weight.contiguous() for name, weight in merged.items()}
