"""Vectors of texts by latent semantic analysis of the corpus that is searched.

UNIMO retrieves by the semantic similarity of captions and sentences (Li et al. 2021, section 2.1);
its encoder was never named.
"""

import io
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.writer import Version, version_of, write_bytes

FITTED_ON = 100_000
"""Texts that the analysis is fitted on: of more, every n-th is."""
_MOST_WORDS = 50_000
_MODEL, _WORDS = "text_model.npz", "text_model.json"


class Analysis(NamedTuple):
    """TF-IDF and its leading singular vectors, in the folder where they were saved."""

    folder: Path

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D], of length 1; zeros for a text of which no word is known."""
        model, components = _load(self.folder, version_of(self.folder / _MODEL))
        return unit_length(model.transform(texts) @ components.T)


def unit_length(rows: np.ndarray) -> np.ndarray:
    """float32 [N, D]: ``rows`` divided by their lengths; zeros stay zeros."""
    rows = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-12)


def fit_analysis(folder: Path, texts: Iterable[str], dimensions: int, seed: int) -> Analysis:
    """Fits TF-IDF and its ``dimensions`` leading singular vectors; saves both in ``folder``.

    Raises:
        ValueError: the texts have no word in common.
    """
    from sklearn.decomposition import TruncatedSVD

    model = _vectorizer()
    try:
        counted = model.fit_transform(texts)
    except ValueError as error:
        raise ValueError(
            f"texts to retrieve from have no word that two of them share: {error}"
        ) from error
    dimensions = min(dimensions, *(size - 1 for size in counted.shape))
    if dimensions < 1:
        raise ValueError(f"texts to retrieve from: {counted.shape[0]} texts, 2 at least are needed")
    svd = TruncatedSVD(dimensions, n_iter=4, random_state=seed).fit(counted)
    buffer = io.BytesIO()
    arrays = {"idf": model.idf_, "components": svd.components_}
    np.savez(buffer, **{name: array.astype(np.float32) for name, array in arrays.items()})
    write_bytes(folder / _WORDS, json.dumps(model.get_feature_names_out().tolist()).encode())
    write_bytes(folder / _MODEL, buffer.getvalue())
    return Analysis(folder)


def _vectorizer(vocabulary: Sequence[str] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        sublinear_tf=True,
        stop_words="english",
        dtype=np.float32,
        min_df=1 if vocabulary else 2,
        max_features=None if vocabulary else _MOST_WORDS,
        vocabulary=vocabulary,
    )


@lru_cache(maxsize=1)
def _load(folder: Path, version: Version) -> tuple[Any, np.ndarray]:
    with (folder / _MODEL).open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        idf, components = arrays["idf"], arrays["components"]
    model = _vectorizer(json.loads((folder / _WORDS).read_text(encoding="utf-8")))
    model.idf_ = idf
    return model, components
