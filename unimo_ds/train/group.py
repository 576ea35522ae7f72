"""Where the ranks meet, how they talk, and how they end: together."""

import atexit
import os
import socket
import sys
import time
import traceback
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store
from torch.distributed.distributed_c10d import _set_pg_timeout, _world
from torch.distributed.rendezvous import rendezvous

from unimo_ds.distributed import launched_ranks, uses_gpu
from unimo_ds.launch import LOOPBACK
from unimo_ds.train.console import told_while_waiting
from unimo_ds.train.extension import load_extension
from unimo_ds.train.watchdog import UNEXPECTED, NotMet, Watchdog, exit_at_once

CONSEQUENCE_SECONDS = 1.5
"""In which the failure of a collective shows itself to come from the end of another rank."""
LATE_MEETING = timedelta(minutes=1)
"""For a rank that failed before it met the others."""


class _Met:
    """What the ranks share before they have a process group."""

    store: Store | None = None
    watchdog: Watchdog | None = None


def meet(timeout: timedelta) -> None:
    """Waits for all ranks that the launcher announced; from now on they end together.

    Raises:
        NotMet: not all of them came in time.
    """
    rank, address = int(os.environ["RANK"]), os.environ["MASTER_ADDR"]
    name, where = f"rank {rank} on {socket.gethostname()}", f"{address}:{os.environ['MASTER_PORT']}"
    ranks = f"all {launched_ranks()} ranks"
    try:
        with told_while_waiting(f"{name} waits for {ranks} to meet at {where}"):
            _Met.store = next(iter(rendezvous("env://", timeout=timeout)))[0]
            _Met.watchdog = Watchdog(_Met.store, rank, address)
            if rank == 0:
                _Met.watchdog.wait_for_greetings(launched_ranks(), timeout)
    except dist.DistError as error:
        raise NotMet(
            f"{name} did not meet {ranks} at {where} within {timeout.total_seconds():.0f} s: see "
            "what the others say, whether MASTER_ADDR is the machine of rank 0, and whether "
            f"MASTER_PORT is free there ({str(error).splitlines()[0]})"
        ) from error


def wait_for_all(work: str) -> None:
    """Returns when every rank has done ``work``, which may take any time."""
    if _Met.store is None:
        return
    done = f"unimo_ds/{work}"
    if _Met.store.add(done, 1) == launched_ranks():
        _Met.store.set(f"{done}/all", "")
    with told_while_waiting(f"waiting until all ranks are done with {work}"):
        while not _Met.store.check([f"{done}/all"]):  # the watchdog ends this if one fails
            time.sleep(0.2)


def start_deepspeed(timeout: timedelta) -> Any:
    """The deepspeed module, its process group up; a plain process becomes a world of one.

    Raises:
        ValueError: this rank has no GPU for itself, or DeepSpeed's extension cannot be built.
    """
    if not uses_gpu():
        os.environ["DS_ACCELERATOR"] = "cpu"
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind((LOOPBACK, 0))
            port = free.getsockname()[1]
        alone = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": port}
        os.environ.update({key: str(value) for key, value in alone.items()})
        os.environ["MASTER_ADDR"] = LOOPBACK
    trust_weights_only()
    import deepspeed  # slow to import, and it must see DS_ACCELERATOR

    if not dist.is_initialized():
        if uses_gpu():
            take_gpu(int(os.environ["LOCAL_RANK"]))
        load_extension()
        open_group(timeout)
    deepspeed.init_distributed(verbose=False)
    return deepspeed


def open_group(timeout: timedelta) -> None:
    """Opens torch's default group, for tensors on the CPU too where ranks compute on GPUs: clocks,
    counts and objects stay on the host, and NCCL refuses what is there."""
    rank, world_size = int(os.environ["RANK"]), launched_ranks()
    if _Met.store is None:
        _Met.store = next(iter(rendezvous("env://", timeout=timeout)))[0]
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if uses_gpu() else "gloo",
        store=PrefixStore("group", _Met.store),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )
    if world_size == 1:
        atexit.register(leave_group)  # a refusal passes `leave_group`; several ranks `end_ranks`


def set_timeout(timeout: timedelta) -> None:
    """Gives all groups the timeout of the first: DeepSpeed opens its own with torch's default."""
    for group in list(_world.pg_map):
        _set_pg_timeout(timeout, group)


def take_gpu(local_rank: int) -> None:
    """Computes on the GPU of this index from now on.

    Raises:
        ValueError: there are not so many.
    """
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise ValueError(
            f"rank {os.environ['RANK']} on {socket.gethostname()} is to take GPU {local_rank} "
            f"(LOCAL_RANK) but sees {count}: start as many ranks on a node as it has GPUs, or look "
            f"at CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')!r}"
        )
    torch.cuda.set_device(local_rank)


def leave_group() -> None:
    """Ends this rank's part in the group after it has done all of its work."""
    if dist.is_initialized():
        dist.destroy_process_group()
    if _Met.watchdog:
        _Met.watchdog.close()


def end_ranks(error: Exception, code: int) -> NoReturn:
    """Prints ``error``, ends this rank and all others, those too that it has not met yet."""
    text = str(error)
    if code == UNEXPECTED:
        if isinstance(error, RuntimeError):  # as torch.distributed's are
            time.sleep(CONSEQUENCE_SECONDS)  # another rank's failure ends this one meanwhile
        head = f"rank {os.environ['RANK']} on {socket.gethostname()} failed:"
        print(head, *traceback.format_exception(error), sep="\n", file=sys.stderr, flush=True)
        text = traceback.format_exception_only(error)[-1].strip()
    try:
        if _Met.watchdog is None and not isinstance(error, NotMet):
            meet(LATE_MEETING)
    except NotMet:
        pass  # nobody is there to be told
    if _Met.watchdog:
        _Met.watchdog.fail(code, text)
    print(f"unimo_ds.pretrain: {text}", file=sys.stderr, flush=True)
    exit_at_once(code)


def trust_weights_only() -> None:
    """Makes every checkpoint, DeepSpeed's included, load tensors and nothing that runs code."""
    # DeepSpeed asks for full pickles; this variable overrules it, and these are all it needs.
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum, fragment_address])
