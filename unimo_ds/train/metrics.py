"""The numbers a person wants of a run: gathered over ranks, for the log, a file and TensorBoard."""

import json
import resource
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from unimo_ds.batch import PADDING_SEGMENT, Batch, num_filled
from unimo_ds.config import ModelConfig
from unimo_ds.distributed import gather_objects, rank, summed
from unimo_ds.objectives.figures import FIGURES
from unimo_ds.objectives.pretraining import OBJECTIVES, Losses, terms
from unimo_ds.train.run_folder import METRICS_NAME

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A6000": 155e12}
"""Dense bf16 FLOP/s of the makers' data sheets, by a part of the device's name."""

Metrics = dict[str, float | None]


class Tally:
    """Sums of terms and of work over some steps of this rank."""

    def __init__(self) -> None:
        self._terms = {name: [0.0, 0.0, 0.0] for name in OBJECTIVES}
        self._figures = np.zeros((len(FIGURES), 2))
        self.samples = self.filled = self.positions = self.flops = 0.0

    def add(self, sums: torch.Tensor) -> None:
        """Takes the ``term_sums`` of a micro-step."""
        for name, values in zip(OBJECTIVES, sums.tolist(), strict=True):
            self._terms[name] = [a + b for a, b in zip(self._terms[name], values, strict=True)]

    def add_figures(self, figures: torch.Tensor) -> None:
        """Takes the figures of a micro-step."""
        self._figures += figures.cpu().numpy()

    def add_work(self, batch: Batch, samples: int, model: ModelConfig) -> None:
        self.samples += samples
        self.filled += num_filled(batch)
        self.positions += len(batch.segment)
        self.flops += useful_flops(batch, model)

    def totals(self, device: torch.device) -> tuple[Metrics, "Work"]:
        """Losses and accuracies over all ranks (None: nothing was counted), and the work done."""
        flat = [value for name in OBJECTIVES for value in self._terms[name]]
        flat += self._figures.ravel().tolist()
        flat += [self.samples, self.filled, self.positions, self.flops]
        flat = summed(flat, device)
        metrics: Metrics = {}
        for i, name in enumerate(OBJECTIVES):
            loss, count, correct = flat[3 * i : 3 * i + 3]
            metrics[f"loss/{name}"] = loss / count if count else None
            if name != "mrfr":  # a regression is never right
                metrics[f"accuracy/{name}"] = correct / count if count else None
        figures = flat[3 * len(OBJECTIVES) : -4]
        for i, name in enumerate(FIGURES):
            total, count = figures[2 * i : 2 * i + 2]
            metrics[f"contrast/{name}"] = total / count if count else None
        return metrics, Work(*flat[-4:])


class Work:
    """What was done over all ranks."""

    def __init__(self, samples: float, filled: float, positions: float, flops: float) -> None:
        self.samples, self.filled, self.positions, self.flops = samples, filled, positions, flops

    @property
    def packing(self) -> float:
        return self.filled / max(self.positions, 1)


def term_sums(losses: Losses) -> torch.Tensor:
    """float64 [5, 3]: loss, count, correct of each objective on this rank."""
    rows = [
        torch.stack([value.detach().double() for value in term]) for term in terms(losses).values()
    ]
    return torch.stack(rows)


def useful_flops(batch: Batch, model: ModelConfig) -> float:
    """FLOPs of forward and backward that a dense model needs for what the row holds, padding aside.

    3 * (2 * weights per position + 4 * D * length per layer for attention), weights counted where
    they apply: blocks at every position, the region projection at the vectors that regions show,
    the language head at labels.
    """
    hidden, layers = model.hidden_size, model.num_hidden_layers
    segments = batch.segment[batch.segment != PADDING_SEGMENT].long()
    lengths = torch.bincount(segments).double()
    block = 4 * hidden * hidden + 2 * hidden * model.intermediate_size
    labelled = float((batch.labels >= 0).sum())
    forward = layers * (2 * block * float(lengths.sum()) + 4 * hidden * float((lengths**2).sum()))
    forward += 2 * model.image_feature_size * hidden * len(batch.features)
    forward += 2 * (hidden * hidden + hidden * model.vocab_size) * labelled
    return 3 * forward


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one rank's device: the data sheet's for known GPUs, else of a matrix product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peak in PEAK_FLOPS.items():
            if part in name:
                return peak
    n = 1024 if device.type == "cpu" else 8192
    a = torch.ones(n, n, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def memory_gib(device: torch.device) -> float:
    """Peak memory summed over the ranks: of the GPUs, or resident in the processes on CPU."""
    if device.type == "cuda":
        mine = float(torch.cuda.max_memory_allocated(device))
    else:
        mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
    return sum(gather_objects(mine)) / 2**30


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard, written by rank 0."""

    def __init__(self, folder: Path) -> None:
        self._active = rank() == 0
        if self._active:
            self._file = (folder / METRICS_NAME).open("a", encoding="utf-8")
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def begin(self, step: int, seconds: float) -> None:
        """Marks, behind the lines of earlier starts, the step that a run goes on from: steps after
        it that were skipped before may be trained on now."""
        if self._active and self._file.tell():
            self._append({"type": "start", "step": step, "seconds": seconds})

    def write(self, kind: str, step: int, metrics: Metrics) -> None:
        if not self._active:
            return
        self._append({"type": kind, "step": step} | metrics)
        for name, value in metrics.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def _append(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._active:
            self._file.close()
            self._board.close()


def log_line(step: int, steps: int, metrics: Metrics) -> str:
    """One line for people: losses and accuracies by objective, then speed."""

    def number(name: str, form: str) -> str:
        value = metrics.get(name)
        return "-" if value is None else format(value, form)

    parts = [f"step {step}/{steps}"]
    for name in OBJECTIVES:
        accuracy = f" ({number(f'accuracy/{name}', '.0%')})" if name != "mrfr" else ""
        parts.append(f"{name} {number(f'loss/{name}', '.3f')}{accuracy}")
    won = [
        f"{level} {number(f'contrast/won_{level}', '.0%')}"
        for level in ("word", "phrase", "sentence", "other")
        if metrics.get(f"contrast/won_{level}") is not None
    ]
    if won:
        parts.append(f"won {' '.join(won)}")
    parts.append(f"lr {number('lr', '.2e')} norm {number('grad_norm', '.2f')}")
    parts.append(
        f"{number('tokens_per_second', ',.0f')} tok/s "
        f"{number('samples_per_second', '.1f')} samples/s "
        f"mfu {number('mfu', '.1%')} wait {number('data_wait', '.1%')} "
        f"fill {number('packing', '.1%')} mem {number('memory_gib', '.2f')} GiB"
    )
    return " | ".join(parts)
