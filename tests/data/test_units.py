"""Corpora with units beside those without: the same rows, other spans, and damage named."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from data_prep.writer import write_shard
from tests.conftest import prep
from unimo_ds.batch import IGNORED_LABEL, PADDING_SEGMENT
from unimo_ds.data.loader import Loader
from unimo_ds.data.schema import Manifest, manifest_text, read_manifest
from unimo_ds.data.shards import open_corpus
from unimo_ds.data.units import open_units, unit_begins


@pytest.fixture(scope="module")
def marked(corpora, tmp_path_factory):
    """The texts and pairs of the small demo with units, many texts in a row."""
    folder = tmp_path_factory.mktemp("marked")
    words = ("--tokenizer", corpora / "tokenizer.json", "--max-tokens", 126, "--phrases")
    pixels = ("--grid", 4, "--patch", 8, "--num-classes", 16)
    prep("text", folder / "texts", corpora / "raw" / "texts" / "prose.jsonl", *words)
    prep("pairs", folder / "pairs", corpora / "raw" / "pairs" / "train.jsonl", *words, *pixels)
    return folder


def _config(config, folder, phrases=True):
    data = dataclasses.replace(
        config.data, texts=[str(folder / "texts")], pairs=[str(folder / "pairs")]
    )
    corruption = dataclasses.replace(config.corruption, phrases=phrases, seq2seq_share=0.3)
    return dataclasses.replace(config, data=data, corruption=corruption)


def _bytes(config):
    return [
        [field.numpy().tobytes() for field in micro.batch]
        for step in (0, 5)
        for micro in Loader(config).step(step)
    ]


def _without_units(folder, copy):
    """As corpora were before there were units: no files, and no word of them in the manifest."""
    shutil.copytree(folder, copy)
    for manifest in (copy / "texts" / "manifest.json", copy / "pairs" / "manifest.json"):
        values = json.loads(manifest.read_text())
        for shard in values["shards"]:
            (manifest.parent / shard.pop("units")).unlink()
            del shard["units_sha256"]
        manifest.write_text(manifest_text(values))
    return copy


def test_batches_without_units_are_what_they_were(small_config, corpora, marked, tmp_path):
    old = _without_units(marked, tmp_path / "old")
    assert read_manifest(old / "texts").shards[0].units == ""
    assert len(open_corpus(old / "texts").unit_begins(0)) == 0
    plain = _bytes(_config(small_config, corpora))
    assert plain == _bytes(_config(small_config, corpora, phrases=False))
    assert plain == _bytes(_config(small_config, old))
    assert plain == _bytes(_config(small_config, marked, phrases=False))
    assert plain != _bytes(_config(small_config, marked))


def test_batches_never_cut_a_unit_and_ask_for_as_much(small_config, corpora, marked):
    shares, lengths = [], []
    for folder in (corpora, marked):
        loader = Loader(_config(small_config, folder))
        batches = [micro.batch for step in range(6) for micro in loader.step(step)]
        asked = sum(int((b.labels != IGNORED_LABEL).sum()) for b in batches)
        shares.append(asked / sum(int((b.segment != PADDING_SEGMENT).sum()) for b in batches))
        lengths.append([len(b.segment) for b in batches])
    assert lengths[0] == lengths[1], "how rows are packed does not depend on spans"
    assert shares[0] < shares[1] < 1.3 * shares[0]


def test_every_row_has_its_own_bits(marked):
    texts, pairs = open_corpus(marked / "texts"), open_corpus(marked / "pairs")
    first = 0
    bits = [np.unpackbits(np.load(texts.folder / s.units)) for s in texts.manifest.shards]
    assert len(bits) == 1
    for row in range(len(texts)):
        size = len(texts.tokens(row))
        assert np.array_equal(texts.unit_begins(row), bits[0][first : first + size])
        assert texts.unit_begins(row).dtype == bool
        first += size
    for row in range(len(pairs)):
        assert [len(u) for u in pairs.unit_begins(row)] == [len(c) for c in pairs.captions(row)]


def test_rows_behind_the_first_record_batch_have_theirs(tmp_path):
    rng = np.random.default_rng(1)
    begins = [rng.random(1 + n % 3) < 0.5 for n in range(8192 + 50)]
    rows = ({"id": str(n), "tokens": np.full(len(b), 9), "units": b} for n, b in enumerate(begins))
    shard = write_shard(tmp_path, "texts-00000.arrow", "texts", rows)
    fields = {"kind": "texts", "rows": len(begins), "quarantined": {}, "command": [], "seed": 1}
    (tmp_path / "manifest.json").write_text(Manifest(shards=[shard], **fields).to_json())
    corpus = open_corpus(tmp_path)
    for row in (0, 1, 8191, 8192, 8193, 8241):
        assert np.array_equal(corpus.unit_begins(row), begins[row])


@pytest.mark.parametrize("size", [1, 7, 8, 9, 40])
def test_bits_are_found_at_any_place(size, tmp_path):
    begins = np.random.default_rng(size).random(size) < 0.5
    np.save(tmp_path / "u.npy", np.packbits(begins))
    bits = open_units(tmp_path / "u.npy", size)
    for first in range(size):
        for end in range(first, size + 1):
            assert np.array_equal(unit_begins(bits, first, end - first), begins[first:end])


def test_damaged_units_are_named(marked, tmp_path):
    folder = shutil.copytree(marked / "texts", tmp_path / "t")
    path = folder / read_manifest(folder).shards[0].units
    content = path.read_bytes()
    for damaged in (content[:-1], content[:50], b""):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"units.npy.*rebuild"):
            open_corpus(folder).tokens(0)
    np.save(path, np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match=r"units.npy: uint8 \(3,\), expected uint8"):
        open_corpus(folder).tokens(0)
    path.unlink()
    with pytest.raises(ValueError, match=r"units.npy: .*No such file"):
        open_corpus(folder).tokens(0)


@pytest.mark.parametrize("name", ["../u.npy", "texts-00000.arrow", "manifest.json"])
def test_a_manifest_that_names_other_files_is_refused(name, marked, tmp_path):
    folder = shutil.copytree(marked / "texts", tmp_path / "t")
    values = json.loads((folder / "manifest.json").read_text())
    values["shards"][0]["units"] = name
    (folder / "manifest.json").write_text(manifest_text(values))
    with pytest.raises(ValueError, match="is not a manifest"):
        read_manifest(folder)
