"""A batch is a pure function of (seed, step), whatever the ranks, workers and steps before."""

import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import prep
from unimo_ds.batch import IGNORED_LABEL, PADDING_SEGMENT, Batch, Kind, num_filled
from unimo_ds.config import load_config
from unimo_ds.data.loader import Loader

STEP = 3


def with_data(config, **changes):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def assert_same(a: Batch, b: Batch) -> None:
    for name, left, right in zip(Batch._fields, a, b, strict=True):
        assert left.dtype == right.dtype, name
        assert left.numpy().tobytes() == right.numpy().tobytes(), name


def merge(batches: list[Batch]) -> Batch:
    """Rows one behind the other as one row; segments, regions and positions are renumbered."""
    merged: list[Batch] = []
    positions = segments = vectors = 0
    for batch in batches:
        shifted = {
            name: getattr(batch, name) + positions
            for name in ("region_at", "pair_image", "pair_text", "image_at", "text_at")
        }
        padding = batch.segment == PADDING_SEGMENT
        segment = torch.where(padding, PADDING_SEGMENT, batch.segment + segments)
        shifted["region_feature"] = batch.region_feature + vectors
        merged.append(batch._replace(segment=segment, **shifted))
        vectors += len(batch.features)
        positions += len(batch.segment)
        segments += len(batch.kind)
    return Batch(*(torch.cat(fields) for fields in zip(*merged, strict=True)))


@pytest.fixture(scope="module")
def direct(small_config):
    return Loader(small_config).step(STEP)


@pytest.mark.parametrize(
    ("world_size", "workers"), [*itertools.product((1, 2, 4), (0, 1)), (1, 2), (2, 2)]
)
def test_a_step_is_the_same_however_it_is_reached(small_config, direct, world_size, workers):
    config = with_data(small_config, workers=workers)
    reached = [
        list(Loader(config, rank, world_size).steps(range(STEP + 1)))[STEP]
        for rank in range(world_size)
    ]
    for i, micro_step in enumerate(direct):
        assert_same(merge([of_rank[i].batch for of_rank in reached]), micro_step.batch)
        assert [name for of_rank in reached for name in of_rank[i].names] == micro_step.names


def test_processes_tell_what_went_wrong_and_end_with_the_steps(small_config, corpora, tmp_path):
    shutil.copytree(corpora / "texts", tmp_path / "texts")
    shard = next((tmp_path / "texts").glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-100])
    damaged = with_data(small_config, workers=2, texts=[str(tmp_path / "texts")])
    with pytest.raises(ValueError, match=rf"^[^\n]*{shard.name} has .* bytes[^\n]*$"):
        next(Loader(damaged).steps(range(4)))
    steps = Loader(with_data(small_config, workers=2)).steps(range(100))
    next(steps)
    assert multiprocessing.active_children()
    steps.close()
    assert not multiprocessing.active_children()


def test_another_seed_is_another_batch(small_config, direct):
    other = Loader(dataclasses.replace(small_config, seed=2)).step(STEP)
    assert other[0].names != direct[0].names


def test_the_fields_agree_with_each_other(direct):
    batch = direct[0].batch
    filled = batch.segment != PADDING_SEGMENT
    assert num_filled(batch) == int(filled.sum()) > 0.9 * len(filled)
    assert batch.segment[filled].unique().numel() == len(batch.kind)
    assert (batch.labels[~filled] == IGNORED_LABEL).all()
    whole = batch.boxes == torch.tensor([0.0, 0, 1, 1, 1])
    img_rows = torch.nonzero(whole.all(dim=1)).squeeze(1)
    assert not batch.region_masked[img_rows].any()
    heads = torch.cat([batch.pair_image, batch.image_at])
    assert torch.isin(heads, batch.region_at[img_rows]).all()
    assert (batch.word_ids[torch.cat([batch.pair_text, batch.text_at])] == 0).all()
    assert torch.equal(batch.segment[batch.pair_image], batch.segment[batch.pair_text])
    kinds = torch.bincount(batch.kind.long(), minlength=6)
    assert kinds[Kind.ENCODED_IMAGE] == len(batch.image_at) == kinds[Kind.PAIR]
    assert kinds[Kind.SCORED_PAIR] == len(batch.pair_draw)
    asked = batch.segment[batch.labels != IGNORED_LABEL].long()
    assert set(batch.kind[asked].tolist()) <= {Kind.TEXT, Kind.PAIR}


def test_img_is_the_mean_of_what_is_visible(direct):
    batch = direct[0].batch
    segment_R = batch.segment[batch.region_at]
    chosen = int(segment_R[batch.region_masked][0])
    of_segment = torch.nonzero(segment_R == chosen).squeeze(1)
    img, regions = of_segment[0], of_segment[1:]
    shown = batch.features[batch.region_feature].float()
    visible = shown[regions][~batch.region_masked[regions]].mean(dim=0)
    assert torch.allclose(shown[img], visible, atol=2e-3)


def test_a_row_holds_each_image_once(small_config):
    one = dataclasses.replace(small_config.batch, rows=1, tokens_per_row=8192)
    (micro_step,) = Loader(dataclasses.replace(small_config, batch=one)).step(STEP)
    batch = micro_step.batch
    assert len(batch.features) < 0.3 * len(batch.region_feature)
    assert torch.equal(batch.region_feature.unique(), torch.arange(len(batch.features)))
    assert len(batch.class_ids) == len(batch.class_probs) == len(batch.features)


