"""Ranks that nothing but themselves looks after: as srun starts them, one process each."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.gloo import free_port
from tests.cluster.launch import metrics
from tests.conftest import command_environment
from tests.processes import kill_tree

pytestmark = pytest.mark.alone

PRETRAIN = ("-m", "unimo_ds.pretrain")
FAILS_AT_STEP_3 = """
import os, sys
import unimo_ds.train.loop as loop
from unimo_ds.pretrain import main
step_of = loop.train_step
def train_step(engine, micro_steps, step, *rest):
    if step == 2 and os.environ["RANK"] == "1":
        raise KeyError("a broken drive")
    return step_of(engine, micro_steps, step, *rest)
loop.train_step = train_step
sys.exit(main())
"""
WAITS = """
import os, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from unimo_ds.launch import adopt_launcher
from unimo_ds.train.group import meet, open_group, set_timeout
def minutes(group):
    return group._get_backend(torch.device("cpu")).options._timeout.total_seconds() / 60
adopt_launcher(os.environ)
meet(timedelta(minutes=2))
open_group(timedelta(minutes=7))
later = dist.new_group()
set_timeout(timedelta(minutes=3))
print(minutes(dist.group.WORLD), minutes(later), flush=True)
sys.stdin.read()
"""


class Ranks:
    """Processes of one step of a Slurm job, on this machine."""

    def __init__(self, size, *arguments, per_rank=((), ()), cwds=(None, None, None)):
        port = str(free_port())
        self.processes = []
        for rank in range(size):
            step = {
                "SLURM_PROCID": str(rank),
                "SLURM_LOCALID": str(rank),
                "SLURM_NTASKS": str(size),
                "SLURM_STEP_NUM_TASKS": str(size),
                "SLURM_STEP_NUM_NODES": "1",
                "SLURM_STEP_NODELIST": "node[7-9]",
                "MASTER_PORT": port,
            }
            extra = per_rank[rank] if rank < len(per_rank) else ()
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *map(str, (*arguments, *extra))],
                    env=command_environment() | step,
                    cwd=cwds[rank],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def ended(self, seconds=200):
        """Exit codes, what all of them printed as refusals and reports, and all of stderr."""
        try:
            errors = [process.communicate(timeout=seconds)[1] for process in self.processes]
        finally:
            self.kill()
        lines = [x for text in errors for x in text.splitlines() if x.startswith("unimo_ds.pre")]
        return [process.returncode for process in self.processes], lines, errors

    def kill(self):
        for process in self.processes:
            kill_tree(process.pid)


def test_tasks_of_a_step_are_one_training_and_its_failure_is_told_by_who_failed(
    small_toml, tmp_path
):
    began = time.time()
    settings = ("train.save_every=1", "train.eval_every=1", "optim.warmup_steps=1")
    ranks = Ranks(2, "-c", FAILS_AT_STEP_3, small_toml, f"folder={tmp_path}", *settings)
    codes, lines, errors = ranks.ended()
    ended = time.time()
    run = tmp_path / "run"
    manifest = json.loads((run / "checkpoints" / "step_00000002" / "manifest.json").read_text())
    assert manifest["world_size"] == 2
    assert [x["step"] for x in metrics(run)] == [1, 2]
    assert (run / "command.txt").read_text().count("ranks=2") == 1
    assert not list(run.glob(".unimo_ds_*")) and not list(tmp_path.glob(".unimo_ds_*"))
    # Rank 0 waits for rank 1 in a collective when that one leaves.
    assert codes == [1, 1]
    name = f"rank 1 on {socket.gethostname()}"
    assert f"{name} failed:" in errors[1] and ", in train_step\n" in errors[1]
    assert lines == [f"unimo_ds.pretrain: {name}: KeyError: 'a broken drive'; all ranks end"]
    assert "Traceback" not in errors[0]
    saved_at = (run / "checkpoints" / "latest").stat().st_mtime
    assert began < saved_at and ended - saved_at < 10


def test_folders_that_are_not_shared_are_refused_in_one_line(small_toml, tmp_path):
    nodes = [tmp_path / "node0", tmp_path / "node1"]
    for node in nodes:
        (node / "runs" / "run").mkdir(parents=True)
        (node / "runs" / "run" / "config.json").write_text("of an earlier start")
    codes, lines, _ = Ranks(2, *PRETRAIN, small_toml, "folder=runs", cwds=nodes).ended()
    (line,) = lines
    assert codes == [2, 2]
    assert f"rank 1 on {socket.gethostname()}: " in line
    assert all(str(node / "runs") in line for node in nodes) and "set folder to" in line
    for node in nodes:
        files = [path for path in node.rglob("*") if path.is_file()]
        assert files == [node / "runs" / "run" / "config.json"]
        assert files[0].read_text() == "of an earlier start"


def test_what_one_rank_refuses_before_it_meets_the_others_ends_all(small_toml, tmp_path):
    wrong = ((), ("train.stepz=3",))
    ranks = Ranks(2, *PRETRAIN, small_toml, f"folder={tmp_path}", per_rank=wrong)
    codes, lines, errors = ranks.ended(60)
    assert codes == [2, 2]
    name = f"rank 1 on {socket.gethostname()}"
    assert lines == [
        f"unimo_ds.pretrain: {name}: unknown key train.stepz; the nearest known one is train.steps"
    ]
    assert not any("Traceback" in text for text in errors)
    assert not Path(tmp_path / "run").exists()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_other(victim):
    """Which waits for something else than a collective, whose connections break as well."""
    ranks = Ranks(2, "-c", WAITS)
    try:
        for process in ranks.processes:
            assert process.stdout.readline() == "3.0 3.0\n"  # also of groups opened by others
        os.kill(ranks.processes[victim].pid, signal.SIGKILL)
        assert ranks.processes[1 - victim].wait(10) == 1
    finally:
        _, lines, _ = ranks.ended()
    name = f"rank {victim} on {socket.gethostname()}"
    assert len(lines) == 1 and lines[0].startswith(f"unimo_ds.pretrain: {name}: ended without")
