"""Starts training commands as a user would and reads what they wrote."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.cluster.gloo import free_port
from tests.conftest import ROOT, command_environment
from tests.processes import run_command

MODULE = "unimo_ds.pretrain"


def launch(launcher: str, ranks: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs pre-training under ``deepspeed``, ``torchrun`` or as a ``plain`` process."""
    port = ["--master_port", free_port()]
    starts = {
        "deepspeed": ["deepspeed.launcher.runner", "--num_gpus", ranks, *port, "--module"],
        "torchrun": ["torch.distributed.run", "--nproc_per_node", ranks, *port, "-m"],
        "plain": [],
    }
    command = [sys.executable, "-m", *starts[launcher], MODULE, *arguments]
    return run_command(command, env=command_environment(), cwd=ROOT)


def train(launcher: str, ranks: int, toml: Path, run: Path, *overrides: str) -> str:
    """Trains into the folder ``run`` and returns what was printed; fails where training fails."""
    where = (f"folder={run.parent}", f"name={run.name}")
    done = launch(launcher, ranks, toml, *where, *overrides)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def metrics(run: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["type"] == kind]


def curve(run: Path, names: Sequence[str] = ("loss", "grad_norm")) -> list[tuple[float, ...]]:
    """The chosen metrics of every step, the last value where a step was repeated."""
    by_step = {line["step"]: tuple(line[name] for name in names) for line in metrics(run)}
    return [by_step[step] for step in sorted(by_step)]
