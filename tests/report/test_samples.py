"""What the model is asked."""

import numpy as np

from unimo_ds.data.shards import open_corpus
from unimo_ds.report.pictures import data_uri, picture_of
from unimo_ds.report.samples import choose_gaps, evenly, images_of, read_candidates, words_of
from unimo_ds.tokenizer import CLS_ID, PAD_ID, SEP_ID, load_tokenizer


def test_words_are_framed_and_padded():
    words = words_of([[7, 8, 9], np.array([5], np.uint16)])
    assert words.input_ids.tolist() == [
        [CLS_ID, 7, 8, 9, SEP_ID],
        [CLS_ID, 5, SEP_ID, PAD_ID, PAD_ID],
    ]
    assert words.attention_mask.sum(dim=1).tolist() == [5, 3]


def test_regions_are_padded_with_a_mask(files):
    one, two, *_ = read_candidates(open_corpus(files.pairs))
    short = two._replace(
        regions=two.regions._replace(features=two.regions.features[:3], boxes=two.regions.boxes[:3])
    )
    images = images_of([one, short])
    assert images.region_mask.sum(dim=1).tolist() == [16, 3]
    assert images.features[1, 3:].abs().sum() == 0
    assert np.array_equal(images.features[0].numpy(), one.regions.features.astype(np.float32))


def test_gaps_are_preferred_words_and_repeatable(files):
    candidates, tokenizer = read_candidates(open_corpus(files.pairs)), load_tokenizer(files.model)
    gaps = choose_gaps(candidates, tokenizer, seed=1, prefer=frozenset({"red", "green"}))
    assert gaps == choose_gaps(candidates, tokenizer, seed=1, prefer=frozenset({"red", "green"}))
    assert len(gaps) == 12
    for gap in gaps:
        candidate = candidates[gap.candidate]
        word = tokenizer.token(candidate.tokens[gap.at]).strip()
        if {"red", "green"} & set(candidate.caption.split()):
            assert word in ("red", "green")


def test_pictures_are_rebuilt_or_drawn_from_boxes(files):
    corpus = open_corpus(files.pairs)
    source, regions = corpus.images.source, corpus.images.regions(0)
    assert picture_of(regions, source).size == (32, 32)
    boxes = picture_of(regions, type(source)(**{**vars(source), "name": "precomputed"}))
    assert len(boxes.getcolors()) > 1
    assert data_uri(boxes).startswith("data:image/webp;base64,")


def test_even_distances():
    assert evenly(5, 3) == [0, 2, 4]
    assert evenly(2, 9) == [0, 1]
    assert evenly(0, 4) == []
