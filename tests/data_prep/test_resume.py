"""Builds that are killed, spread over workers, or continued from other input."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.writer import atomic_file

ROOT = Path(__file__).parents[2]
SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 3)


@pytest.fixture(scope="module")
def environment():
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def arguments(builder_sources, tokenizer_file):
    """For each builder, what makes it write 60 shards or more."""
    sources = builder_sources(180, 60)
    return {
        "text": (sources["text"], "--tokenizer", tokenizer_file, "--rows-per-shard", 3),
        "images": (sources["images"], *SMALL),
        "pairs": (sources["pairs"], "--tokenizer", tokenizer_file, *SMALL),
    }


def _kill_after(receipts, folder, command, environment):
    """Starts a build, kills it with SIGKILL when so many receipts are there; its group is gone."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(folder.rglob("[0-9]*.json"))) < receipts and process.poll() is None:
        assert time.monotonic() < until, "the build makes no progress"
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = [int(pid) for pid in children.read_text().split()] if process.poll() is None else []
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the build ended before it could be killed"
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived the build"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("builder", "workers", "kills"),
    [("text", 2, (2, 30)), ("images", 1, (2, 30)), ("pairs", 1, (2, 75))],  # 75: among the captions
)
def test_killed_twice_and_resumed_is_the_same_byte_for_byte(
    builder, workers, kills, prep, arguments, contents, environment, tmp_path
):
    assert prep(builder, tmp_path / "whole", *arguments[builder]).code == 0
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data_prep.cli.main", builder, out, *arguments[builder]]
    command = [str(word) for word in (*command, "--workers", workers, "--resume")]
    for receipts in kills:
        _kill_after(receipts, out, command, environment)
        assert not (out / "manifest.json").exists()
    (out / "stray.arrow.tmp").touch()  # as a kill in the middle of a shard leaves one
    ran = prep(builder, out, *arguments[builder], "--resume", "--max-bad", 0.02)
    assert ran.code == 0, ran.err
    assert contents(out) == contents(tmp_path / "whole")
    assert prep("verify", out).code == 0


@pytest.mark.parametrize("builder", ["text", "pairs"])  # pairs make an images corpus too
def test_two_workers_write_the_same_bytes_as_one(builder, prep, arguments, contents, tmp_path):
    assert prep(builder, tmp_path / "one", *arguments[builder]).code == 0
    assert prep(builder, tmp_path / "two", *arguments[builder], "--workers", 2).code == 0
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "two")
    assert sum(name.endswith(".arrow") for name in one) >= 60
    assert not any(".receipts" in name for name in one)


def test_finished_shards_are_not_made_again(prep, arguments, tmp_path):
    out = tmp_path / "o"
    assert prep("text", out, *arguments["text"], "--max-bad", 0).code == 3
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.arrow")}
    lost = sorted(before)[7]
    lost.unlink()
    assert prep("text", out, *arguments["text"], "--resume").code == 0
    after = {path: path.stat().st_mtime_ns for path in out.glob("*.arrow")}
    assert [path for path in before if after[path] != before[path]] == [lost]


def test_changed_input_or_parameters_are_refused(prep, arguments, tmp_path):
    source, *rest = arguments["text"]
    out = tmp_path / "o"
    assert prep("text", out, source, *rest, "--max-bad", 0).code == 3
    ran = prep("text", out, source, *rest, "--resume", "--max-tokens", 99)
    assert ran.code == 2 and "max_tokens was 510, is 99" in ran.err
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join([*lines[:50], b'{"text": "new"}\n', *lines[51:]]))
    ran = prep("text", out, source, *rest, "--resume")
    assert ran.code == 2 and "has changed" in ran.err and "shard 16" in ran.err


def test_a_changed_picture_is_noticed(prep, arguments, make_pictures, tmp_path):
    out, folder = tmp_path / "o", arguments["images"][0]
    (folder / "zz.png").write_bytes(b"broken")
    assert prep("images", out, *arguments["images"], "--max-bad", 0).code == 3
    shutil.copy(folder / "001.png", folder / "000.png")
    ran = prep("images", out, *arguments["images"], "--resume")
    assert ran.code == 2 and "has changed" in ran.err


def test_a_folder_in_use_needs_resume_and_a_whole_corpus_is_left_alone(prep, arguments, tmp_path):
    out = tmp_path / "o"
    assert prep("text", out, *arguments["text"]).code == 0
    ran = prep("text", out, *arguments["text"])
    assert ran.code == 2 and "--resume" in ran.err
    before = (out / "manifest.json").stat().st_mtime_ns
    ran = prep("text", out, *arguments["text"], "--resume")
    assert ran.code == 0 and "complete" in ran.err
    assert (out / "manifest.json").stat().st_mtime_ns == before
    ran = prep("text", out, *arguments["text"], "--resume", "--max-tokens", 7)
    assert ran.code == 2 and "not by" in ran.err


def test_a_file_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a") as file:
        file.write(b"new, but not all of it")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
