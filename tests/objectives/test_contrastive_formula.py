"""CMCL beside its formula written in numpy: value and gradients, on one and two ranks.

The formula is that of Li et al. 2021, section 2.1. The numpy side knows nothing of groups, masks or
log-sum-exps: it walks over pairs. Its gradients are central differences in float64, whose own error
is about 1e-9.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from tests.cluster.gloo import run_ranks
from tests.objectives.rows import empty_row
from unimo_ds.batch import Batch
from unimo_ds.config import ContrastConfig
from unimo_ds.objectives.contrastive import Sides, contrastive_term

WIDTH = 6


class Pair(NamedTuple):
    """Places of a pair's parts among all images, texts and scored pairs."""

    image: int
    captions: list[int]
    retrieved_images: list[int]
    retrieved_texts: list[int]
    positives: list[int]
    negatives: list[int]


class World(NamedTuple):
    images: np.ndarray  # [I, D]
    texts: np.ndarray  # [J, D]
    scores: np.ndarray  # [S], before the temperature
    scale: np.ndarray  # [1]
    pairs: list[Pair]


def make_world() -> World:
    """Five pairs, each with its own number of captions, neighbours and rewrites."""
    rng = np.random.default_rng(11)
    pairs, i, j, s = [], 0, 0, 0
    counts = [(1, 1, 1, 2, 3), (2, 0, 2, 1, 4), (1, 2, 0, 1, 1), (3, 1, 1, 3, 2), (1, 0, 0, 1, 2)]
    for captions, images, texts, positives, negatives in counts:
        pairs.append(
            Pair(
                i,
                list(range(j, j + captions)),
                list(range(i + 1, i + 1 + images)),
                list(range(j + captions, j + captions + texts)),
                list(range(s, s + positives)),
                list(range(s + positives, s + positives + negatives)),
            )
        )
        i, j, s = i + 1 + images, j + captions + texts, s + positives + negatives
    arrays = rng.normal(size=(i, WIDTH)), rng.normal(size=(j, WIDTH)), rng.normal(size=s)
    return World(*arrays, np.array([3.0]), pairs)


def in_numpy(world: World, shared: bool, in_batch: bool) -> float:
    """The sum over all anchors."""
    images, texts, scores, (scale,), pairs = world

    def exp(i: int, j: int) -> float:
        return float(np.exp(scale * (images[i] @ texts[j])))

    def joint(which: list[int]) -> float:
        return float(sum(np.exp(scale * scores[s]) for s in which))

    total = 0.0
    for pair in pairs:
        good = joint(pair.positives) if shared else 0.0
        every = joint(pair.positives + pair.negatives) if shared else 0.0
        own = pair.captions + pair.retrieved_texts
        above = good + sum(exp(pair.image, j) for j in own)
        below = every + sum(exp(pair.image, j) for j in (range(len(texts)) if in_batch else own))
        total -= np.log(above / below)
        for caption in pair.captions:
            mine = [pair.image, *pair.retrieved_images]
            above = good + sum(exp(i, caption) for i in mine)
            among = range(len(images)) if in_batch else mine
            total -= np.log(above / (every + sum(exp(i, caption) for i in among)))
        if not shared:
            total -= np.log(joint(pair.positives) / joint(pair.positives + pair.negatives))
    return float(total)


def gradients_in_numpy(world: World, shared: bool, in_batch: bool) -> list[np.ndarray]:
    """d total / d images, texts, scores and scale."""
    step, found = 1e-6, []
    for name in World._fields[:4]:
        array = getattr(world, name)
        gradient = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            either = []
            for sign in (1, -1):
                moved = array.copy()
                moved[at] += sign * step
                either.append(in_numpy(world._replace(**{name: moved}), shared, in_batch))
            gradient[at] = (either[0] - either[1]) / (2 * step)
        found.append(gradient)
    return found


