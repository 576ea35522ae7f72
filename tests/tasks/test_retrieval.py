"""Retrieval counts what a person would count, pair by pair, with the padded interface."""

import numpy as np
import pytest
import torch

from tests.tasks.conftest import ROWS, joint_score, single_score
from unimo_ds.tasks import packed
from unimo_ds.tasks.packed import Scorer
from unimo_ds.tasks.retrieval import num_scored, reranked, retrieval


def share_within(orders: list[list[int]], right: list[set[int]], depth: int) -> float:
    """Of queries that have a right candidate among the first so many."""
    found = [bool({*order[:depth]} & own) for order, own in zip(orders, right, strict=True)]
    return float(np.mean(found))


@pytest.fixture(scope="module")
def by_hand(model, heldout) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Scores [I, J] of each image with each caption: encoded singly, jointly; and whose each is."""
    texts = [(row, text) for row in ROWS for text in heldout.captions(row)]
    single, joint = (
        np.array([[score(model, heldout, row, text) for _, text in texts] for row in ROWS])
        for score in (single_score, joint_score)
    )
    return single, joint, [row for row, _ in texts]


def order_of(scores: np.ndarray) -> list[list[int]]:
    return np.argsort(-scores, axis=1, kind="stable").tolist()


def check(found: dict, forth: list[list[int]], back: list[list[int]], owner: list[int]) -> None:
    own_texts = [{j for j, row in enumerate(owner) if row == i} for i in ROWS]
    own_image = [{row} for row in owner]
    for depth in (1, 5, 10):
        assert found["image_to_text"][f"r{depth}"] == share_within(forth, own_texts, depth)
        assert found["text_to_image"][f"r{depth}"] == share_within(back, own_image, depth)


def test_recall_over_all_captions_is_that_of_scores_taken_one_by_one(scorer, by_hand):
    single, _, owner = by_hand
    found = retrieval(scorer, ROWS)
    assert (found["images"], found["texts"]) == (6, 30)
    assert "reranked" not in found
    check(found["individually"], order_of(single), order_of(single.T), owner)


@pytest.mark.parametrize("depth", [1, 4, 100])
def test_the_best_are_put_in_the_order_of_their_joint_scores(scorer, by_hand, depth):
    single, joint, owner = by_hand
    found = retrieval(scorer, ROWS, depth)

    def again(single: np.ndarray, joint: np.ndarray) -> list[list[int]]:
        orders = []
        for order, scores in zip(order_of(single), joint, strict=True):
            best = sorted(order[:depth], key=lambda place: -scores[place])
            orders.append(best + order[depth:])
        return orders

    check(found["reranked"], again(single, joint), again(single.T, joint.T), owner)
    check(found["individually"], order_of(single), order_of(single.T), owner)


def test_what_is_not_scored_again_stays_behind_in_its_order():
    scores = torch.tensor([[9.0, 7.0, 8.0, 1.0]])
    chosen = torch.tensor([[True, False, True, False]])
    final = reranked(scores, chosen, torch.tensor([[-5.0, 0.0, 3.0, 0.0]]))
    assert final.argsort(descending=True).tolist() == [[2, 0, 1, 3]]


def test_rows_of_any_length_give_the_same_scores(scorer, heldout, monkeypatch):
    pairs = [(row, text) for row in ROWS for text in heldout.captions(row)]
    whole, images = scorer.pairs(pairs), scorer.images(ROWS)
    monkeypatch.setattr(packed, "POSITIONS", 150)
    told: list[int] = []
    short = Scorer(scorer.model, heldout, told.append)
    torch.testing.assert_close(short.pairs(pairs), whole)
    torch.testing.assert_close(short.images(ROWS), images)
    assert len(told) > 5


def test_progress_counts_what_is_encoded(scorer):
    told: list[int] = []
    retrieval(Scorer(scorer.model, scorer.corpus, told.append), ROWS, 100)
    assert sum(told) == num_scored(6, 30, 100) == 6 + 30 + 6 * 30
