"""Asking a converted model about held-out pairs.

Legend: B samples of a batch · L words · D hidden width · V words of the vocabulary · N candidates
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unimo_ds.data.shards import PairCorpus
from unimo_ds.model.modeling import (
    UnimoForConditionalGeneration,
    UnimoForImageTextRetrieval,
    UnimoForMaskedLM,
)
from unimo_ds.model.vocabulary import folder_words
from unimo_ds.report.samples import (
    Answers,
    Candidate,
    Filling,
    Gap,
    Guess,
    choose_gaps,
    images_of,
    read_candidates,
    words_of,
)
from unimo_ds.tasks.folder import NUM_CHECKED, check_words
from unimo_ds.tokenizer import WordTokenizer

BATCH = 50
NUM_GUESSES = 5
SPARE_WORDS = 4
"""A written caption may have so many tokens more than the longest true one."""

Track = Callable[[Sequence[list[Candidate]], str], Iterable[list[Candidate]]]
"""Walks over batches and shows the progress under a heading."""


def ask(
    model_folder: Path, pairs: PairCorpus, *, seed: int, prefer: frozenset[str], track: Track
) -> Answers:
    """All answers of the model in ``model_folder`` about the first pairs of the corpus.

    Args:
        model_folder: a Hugging Face folder with a tokenizer.
        pairs: pairs that the model has not seen.
        seed: of the choice of masked words.
        prefer: words that are masked rather than others, where a caption has them.
        track: shows the progress.

    Raises:
        ValueError: no model there, or one whose tokenizer or features are not those of the corpus.
    """
    tokenizer = folder_words(model_folder)
    if not len(pairs):
        raise ValueError(
            f"{pairs.folder} has 0 pairs, expected at least 1: name others with --pairs"
        )
    candidates = read_candidates(pairs)
    for candidate in candidates[:NUM_CHECKED]:
        check_words(tokenizer, candidate.caption, candidate.tokens, pairs.folder)
    gaps = choose_gaps(candidates, tokenizer, seed=seed, prefer=prefer)
    with torch.inference_mode():
        return Answers(
            candidates,
            similarities(model_folder, candidates, track),
            write_captions(model_folder, tokenizer, candidates, track),
            fill(model_folder, tokenizer, candidates, gaps),
        )


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batches(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    return [list(candidates[i : i + BATCH]) for i in range(0, len(candidates), BATCH)]


def similarities(model_folder: Path, candidates: Sequence[Candidate], track: Track) -> np.ndarray:
    """float32 [N images, N texts]: scores of individually encoded pictures and first captions.

    They are what the model trains on, without the temperature: a scale orders nothing.
    """
    device = _device()
    model = UnimoForImageTextRetrieval.from_pretrained(model_folder).eval().to(device)
    images, texts = [], []
    for batch in track(batches(candidates), "comparing"):
        images.append(model.encode_images(*(x.to(device) for x in images_of(batch))))
        words = words_of([candidate.tokens for candidate in batch])
        texts.append(model.encode_texts(*(x.to(device) for x in words)))
    scores_NN = model.score_matrix(torch.cat(images), torch.cat(texts)) / model.temperature()
    return scores_NN.float().cpu().numpy()


def write_captions(
    model_folder: Path, tokenizer: WordTokenizer, candidates: Sequence[Candidate], track: Track
) -> list[str]:
    """The caption that the model writes for each picture, each word the most probable one."""
    device = _device()
    model = UnimoForConditionalGeneration.from_pretrained(model_folder).eval().to(device)
    longest = max(len(candidate.tokens) for candidate in candidates) + SPARE_WORDS
    written = []
    for batch in track(batches(candidates), "captioning"):
        images = images_of(batch)
        found = model.generate(
            features=images.features.to(device),
            boxes=images.boxes.to(device),
            region_mask=images.region_mask.to(device),
            num_beams=1,
            do_sample=False,
            max_new_tokens=longest,
        )
        written += [tokenizer.decode(ids).strip() for ids in found.tolist()]
    return written


def fill(
    model_folder: Path, tokenizer: WordTokenizer, candidates: Sequence[Candidate], gaps: list[Gap]
) -> list[Filling]:
    """The most probable words for each gap, with the picture and without it."""
    if not gaps:
        return []
    device = _device()
    model = UnimoForMaskedLM.from_pretrained(model_folder).eval().to(device)
    asked = [candidates[gap.candidate] for gap in gaps]
    words = words_of([candidate.tokens for candidate in asked])
    at = torch.tensor([gap.at + 1 for gap in gaps])  # [CLS] stands in front
    words.input_ids[torch.arange(len(gaps)), at] = tokenizer.mask_id
    ids, mask = (x.to(device) for x in words)
    features, boxes, region_mask = (x.to(device) for x in images_of(asked))
    with_picture = model(ids, mask, features, boxes, region_mask).logits
    without = model(ids, mask).logits
    return [
        _filling(gap, candidates[gap.candidate], tokenizer, with_picture[i], without[i])
        for i, gap in enumerate(gaps)
    ]


def _filling(
    gap: Gap, candidate: Candidate, tokenizer: WordTokenizer, seen_LV: Tensor, blind_LV: Tensor
) -> Filling:
    def best(logits_V: Tensor) -> list[Guess]:
        found = logits_V.float().softmax(dim=-1).topk(NUM_GUESSES)
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return [Guess(tokenizer.token(index).strip(), share) for index, share in pairs]

    tokens, at = candidate.tokens, gap.at
    return Filling(
        gap.candidate,
        tokenizer.decode(tokens[:at]).strip(),
        tokenizer.token(int(tokens[at])).strip(),
        tokenizer.decode(tokens[at + 1 :]),
        best(seen_LV[at + 1]),
        best(blind_LV[at + 1]),
    )
