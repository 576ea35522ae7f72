"""What a pair is compared with: rewrites by level, neighbours, others; drawn by key."""

import dataclasses
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from tests.conftest import prep
from tests.data.test_loader import assert_same, merge
from unimo_ds.batch import NO_LEVEL, Kind
from unimo_ds.data.contrast import hard_share
from unimo_ds.data.loader import Loader
from unimo_ds.data.mixture import Draw
from unimo_ds.data.schema import Level
from unimo_ds.data.shards import open_corpus

NUMBER = 77
"""Of the draw whose segments are looked at."""

WHOLE = {
    "captions": 2,
    "retrieved_texts": 2,
    "retrieved_images": 1,
    "joint_positives": 1,
    "rewritten_positives": 1,
    "word_negatives": 2,
    "phrase_negatives": 1,
    "sentence_negatives": 1,
    "other_negatives": 1,
}
NUMBER_OF = {  # of the segments of one pair
    "captions": (Kind.ENCODED_TEXT, 2),
    "retrieved_texts": (Kind.ENCODED_TEXT, 2),
    "retrieved_images": (Kind.ENCODED_IMAGE, 1),
    "joint_positives": (Kind.SCORED_PAIR, 1),
    "rewritten_positives": (Kind.SCORED_PAIR, 1),
    "word_negatives": (Kind.SCORED_PAIR, 2),
    "phrase_negatives": (Kind.SCORED_PAIR, 1),
    "sentence_negatives": (Kind.SCORED_PAIR, 1),
    "other_negatives": (Kind.SCORED_PAIR, 1),
}


def with_cmcl(config, **counts):
    return dataclasses.replace(
        config,
        cmcl=dataclasses.replace(config.cmcl, **counts),
        batch=dataclasses.replace(config.batch, tokens_per_row=4096),
    )


@pytest.fixture(scope="module")
def whole(small_config):
    return with_cmcl(small_config, **WHOLE)


def pair_segments(config, index=0, step=0, epoch=0):
    samples = Loader(config).samples
    return samples.sample(Draw(Kind.PAIR, index, epoch, NUMBER), step).segments


def expected_levels(corpus, index) -> list[int]:
    """Of a pair's negatives: a level that it has too few rewrites of is made up by others."""
    rewrites = corpus.rewrites(index)
    found = []
    for level, count in ((2, 1), (1, 1), (0, 2)):
        there = int(((rewrites.level == level) & (rewrites.positive == 0)).sum())
        found += [level] * min(count, there) + [NO_LEVEL] * (count - min(count, there))
    return [*found, NO_LEVEL]


def words(segment) -> tuple[int, ...]:
    return tuple(segment.text.lay_out().word_ids[1:-1].tolist())


def test_a_pair_has_all_its_parts_in_one_sample(whole, corpora):
    corpus = open_corpus(corpora / "pairs")
    for index in range(20):
        segments = pair_segments(whole, index)
        kinds = Counter(segment.kind for segment in segments)
        assert kinds == {
            Kind.PAIR: 1, Kind.ENCODED_IMAGE: 2, Kind.ENCODED_TEXT: 4, Kind.SCORED_PAIR: 8
        }  # fmt: skip
        assert {(segment.group, segment.draw) for segment in segments[1:]} == {(index, NUMBER)}
        anchors = Counter(s.kind for s in segments if not s.anchor)
        assert anchors == {Kind.ENCODED_IMAGE: 1, Kind.ENCODED_TEXT: 2}
        scored = [segment for segment in segments if segment.kind == Kind.SCORED_PAIR]
        assert [s.positive for s in scored] == [True] * 3 + [False] * 5
        levels = [s.level for s in scored if not s.positive]
        assert levels == expected_levels(corpus, index)
        own = segments[1].image
        assert all(s.image == own for s in scored)


