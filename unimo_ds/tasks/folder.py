"""A converted model and a corpus that go together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unimo_ds.batch import FIRST_POSITION
from unimo_ds.data.shards import PairCorpus, open_collection
from unimo_ds.distributed import uses_gpu
from unimo_ds.model.modeling import UnimoForImageTextRetrieval
from unimo_ds.model.vocabulary import folder_words
from unimo_ds.tokenizer import WordTokenizer

NUM_CHECKED = 20


def open_pairs(data: str, cache: str = "") -> PairCorpus:
    """The pairs corpus at a folder or URL.

    Raises:
        ValueError: no corpus, or none of pairs, or empty.
    """
    return open_collection([data], PairCorpus, cache).corpora[0]


def open_model(folder: Path, corpus: PairCorpus) -> UnimoForImageTextRetrieval:
    """The model in ``folder``, ready to score the pairs of ``corpus``, on the GPU if there is one.

    Raises:
        ValueError: no model there, or one for other words or regions.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"no model in {folder}: make one with `unimo-convert zero RUN {folder}`")
    tokenizer = folder_words(folder)
    for row in range(min(NUM_CHECKED, len(corpus))):
        texts, tokens = corpus.caption_texts(row), corpus.captions(row)
        check_words(tokenizer, texts[0], tokens[0], corpus.folder)
    model = UnimoForImageTextRetrieval.from_pretrained(folder).eval()
    source, config = corpus.images.source, model.config
    if source.feature_size != config.image_feature_size:
        raise ValueError(
            f"{corpus.folder} has regions of {source.feature_size} features, {folder} takes "
            f"{config.image_feature_size}: name pairs with the regions the model was trained on"
        )
    longest = config.max_position_embeddings - FIRST_POSITION - 2
    if corpus.manifest.max_tokens > longest:
        raise ValueError(
            f"{corpus.folder} holds captions of up to {corpus.manifest.max_tokens} tokens, "
            f"{folder} has positions for {longest}: rebuild with --max-tokens {longest}"
        )
    return model.to("cuda" if uses_gpu() else "cpu")


def check_words(
    tokenizer: WordTokenizer, text: str, tokens: np.ndarray | Sequence[int], folder: Path
) -> None:
    """Refuses tokens of a corpus that the model's tokenizer does not make.

    Not by fingerprint: that of a converted folder differs, as it also knows [CLS] and [SEP].

    Raises:
        ValueError: they are others.
    """
    (ids,) = tokenizer.encode([text])
    if list(tokens) != ids[: len(tokens)]:
        raise ValueError(
            f"{folder} holds {text!r} as {list(map(int, tokens))}, {tokenizer.source} makes it "
            f"{ids}: name pairs of the model's own tokenizer"
        )
