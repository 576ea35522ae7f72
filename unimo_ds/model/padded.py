"""The padded interface of the model: separate, padded words and regions to one packed row and back.

Legend: B samples · L words · R regions · Y target words · C columns = (1 + R) + L + Y · T filled
positions · F feature width · D hidden width
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unimo_ds.batch import FIRST_POSITION, IGNORED_LABEL, Batch
from unimo_ds.model.configuration import UnimoConfig


class PaddedInputs(NamedTuple):
    """One batch of padded samples, as a user hands it in; checked, and complete."""

    word_ids: Tensor  # int64 [B, L]
    word_mask: Tensor  # bool [B, L]
    features: Tensor  # float [B, R, F]
    boxes: Tensor  # float [B, R, 5]
    region_mask: Tensor  # bool [B, R]
    target_ids: Tensor  # int64 [B, Y]


class Columns(NamedTuple):
    """Where the blocks of the padded result stand."""

    filled: Tensor  # bool [B, C], which columns hold a position
    image: int  # 1 + R, or 0 without images
    text: int  # L
    target: int  # Y


def check_padded(
    config: UnimoConfig,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    features: Tensor | None,
    boxes: Tensor | None,
    region_mask: Tensor | None,
    target_ids: Tensor | None = None,
) -> PaddedInputs:
    """What is missing filled in with length zero, what is given checked.

    Raises:
        ValueError: nothing given, or shapes that do not fit each other or the model.
    """
    given = next((x for x in (input_ids, features, target_ids) if x is not None), None)
    if input_ids is None and features is None:
        raise ValueError("nothing to encode: give input_ids, or features and boxes, or all three")
    batch, device = len(given), given.device
    if input_ids is None:
        input_ids = torch.empty(batch, 0, dtype=torch.long, device=device)
    if attention_mask is None:
        attention_mask = input_ids != config.pad_token_id
    if features is None:
        if boxes is not None or region_mask is not None:
            raise ValueError("boxes or region_mask without features: give features too, or neither")
        features = torch.empty(batch, 0, config.image_feature_size, device=device)
        boxes = features.new_empty(batch, 0, 5)
    if boxes is None:
        raise ValueError("features without boxes: give boxes [B, R, 5] too")
    if region_mask is None:
        region_mask = torch.ones(features.shape[:2], dtype=torch.bool, device=device)
    if target_ids is None:
        target_ids = torch.empty(batch, 0, dtype=torch.long, device=device)
    inputs = PaddedInputs(
        input_ids, attention_mask.bool(), features, boxes, region_mask.bool(), target_ids
    )
    _check_shapes(inputs, config)
    return inputs


def _check_shapes(inputs: PaddedInputs, config: UnimoConfig) -> None:
    batch, length = inputs.word_ids.shape
    regions = inputs.features.shape[1]
    expected = {
        "attention_mask": (inputs.word_mask, (batch, length)),
        "features": (inputs.features, (batch, regions, config.image_feature_size)),
        "boxes": (inputs.boxes, (batch, regions, 5)),
        "region_mask": (inputs.region_mask, (batch, regions)),
        "decoder_input_ids": (inputs.target_ids, (batch, inputs.target_ids.shape[1])),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} is {list(tensor.shape)}, expected {list(shape)} (input_ids "
                f"{[batch, length]}, image_feature_size {config.image_feature_size})"
            )
    words = config.max_position_embeddings - FIRST_POSITION
    for name, found in (("input_ids", length), ("decoder_input_ids", inputs.target_ids.shape[1])):
        if found > words:
            raise ValueError(
                f"{name} has {found} columns, the model has positions for {words}: cut the text"
            )


def pack(inputs: PaddedInputs, config: UnimoConfig) -> tuple[Batch, Columns]:
    """One segment per sample: [IMG] regions, words, then target words that see what comes before.

    A sample without a region has no [IMG] either.
    """
    has_image = inputs.region_mask.any(dim=1, keepdim=True)
    image_mask = torch.cat([has_image, inputs.region_mask], dim=1)
    if inputs.features.shape[1] == 0:
        image_mask = image_mask[:, :0]
    target = torch.ones_like(inputs.target_ids, dtype=torch.bool)
    filled = torch.cat([image_mask, inputs.word_mask, target], dim=1)
    columns = Columns(filled, image_mask.shape[1], inputs.word_mask.shape[1], target.shape[1])
    pad = torch.full_like(image_mask, config.pad_token_id, dtype=torch.long)
    word_ids = torch.cat([pad, inputs.word_ids, inputs.target_ids], dim=1)
    # Positions count the words that are there: left padding moves nothing.
    rank = inputs.word_mask.long().cumsum(dim=1)
    order = target.long().cumsum(dim=1)
    first = FIRST_POSITION - 1
    position_ids = torch.cat([torch.ones_like(pad), rank + first, order + first], dim=1)
    order = torch.cat([torch.zeros_like(pad), torch.zeros_like(rank), order], dim=1)
    segment = torch.arange(len(filled), device=filled.device)[:, None].expand(filled.shape)
    region = torch.zeros_like(filled)
    region[:, : columns.image] = True
    features, boxes = _with_image_rows(inputs, image_mask)
    return (
        _row_batch(
            word_ids=word_ids[filled],
            position_ids=position_ids[filled],
            segment=segment[filled].int(),
            order=order[filled].int(),
            features=features,
            boxes=boxes,
            region_at=torch.nonzero(region[filled]).flatten(),
        ),
        columns,
    )


def _with_image_rows(inputs: PaddedInputs, image_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Features and boxes of the regions that exist, each image's [IMG] (mean, whole) first."""
    weight_BR1 = inputs.region_mask[..., None].to(inputs.features.dtype)
    kept = inputs.features.masked_fill(~inputs.region_mask[..., None], 0)
    mean_B1F = kept.sum(dim=1, keepdim=True) / weight_BR1.sum(dim=1, keepdim=True).clamp(min=1)
    whole = inputs.boxes.new_tensor([0, 0, 1, 1, 1]).expand(len(kept), 1, 5)
    width = image_mask.shape[1]
    features = torch.cat([mean_B1F, kept], dim=1)[:, :width]
    boxes = torch.cat([whole, inputs.boxes], dim=1)[:, :width]
    return features[image_mask], boxes[image_mask]