def test_rewrites_are_those_of_the_original(whole, corpora):
    corpus = open_corpus(corpora / "pairs")
    texts, images = open_corpus(corpora / "texts"), open_corpus(corpora / "images")
    for index in range(12):
        segments = pair_segments(whole, index)
        scored = [s for s in segments if s.kind == Kind.SCORED_PAIR]
        captions = [tuple(tokens.tolist()) for tokens in corpus.captions(index)]
        original = captions.index(words(scored[0]))
        rewrites = corpus.rewrites(index)
        found = {
            (tuple(rewrites.tokens(i).tolist()), int(rewrites.level[i]), bool(rewrites.positive[i]))
            for i in range(len(rewrites.level))
        }
        of_original = np.flatnonzero((rewrites.caption == original) & (rewrites.positive == 0))
        here = {(tuple(rewrites.tokens(i).tolist()), int(rewrites.level[i])) for i in of_original}
        said = [words(s) for s in scored]
        assert said[1] in captions or (said[1], Level.SENTENCE, True) in found
        negatives = {
            (text, s.level, False)
            for text, s in zip(said, scored, strict=True)
            if s.level != NO_LEVEL
        }
        assert negatives <= found and len(negatives) > 1
        for level in (1, 2):  # one of each is asked for: it is of the original if there is one
            if any(of == level for _, of in here):
                assert {text for text, of, _ in negatives if of == level} <= {t for t, _ in here}
        assert said[-1] not in captions
        related = corpus.related(index)
        told = {tuple(texts.tokens(int(row)).tolist()) for row in related.text_rows}
        assert {words(s) for s in segments if s.text and not s.anchor} <= told
        rows = {s.image.row for s in segments if s.kind == Kind.ENCODED_IMAGE and not s.anchor}
        assert rows <= set(related.image_rows.tolist())
        assert all(s.image.corpus.name == images.name for s in segments if s.image and not s.anchor)


@pytest.mark.parametrize("part", NUMBER_OF)
def test_each_part_is_switched_off_alone(whole, part):
    before = Counter(s.kind for s in pair_segments(whole))
    after = Counter(s.kind for s in pair_segments(with_cmcl(whole, **{part: 0})))
    kind, count = NUMBER_OF[part]
    if part == "captions":  # what was retrieved goes with them, which is refused beforehand
        assert after[Kind.ENCODED_TEXT] == after[Kind.ENCODED_IMAGE] == 0
        return
    assert before[kind] - after[kind] == count
    assert {k: n for k, n in before.items() if k != kind} == {
        k: n for k, n in after.items() if k != kind
    }


def test_nothing_is_scored_when_nothing_is_asked(whole):
    joint = dict.fromkeys((n for n, (kind, _) in NUMBER_OF.items() if kind == Kind.SCORED_PAIR), 0)
    assert not [s for s in pair_segments(with_cmcl(whole, **joint)) if s.kind == Kind.SCORED_PAIR]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_whole_contrast_is_the_same_however_it_is_reached(whole, workers):
    direct = Loader(whole).step(3)
    config = dataclasses.replace(whole, data=dataclasses.replace(whole.data, workers=workers))
    reached = [next(iter(Loader(config, rank, 2).steps([3]))) for rank in range(2)]
    for i, micro_step in enumerate(direct):
        assert_same(merge([of_rank[i].batch for of_rank in reached]), micro_step.batch)


def test_a_draw_lies_in_one_row(whole):
    for micro_step in Loader(whole).step(1):
        batch = micro_step.batch
        per_row = []
        for field in (batch.pair_draw, batch.image_draw, batch.text_draw):
            per_row.append(set(field.tolist()))
        assert per_row[0] == per_row[1] == per_row[2]
        assert len(batch.pair_level) == len(batch.pair_draw)
        assert len(batch.image_anchor) == len(batch.image_group)
        assert len(batch.text_anchor) == len(batch.text_group)
        negatives = batch.pair_level[~batch.pair_positive]
        assert set(negatives.tolist()) == {NO_LEVEL, *map(int, Level)}
        assert (batch.pair_level[batch.pair_positive] == NO_LEVEL).all()


