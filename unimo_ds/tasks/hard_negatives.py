"""Does the model prefer a caption over what `unimo-prep rewrite` made wrong in it?"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from unimo_ds.data.schema import REWRITES, Level
from unimo_ds.data.shards import PairCorpus
from unimo_ds.tasks.metrics import Accuracy, accuracy
from unimo_ds.tasks.packed import Scorer


class Question(NamedTuple):
    """A caption of a pair and a wrong rewrite of it."""

    row: int
    caption: int
    level: Level
    how: str  # object, attribute, relation, a combination of them, tf-idf
    tokens: np.ndarray  # of the rewrite


class _Scored(NamedTuple):
    """For each question."""

    true: np.ndarray
    wrong: np.ndarray

    @property
    def won(self) -> np.ndarray:
        return self.true > self.wrong  # a tie is lost


def questions(corpus: PairCorpus, rows: Sequence[int]) -> list[Question]:
    """All wrong rewrites of the captions of ``rows``.

    Raises:
        ValueError: the corpus has no rewritten captions, or none is wrong.
    """
    if REWRITES not in corpus.manifest.stages:
        raise ValueError(
            f"{corpus.folder} has no rewritten captions: run `unimo-prep rewrite {corpus.folder} "
            "--tokenizer TOKENIZER`"
        )
    found = [question for row in rows for question in _of_pair(corpus, row)]
    if not found:
        raise ValueError(f"0 of the {len(rows)} pairs of {corpus.folder} have a wrong rewrite")
    return found


def _of_pair(corpus: PairCorpus, row: int) -> Iterator[Question]:
    rewrites, hows = corpus.rewrites(row), corpus.rewrite_hows(row)
    for i in np.flatnonzero(rewrites.positive == 0).tolist():
        level = Level(int(rewrites.level[i]))
        yield Question(row, int(rewrites.caption[i]), level, hows[i], rewrites.tokens(i))


def hard_negatives(scorer: Scorer, rows: Sequence[int]) -> dict[str, Any]:
    """Accuracies against the rewrites by level, and by what was replaced, encoded in both ways.

    ``pairwise``: the share of rewrites that score below their caption, a tie being lost.
    ``all``: the share of captions that score above all their rewrites of that level or kind.
    """
    asked = questions(scorer.corpus, rows)
    captions = sorted({(question.row, question.caption) for question in asked})
    place = {key: i for i, key in enumerate(captions)}
    own = np.array([place[question.row, question.caption] for question in asked])
    texts = [scorer.corpus.captions(row)[caption] for row, caption in captions]
    texts += [question.tokens for question in asked]
    of_row = [row for row, _ in captions] + [question.row for question in asked]
    joint = scorer.pairs(list(zip(of_row, texts, strict=True))).numpy()
    images = scorer.images(rows)
    at = {row: i for i, row in enumerate(rows)}
    alone = (images[[at[row] for row in of_row]] * scorer.texts(texts)).sum(dim=1).numpy()
    return {
        "pairs": len(rows),
        "captions": len(captions),
        "rewrites": len(asked),
        "jointly": _accuracies(asked, own, _Scored(joint[own], joint[len(captions) :])),
        "individually": _accuracies(asked, own, _Scored(alone[own], alone[len(captions) :])),
    }


def num_scored(corpus: PairCorpus, rows: Sequence[int]) -> int:
    """So many segments are encoded."""
    asked = questions(corpus, rows)
    captions = len({(question.row, question.caption) for question in asked})
    return 2 * (captions + len(asked)) + len(rows)


def _accuracies(asked: Sequence[Question], own: np.ndarray, scored: _Scored) -> dict[str, Any]:
    """By level, and by level and kind ("word/object")."""
    row = np.array([question.row for question in asked])
    levels = np.array([question.level.name.lower() for question in asked])
    kinds = np.array([f"{q.level.name.lower()}/{q.how}" for q in asked])
    result = {}
    for names in (levels, kinds):
        for name in sorted(set(names.tolist())):
            chosen = names == name
            pairwise = accuracy(scored.won[chosen], row[chosen])
            every = _every(scored.won[chosen], own[chosen], row[chosen])
            result[name] = {"pairwise": pairwise._asdict(), "all": every._asdict()}
    return result


def _every(won: np.ndarray, own: np.ndarray, row: np.ndarray) -> Accuracy:
    """Of captions: did each win against all its rewrites?"""
    _, first, caption = np.unique(own, return_index=True, return_inverse=True)
    lost = np.bincount(caption, weights=~won)
    return accuracy(lost == 0, row[first])
