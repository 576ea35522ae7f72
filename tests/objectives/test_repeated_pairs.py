"""A pair that is drawn twice in a step counts twice, on one rank as on several."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from tests.cluster.gloo import run_ranks
from unimo_ds.config import ContrastConfig, RunConfig
from unimo_ds.data.loader import Loader
from unimo_ds.objectives.pretraining import count_terms, total_loss
from unimo_ds.train.model import build_model

SAMPLES = 24  # of 16 pairs: eight come twice
STEP = 1
SOFTMAXES = ("separate", "shared")


@pytest.fixture(scope="module")
def repeating(small_config, corpora) -> RunConfig:
    pairs = {"pairs": [str(corpora / "heldout")], "texts": [], "images": []}
    weights = {"text_weight": 0, "image_weight": 0}
    return dataclasses.replace(
        small_config,
        data=dataclasses.replace(small_config.data, **pairs, **weights),
        batch=dataclasses.replace(small_config.batch, samples=SAMPLES, rows=4),
        cmcl=ContrastConfig(captions=2, word_negatives=1),
    )


def test_the_number_of_ranks_changes_no_count(repeating):
    def counts(world_size: int) -> torch.Tensor:
        ranks = [Loader(repeating, rank, world_size).step(STEP) for rank in range(world_size)]
        return sum(count_terms(m.batch, repeating.cmcl) for step in ranks for m in step)

    for world_size in (1, 2, 4):
        assert torch.equal(counts(world_size), counts(1))
    anchors = 1 + repeating.cmcl.captions + 1  # the image, its captions, the scored pairs
    assert counts(1)[-1] == SAMPLES * anchors
    batch = Loader(repeating).step(STEP)[0].batch
    assert len(batch.pair_draw.unique()) == SAMPLES > len(batch.image_group.unique()) == 16


def _sums(config: RunConfig, rank: int, world_size: int, counts: list[float]) -> list[np.ndarray]:
    """The losses of this rank's share and their gradients, under each softmax."""
    found = []
    for softmax in SOFTMAXES:
        cmcl = dataclasses.replace(config.cmcl, softmax=softmax)
        model = build_model(dataclasses.replace(config, cmcl=cmcl))
        (micro,) = Loader(config, rank, world_size).step(STEP)
        losses = model(micro.batch.to("cpu"))
        total_loss(losses, counts, config.loss).backward()
        found += [losses.cmcl.loss.detach().numpy(), losses.cmcl.count.numpy()]
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]).numpy())
    return found


def _of_rank(
    config: RunConfig, counts: list[float], rank: int, world_size: int, results: "mp.Queue"
) -> None:
    torch.set_num_threads(1)
    results.put((rank, _sums(config, rank, world_size, counts)))


def test_the_number_of_ranks_changes_neither_losses_nor_gradients(repeating):
    (micro,) = Loader(repeating).step(STEP)
    counts = count_terms(micro.batch, repeating.cmcl).tolist()
    alone = _sums(repeating, 0, 1, counts)
    shares = [sums for _, sums in run_ranks(partial(_of_rank, repeating, counts), 2)]
    for one, *parts in zip(alone, *shares, strict=True):
        np.testing.assert_allclose(sum(parts), one, rtol=1e-4, atol=1e-5 * np.abs(one).max())