def test_draws_differ_by_epoch_and_are_the_same_twice(whole):
    def scored(epoch):
        return [words(s) for s in pair_segments(whole, 1, 0, epoch) if s.kind == Kind.SCORED_PAIR]

    assert scored(0) == scored(0) != scored(1)


def test_negatives_grow_hard_level_by_level(whole, corpora):
    assert [hard_share(Level.SENTENCE, s, 300) for s in (0, 50, 100, 300)] == [0, 0.5, 1, 1]
    assert [hard_share(Level.PHRASE, s, 300) for s in (100, 150, 200, 900)] == [0, 0.5, 1, 1]
    assert [hard_share(Level.WORD, s, 300) for s in (200, 250, 300)] == [0, 0.5, 1]
    assert hard_share(Level.WORD, 0, 0) == 1
    rising = with_cmcl(whole, hardness_steps=300)

    def levels(step):
        found = Counter()
        for index in range(20):
            scored = pair_segments(rising, index, step)
            found.update(s.level for s in scored if s.kind == Kind.SCORED_PAIR and not s.positive)
        return found

    corpus = open_corpus(corpora / "pairs")
    most = Counter(level for index in range(20) for level in expected_levels(corpus, index))
    assert most[0] > 30 < most[1] + most[2]
    assert levels(0) == {NO_LEVEL: 100}
    assert levels(100) == {NO_LEVEL: 100 - most[2], int(Level.SENTENCE): most[2]}
    assert 0 < levels(150)[int(Level.PHRASE)] < most[1]
    assert levels(300) == most


def test_what_was_not_made_is_told_with_the_command_that_makes_it(whole, corpora, tmp_path):
    plain = tmp_path / "pairs"
    raw, words_file = corpora / "raw" / "pairs" / "train.jsonl", corpora / "tokenizer.json"
    shared = ("--visual-words", corpora / "pairs" / "images" / "visual_words.npy")
    pixels = ("--grid", 4, "--patch", 8, "--num-classes", 16, *shared)
    prep("pairs", plain, raw, "--tokenizer", words_file, "--max-tokens", 126, *pixels)

    def with_data(**changes):
        return dataclasses.replace(whole, data=dataclasses.replace(whole.data, **changes))

    with pytest.raises(ValueError, match=r"sentence_negatives is 1, .*run `unimo-prep rewrite"):
        Loader(with_data(pairs=[str(plain)]))
    prep("rewrite", plain, "--tokenizer", words_file, "--levels", "word,phrase,sentence")
    with pytest.raises(ValueError, match=r"retrieved_texts is 2, .*--texts CORPUS"):
        Loader(with_data(pairs=[str(plain)]))
    shutil.copytree(corpora / "texts", tmp_path / "texts")
    moved = with_data(texts=[str(tmp_path / "texts")])  # the same rows elsewhere are the same
    assert len(Loader(moved).step(0)) == len(Loader(whole).step(0))
    other = tmp_path / "other"
    prose = corpora / "raw" / "texts" / "prose.jsonl"
    prep("text", other, prose, "--tokenizer", words_file, "--max-tokens", 90)
    with pytest.raises(ValueError, match=r"none of data.texts is the corpus .*30 rows"):
        Loader(with_data(texts=[str(other)]))


def test_held_out_pairs_are_asked_about_their_rewrites_where_they_have_some(whole, corpora):
    (micro_step, *_), *_ = Loader(whole, heldout=True).heldout()
    batch = micro_step.batch
    assert {0, 1, 2} <= set(batch.pair_level.tolist())
    assert batch.image_anchor.all() and batch.text_anchor.all()
    assert len(batch.image_at) == len(batch.text_at)
    assert batch.pair_level.dtype == torch.int8
