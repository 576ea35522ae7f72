"""How many bytes a batch takes, known from its plan."""

from collections import Counter
from collections.abc import Sequence

from unimo_ds.batch import Kind
from unimo_ds.data.collate import RegionSizes, num_vectors_of, padded_length
from unimo_ds.data.segments import Segment


def batch_bytes(
    rows: Sequence[Sequence[Segment]], sizes: RegionSizes, round_to: int
) -> dict[str, int]:
    """Bytes of each field of the batch that `collate` will make of ``rows``; nothing is read."""
    segments = [segment for row in rows for segment in row]
    kinds = Counter(segment.kind for segment in segments)
    by_axis = (
        (
            sum(padded_length(row, round_to) for row in rows),
            {"word_ids": 8, "position_ids": 8, "segment": 4, "order": 4, "labels": 8},
        ),
        (
            sum(map(num_vectors_of, rows)),
            {
                "features": 2 * sizes.feature_size,
                "class_ids": 8 * sizes.kept_classes,
                "class_probs": 4 * sizes.kept_classes,
            },
        ),
        (
            sum(segment.num_regions for segment in segments),
            {"boxes": 20, "region_at": 8, "region_feature": 8, "region_masked": 1},
        ),
        (
            kinds[Kind.SCORED_PAIR],
            {
                "pair_image": 8,
                "pair_text": 8,
                "pair_draw": 8,
                "pair_positive": 1,
                "pair_level": 1,
            },
        ),
        (
            kinds[Kind.ENCODED_IMAGE],
            {"image_at": 8, "image_group": 8, "image_draw": 8, "image_anchor": 1},
        ),
        (
            kinds[Kind.ENCODED_TEXT],
            {"text_at": 8, "text_group": 8, "text_draw": 8, "text_anchor": 1},
        ),
        (len(segments), {"kind": 1}),
    )
    return {name: count * each for count, fields in by_axis for name, each in fields.items()}
