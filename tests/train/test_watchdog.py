"""The watchdog between real processes: ranks that cannot meet end, strangers end nothing."""

import contextlib
import json
import multiprocessing
import os
import resource
import socket
import sys
import time
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from tests.cluster.gloo import free_port
from tests.conftest import command_environment
from tests.processes import run_command
from unimo_ds.launch import LOOPBACK
from unimo_ds.train.group import end_ranks, meet
from unimo_ds.train.watchdog import STORE_KEY, Watchdog

SECONDS = 30
STRANGERS = (
    b"[" * 60_000 + b"\n",
    b'{"a":' * 700 + b"\n",
    b"[]\n",
    b"9" * 4000 + b"\n",
    b'{"token": "\xc3\xa9"}\n',
    b"\xff\xfe\n",
    b"GET / HTTP/1.1\r\n\r\n",
)
REFUSED_IN_A_WORLD_OF_ONE = """
import atexit
from datetime import timedelta
import torch.distributed as dist
from unimo_ds.train.group import open_group
atexit.register(lambda: print(dist.is_initialized()))
open_group(timedelta(seconds=20))
print(dist.is_initialized())
raise ValueError("refused")
"""


@pytest.fixture
def start():
    """Forks a process that calls a function and then waits to be ended."""
    processes = []

    def start_process(function, *arguments):
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_then_wait, args=(function, *arguments), daemon=True)
        process.start()
        processes.append(process)
        return process

    yield start_process
    for process in processes:
        process.kill()
        process.join()


def _then_wait(function, *arguments):
    function(*arguments)
    time.sleep(4 * SECONDS)


def of_rank(rank, world_size, port, seconds, address=LOOPBACK):
    """What `unimo_ds.pretrain` does with this rank until it has met the others."""
    place = {"RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": address, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    try:
        meet(timedelta(seconds=seconds))
    except ValueError as error:
        end_ranks(error, 2)


def exit_codes(*processes):
    ends_at = time.monotonic() + SECONDS
    for process in processes:
        process.join(max(0.0, ends_at - time.monotonic()))
    return [process.exitcode for process in processes]


def said(capfd):
    lines = capfd.readouterr().err.splitlines()
    assert not [line for line in lines if "Traceback" in line]
    return [line for line in lines if line.startswith("unimo_ds.pretrain: ")]


def serve_store(world_size=1):
    return TCPStore(LOOPBACK, 0, world_size, True, wait_for_workers=False)


def watch(store_port, address, descriptors):
    """Rank 0's process, with so many file descriptors left; 0 for no end of them."""
    store = TCPStore(LOOPBACK, store_port, is_master=False, wait_for_workers=False)
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for descriptor in taken[-descriptors:]:
            os.close(descriptor)
    Watchdog(store, 0, address)


def refuse(store_port, text):
    store = TCPStore(LOOPBACK, store_port, is_master=False, wait_for_workers=False)
    Watchdog(store, 1, LOOPBACK).fail(2, text)


@pytest.fixture
def rank_0(start):
    """Starts rank 0's watchdog; its process, its port and a function by which rank 1 refuses."""
    store = serve_store()

    def start_rank_0(address=LOOPBACK, descriptors=0):
        process = start(watch, store.port, address, descriptors)
        port = json.loads(store.get(STORE_KEY))["port"]
        return process, port, lambda text: start(refuse, store.port, text)

    return start_rank_0


def test_a_rank_that_cannot_reach_rank_0_says_so_once(start, capfd):
    with socket.socket() as closed:
        closed.bind((LOOPBACK, 0))  # and does not listen
        store = serve_store(2)
        rank_0 = {"host": "node7", "port": closed.getsockname()[1], "token": ""}
        store.set(STORE_KEY, json.dumps(rank_0))
        assert exit_codes(start(of_rank, 1, 1, store.port, SECONDS)) == [2]
    (line,) = said(capfd)
    assert f"rank 1 on {socket.gethostname()} cannot reach rank 0 at {LOOPBACK}, port" in line


def test_rank_0_ends_at_once_with_a_rank_that_cannot_reach_it(start, capfd):
    """Whose store answers at all addresses of the loopback network, its watchdog at one."""
    port = free_port()
    ranks = [
        start(of_rank, 0, 2, port, 10 * SECONDS),
        start(of_rank, 1, 2, port, 10 * SECONDS, "127.0.0.2"),
    ]
    assert exit_codes(*ranks) == [2, 2]
    lines = said(capfd)
    assert len(lines) == 2 and lines[0] == lines[1]
    assert f"rank 1 on {socket.gethostname()} cannot reach rank 0 at 127.0.0.2" in lines[0]


def test_a_rank_that_ends_before_it_greets_is_named(start, capfd):
    port = free_port()
    ranks = [start(of_rank, rank, 4, port, 3) for rank in (0, 2)]
    for _ in (1, 3):
        start(TCPStore, LOOPBACK, port, 4, False)
    assert exit_codes(*ranks) == [2, 2]
    (line,) = said(capfd)
    assert "rank 0 on" in line and "within 3 s: 1, 3; " in line


def test_strangers_do_not_end_the_watch(rank_0, capfd):
    process, port, refuse_by_rank_1 = rank_0()
    for line in STRANGERS:
        stranger = socket.create_connection((LOOPBACK, port), SECONDS)
        with stranger, contextlib.suppress(ConnectionError):
            stranger.sendall(line)
            assert stranger.recv(1) == b""
    refusal = "a long one " * 1000
    assert exit_codes(process, refuse_by_rank_1(refusal)) == [2, 2]
    assert refusal.strip() in said(capfd)[0]


def test_a_stranger_is_not_listened_to_for_long(rank_0):
    _, port, _ = rank_0()
    with socket.create_connection((LOOPBACK, port), SECONDS) as stranger:
        for _ in range(5):
            stranger.sendall(b" " * 800)
        stranger.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stranger.recv(1)
        stranger.sendall(b" " * 200)
        stranger.settimeout(SECONDS)
        with contextlib.suppress(ConnectionError):
            assert stranger.recv(1) == b""


def test_strangers_that_take_all_descriptors_do_not_end_the_watch(rank_0):
    process, port, refuse_by_rank_1 = rank_0(descriptors=4)
    with contextlib.ExitStack() as strangers:
        for _ in range(8):
            strangers.enter_context(socket.create_connection((LOOPBACK, port), SECONDS))
        time.sleep(0.5)
    assert exit_codes(process, refuse_by_rank_1("refused")) == [2, 2]


@pytest.mark.parametrize(
    ("address", "elsewhere"),
    [(LOOPBACK, False), ("localhost", False), ("::1", False), (socket.gethostname(), True)],
)
def test_ranks_of_one_machine_listen_to_it_alone(rank_0, address, elsewhere):
    if address == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    _, port, _ = rank_0(address)
    if not elsewhere:
        socket.create_connection((address, port), SECONDS).close()
    refused = contextlib.nullcontext() if elsewhere else pytest.raises(ConnectionRefusedError)
    with refused:
        socket.create_connection(("127.0.0.2", port), SECONDS).close()


def test_a_refusal_in_a_world_of_one_leaves_the_group():
    """NCCL says of a process that ends with its group that it may have lost something."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": LOOPBACK}
    place["MASTER_PORT"] = str(free_port())
    command = [sys.executable, "-c", REFUSED_IN_A_WORLD_OF_ONE]
    done = run_command(command, env=command_environment() | place, seconds=SECONDS * 4)
    assert "ValueError: refused" in done.stderr
    assert done.stdout.split() == ["True", "False"]
