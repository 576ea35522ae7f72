"""Image-text retrieval: which caption belongs to a picture, which picture to a caption.

Legend: I images · J texts · K candidates that are scored again
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unimo_ds.tasks.metrics import recalls
from unimo_ds.tasks.packed import Scorer


def retrieval(scorer: Scorer, rows: Sequence[int], rerank: int = 0) -> dict[str, Any]:
    """R@1/5/10 in both directions, over all captions of the pairs ``rows``.

    Every image and every caption is encoded on its own. With ``rerank``, the best so many
    candidates of each query are then encoded jointly with it and put in the order of that score;
    the others stay behind them as they were.
    """
    captions = [scorer.corpus.captions(row) for row in rows]
    owner_J = torch.tensor([i for i, texts in enumerate(captions) for _ in texts])
    flat = [text for texts in captions for text in texts]
    scores_IJ = scorer.images(rows) @ scorer.texts(flat).T
    positive_IJ = torch.arange(len(rows))[:, None] == owner_J[None, :]
    result: dict[str, Any] = {"images": len(rows), "texts": len(flat)}
    result["individually"] = _both(scores_IJ, scores_IJ.T, positive_IJ)
    if rerank:
        forth_IJ, back_JI = _best(scores_IJ, rerank), _best(scores_IJ.T, rerank)
        joint_IJ = _jointly(scorer, rows, flat, forth_IJ | back_JI.T)
        result["rerank"] = rerank
        result["reranked"] = _both(
            reranked(scores_IJ, forth_IJ, joint_IJ),
            reranked(scores_IJ.T, back_JI, joint_IJ.T),
            positive_IJ,
        )
    return result


def reranked(scores_QC: Tensor, chosen_QC: Tensor, joint_QC: Tensor) -> Tensor:
    """Scores that put the chosen in the order of ``joint_QC``, and all others behind them."""
    behind_QC = scores_QC - scores_QC.max() + joint_QC[chosen_QC].min() - 1
    return torch.where(chosen_QC, joint_QC, behind_QC)


def num_scored(images: int, texts: int, rerank: int) -> int:
    """At most so many segments are encoded."""
    again = images * min(rerank, texts) + texts * min(rerank, images)
    return images + texts + min(again, images * texts)


def _both(scores_IJ: Tensor, scores_JI: Tensor, positive_IJ: Tensor) -> dict[str, Any]:
    return {
        "image_to_text": recalls(scores_IJ, positive_IJ),
        "text_to_image": recalls(scores_JI, positive_IJ.T),
    }


def _best(scores_QC: Tensor, count: int) -> Tensor:
    """bool [Q, C]: the best ``count`` candidates of each query."""
    best_QK = scores_QC.topk(min(count, scores_QC.shape[1]), dim=1).indices
    return torch.zeros_like(scores_QC, dtype=torch.bool).scatter(1, best_QK, True)


def _jointly(
    scorer: Scorer, rows: Sequence[int], texts: Sequence[np.ndarray], asked_IJ: Tensor
) -> Tensor:
    """Joint scores where they are asked for, zeros elsewhere."""
    places = asked_IJ.nonzero().tolist()
    joint_IJ = torch.zeros(asked_IJ.shape)
    joint_IJ[asked_IJ] = scorer.pairs([(rows[i], texts[j]) for i, j in places])
    return joint_IJ
