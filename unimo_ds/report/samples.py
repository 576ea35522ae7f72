"""What a model is asked about held-out pairs, and what it answered.

Legend: B samples of a batch · L words · R regions · F features · N candidates
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unimo_ds.data.shards import PairCorpus, Regions
from unimo_ds.report.scoring import picture_name
from unimo_ds.tokenizer import CLS_ID, PAD_ID, SEP_ID, WordTokenizer

MOST_CANDIDATES = 200
NUM_FILLINGS = 12


class Candidate(NamedTuple):
    """A held-out picture with its captions."""

    names: tuple[str, ...]  # what other files may call it
    caption: str  # the first one, which stands for the picture
    tokens: np.ndarray  # uint16 [L], of that caption, without [CLS] and [SEP]
    captions: list[str]
    regions: Regions


class Guess(NamedTuple):
    """A word and how probable the model holds it."""

    word: str
    probability: float


class Filling(NamedTuple):
    """A caption with one word masked, and the most probable words for its place."""

    candidate: int
    before: str
    word: str
    after: str
    with_picture: list[Guess]
    without_picture: list[Guess]


class Answers(NamedTuple):
    """All that the model was asked."""

    candidates: list[Candidate]
    similarity: np.ndarray  # float32 [N images, N texts]
    written: list[str]  # [N], a caption for each picture
    fillings: list[Filling]


class Gap(NamedTuple):
    """A word of a candidate's caption that is masked: one token, ``tokens[at]``."""

    candidate: int
    at: int


class Images(NamedTuple):
    """Padded regions of some pictures."""

    features: Tensor  # float32 [B, R, F]
    boxes: Tensor  # float32 [B, R, 5]
    region_mask: Tensor  # bool [B, R]


class Words(NamedTuple):
    """Padded words of some captions."""

    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]


def read_candidates(pairs: PairCorpus) -> list[Candidate]:
    """The first MOST_CANDIDATES pairs."""
    found = []
    for row in range(min(MOST_CANDIDATES, len(pairs))):
        image, texts = pairs.image_row(row), pairs.caption_texts(row)
        names = (picture_name(pairs.images.image_id(image)), picture_name(pairs.pair_id(row)))
        regions = pairs.images.regions(image)
        found.append(Candidate(names, texts[0], pairs.captions(row)[0], texts, regions))
    return found


def images_of(candidates: Sequence[Candidate]) -> Images:
    """The regions of ``candidates``, padded with zeros."""
    most = max(len(candidate.regions.features) for candidate in candidates)
    width = candidates[0].regions.features.shape[1]
    features = np.zeros((len(candidates), most, width), np.float32)
    boxes = np.zeros((len(candidates), most, 5), np.float32)
    mask = np.zeros((len(candidates), most), bool)
    for i, (_, _, _, _, regions) in enumerate(candidates):
        count = len(regions.features)
        features[i, :count], boxes[i, :count], mask[i, :count] = (
            regions.features,
            regions.boxes,
            True,
        )
    return Images(*(torch.from_numpy(array) for array in (features, boxes, mask)))


def words_of(tokens: Sequence[Sequence[int] | np.ndarray]) -> Words:
    """[CLS] tokens [SEP] of each text, padded."""
    length = 2 + max(len(text) for text in tokens)
    ids = torch.full((len(tokens), length), PAD_ID)
    for i, text in enumerate(tokens):
        ids[i, : len(text) + 2] = torch.tensor([CLS_ID, *map(int, text), SEP_ID])
    return Words(ids, (ids != PAD_ID).long())


def choose_gaps(
    candidates: Sequence[Candidate], tokenizer: WordTokenizer, *, seed: int, prefer: frozenset[str]
) -> list[Gap]:
    """One word of some captions at even distances: one of ``prefer`` if there is any, else any.

    Only words of one token, so that a guess is one softmax.
    """
    starts = tokenizer.word_starts()
    gaps = []
    for i, candidate in enumerate(candidates):
        tokens = candidate.tokens
        ends = np.append(starts[tokens[1:]], True)
        words = [tokenizer.token(int(token)).strip() for token in tokens]
        whole = starts[tokens] & ends & np.array([word.isalnum() for word in words], bool)
        preferred = whole & np.array([word.lower() in prefer for word in words], bool)
        choices = np.flatnonzero(preferred if preferred.any() else whole)
        if len(choices):
            at = np.random.default_rng([seed, i]).choice(choices)
            gaps.append(Gap(i, int(at)))
    return [gaps[int(i)] for i in evenly(len(gaps), NUM_FILLINGS)]


def evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, at even distances."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(most, count))}) if count else []
