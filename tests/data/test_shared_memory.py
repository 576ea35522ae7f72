"""What worker processes hand over needs memory, as much as was said before, and no /dev/shm."""

import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from tests.conftest import ROOT, command_environment
from tests.data.test_handover import sent
from tests.processes import run_command
from unimo_ds.data.footprint import batch_bytes
from unimo_ds.data.handover import Sender, handed_over_bytes
from unimo_ds.data.loader import Loader
from unimo_ds.data.shared_block import NAME

SMALL_SHM = 'mount -t tmpfs -o size=192k tmpfs /dev/shm && exec "$@"'
"""/dev/shm as a container has it, for the command alone. Python's locks lie there too."""

TWENTY_STEPS = f"""
import json, multiprocessing, os, sys, time
import torch
from unimo_ds.config import load_config
from unimo_ds.data.loader import Loader

config = load_config(sys.argv[1], ["data.workers=2"])
loader, steps = Loader(config), Loader(config).steps(range(24))
for number in range(20):
    for here, there in zip(loader.step(number), next(steps), strict=True):
        assert all(map(torch.equal, here.batch, there.batch))
    time.sleep(0.05)  # the step is held while others are built
blocks = {{}}
for worker in multiprocessing.active_children():
    folder = f"/proc/{{worker.pid}}/fd/"
    for name in os.listdir(folder):
        if {NAME!r} in os.readlink(folder + name):
            state = os.stat(folder + name)
            blocks[state.st_ino] = state.st_blocks * 512
size = os.statvfs("/dev/shm")
ahead = loader.bytes_ahead(range(24))
print(json.dumps([sum(blocks.values()), ahead, size.f_blocks * size.f_frsize]))
os._exit(0)
"""


def may_mount() -> bool:
    if os.geteuid() or not shutil.which("unshare"):
        return False
    return not subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode


def test_batches_need_no_dev_shm_and_the_memory_that_was_said(small_toml):
    command = [sys.executable, "-c", TWENTY_STEPS, small_toml]
    if may_mount():
        command = ["unshare", "--mount", "sh", "-c", SMALL_SHM, "sh", *command]
    done = run_command(command, env=command_environment(), cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    taken, said, shm = json.loads(done.stdout)
    assert 0.9 * said < taken < 1.1 * said  # steps of 28 samples differ in size
    if not may_mount():
        pytest.skip("needs root and unshare to make /dev/shm small; the memory is as was said")
    assert taken > 10 * shm


def test_the_bytes_of_a_batch_are_known_from_its_plan(small_config):
    sender = Sender(0)
    loader = Loader(small_config, buffers=sender)
    arguments = loader.sizes, small_config.batch.round_to
    for step in range(3):
        draws = loader.mixture.step(step, small_config.batch.samples)
        (rows,) = loader._plan(draws, step)
        segments = [[s for sample in row for s in sample.segments] for row in rows]
        planned = batch_bytes(segments, *arguments)
        (micro,) = loader.step(step)
        assert planned == {n: field.nbytes for n, field in micro.batch._asdict().items()}
        before = reserved(sender)
        sender.parcel(micro.batch)
        if not step:  # then nothing was reserved before but the features
            assert reserved(sender) == handed_over_bytes(planned) > before


def reserved(sender):
    """Bytes that the system has taken for the blocks of ``sender``."""
    pools = sender._features, sender._others
    blocks = [block for pool in pools for block in pool.blocks.values()]
    return sum(os.fstat(block._descriptor).st_blocks * 512 for block in blocks)


@contextmanager
def largest_file(size):
    """The system refuses shared memory of more bytes, as it does where there is none left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("rows", [10_000, 1_000_000])
def test_no_memory_is_one_clear_line_and_the_batches_before_it_stay(rows):
    sender = Sender(0)
    first = sent(sender, 100, 3)
    with largest_file(50_000):
        with pytest.raises(ValueError, match=r"^no [\d.]+ MB of shared memory .*: lower data.work"):
            sender.empty(rows, 4)
        sender.parcel(first)
    assert (first.features == 3).all()
    assert sender.empty(rows, 4).fill_(7).sum() != 0
