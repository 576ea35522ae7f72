"""Batches that do not fit into memory are refused before the first step, and only those."""

import dataclasses

import pytest

from unimo_ds.pretrain import main
from unimo_ds.train.host_memory import available_memory, check_batches_fit

GIB = 1 << 30


@pytest.fixture
def system(tmp_path):
    """A machine with 10 GiB left, as its files say."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    write(
        proc / "meminfo",
        f"MemTotal: 99999999 kB\nMemAvailable: {9 << 20} kB\nSwapFree: {1 << 20} kB\n",
    )
    return proc, cgroups


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(folder, limit, usage, cached, *, second):
    names = (
        ("memory.max", "memory.current")
        if second
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    for name, value in zip(names, (limit, usage), strict=True):
        write(folder / name, f"{value}\n")
    prefix = "" if second else "total_"
    lines = (f"anon {usage}", f"{prefix}inactive_file {cached - 5}", f"{prefix}active_file 5")
    write(folder / "memory.stat", "\n".join(lines) + "\n")


def test_a_machine_without_limits(system):
    assert available_memory(*system) == 10 * GIB
    write(system[0] / "self" / "cgroup", "0::/user/job\n")
    group(system[1] / "user" / "job", "max", 5 * GIB, 9, second=True)
    assert available_memory(*system) == 10 * GIB


def test_the_tightest_group_counts(system):
    proc, cgroups = system
    write(proc / "self" / "cgroup", "0::/slurm/job_7/step_0\n")
    group(cgroups / "slurm" / "job_7", 6 * GIB, 4 * GIB, GIB, second=True)
    group(cgroups / "slurm" / "job_7" / "step_0", "max", 4 * GIB, GIB, second=True)
    assert available_memory(*system) == 3 * GIB


def test_a_container_of_the_first_version_sees_its_limit_at_the_root(system):
    proc, cgroups = system
    write(
        proc / "self" / "cgroup", "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab\n"
    )
    group(cgroups / "memory", 2 * GIB, GIB, 9, second=False)
    assert available_memory(*system) == GIB + 9


def test_this_machine_has_memory():
    assert 100 << 20 < available_memory() < 1 << 50


def test_what_does_not_fit_is_refused_with_the_number_that_does(small_config):
    data = dataclasses.replace(small_config.data, workers=8)
    check_batches_fit(data, available_memory() // 2)
    check_batches_fit(data, 0)
    with pytest.raises(ValueError, match=r"GB of memory left; .* its 1 ranks .*set data.workers=3"):
        check_batches_fit(data, int(available_memory() * 8 / 3.5))


def test_a_start_that_cannot_end_well_is_refused_before_it(small_toml, tmp_path, capsys):
    arguments = [str(small_toml), f"folder={tmp_path}", "train.deepspeed=", "data.workers=99999"]
    assert main([*arguments, "train.steps=900000"]) == 2
    assert "set data.workers=" in capsys.readouterr().err
