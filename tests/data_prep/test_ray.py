"""Builds on a Ray of two workers: the bytes of the local engine, whoever is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from data_prep.engine import Options
from data_prep.ray_pool import WorkerKilled, _connected

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed"),
]

ROOT = Path(__file__).parents[2]
SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 3)
ON_RAY = ("--engine", "ray", "--workers", 2)


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two processors and, as far as it knows, one GPU."""
    ray = _connected(2, "", num_gpus=1)
    yield Options(command=[], engine="ray", workers=2)
    ray.shutdown()


@pytest.fixture
def arguments(builder_sources, tokenizer_file):
    """For each builder, what makes it write 12 shards or more."""
    sources = builder_sources(36, 12)
    words = ("--tokenizer", tokenizer_file, "--max-bad", 0.1)
    return {
        "text": (sources["text"], *words, "--rows-per-shard", 3),
        "images": (sources["images"], *SMALL),
        "pairs": (sources["pairs"], *words, *SMALL),
    }


@pytest.mark.parametrize("builder", ["text", "pairs"])  # pairs make an images corpus too
def test_the_bytes_are_those_of_the_local_engine(
    builder, cluster, prep, arguments, contents, tmp_path
):
    arguments = (*arguments[builder], "--phrases")
    assert prep(builder, tmp_path / "local", *arguments).code == 0
    ran = prep(builder, tmp_path / "ray", *arguments, *ON_RAY)
    assert ran.code == 0, ran.err
    local = contents(tmp_path / "local")
    assert contents(tmp_path / "ray") == local
    assert sum(name.endswith(".arrow") for name in local) >= 12


def test_killed_workers_change_nothing(cluster, prep, arguments, contents, tmp_path):
    assert prep("pairs", tmp_path / "local", *arguments["pairs"]).code == 0
    out, killed = tmp_path / "ray", []

    def kill():
        for receipts in (2, 14):
            while len(list(out.rglob("[0-9]*.json"))) < receipts:
                time.sleep(0.002)
            workers = [p for p in psutil.process_iter(["name"]) if "ray::" in p.info["name"]]
            busy = [p.pid for p in workers if "_call" in p.info["name"]]
            for pid in busy or [p.pid for p in workers if "IDLE" in p.info["name"]]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    ran = prep("pairs", out, *arguments["pairs"], *ON_RAY)
    assert ran.code == 0, ran.err
    killer.join(1)
    assert killed
    assert contents(out) == contents(tmp_path / "local")


class DieOnce:
    """A task that kills its worker the first time it is tried."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, number):
        mark = self.folder / str(number)
        if number % 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number


def test_a_task_whose_gpu_worker_died_is_done_again(cluster, tmp_path):
    found = cluster.run(DieOnce(tmp_path), range(3), wants_gpu=True)
    assert sorted(found) == [0, 1, 2] and (tmp_path / "1").exists()


def _who(number):
    import ray

    return number, os.getpid(), ray.get_gpu_ids()


def test_one_worker_lives_on_each_gpu(cluster):
    found = list(cluster.run(_who, range(9), wants_gpu=True))
    assert sorted(number for number, *_ in found) == list(range(9))
    assert len({pid for _, pid, _ in found}) == 1
    assert all(gpus == [0] for *_, gpus in found)
    assert all(gpus == [] for *_, gpus in cluster.run(_who, range(3)))


def _refuse(number):
    raise ValueError(f"task {number} is not to be done")


def _die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_task_raises_is_raised_here(cluster, monkeypatch):
    monkeypatch.setattr("data_prep.ray_pool._RETRIES", 0)
    for wants_gpu in (False, True):
        with pytest.raises(ValueError, match=r"^task 0 is not to be done$"):
            list(cluster.run(_refuse, [0], wants_gpu))
        with pytest.raises(WorkerKilled):
            list(cluster.run(_die, [0], wants_gpu))
    assert len(list(cluster.run(_who, range(2)))) == 2


def _command(*words):
    return [sys.executable, "-m", "data_prep.cli.main", *map(str, words)]


@pytest.fixture(scope="module")
def environment():
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return {**os.environ, "PYTHONPATH": path}


def test_a_running_cluster_is_used(cluster, arguments, environment, contents, prep, tmp_path):
    import ray

    address = ray.get_runtime_context().gcs_address
    words = ("--engine", "ray", "--ray-address", address)
    command = _command("text", tmp_path / "ray", *arguments["text"], *words)
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert prep("text", tmp_path / "local", *arguments["text"]).code == 0
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_a_killed_driver_takes_its_ray_along_and_is_resumed(
    arguments, environment, contents, prep, tmp_path
):
    out = tmp_path / "ray"
    command = _command("pairs", out, *arguments["pairs"], *ON_RAY)
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(list(out.rglob("[0-9]*.json"))) < 3:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    family = psutil.Process(driver.pid).children(recursive=True)
    names = {p.pid: p.name() for p in family}
    listening = [
        c.laddr.ip for p in family for c in p.net_connections() if c.status == psutil.CONN_LISTEN
    ]
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    assert listening and set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    at_work = [p for p in family if "Agent" not in names[p.pid]]
    _, alive = psutil.wait_procs(at_work, timeout=30)
    assert at_work and not alive, alive
    for agent in set(family) - set(at_work):  # Ray's own; they take a minute to see that it is gone
        if agent.is_running():
            agent.kill()
    assert not (out / "manifest.json").exists()
    assert prep("pairs", out, *arguments["pairs"], "--resume").code == 0
    assert prep("pairs", tmp_path / "local", *arguments["pairs"]).code == 0
    assert contents(out) == contents(tmp_path / "local")


def test_without_ray_the_remedy_is_told(prep, arguments, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = prep("images", tmp_path / "o", *arguments["images"], *ON_RAY)
    assert ran.code == 2 and "pip install 'unimo-ds[ray]'" in ran.err
    ran = prep("images", tmp_path / "o", *arguments["images"], "--engine", "x", "--resume")
    assert ran.code == 2 and "--engine x: expected local or ray" in ran.err
