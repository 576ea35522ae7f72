"""Rows for tests of single objectives."""

import torch

from unimo_ds.batch import Batch


def empty_row(features: int = 4, kept: int = 1) -> Batch:
    """A row that holds nothing."""
    ids, flags = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    return Batch(
        word_ids=ids,
        position_ids=ids,
        segment=ids.int(),
        order=ids.int(),
        labels=ids,
        features=torch.zeros(0, features),
        class_ids=torch.zeros(0, kept, dtype=torch.int64),
        class_probs=torch.zeros(0, kept),
        boxes=torch.zeros(0, 5),
        region_at=ids,
        region_feature=ids,
        region_masked=flags,
        pair_image=ids,
        pair_text=ids,
        pair_draw=ids,
        pair_positive=flags,
        pair_level=torch.zeros(0, dtype=torch.int8),
        image_at=ids,
        image_group=ids,
        image_draw=ids,
        image_anchor=flags,
        text_at=ids,
        text_group=ids,
        text_draw=ids,
        text_anchor=flags,
        kind=torch.zeros(0, dtype=torch.int8),
    )
