"""A random model of the small corpora, and what its padded interface says, pair by pair."""

from pathlib import Path

import numpy as np
import pytest
import torch

from unimo_ds.config import RunConfig
from unimo_ds.convert.zero import save_processor
from unimo_ds.data.shards import PairCorpus, open_corpus
from unimo_ds.model.configuration import configuration_of
from unimo_ds.model.modeling import UnimoForImageTextRetrieval
from unimo_ds.tasks.packed import Scorer
from unimo_ds.tokenizer import CLS_ID, SEP_ID, load_tokenizer
from unimo_ds.train.identity import region_source

ROWS = range(6)


@pytest.fixture(scope="session", params=["cosine", "match"])
def model(request: pytest.FixtureRequest, small_config: RunConfig) -> UnimoForImageTextRetrieval:
    torch.manual_seed(5)
    config = configuration_of(small_config.model)
    config.initializer_range = 0.3  # large enough for scores to differ
    config.score = request.param
    return UnimoForImageTextRetrieval(config).eval()


@pytest.fixture(scope="session")
def heldout(corpora: Path) -> PairCorpus:
    corpus = open_corpus(corpora / "heldout")
    assert isinstance(corpus, PairCorpus)
    return corpus


@pytest.fixture(scope="session")
def scorer(model: UnimoForImageTextRetrieval, heldout: PairCorpus) -> Scorer:
    return Scorer(model, heldout)


@pytest.fixture(scope="session")
def folder(small_config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted model."""
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("tasks") / "model"
    config = configuration_of(small_config.model)
    config.initializer_range = 0.3
    UnimoForImageTextRetrieval(config).save_pretrained(folder)
    data = small_config.data
    words = load_tokenizer(data.tokenizer)
    save_processor(words, region_source(small_config), data.max_tokens, folder)
    return folder


def ids_of(tokens: np.ndarray) -> torch.Tensor:
    return torch.tensor([[CLS_ID, *map(int, tokens), SEP_ID]])


def image_of(corpus: PairCorpus, row: int) -> dict[str, torch.Tensor]:
    regions = corpus.images.regions(corpus.image_row(row))
    return {
        "features": torch.tensor(regions.features, dtype=torch.float32)[None],
        "boxes": torch.tensor(regions.boxes)[None],
    }


@torch.no_grad()
def joint_score(
    model: UnimoForImageTextRetrieval, corpus: PairCorpus, row: int, tokens: np.ndarray
) -> float:
    return float(model(ids_of(tokens), **image_of(corpus, row)))


@torch.no_grad()
def single_score(
    model: UnimoForImageTextRetrieval, corpus: PairCorpus, row: int, tokens: np.ndarray
) -> float:
    image = model.encode_images(**image_of(corpus, row))
    return float(model.score_matrix(image, model.encode_texts(ids_of(tokens))))
