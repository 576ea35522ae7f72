"""Hard negatives of whole sentences: the captions of other images that say nearly the same.

Similar = cosine of TF-IDF vectors (Li et al. 2021, section 2.1). What may well be true of the image
too is left out.
"""

import io
import json
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from data_prep.rewrite.replacement import Rewrite, normalised
from data_prep.rewrite.words import stem, words_of
from data_prep.writer import Folder, write_bytes
from unimo_ds.data.schema import Level

MOST_SEARCHED = 200_000
"""Captions among which similar ones are searched: of more, every n-th is."""
_BLOCK = 512  # queries at a time
_WIDE = 12  # candidates looked at for each negative wanted

_NAME, _TEXTS = "captions.npz", "captions.json"

COMMON = words_of(
    "a an the and or but of to in on at by for with from as is are was were be been being am has "
    "have had do does did it its his her their he she they them him this that these those there "
    "while who which what some one into up down out off over under near next another other"
)
"""Words that say nothing of what a picture shows."""


class Similar(NamedTuple):
    """A caption of another image."""

    text: str
    similarity: float  # cosine of TF-IDF


class Searched(NamedTuple):
    """What is searched: N captions, as a worker loads it."""

    vectors: Any  # scipy.sparse.csr_matrix [N, V], rows of length 1
    pairs: np.ndarray  # int64 [N], the pair each is of
    texts: list[str]


def content(text: str) -> frozenset[str]:
    """The stems of what ``text`` says."""
    return frozenset(stem(word) for word in normalised(text).split() if word not in COMMON)


def save_captions(folder: Folder, captions: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """Vectors of (pair, caption) of a whole corpus, in files that workers read.

    Returns:
        How many captions are searched and how many words they have; nothing if none has any.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    step = -(-len(captions) // MOST_SEARCHED)
    model = TfidfVectorizer(
        preprocessor=normalised, stop_words=sorted(COMMON), sublinear_tf=True, dtype=np.float32
    )
    try:
        model.fit(text for _, text in captions)
    except ValueError:  # no caption has a word that counts
        return {}
    kept = captions[::step]
    vectors = model.transform(text for _, text in kept).tocsr()
    arrays = {
        "data": vectors.data,
        "indices": vectors.indices,
        "indptr": vectors.indptr,
        "pairs": np.array([pair for pair, _ in kept], np.int64),
        "idf": model.idf_.astype(np.float32),
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    words = model.get_feature_names_out().tolist()
    told = json.dumps({"words": words, "texts": [text for _, text in kept]})
    write_bytes(folder / _TEXTS, told.encode())
    write_bytes(folder / _NAME, buffer.getvalue())
    return {"searched": len(kept), "words": len(words)}


@lru_cache(maxsize=1)
def _load(folder: Folder, written: int) -> tuple[Searched, Any]:
    """What `save_captions` left in ``folder`` at the time ``written``, in nanoseconds."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    told = json.loads((folder / _TEXTS).read_text(encoding="utf-8"))
    with (folder / _NAME).open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        parts = tuple(arrays[name] for name in ("data", "indices", "indptr"))
        pairs, idf = arrays["pairs"], arrays["idf"]
    vocabulary, texts = told["words"], told["texts"]
    model = TfidfVectorizer(
        preprocessor=normalised,
        stop_words=sorted(COMMON),
        sublinear_tf=True,
        dtype=np.float32,
        vocabulary=vocabulary,
    )
    model.idf_ = idf
    vectors = csr_matrix(parts, shape=(len(texts), len(vocabulary)))
    return Searched(vectors, pairs, texts), model


def similar_captions(
    folder: Folder, queries: Sequence[tuple[int, str]], count: int
) -> Iterator[list[Similar]]:
    """For each (pair, caption) up to ``12 * count`` captions of other pairs, nearest first.

    Equal similarities are told in the order of the corpus.
    """
    searched, model = _load(folder, (folder / _NAME).stat().st_mtime_ns)
    for first in range(0, len(queries), _BLOCK):
        block = queries[first : first + _BLOCK]
        scores = (model.transform(text for _, text in block) @ searched.vectors.T).tocsr()
        for i, (pair, _) in enumerate(block):
            span = slice(scores.indptr[i], scores.indptr[i + 1])
            found, values = scores.indices[span], scores.data[span]
            others = searched.pairs[found] != pair
            found, values = found[others], values[others]
            order = _best(found, values, _WIDE * count)
            yield [Similar(searched.texts[found[j]], float(values[j])) for j in order]


def _best(rows: np.ndarray, values: np.ndarray, count: int) -> list[int]:
    """Places of the ``count`` highest values, ties by row."""
    places = np.arange(len(values))
    if len(values) > count:
        least = np.partition(values, len(values) - count)[len(values) - count]
        places = places[values >= least]
    order = np.lexsort((rows[places], -values[places]))[:count]
    return places[order].tolist()


def sentence_negatives(
    caption: str,
    found: Sequence[Similar],
    count: int,
    own: Collection[str],
    told: frozenset[str],
    max_similarity: float,
    rejected: dict[str, int],
) -> Iterator[Rewrite]:
    """At most ``count`` of the similar captions that are not true of the image as well.

    Args:
        own: the normalised captions of the image.
        told: the content of all of them.
        max_similarity: more than that is a paraphrase.
        rejected: reason -> count, added to.
    """
    taken = set(own)
    made = 0
    for similar in found:
        if made == count:
            return
        plain = normalised(similar.text)
        if plain in taken:
            continue
        reason = ""
        if similar.similarity > max_similarity:
            reason = "too similar"
        elif content(similar.text) <= told:
            reason = "says nothing that the image's captions do not say"
        if reason:
            rejected[reason] = rejected.get(reason, 0) + 1
            continue
        taken.add(plain)
        made += 1
        similarity = round(similar.similarity, 4)
        yield Rewrite(Level.SENTENCE, False, 0, len(caption), "tf-idf", similarity, similar.text)
