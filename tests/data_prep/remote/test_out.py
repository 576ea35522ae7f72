"""Corpora that are built on an S3 server: the same bytes, whoever goes on with the build."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.claim import claimed
from unimo_ds.storage import RemotePath

ROOT = Path(__file__).parents[3]
OUT = "s3://corpora/out"
SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 4)


@pytest.fixture
def arguments(builder_sources, tokenizer_file):
    """For each builder, what makes it write a few shards and quarantine something."""
    sources = builder_sources(20, 10)
    (sources["images"] / "zz.png").write_bytes(b"no picture")
    words = ("--tokenizer", tokenizer_file, "--max-bad", 0.1)
    return {
        "text": (sources["text"], *words, "--rows-per-shard", 8),
        "images": (sources["images"], *SMALL, "--max-bad", 0.1),
        "pairs": (sources["pairs"], *words, *SMALL),
    }


@pytest.mark.parametrize("builder", ["text", "images", "pairs"])
def test_the_bytes_are_those_of_a_local_build(
    builder, s3, prep, arguments, contents, download, tmp_path
):
    assert prep(builder, tmp_path / "local", *arguments[builder]).code == 0
    ran = prep(builder, OUT, *arguments[builder])
    assert ran.code == 0, ran.err
    assert contents(download(OUT)) == contents(tmp_path / "local")
    ran = prep("verify", OUT)
    assert ran.code == 0 and "whole" in ran.err
    here = prep("stats", tmp_path / "local", "--json").out.replace(str(tmp_path / "local"), OUT)
    assert prep("stats", OUT, "--json").out == here
    again = prep(builder, OUT, *arguments[builder])
    assert again.code == 2 and f"{OUT} is not empty" in again.err
    assert "complete" in prep(builder, OUT, *arguments[builder], "--resume").err


def test_verify_names_what_is_damaged_on_the_server(s3, prep, arguments, upload, tmp_path):
    assert prep("text", OUT, *arguments["text"]).code == 0
    shard = RemotePath(OUT) / "texts-00001.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "flipped").write_bytes(data)
    upload(tmp_path / "flipped", str(shard))
    ran = prep("verify", OUT)
    assert ran.code == 1 and str(shard) in ran.out


def test_faults_during_a_build_change_nothing(s3, prep, arguments, contents, download, tmp_path):
    assert prep("pairs", tmp_path / "local", *arguments["pairs"]).code == 0
    kinds = ("503", "truncate", "slow")
    s3.fault = lambda number, method, path: kinds[number % 3] if number % 7 == 0 else ""
    ran = prep("pairs", OUT, *arguments["pairs"])
    assert ran.code == 0, ran.err
    assert s3.faults > 10
    s3.forget()
    assert contents(download(OUT)) == contents(tmp_path / "local")


def test_storage_that_stays_away_ends_the_build_and_resume_ends_it_well(
    s3, prep, arguments, contents, download, monkeypatch, tmp_path
):
    assert prep("text", tmp_path / "local", *arguments["text"]).code == 0
    monkeypatch.setattr("unimo_ds.storage.ATTEMPTS", 1)
    s3.fault = lambda n, method, path: "503" if path.endswith("00002.json") else ""
    ran = prep("text", OUT, *arguments["text"])
    assert ran.code == 1 and "error: cannot upload to" in ran.err and "00002.json" in ran.err
    s3.forget()
    assert not (RemotePath(OUT) / "manifest.json").exists()
    assert prep("text", OUT, *arguments["text"], "--resume").code == 0
    assert contents(download(OUT)) == contents(tmp_path / "local")


def test_a_killed_build_is_ended_by_another_machine(
    s3, prep, arguments, upload, contents, download, monkeypatch, tmp_path
):
    """The second one has another cache, and finds pictures and receipts on the server."""
    source, *rest = arguments["pairs"]
    upload(source.parent, "s3://corpora/in")
    assert prep("pairs", tmp_path / "local", source, *rest).code == 0
    command = [sys.executable, "-m", "data_prep.cli.main", "pairs", OUT]
    command += ["s3://corpora/in/pairs.jsonl", *rest, "--workers", 2]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    process = subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while sum(m == "PUT" and ".receipts/0" in path for m, path, _ in s3.requests) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (RemotePath(OUT) / "manifest.json").exists()
    monkeypatch.setenv("UNIMO_CACHE", str(tmp_path / "other"))
    cache = ("--cache", tmp_path / "other")
    ran = prep("pairs", OUT, "s3://corpora/in/pairs.jsonl", *rest, "--resume", *cache)
    assert ran.code == 0, ran.err
    found, wanted = contents(download(OUT)), contents(tmp_path / "local")
    for content in (found, wanted):  # tells where the sources are
        content.pop("quarantine.jsonl")
        content.pop("manifest.json")
    assert found == wanted


def test_a_second_build_on_this_machine_is_refused(s3, prep, arguments):
    with claimed(RemotePath(OUT), resume=True):
        ran = prep("text", OUT, *arguments["text"])
    assert ran.code == 2 and f"another build is at work in {OUT}" in ran.err
    assert prep("text", OUT, *arguments["text"]).code == 0


@pytest.mark.real
@pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set")
def test_real_photos_from_and_to_a_server(s3, prep, upload, contents, download, tmp_path):
    data = Path(os.environ["UNIMO_REAL_DATA"])
    records = json.loads((data / "flickr8k" / "captions.json").read_text())[:24]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "captions.json").write_text(json.dumps(records))
    for record in records:
        shutil.copy(data / "flickr8k" / "images" / record["image"], tmp_path / "in")
    upload(tmp_path / "in", "s3://corpora/in")
    upload(data / "tokenizer" / "hf_roberta", "s3://corpora/roberta")
    options = ("--num-classes", 20, "--rows-per-shard", 8)
    words = ("--tokenizer", data / "tokenizer" / "hf_roberta")
    assert (
        prep("pairs", tmp_path / "o", tmp_path / "in" / "captions.json", *words, *options).code == 0
    )
    words = ("--tokenizer", "s3://corpora/roberta")
    ran = prep("pairs", OUT, "s3://corpora/in/captions.json", *words, *options)
    assert ran.code == 0, ran.err
    assert contents(download(OUT)) == contents(tmp_path / "o")