def _row_batch(
    *,
    word_ids: Tensor,
    position_ids: Tensor,
    segment: Tensor,
    order: Tensor,
    features: Tensor,
    boxes: Tensor,
    region_at: Tensor,
) -> Batch:
    """A batch of which nothing is asked."""
    none = word_ids.new_empty(0)
    rows = len(region_at)
    return Batch(
        word_ids=word_ids,
        position_ids=position_ids,
        segment=segment,
        order=order,
        labels=torch.full_like(word_ids, IGNORED_LABEL),
        features=features,
        class_ids=word_ids.new_empty(rows, 0),
        class_probs=boxes.new_empty(rows, 0),
        boxes=boxes,
        region_at=region_at,
        region_feature=torch.arange(rows, device=word_ids.device),
        region_masked=torch.zeros(rows, dtype=torch.bool, device=word_ids.device),
        pair_image=none,
        pair_text=none,
        pair_draw=none,
        pair_positive=none.bool(),
        pair_level=none.to(torch.int8),
        image_at=none,
        image_group=none,
        image_draw=none,
        image_anchor=none.bool(),
        text_at=none,
        text_group=none,
        text_draw=none,
        text_anchor=none.bool(),
        kind=none.to(torch.int8),
    )


def pad_back(hidden_TD: Tensor, columns: Columns) -> Tensor:
    """[B, C, ...] with the packed rows [T, ...] at the filled columns and zeros elsewhere."""
    at = torch.nonzero(columns.filled.flatten()).flatten()
    padded = hidden_TD.new_zeros(columns.filled.numel(), *hidden_TD.shape[1:])
    return padded.index_copy(0, at, hidden_TD).unflatten(0, columns.filled.shape)
