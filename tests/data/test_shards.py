"""Reading corpora: every row through the view is the row that Arrow holds; damage is named."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from unimo_ds.data.schema import read_manifest
from unimo_ds.data.shards import PairCorpus, TextCorpus, open_collection, open_corpus


def table_of(corpus):
    parts = [
        pa.ipc.open_file(str(corpus.folder / s.name)).read_all() for s in corpus.manifest.shards
    ]
    return pa.concat_tables(parts)


def test_views_hold_what_arrow_holds(corpora):
    texts, pairs = open_corpus(corpora / "texts"), open_corpus(corpora / "pairs")
    rows = table_of(texts).to_pylist()
    assert len(texts) == len(rows)
    for i, row in enumerate(rows):
        assert texts.tokens(i).tolist() == row["tokens"]
        assert texts.row_id(i) == row["id"]
    for i, row in enumerate(table_of(pairs).to_pylist()):
        assert [c.tolist() for c in pairs.captions(i)] == row["captions"]
        assert pairs.caption_texts(i) == row["caption_texts"]
        assert pairs.images.image_id(pairs.image_row(i)) == row["image_id"] == pairs.pair_id(i)


def test_images_and_lengths_hold_what_arrow_holds(corpora):
    images = open_corpus(corpora / "images")
    for i, row in enumerate(table_of(images).to_pylist()):
        regions = images.regions(i)
        assert regions.features.ravel().tolist() == row["features"]
        assert regions.class_ids.ravel().tolist() == row["class_ids"]
        assert regions.boxes.shape == (row["num_regions"], 5)
        assert images.lengths[i] == row["num_regions"]
    texts = open_corpus(corpora / "texts")
    assert texts.lengths.tolist() == [len(texts.tokens(i)) for i in range(len(texts))]


def test_views_are_no_copies(corpora):
    regions = open_corpus(corpora / "images").regions(0)
    assert not regions.features.flags.owndata and not regions.features.flags.writeable


def test_several_corpora_are_one_list(corpora):
    texts = str(corpora / "texts")
    twice = open_collection([texts, texts], TextCorpus)
    single = open_corpus(texts)
    assert len(twice) == 2 * len(single)
    corpus, row = twice[len(single) + 3]
    assert (row, corpus) == (3, twice.corpora[1])
    assert np.array_equal(corpus.tokens(row), single.tokens(3))


@pytest.mark.parametrize("row", [-1, 10**6])
def test_rows_outside_are_refused(corpora, row):
    with pytest.raises(IndexError, match=f"row {row} of"):
        open_corpus(corpora / "texts").tokens(row)


def test_a_short_shard_is_named_instead_of_killing_the_process(corpora, tmp_path):
    copy = tmp_path / "texts"
    shutil.copytree(corpora / "texts", copy)
    shard = copy / read_manifest(copy).shards[0].name
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"has \d+ bytes, its manifest says \d+"):
        open_corpus(copy).tokens(0)


def test_manifests_of_other_releases_and_no_manifests_are_refused(corpora, tmp_path):
    with pytest.raises(ValueError, match="expected pairs"):
        open_collection([str(corpora / "texts")], PairCorpus)
    (tmp_path / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match="has schema version 99, this release reads 1"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a manifest"):
        read_manifest(tmp_path)


def test_columns_that_disagree_about_their_regions_are_named(corpora, tmp_path):
    copy = tmp_path / "images"
    shutil.copytree(corpora / "images", copy)
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"kept_classes": 1', '"kept_classes": 2'))
    with pytest.raises(ValueError, match="the rows of class_ids are not 2 values a region"):
        open_corpus(copy).regions(0)
