"""The training loop, on one page."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

from unimo_ds.config import RunConfig
from unimo_ds.data.loader import Loader, MicroStep
from unimo_ds.distributed import gather_objects, rank, summed, world_size
from unimo_ds.objectives.pretraining import OBJECTIVES, count_terms, total_loss
from unimo_ds.train.checkpoint import save_checkpoint
from unimo_ds.train.console import progress, say
from unimo_ds.train.engine import Engine
from unimo_ds.train.heldout import evaluate
from unimo_ds.train.metrics import (
    MetricsLog,
    Tally,
    log_line,
    memory_gib,
    peak_flops,
    term_sums,
)
from unimo_ds.train.nonfinite import NonFinite
from unimo_ds.train.optim import learning_rate
from unimo_ds.train.skipping import with_skipped
from unimo_ds.train.start import begin, most_micro_steps


def train(
    engine: Engine, config: RunConfig, *, fresh: bool = False, command: Sequence[str] = ()
) -> None:
    """Trains to ``train.steps``, from the newest checkpoint of the run if there is one.

    Args:
        engine: with the model at its first step.
        config: of the run.
        fresh: set an earlier run of this name aside and begin at step 0.
        command: that started the run, for ``command.txt``.
    """
    loader = Loader(config, rank(), world_size())
    heldout = (
        Loader(config, rank(), world_size(), heldout=True) if config.data.heldout_pairs else None
    )
    start = begin(engine, config, loader, fresh=fresh, command=command)
    most = start.micro_steps
    clock = Clock(engine, config, start.seconds)
    engine.train(True)
    with ExitStack() as stack:
        log = MetricsLog(config.run_folder)
        stack.callback(log.close)
        log.begin(start.step, start.seconds)
        advance = stack.enter_context(progress(start.step, config.train.steps))
        tally = Tally()
        for step in range(start.step, start.stop):
            done = step + 1
            lr = learning_rate(step, config.train.steps, config.optim)
            if done in start.skipped:
                grad_norm = None
                log.write("skipped", done, {"seconds": clock.seconds()})
                say(f"step {done}/{config.train.steps} is skipped, as train.skip_steps says")
            else:
                micro_steps = clock.wait_for(start.batches)
                most = most_micro_steps(most, done, len(micro_steps), config)
                grad_norm = train_step(engine, micro_steps, step, lr, config, tally)
            if done % config.train.log_every == 0 or done == config.train.steps:
                metrics = clock.lap(tally) | {"lr": lr, "grad_norm": grad_norm}
                log.write("train", done, metrics)
                say(log_line(done, config.train.steps, metrics))
                tally = Tally()
            if heldout and (done % config.train.eval_every == 0 or done == config.train.steps):
                with clock.paused():
                    metrics = {"seconds": clock.seconds()} | evaluate(engine, heldout, config)
                log.write("heldout", done, metrics)
                say(f"heldout {log_line(done, config.train.steps, metrics)}")
            if done % config.train.save_every == 0 or done == start.stop:
                with clock.paused():
                    seconds = clock.seconds()
                    saved = save_checkpoint(engine, config, done, seconds, start.identity, most)
                    say(f"saved {saved}")
            advance()


def train_step(
    engine: Engine,
    micro_steps: list[MicroStep],
    step: int,
    lr: float,
    config: RunConfig,
    tally: Tally,
) -> float | None:
    """One optimizer step: each loss over its global count, whatever the ranks and micro-steps.

    Returns:
        The norm of the gradient before clipping; None where DeepSpeed keeps it (stage 0, fp32).
    """
    local = sum(count_terms(micro.batch, config.cmcl) for micro in micro_steps)
    counts = summed(local.tolist(), engine.device)
    sums, figures = [], []
    for i, micro in enumerate(micro_steps):
        # No RNG state lives anywhere: dropout is a function of (seed, step, micro-step, rank).
        torch.manual_seed(_dropout_seed(config.seed, step, i, rank()))
        losses = engine.forward(micro.batch)
        sums.append(term_sums(losses))
        figures.append(losses.figures)
        # The engine averages over the ranks; the loss of a step is a sum over them.
        loss = total_loss(losses, counts, config.loss) * world_size()
        engine.backward(loss, last=i == len(micro_steps) - 1)
    refuse_non_finite(sums, micro_steps, step, config)
    grad_norm = engine.step(lr)
    if grad_norm is not None and not math.isfinite(grad_norm):
        raise NonFinite(
            f"step {step + 1}: the losses are finite but the gradient's norm is {grad_norm}; the "
            "weights of this process are spoilt: start again, which resumes from the newest "
            f"checkpoint, with a lower optim.lr or without this step: {with_skipped(config, step)}"
        )
    for term, figure, micro in zip(sums, figures, micro_steps, strict=True):
        tally.add(term)
        tally.add_figures(figure)
        tally.add_work(micro.batch, len(micro.names), config.model)
    return grad_norm


def refuse_non_finite(
    sums: list[torch.Tensor], micro_steps: list[MicroStep], step: int, config: RunConfig
) -> None:
    """Raises, on every rank, before the optimizer sees a NaN or infinite loss.

    Raises:
        NonFinite: naming the objectives, the step, the ranks and the samples.
    """
    bad = [~torch.isfinite(term[:, 0]) for term in sums]
    if not summed([float(torch.stack(bad).sum())], sums[0].device)[0]:
        return
    mine = [
        f"rank {rank()}, "
        f"{', '.join(n for n, is_bad in zip(OBJECTIVES, flags, strict=True) if is_bad)}: "
        + " ".join(micro.names)
        for flags, micro in zip(bad, micro_steps, strict=True)
        if flags.any()
    ]
    found = "\n  ".join(line for lines in gather_objects(mine) for line in lines)
    raise NonFinite(
        f"step {step + 1}: a loss is not finite; nothing was updated. Go on without this step with "
        f"{with_skipped(config, step)}, look at its samples with `unimo-prep verify`, or lower "
        f"optim.lr:\n  {found}"
    )


def _dropout_seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


class Clock:
    """Where the time goes."""

    def __init__(self, engine: Engine, config: RunConfig, seconds: float) -> None:
        dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
        self._device, self._weights = engine.device, config.loss
        self._peak = sum(gather_objects(peak_flops(engine.device, dtype)))
        self._began = time.perf_counter() - seconds
        self._lap = time.perf_counter()
        self._waited = 0.0

    def seconds(self) -> float:
        """Of training, over all resumes."""
        return time.perf_counter() - self._began

    def wait_for(self, batches: Iterator[list[MicroStep]]) -> list[MicroStep]:
        start = time.perf_counter()
        micro_steps = next(batches)
        self._waited += time.perf_counter() - start
        return micro_steps

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens here is not training: it counts in no lap."""
        start = time.perf_counter()
        yield
        self._lap += time.perf_counter() - start

    def lap(self, tally: Tally) -> dict[str, float | None]:
        """The metrics of the steps since the last lap."""
        metrics, work = tally.totals(self._device)
        now = time.perf_counter()
        elapsed, self._lap = now - self._lap, now
        waited, self._waited = self._waited, 0.0
        losses = {n: metrics[f"loss/{n}"] for n in OBJECTIVES}
        weighted = [getattr(self._weights, n) * (loss or 0.0) for n, loss in losses.items()]
        counted = any(loss is not None for loss in losses.values())  # else all steps were skipped
        return {
            "seconds": self.seconds(),
            "loss": sum(weighted) if counted else None,
            **metrics,
            "tokens_per_second": work.filled / elapsed,
            "samples_per_second": work.samples / elapsed,
            "mfu": work.flops / elapsed / self._peak,
            "data_wait": summed([waited], self._device)[0] / world_size() / elapsed,
            "packing": work.packing,
            "memory_gib": memory_gib(self._device),
        }
