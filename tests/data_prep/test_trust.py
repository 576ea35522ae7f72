"""Full disks, killed workers, builds that meet: nothing half-written is believed."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from data_prep.regions.visual_words import load_visual_words

ROOT = Path(__file__).parents[2]
REGIONS = ("--grid", 4, "--patch", 16, "--num-classes", 8, "--rows-per-shard", 5)


@pytest.fixture
def arguments(write_lines, sentences, tokenizer_file, tmp_path):
    """Pairs, and pictures whose regions fill 24 kB each; 3 MB and 12 + 12 shards in all."""
    rng = np.random.default_rng(1)
    (tmp_path / "in").mkdir()
    for number in range(60):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{number:03d}.png")
    pairs = [{"image": f"{n:03d}.png", "captions": sentences} for n in range(60)]
    source = write_lines(tmp_path / "in" / "pairs.jsonl", [*pairs, b"{"])
    return (source, "--tokenizer", tokenizer_file, *REGIONS, "--max-bad", 0.1)


@pytest.fixture
def whole(prep, arguments, contents, tmp_path):
    """What an undisturbed build makes."""
    assert prep("pairs", tmp_path / "whole", *arguments).code == 0
    return contents(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and a function that sets its size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    yield (
        disk,
        lambda kilobytes: subprocess.run(
            ["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True
        ),
    )
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_and_more_room_ends_the_build(
    prep, arguments, whole, contents, small_disk
):
    """Grown in steps, so that the room ends in shards, lengths, receipts and manifests."""
    disk, resize = small_disk
    out, stops, kilobytes = disk / "out", 0, 64
    while (ran := prep("pairs", out, *arguments, "--resume")).code:
        assert ran.code == 1 and f"error: the disk of {disk}" in ran.err, ran.err
        assert "MB are free; make room and go on (builds with --resume)" in ran.err
        assert "Traceback" not in ran.err and not (out / "manifest.json").exists()
        stops, kilobytes = stops + 1, kilobytes + 216
        resize(kilobytes)
    assert stops >= 8
    assert contents(out) == whole
    assert prep("verify", out).code == 0


def test_a_limit_on_file_sizes_is_told(prep, arguments, whole, contents, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        ran = prep("pairs", tmp_path / "out", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ran.code == 1 and "takes no file as large as" in ran.err and "ulimit -f" in ran.err
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert prep("pairs", tmp_path / "out", *arguments, "--resume").code == 0
    assert contents(tmp_path / "out") == whole


def _start(out, arguments, workers):
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    command = [sys.executable, "-m", "data_prep.cli.main", "pairs", out, *arguments]
    command += ["--workers", workers, "--resume"]
    return subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(receipts, out, process):
    deadline = time.monotonic() + 90
    while len(list(out.rglob("[0-9]*.json"))) < receipts and process.poll() is None:
        assert time.monotonic() < deadline, "the build makes no progress"
        time.sleep(0.002)


def test_a_second_build_is_refused_and_a_killed_worker_is_told(
    prep, arguments, whole, contents, tmp_path
):
    out = tmp_path / "out"
    process = _start(out, arguments, 2)
    _wait_for(1, out, process)
    workers = [
        p for p in psutil.Process(process.pid).children() if "spawn_main" in str(p.cmdline())
    ]
    for worker in workers:
        worker.suspend()
    ran = prep("pairs", out, *arguments, "--resume")
    assert ran.code == 2 and f"another build is at work in {out}" in ran.err
    ran = prep("pairs", out, *arguments)
    assert ran.code == 2 and "is not empty" in ran.err
    workers[0].kill()
    for worker in workers[1:]:
        worker.resume()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and "a worker was killed, perhaps for its memory" in told
    assert "Traceback" not in told and not (out / "manifest.json").exists()
    assert prep("pairs", out, *arguments, "--resume").code == 0
    assert contents(out) == whole


def test_killed_at_any_moment(prep, arguments, whole, contents, tmp_path):
    draw, out = random.Random(7), tmp_path / "out"
    for _ in range(4):
        process = _start(out, arguments, 2)
        _wait_for(len(list(out.rglob("[0-9]*.json"))) + draw.randrange(3), out, process)
        time.sleep(draw.uniform(0, 0.2))
        family = [process, *psutil.Process(process.pid).children()]
        for victim in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(victim.pid, signal.SIGKILL)
        process.communicate()
        if (out / "manifest.json").exists():
            assert prep("verify", out).code == 0
    assert prep("pairs", out, *arguments, "--resume").code == 0
    assert contents(out) == whole


def test_a_shard_that_was_cut_is_made_again(prep, arguments, whole, contents, tmp_path):
    out = tmp_path / "out"
    assert prep("pairs", out, *arguments, "--max-bad", 0).code == 3
    shards = sorted(out.rglob("*.arrow"))
    shards[3].write_bytes(shards[3].read_bytes()[:-9])
    sorted(out.rglob("*.npy"))[5].unlink()
    assert prep("pairs", out, *arguments, "--resume").code == 0
    assert contents(out) == whole


def test_visual_words_are_read_again_when_they_change(tmp_path):
    path = tmp_path / "words.npy"
    for value in (1, 2):
        np.save(path, np.full((3, 4), value, np.float32))
        assert (load_visual_words(str(path)) == value).all()
        assert load_visual_words(str(path)) is load_visual_words(str(path))
    with pytest.raises(ValueError, match=r"none.npy is no file of visual words"):
        load_visual_words(str(tmp_path / "none.npy"))
    np.save(path, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"words.npy is no file of visual words: int64 \(3,\)"):
        load_visual_words(str(path))
