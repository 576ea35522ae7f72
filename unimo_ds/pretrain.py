"""Pre-trains a run: ``deepspeed --module unimo_ds.pretrain CONFIG.toml [key=value ...]``.

torchrun, srun and a plain process work the same way. A run that has checkpoints continues from the
newest.
"""

import argparse
import ctypes
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from unimo_ds.config import RunConfig, load_config

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""glibc's numbers for mallopt."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when trained, 2 when refused, 3 when a loss was not finite."""
    parser = argparse.ArgumentParser(prog="unimo_ds.pretrain", description=__doc__)
    parser.add_argument("config", help="the run's TOML; the built-in ones are in unimo_ds/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.steps=30")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="set an earlier run of this name aside and start at step 0",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load_config(options.config, options.overrides)
        run(config, fresh=options.fresh, command=sys.argv)
    except ValueError as error:
        print(f"unimo_ds.pretrain: {error}", file=sys.stderr)
        return 2
    except import_module("unimo_ds.train.loop").NonFinite as error:
        print(f"unimo_ds.pretrain: {error}", file=sys.stderr)
        return 3
    return 0


def run(config: RunConfig, *, fresh: bool, command: Sequence[str]) -> None:
    """Builds the model and its engine and trains.

    Raises:
        ValueError: a configuration, corpus or checkpoint that does not go together.
        NonFinite: a loss that is NaN or infinite.
    """
    # Below the arguments: torch and deepspeed take seconds, a wrong key should not.
    import torch
    import torch.distributed as dist

    from unimo_ds.distributed import uses_gpu
    from unimo_ds.train.console import say_log
    from unimo_ds.train.engine import build_engine, start_deepspeed
    from unimo_ds.train.loop import train
    from unimo_ds.train.model import build_model

    if not uses_gpu():
        keep_heap_compact()
    # Ranks that each take all cores wait for each other a third of their time (measured).
    torch.set_num_threads(config.train.threads or max(1, cores() // ranks_here()))
    if config.train.deepspeed:
        start_deepspeed()
    try:
        say_log("unimo_kernels")  # which backends it picked
        engine = build_engine(build_model(config, fresh=fresh), config)
        train(engine, config, fresh=fresh, command=command)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def keep_heap_compact() -> None:
    """Gives large blocks of host memory back when they are freed.

    Packed rows differ in length from step to step, and glibc raises its threshold with every large
    block it frees, so the heap of a CPU run crept from 0.8 to 1.05 GiB in 120 steps of a small
    model.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:  # glibc only
        mallopt(MMAP_THRESHOLD, 4 << 20)
        mallopt(TRIM_THRESHOLD, 16 << 20)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def ranks_here() -> int:
    """Ranks on this machine: deepspeed and torchrun each have a variable for it."""
    return int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)


if __name__ == "__main__":
    sys.exit(main())
