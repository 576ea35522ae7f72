"""Accuracies against rewrites are those of comparisons made one by one."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from tests.tasks.conftest import ROWS, joint_score, single_score
from unimo_ds.data.schema import Level
from unimo_ds.data.shards import PairCorpus
from unimo_ds.tasks.hard_negatives import hard_negatives, num_scored
from unimo_ds.tasks.metrics import accuracy
from unimo_ds.tasks.packed import Scorer


@pytest.fixture(scope="module")
def found(scorer) -> dict:
    return hard_negatives(scorer, ROWS)


@pytest.mark.parametrize(
    ("how", "score"), [("jointly", joint_score), ("individually", single_score)]
)
def test_every_rewrite_is_compared_with_its_own_caption(model, heldout, found, how, score):
    won: dict[str, dict[tuple[int, int], list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in ROWS:
        captions, rewrites = heldout.captions(row), heldout.rewrites(row)
        own = [score(model, heldout, row, caption) for caption in captions]
        for i, kind in enumerate(heldout.rewrite_hows(row)):
            if rewrites.positive[i]:
                continue
            caption, level = int(rewrites.caption[i]), Level(int(rewrites.level[i])).name.lower()
            better = own[caption] > score(model, heldout, row, rewrites.tokens(i))
            for name in (level, f"{level}/{kind}"):
                won[name][row, caption].append(better)
    assert {"word", "phrase", "sentence", "word/object", "word/attribute"} <= {*won}
    assert {*found[how]} == {*won}
    for name, of_caption in won.items():
        every = [better for some in of_caption.values() for better in some]
        pairwise, all_of_them = found[how][name]["pairwise"], found[how][name]["all"]
        assert (pairwise["share"], pairwise["count"]) == (np.mean(every), len(every))
        assert all_of_them["share"] == np.mean([all(some) for some in of_caption.values()])
        assert all_of_them["count"] == len(of_caption)
        assert 0 <= pairwise["low"] <= pairwise["share"] <= pairwise["high"] <= 1


def test_progress_counts_what_is_encoded(scorer):
    told: list[int] = []
    hard_negatives(Scorer(scorer.model, scorer.corpus, told.append), ROWS)
    assert sum(told) == num_scored(scorer.corpus, ROWS)


def test_a_tie_is_lost(model, heldout):
    class Constant(type(model)):  # every score is the same
        def compare(self, hidden_TD, batch):
            compared = super().compare(hidden_TD, batch)
            return compared._replace(pair_scores=compared.pair_scores * 0)

    constant = Constant(model.config).eval()
    joint = hard_negatives(Scorer(constant, heldout), ROWS)["jointly"]
    assert {part["pairwise"]["share"] for part in joint.values()} == {0.0}


def test_a_corpus_without_rewrites_is_told_the_command(model, heldout):
    bare = PairCorpus(heldout.folder, replace(heldout.manifest, stages={}))
    with pytest.raises(ValueError, match=f"run `unimo-prep rewrite {heldout.folder}"):
        hard_negatives(Scorer(model, bare), ROWS)


def test_the_interval_of_clusters_is_wider_than_that_of_as_many_single_things():
    rng = np.random.default_rng(3)
    won = np.repeat(rng.random(40) < 0.7, 25)  # 25 rewrites of a picture go the same way
    apart = accuracy(won, np.arange(1000))
    together = accuracy(won, np.repeat(np.arange(40), 25))
    assert apart.share == together.share == won.mean()
    assert together.high - together.low > 4 * (apart.high - apart.low)
    # Binomial: 1.96 standard errors to both sides.
    error = np.sqrt(won.mean() * (1 - won.mean()) / 1000)
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="0 comparisons"):
        accuracy(np.empty(0, bool), np.empty(0, int))
