"""Several real ranks on one machine: processes joined by gloo."""

import socket
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
import torch.multiprocessing as mp

SECONDS = 120


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_ranks(of_rank: Callable[..., None], world_size: int) -> list[Any]:
    """What ``of_rank(rank, world_size, results)`` put into its queue, ordered by rank."""
    context = mp.get_context("spawn")
    results = context.Queue()
    port = free_port()
    ranks = [
        context.Process(target=_join, args=(of_rank, rank, world_size, port, results), daemon=True)
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    try:
        gathered = [results.get(timeout=SECONDS) for _ in ranks]
        for process in ranks:
            process.join(SECONDS)
            assert process.exitcode == 0
    finally:
        for process in ranks:
            process.kill()
    return sorted(gathered, key=lambda result: result[0])


def _join(
    of_rank: Callable[..., None], rank: int, world_size: int, port: int, results: "mp.Queue[Any]"
) -> None:
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    try:
        of_rank(rank, world_size, results)
    finally:
        dist.destroy_process_group()
