"""Training from corpora on an S3 server: one verified copy on a node, the same batches."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unimo_ds import storage
from unimo_ds.data.cache import local_corpus
from unimo_ds.data.loader import Loader
from unimo_ds.data.shards import open_corpus
from unimo_ds.storage import RemotePath, StorageError

ROOT = Path(__file__).parents[3]
PAIRS = "s3://corpora/train/pairs"


@pytest.fixture
def pairs(corpora, upload):
    """The small demo's pairs, with the images in them, on the server."""
    return upload(corpora / "pairs", PAIRS)


def test_batches_from_a_server_are_those_from_a_folder(corpora, small_config, upload, tmp_path):
    urls = {
        name: [upload(corpora / name, f"s3://corpora/train/{name}")]
        for name in ("texts", "images", "pairs")
    }
    data = dataclasses.replace(small_config.data, **urls, cache=str(tmp_path / "node"))
    local, remote = Loader(small_config), Loader(dataclasses.replace(small_config, data=data))
    for mine, theirs in zip(local.step(3), remote.step(3), strict=True):
        for a, b in zip(mine.batch, theirs.batch, strict=True):
            assert np.array_equal(a.numpy(), b.numpy())
    assert remote.samples.texts.corpora[0].folder.is_relative_to(tmp_path / "node")
    assert local_corpus(corpora / "texts") == corpora / "texts"


def test_a_copy_is_whole_and_is_fetched_once(corpora, pairs, s3, contents, capfd):
    copy = local_corpus(pairs)
    kept = {n: c for n, c in contents(corpora / "pairs").items() if n in contents(copy)}
    assert contents(copy) == kept and "images/manifest.json" in kept
    assert copy.name == "pairs" and len(open_corpus(pairs)) == 60
    shards = [name for name in kept if name.endswith((".arrow", ".npy"))]
    assert shards and all(s3.got(f"train/pairs/{name}") == 1 for name in shards)
    told = capfd.readouterr().err
    assert told.count(f"fetching {pairs}: ") >= 2 and f"to {copy}" in told


def test_units_are_fetched_too(corpora, upload, prep, tmp_path):
    out, source = tmp_path / "t", corpora / "raw" / "texts" / "prose.jsonl"
    words = ("--tokenizer", corpora / "tokenizer.json", "--max-tokens", 126)
    assert prep("text", out, source, *words, "--phrases").code == 0
    here, there = open_corpus(out), open_corpus(upload(out, "s3://corpora/marked"), tmp_path / "n")
    assert here.folder != there.folder and not here.unit_begins(5).all()
    assert np.array_equal(here.unit_begins(5), there.unit_begins(5))


def test_two_processes_at_once_fetch_it_once(pairs, s3):
    s3.fault = lambda number, method, path: "slow" if path.endswith(".arrow") else ""
    code = f"from unimo_ds.data.cache import local_corpus as f; print(f({pairs!r}))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    answers = [rank.communicate(timeout=60) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], answers
    assert (
        answers[0][0] == answers[1][0] and (Path(answers[0][0].strip()) / "manifest.json").exists()
    )
    assert s3.got("pairs-00000.arrow") == 1 and s3.got("images-00000.arrow") == 1
    assert sum("fetching" in told for _, told in answers) == 1


def test_a_download_that_was_cut_goes_on(pairs, s3, monkeypatch):
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    bad = ("GET", "/corpora/train/pairs/images/images-00000.arrow")
    s3.fault = lambda number, method, path: "truncate" if (method, path) == bad else ""
    with pytest.raises(StorageError, match=r"cannot read .*images-00000.arrow"):
        local_corpus(pairs)
    s3.forget()
    copy = local_corpus(pairs)
    assert len(open_corpus(copy)) == 60
    assert s3.got("pairs-00000.arrow") == 0, "what was whole is fetched again"


def test_damage_on_the_server_is_not_trained_on(pairs, tmp_path, upload, corpora):
    shard = corpora / "pairs" / "images" / "images-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "flipped").write_bytes(data)
    upload(tmp_path / "flipped", f"{PAIRS}/images/images-00000.arrow")
    with pytest.raises(StorageError, match=r"images-00000.arrow came twice with a SHA-256"):
        open_corpus(pairs)
    upload(shard, f"{PAIRS}/images/images-00000.arrow")
    assert len(open_corpus(pairs).images) == 60


def test_a_corpus_that_is_built_anew_is_another_copy(pairs, corpora, upload, tmp_path):
    first = local_corpus(pairs)
    manifest = (corpora / "pairs" / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest.replace('"seed": 1', '"seed": 2'))
    upload(tmp_path / "manifest.json", f"{PAIRS}/manifest.json")
    second = local_corpus(pairs)
    assert first != second and open_corpus(second).manifest.seed == 2


def test_a_manifest_cannot_name_files_elsewhere(pairs, corpora, upload, tmp_path):
    manifest = (corpora / "pairs" / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(manifest.replace("pairs-00000.arrow", "../../x.arrow"))
    upload(tmp_path / "manifest.json", f"{PAIRS}/manifest.json")
    with pytest.raises(ValueError, match=r"x\.arrow"):
        local_corpus(pairs)


def test_what_is_no_corpus(s3):
    with pytest.raises(ValueError, match=r"s3://corpora/nothing is no corpus"):
        open_corpus("s3://corpora/nothing")
    assert not RemotePath("s3://corpora/nothing").exists()
