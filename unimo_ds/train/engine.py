"""What moves the weights: DeepSpeed, or plain torch in one process, behind the same five verbs."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unimo_ds.batch import Batch
from unimo_ds.config import RunConfig
from unimo_ds.distributed import uses_gpu
from unimo_ds.objectives.pretraining import Losses
from unimo_ds.train.group import set_timeout, start_deepspeed
from unimo_ds.train.optim import build_optimizer
from unimo_ds.train.sharding import PLAIN, PLAIN_STATES, check_layout, layout_of_stage

OWNED_BY_RUN_CONFIG = {
    "train_batch_size": "batch.samples",
    "train_micro_batch_size_per_gpu": "batch.rows",
    "gradient_accumulation_steps": "batch.tokens_per_row",
    "gradient_clipping": "optim.grad_clip",
    "optimizer": "optim",
    "scheduler": "optim.warmup_steps",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "activation_checkpointing": "train.activation_checkpointing",
}
"""What a DeepSpeed JSON must leave to the run's TOML: one number, one owner."""


class Engine(Protocol):
    """The model with what moves it. ``backward`` averages over the ranks."""

    device: torch.device

    def forward(self, batch: Batch) -> Losses: ...
    def backward(self, loss: Tensor, *, last: bool) -> None: ...
    def step(self, lr: float) -> float | None: ...
    def train(self, mode: bool) -> None: ...
    def save(self, folder: Path) -> None: ...
    def load(self, folder: Path) -> None: ...


def build_engine(model: nn.Module, config: RunConfig) -> Engine:
    """DeepSpeed with the JSON that ``train.deepspeed`` names, or plain torch if it names none."""
    if config.train.activation_checkpointing:
        model.gradient_checkpointing_enable()
    if config.train.deepspeed:
        return DeepSpeedEngine(model, config)
    return PlainEngine(model, config)


class PlainEngine:
    """torch alone; what DeepSpeed's numbers are compared with."""

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        self.device = torch.device("cuda" if uses_gpu() else "cpu")
        self.model = model.to(self.device)
        self.optimizer = build_optimizer(self.model, config.optim)
        self._clip = config.optim.grad_clip or torch.inf
        self._bf16 = config.train.precision == "bf16"

    def forward(self, batch: Batch) -> Losses:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            losses: Losses = self.model(batch.to(self.device))
        return losses

    def backward(self, loss: Tensor, *, last: bool) -> None:
        del last
        loss.backward()

    def step(self, lr: float) -> float:
        set_learning_rate(self.optimizer, lr)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def train(self, mode: bool) -> None:
        self.model.train(mode)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, folder / PLAIN_STATES)

    def load(self, folder: Path) -> None:
        check_layout(folder, PLAIN)
        state = torch.load(folder / PLAIN_STATES, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class DeepSpeedEngine:
    """ZeRO 0-3 as the JSON says; batch size, clipping, precision and schedule as the run says."""

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        timeout = timedelta(minutes=config.train.timeout_minutes)
        deepspeed = start_deepspeed(timeout)
        settings = deepspeed_settings(config)
        self._dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        optimizer = build_optimizer(model, config.optim)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=settings
        )
        undo_initial_step(self.optimizer)
        self.device = self.engine.device
        set_timeout(timeout)

    def forward(self, batch: Batch) -> Losses:
        losses: Losses = self.engine(batch.to(self.device, self._dtype))
        return losses

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss)

    def step(self, lr: float) -> float | None:
        set_learning_rate(self.optimizer, lr)
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return None if norm is None else float(norm)

    def train(self, mode: bool) -> None:
        self.engine.train(mode)

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder.parent), tag=folder.name, save_latest=False)

    def load(self, folder: Path) -> None:
        check_layout(folder, layout_of_stage(self.engine.zero_optimization_stage()))
        loaded, _ = self.engine.load_checkpoint(str(folder.parent), tag=folder.name)
        if loaded is None:
            raise ValueError(
                f"DeepSpeed found no checkpoint in {folder}: restore it or use --fresh"
            )


def undo_initial_step(optimizer: Any) -> None:
    """Takes back the step that DeepSpeed makes before the first one at stage 0 in bf16.

    To allocate Adam's state, `FP16_UnfusedOptimizer.initialize_optimizer_states` of DeepSpeed
    0.19.8 steps with gradients of zero, which decays the master weights at the full learning rate
    and counts for the bias correction. The other stages leave the state to the first real step.
    """
    from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer

    if isinstance(optimizer, FP16_UnfusedOptimizer):
        optimizer.refresh_fp32_params()  # from the model's, which the step did not reach
        optimizer.state.clear()


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def deepspeed_settings(config: RunConfig) -> dict[str, Any]:
    """The JSON of ``train.deepspeed`` with what the run owns filled in.

    Raises:
        ValueError: no such file, no JSON, or a key in it that the TOML owns.
    """
    path = Path(config.train.deepspeed)
    if not path.is_file():
        raise ValueError(
            f"no DeepSpeed configuration at {path}: set train.deepspeed, see ds_configs/"
        )
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    for key, owner in OWNED_BY_RUN_CONFIG.items():
        if key in settings:
            raise ValueError(
                f"{path} sets {key}, which {owner} of the run's TOML owns: remove it there"
            )
    return settings | {
        # A rank's row is its micro-batch; the loop says when a step is full.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optim.grad_clip,
        "bf16": {"enabled": config.train.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1_000_000_000,  # the loop prints
    }
