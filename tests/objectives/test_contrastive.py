"""CMCL: the formula written out in float64, both forms, both softmaxes, several ranks."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from tests.cluster.gloo import run_ranks
from tests.objectives.rows import empty_row
from unimo_ds.config import ContrastConfig
from unimo_ds.objectives.contrastive import (
    Sides,
    contrastive_term,
    count_anchors,
    matrix_masses,
    scored_pair_masses,
)

SCALE = torch.tensor(5.0, dtype=torch.float64)


def example(seed=0, groups=5, captions=2, width=8):
    """Images 0.. with `captions` texts each; three scored pairs per group, the first positive."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(groups, width, generator=g, dtype=torch.float64)
    texts = torch.randn(groups * captions, width, generator=g, dtype=torch.float64)
    scores = torch.randn(groups * 3, generator=g, dtype=torch.float64)
    group = torch.arange(groups) + 100
    batch = empty_row()._replace(
        image_group=group,
        image_anchor=torch.ones(groups, dtype=torch.bool),
        text_group=group.repeat_interleave(captions),
        text_anchor=torch.ones(groups * captions, dtype=torch.bool),
        image_draw=group,
        text_draw=group.repeat_interleave(captions),
        pair_draw=group.repeat_interleave(3),
        pair_positive=torch.tensor([True, False, False]).repeat(groups),
    )
    return images, texts, scores, batch


def written_out(images, texts, scores, batch, config):
    """The loss as the paper writes it, with loops."""
    s = (SCALE * images @ texts.T).tolist()
    ig, tg = batch.image_group.tolist(), batch.text_group.tolist()
    pg, positive, p = batch.pair_draw.tolist(), batch.pair_positive.tolist(), scores.tolist()
    losses = []

    def add(row, same, group=None):
        good = [x for x, y in zip(row, same, strict=True) if y]
        every = list(row if config.in_batch_negatives else good)
        if group is not None:
            every += [x for x, g in zip(p, pg, strict=True) if g == group]
            good += [x for x, g, y in zip(p, pg, positive, strict=True) if g == group and y]
        losses.append(-math.log(sum(map(math.exp, good)) / sum(map(math.exp, every))))

    shared = config.softmax == "shared"
    for i, group in enumerate(ig):
        add(s[i], [g == group for g in tg], group if shared else None)
    for j, group in enumerate(tg):
        add([row[j] for row in s], [g == group for g in ig], group if shared else None)
    for group in [] if shared else sorted(set(pg)):
        every = [x for x, g in zip(p, pg, strict=True) if g == group]
        good = [x for x, g, y in zip(p, pg, positive, strict=True) if g == group and y]
        losses.append(-math.log(sum(map(math.exp, good)) / sum(map(math.exp, every))))
    return sum(losses), len(losses)


@pytest.mark.parametrize("softmax", ["separate", "shared"])
@pytest.mark.parametrize("in_batch_negatives", [True, False])
def test_the_loss_is_the_formula(softmax, in_batch_negatives):
    images, texts, scores, batch = example()
    config = ContrastConfig(softmax=softmax, in_batch_negatives=in_batch_negatives)
    sides = Sides(images, texts, batch.image_group, batch.text_group)
    term = contrastive_term(scores, sides, SCALE, batch, config)
    loss, anchors = written_out(images, texts, scores, batch, config)
    assert float(term.loss) == pytest.approx(loss, rel=1e-5)
    assert int(term.count) == anchors == int(count_anchors(batch, config))
    assert 0 <= float(term.correct) <= anchors


def test_a_perfect_model_loses_nothing_and_is_always_right():
    _, _, _, batch = example(captions=1)
    images = torch.eye(5, 8, dtype=torch.float64)
    sides = Sides(images, images, batch.image_group, batch.text_group)
    scores = torch.where(batch.pair_positive, 50.0, -50.0).double()
    term = contrastive_term(scores, sides, torch.tensor(100.0), batch, ContrastConfig())
    assert float(term.loss) == pytest.approx(0, abs=1e-5)
    assert term.correct == term.count