def test_token_budgets_make_micro_steps_and_lose_nothing(small_config, direct):
    tight = dataclasses.replace(
        small_config, batch=dataclasses.replace(small_config.batch, tokens_per_row=800)
    )
    micro_steps = Loader(tight).step(STEP)
    assert len(micro_steps) > len(direct) == 1
    names = [name for micro_step in micro_steps for name in micro_step.names]
    assert sorted(names) == sorted(direct[0].names)


def test_one_kind_alone_is_a_batch_too(small_config):
    texts = with_data(small_config, images=[], pairs=[], image_weight=0, pair_weight=0)
    batch = Loader(texts).step(0)[0].batch
    assert len(batch.region_at) == len(batch.pair_draw) == len(batch.image_at) == 0
    assert batch.features.shape == (0, small_config.model.image_feature_size)
    images = with_data(small_config, texts=[], pairs=[], text_weight=0, pair_weight=0)
    batch = Loader(images).step(0)[0].batch
    assert (batch.labels == IGNORED_LABEL).all() and batch.region_masked.any()


def test_packing_is_dense_at_the_demos_size(small_config):
    batch = dataclasses.replace(small_config.batch, samples=112, rows=2, tokens_per_row=16384)
    loader = Loader(dataclasses.replace(small_config, batch=batch))
    assert packing(loader, 5) >= 0.97


def packing(loader, steps):
    batches = [micro.batch for step in range(steps) for micro in loader.step(step)]
    return sum(map(num_filled, batches)) / sum(len(batch.segment) for batch in batches)


@pytest.mark.real
@pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set")
def test_packing_is_dense_on_real_captions_and_articles(tmp_path):
    real = Path(os.environ["UNIMO_REAL_DATA"])
    captions = json.loads((real / "flickr8k" / "captions.json").read_text())[:96]
    rows = [{"image": c["image"], "captions": c["captions"]} for c in captions]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ("--tokenizer", real / "tokenizer" / "hf_roberta")
    pixels = ("--grid", 7, "--patch", 16, "--num-classes", 64)
    photos = ("--image-root", real / "flickr8k" / "images")
    prep("pairs", tmp_path / "pairs", tmp_path / "pairs.jsonl", *words, *pixels, *photos)
    prep("rewrite", tmp_path / "pairs", *words)
    article = "\n\n".join(text for c in captions for text in c["captions"])
    (tmp_path / "texts.txt").write_text(article)
    prep("text", tmp_path / "texts", tmp_path / "texts.txt", *words)
    config = load_config(
        Path(__file__).parents[2] / "unimo_ds" / "configs" / "base.toml",
        [
            f'data.tokenizer="{real / "tokenizer" / "hf_roberta"}"',
            f'data.pairs=["{tmp_path / "pairs"}"]',
            f'data.texts=["{tmp_path / "texts"}"]',
            "data.images=[]",
            "data.heldout_pairs=[]",
            "data.image_weight=0",
            "model.image_feature_size=768",
            "model.image_class_size=64",
            "batch.samples=96",
            "batch.rows=4",
            "cmcl.retrieved_images=0",
            "cmcl.retrieved_texts=0",
        ],
    )
    assert packing(Loader(config), 2) >= 0.97


REFUSALS = {
    "model.vocab_size=500": "model.vocab_size 500 is not that of .* 400 words",
    "model.image_feature_size=100": "needs model.image_feature_size 192, it is 100",
    "model.image_class_size=100": "needs model.image_class_size 16, it is 100",
    "data.max_regions=9": "up to 16 regions an image, data.max_regions is 9",
    "data.max_tokens=100": "up to 126 tokens .* data.max_tokens is 100",
}


@pytest.mark.parametrize("override", REFUSALS)
def test_corpora_that_do_not_fit_are_refused(small_toml, override):
    with pytest.raises(ValueError, match=REFUSALS[override]):
        Loader(load_config(small_toml, [override]))


def test_ranks_must_divide_the_rows(small_config):
    refusal = r"batch.rows 4 is not a multiple of the 3 ranks: set it to 6"
    with pytest.raises(ValueError, match=refusal):
        Loader(small_config, 0, 3)


def test_kinds_and_tokenizers_are_not_mixed_up(small_config, corpora, tmp_path):
    with pytest.raises(ValueError, match="holds images, expected pairs"):
        Loader(with_data(small_config, pairs=[str(corpora / "images")]))
    with pytest.raises(ValueError, match="is no corpus"):
        Loader(with_data(small_config, pairs=[str(tmp_path)]))
    prose = corpora / "raw" / "texts" / "prose.jsonl"
    prep("tokenizer", tmp_path / "other.json", prose, "--vocab-size", 400)
    with pytest.raises(ValueError, match=r"was built with tokenizer .* this run uses"):
        Loader(with_data(small_config, tokenizer=str(tmp_path / "other.json")))


def test_regions_are_read_as_they_were_cut(small_config, corpora):
    from PIL import Image

    from unimo_ds.data.shards import open_corpus
    from unimo_ds.pixels import PixelGrid

    pairs = open_corpus(corpora / "pairs")
    grid = PixelGrid(**pairs.images.source.parameters)
    with Image.open(corpora / "raw" / "pairs" / pairs.images.image_id(7)) as picture:
        cut = grid.features(picture)
    regions = pairs.images.regions(7)
    assert np.abs(regions.features.astype(np.float32) - cut).max() < 2e-3
    assert np.array_equal(regions.boxes, grid.boxes())
    back = np.asarray(grid.picture(regions.features), dtype=int)
    assert np.abs(back - np.asarray(grid.picture(cut), dtype=int)).max() <= 1