def as_batch(world: World, pairs: list[int]) -> tuple[Batch, list[int], list[int], list[int]]:
    """The groups of some pairs, and which images, texts and scored pairs they hold."""
    images, texts, scored = [], [], []
    for group in pairs:
        pair = world.pairs[group]
        images += [(pair.image, group, True)]
        images += [(i, group, False) for i in pair.retrieved_images]
        texts += [(j, group, True) for j in pair.captions]
        texts += [(j, group, False) for j in pair.retrieved_texts]
        scored += [(s, group, True) for s in pair.positives]
        scored += [(s, group, False) for s in pair.negatives]

    def columns(rows: list[tuple[int, int, bool]]) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        at, group, flag = zip(*rows, strict=True)
        return list(at), torch.tensor(group), torch.tensor(flag)

    image_at, image_group, image_anchor = columns(images)
    text_at, text_group, text_anchor = columns(texts)
    score_at, pair_draw, pair_positive = columns(scored)
    batch = empty_row()._replace(
        image_group=image_group,
        image_draw=image_group,
        image_anchor=image_anchor,
        text_group=text_group,
        text_draw=text_group,
        text_anchor=text_anchor,
        pair_draw=pair_draw,
        pair_positive=pair_positive,
    )
    return batch, image_at, text_at, score_at


def in_torch(world: World, pairs: list[int], config: ContrastConfig) -> list[np.ndarray]:
    """Loss, anchors, gradients at the images, texts and scores of ``pairs`` and at the scale."""
    batch, image_at, text_at, score_at = as_batch(world, pairs)
    images = torch.tensor(world.images[image_at], requires_grad=True)
    texts = torch.tensor(world.texts[text_at], requires_grad=True)
    scores = torch.tensor(world.scores[score_at], requires_grad=True)
    scale = torch.tensor(world.scale[0], requires_grad=True)
    sides = Sides(images, texts, batch.image_group, batch.text_group)
    term = contrastive_term(scale * scores, sides, scale, batch, config)
    term.loss.backward()
    full = [np.zeros_like(array) for array in world[:3]]
    for array, at, tensor in zip(
        full, (image_at, text_at, score_at), (images, texts, scores), strict=True
    ):
        array[at] = tensor.grad.numpy()
    loss, anchors = term.loss.detach().numpy(), term.count.numpy()
    return [loss, anchors, *full, scale.grad.numpy().reshape(1)]


CASES = [(softmax, in_batch) for softmax in ("separate", "shared") for in_batch in (True, False)]


def compare(world: World, found: list[np.ndarray], softmax: str, in_batch: bool) -> None:
    shared = softmax == "shared"
    loss, anchors, *gradients = found
    assert float(loss) == pytest.approx(in_numpy(world, shared, in_batch), rel=1e-6)
    captions = sum(len(pair.captions) for pair in world.pairs)
    assert int(anchors) == captions + len(world.pairs) * (1 if shared else 2)
    expected = gradients_in_numpy(world, shared, in_batch)
    for name, one, other in zip(World._fields, gradients, expected, strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=name)
        if in_batch or shared:  # else a positive is compared with positives alone
            assert np.abs(other).max() > 1e-3, name


@pytest.mark.parametrize(("softmax", "in_batch"), CASES)
def test_one_rank_gives_the_formulas_value_and_gradients(softmax, in_batch):
    world = make_world()
    config = ContrastConfig(softmax=softmax, in_batch_negatives=in_batch)
    found = in_torch(world, list(range(len(world.pairs))), config)
    compare(world, found, softmax, in_batch)


def _of_rank(rank: int, world_size: int, results: "mp.Queue") -> None:
    world = make_world()
    mine = [p for p in range(len(world.pairs)) if p % world_size == rank]
    answers = [
        in_torch(world, mine, ContrastConfig(softmax=s, in_batch_negatives=b, exchange=e))
        for s, b in CASES
        for e in ("gather", "ring")
    ]
    results.put((rank, answers))


def test_two_ranks_give_the_formulas_value_and_gradients():
    world = make_world()
    per_rank = [answers for _, answers in run_ranks(_of_rank, 2)]
    cases = [case for case in CASES for _ in ("gather", "ring")]
    for case, answers in zip(cases, zip(*per_rank, strict=True), strict=True):
        # Every rank fills the places of its own pairs and leaves zeros elsewhere.
        found = [sum(parts) for parts in zip(*answers, strict=True)]
        compare(world, found, *case)
