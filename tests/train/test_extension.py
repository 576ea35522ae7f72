"""The lock of DeepSpeed's extension: named, freed where it is ours, never waited for in silence."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import command_environment
from tests.processes import run_command
from unimo_ds.train import extension
from unimo_ds.train.console import told_while_waiting
from unimo_ds.train.extension import sole_builder

NAME = "deepspeed_shm_comm"


def old(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_the_lock_of_an_ended_build_is_named(tmp_path):
    (tmp_path / "lock").touch()
    old(tmp_path / "lock", 3 * 3600)
    named = rf"{tmp_path}/lock is 180 minutes old.*Remove it \(rm "
    with pytest.raises(ValueError, match=named), sole_builder(tmp_path):
        raise AssertionError("built beside another's lock")
    assert (tmp_path / "lock").exists()


def test_a_build_of_ours_that_was_killed_does_not_stop_the_next(tmp_path, capfd):
    """The lock is fresh: only what the killed process left behind tells that it is dead."""
    if not (pid := os.fork()):
        with sole_builder(tmp_path):
            (tmp_path / "lock").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert (tmp_path / "lock").exists()
    with sole_builder(tmp_path):
        assert not (tmp_path / "lock").exists()
    assert f"removing {tmp_path}/lock: process " in capfd.readouterr().err
    with sole_builder(tmp_path):
        pass
    assert not capfd.readouterr().err


def test_a_build_that_runs_is_waited_for_aloud(tmp_path, capfd, monkeypatch):
    """PyTorch holds its lock open while it builds, which may take longer than we think."""
    lock = tmp_path / "lock"
    hold = f"import os, time; os.open({str(lock)!r}, os.O_CREAT); time.sleep(60)"
    builder = subprocess.Popen([sys.executable, "-c", hold])
    try:
        while not lock.exists():
            time.sleep(0.02)
        old(lock, 3600)
        monkeypatch.setattr(extension.time, "sleep", lambda seconds: lock.unlink())
        with sole_builder(tmp_path):
            assert not lock.exists()
    finally:
        builder.kill()
        builder.wait()
    line = f"waiting for {lock}, 3600 s old, held by process {builder.pid}: "
    assert line in capfd.readouterr().err


def test_long_waits_are_said_and_short_ones_are_not(capfd):
    with told_while_waiting("waiting for Godot", after=60):
        pass
    assert not capfd.readouterr().err
    with told_while_waiting("waiting for Godot", after=0.05):
        time.sleep(0.3)
    assert capfd.readouterr().err == "waiting for Godot (0 s so far)\n"


@pytest.mark.alone
def test_a_start_that_finds_an_old_lock_ends_with_one_line(small_toml, tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "lock").touch()
    old(folder / "lock", 1200)
    done = run_command(
        [sys.executable, "-m", "unimo_ds.pretrain", small_toml, f"folder={tmp_path}"],
        env=command_environment() | {"TORCH_EXTENSIONS_DIR": str(tmp_path)},
        seconds=100,
    )
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("unimo_ds")]
    assert f"{folder}/lock is 20 minutes old" in line
