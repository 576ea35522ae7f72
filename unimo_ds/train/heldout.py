"""What the model makes of pairs it never trained on: losses, and image-text retrieval."""

import torch
from torch import Tensor

from unimo_ds.config import RunConfig
from unimo_ds.data.loader import Loader
from unimo_ds.distributed import gather_rows
from unimo_ds.train.engine import Engine
from unimo_ds.train.metrics import Metrics, Tally, term_sums

DEPTHS = (1, 5, 10)


@torch.no_grad()
def evaluate(engine: Engine, loader: Loader, config: RunConfig) -> Metrics:
    """Losses by objective over the held-out pairs, and R@1/5/10 among them in both directions.

    Images and texts are encoded individually; each image has one of its captions among the
    candidates. The choice of captions and masks is the same at every evaluation.
    """
    engine.train(False)
    tally = Tally()
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for micro_steps in loader.heldout():
        for micro_step in micro_steps:
            batch = micro_step.batch
            losses = engine.forward(batch)
            tally.add(term_sums(losses))
            tally.add_figures(losses.figures)
            embeddings = losses.image_embeddings, losses.text_embeddings
            groups = batch.image_group.to(engine.device), batch.text_group.to(engine.device)
            parts.append((*embeddings, *groups))
    engine.train(True)
    metrics, _ = tally.totals(engine.device)
    images, texts, image_groups, text_groups = (
        gather_rows(torch.cat(column)) for column in zip(*parts, strict=True)
    )
    metrics["candidates"] = float(len(images))
    if len(images) and len(texts):
        scores = images @ texts.T
        metrics |= _recalls("image_to_text", scores, image_groups, text_groups)
        metrics |= _recalls("text_to_image", scores.T, text_groups, image_groups)
    return metrics


def _recalls(name: str, scores_QC: Tensor, query_group_Q: Tensor, group_C: Tensor) -> Metrics:
    ranks_Q = rank_of_best(scores_QC, query_group_Q[:, None] == group_C[None, :])
    return {f"{name}_r{depth}": float((ranks_Q <= depth).float().mean()) for depth in DEPTHS}


def rank_of_best(scores_QC: Tensor, positive_QC: Tensor) -> Tensor:
    """int64 [Q]: the rank, from 1, of each query's best positive; ties count against it."""
    best_Q1 = scores_QC.masked_fill(~positive_QC, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores_QC >= best_Q1) & ~positive_QC).sum(dim=1)