def test_empty_rows_lose_nothing_and_pass_no_gradient():
    nothing = torch.zeros(0, 8, requires_grad=True)
    scores = torch.zeros(0, requires_grad=True)
    batch = empty_row()
    sides = Sides(nothing, nothing, batch.image_group, batch.text_group)
    term = contrastive_term(scores, sides, torch.tensor(1.0), batch, ContrastConfig())
    term.loss.backward()
    assert (float(term.loss), float(term.count)) == (0, 0)
    assert nothing.grad is not None and nothing.grad.shape == (0, 8)


def test_anchors_without_a_positive_are_left_out_and_do_not_poison_gradients():
    images, texts, scores, batch = example()
    batch = batch._replace(image_group=batch.image_group + 1000)
    images.requires_grad_()
    sides = Sides(images, texts, batch.image_group, batch.text_group)
    term = contrastive_term(scores, sides, SCALE, batch, ContrastConfig())
    term.loss.backward()
    assert int(term.count) == 5 == int(count_anchors(batch, ContrastConfig()))  # the scored pairs
    assert torch.equal(images.grad, torch.zeros_like(images))


def test_a_group_of_scored_pairs_may_lie_apart():
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0])
    masses = scored_pair_masses(
        scores, torch.tensor([7, 8, 7, 8]), torch.tensor([True, True, False, True])
    )
    anchors = ~torch.isneginf(masses.positive_A)
    assert anchors.tolist() == [True, True, False, False]
    assert float(masses.all_A[0]) == pytest.approx(math.log(math.exp(1) + math.exp(3)))
    assert float(masses.positive_A[1]) == pytest.approx(math.log(math.exp(2) + math.exp(4)))


def _of_rank(rank: int, world_size: int, results: "mp.Queue") -> None:
    """Each rank holds an uneven share of the images and texts; the last rank of four holds none."""
    images, texts, _, batch = example(groups=6)
    share = {2: [(0, 4), (4, 6)], 4: [(0, 3), (3, 4), (4, 6), (6, 6)]}[world_size][rank]
    mine_i, mine_t = slice(*share), slice(2 * share[0], 2 * share[1])
    images = images[mine_i].clone().requires_grad_()
    texts = texts[mine_t].clone().requires_grad_()
    scale = SCALE.clone().requires_grad_()
    sides = Sides(images, texts, batch.image_group[mine_i], batch.text_group[mine_t])
    shares = []
    for exchange in ("gather", "ring"):
        images.grad = texts.grad = scale.grad = None
        masses = matrix_masses(sides, scale, ContrastConfig(exchange=exchange))
        total = sum((m.all_A - m.positive_A).sum() for m in masses)
        total.backward()
        found = (total.detach(), images.grad, texts.grad, scale.grad)
        shares.append([x.numpy() for x in found])
    results.put((rank, shares))


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_ranks_gives_the_loss_and_gradients_of_one(world_size):
    images, texts, _, batch = example(groups=6)
    images.requires_grad_()
    texts.requires_grad_()
    scale = SCALE.clone().requires_grad_()
    sides = Sides(images, texts, batch.image_group, batch.text_group)
    masses = matrix_masses(sides, scale, ContrastConfig())
    total = sum((m.all_A - m.positive_A).sum() for m in masses)
    total.backward()
    per_rank = [shares for _, shares in run_ranks(_of_rank, world_size)]
    for shares in zip(*per_rank, strict=True):  # of one exchange
        losses, of_images, of_texts, of_scale = zip(*shares, strict=True)
        assert sum(losses) == pytest.approx(float(total.detach()), rel=1e-9)
        torch.testing.assert_close(torch.from_numpy(np.concatenate(of_images)), images.grad)
        torch.testing.assert_close(torch.from_numpy(np.concatenate(of_texts)), texts.grad)
        assert sum(of_scale) == pytest.approx(float(scale.grad), rel=1e-9)
