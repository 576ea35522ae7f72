"""Pre-trains a run: ``deepspeed --module unimo_ds.pretrain CONFIG.toml [key=value ...]``.

torchrun, srun, mpirun and a plain process work the same way. A run that has checkpoints continues
from the newest.
"""

import argparse
import ctypes
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module

from unimo_ds.config import RunConfig, load_config
from unimo_ds.launch import adopt_launcher, unused_tasks
from unimo_ds.storage import StorageError
from unimo_ds.train.nonfinite import NonFinite

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
    ranks = 1
    try:
        ranks = adopt_launcher(os.environ)
        config = load_config(options.config, options.overrides)
        run(config, fresh=options.fresh, command=sys.argv)
    except Exception as error:
        code = exit_code(error)
        if ranks > 1:
            import_module("unimo_ds.train.group").end_ranks(error, code)
        if code == 1:
            raise
        print(f"unimo_ds.pretrain: {error}", file=sys.stderr)
        return code
    return 0


def exit_code(error: Exception) -> int:
    """2 for what the user can mend, 3 for a loss that is not finite, 1 for all else."""
    if isinstance(error, ValueError | StorageError):
        return 2
    return 3 if isinstance(error, NonFinite) else 1


def run(config: RunConfig, *, fresh: bool, command: Sequence[str]) -> None:
    """Builds the model and its engine and trains.

    Raises:
        ValueError: a configuration, corpus or checkpoint that does not go together.
        StorageError: a corpus at a URL that cannot be read.
        NonFinite: a loss that is NaN or infinite.
    """
    # Below the arguments: torch and deepspeed take seconds, a wrong key should not.
    import torch

    from unimo_ds.data.cache import fetch_corpora
    from unimo_ds.distributed import launched_ranks, uses_gpu
    from unimo_ds.train.console import say, say_log
    from unimo_ds.train.engine import build_engine
    from unimo_ds.train.group import leave_group, meet, start_deepspeed, wait_for_all
    from unimo_ds.train.loop import train
    from unimo_ds.train.model import build_model
    from unimo_ds.train.shared_folder import check_shared

    if not uses_gpu():
        keep_heap_compact()
    # Ranks that each take all cores wait for each other a third of their time (measured).
    torch.set_num_threads(config.train.threads or max(1, cores() // ranks_here()))
    timeout = timedelta(minutes=config.train.timeout_minutes)
    if launched_ranks() > 1:
        meet(timeout)
        if not config.train.deepspeed:
            raise ValueError(
                f"train.deepspeed is empty: plain torch is for 1 process, {launched_ranks()} were "
                "launched; set train.deepspeed=ds_configs/zero1.json"
            )
    elif note := unused_tasks(os.environ):
        say(note)
    # Before there is a group, in which ranks wait for each other no longer than its timeout.
    fetch_corpora(config.data)
    wait_for_all("fetching corpora")
    if config.train.deepspeed:
        start_deepspeed(timeout)
    check_shared(config.run_folder)
    say_log("unimo_kernels")  # which backends it picked
    engine = build_engine(build_model(config, fresh=fresh), config)
    train(engine, config, fresh=fresh, command=command)
    leave_group()


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
