"""`unimo-prep retrieve`: the neighbours of brute force, within their bounds, however it is run."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_prep.demo.language import parse_caption
from data_prep.engine import Options
from data_prep.retrieve.build import retrieve
from data_prep.retrieve.image_vectors import (
    CLASSES,
    FEATURES,
    class_masses,
    fit_projection,
    mean_features,
    overlap,
    raw_vectors,
)
from data_prep.retrieve.index import FLAT, IVF, build_index, resolved, search
from data_prep.retrieve.lookup import Retrieval
from data_prep.retrieve.text_vectors import fit_analysis, unit_length
from data_prep.writer import read_shard
from tests.conftest import command_environment
from tests.data_prep.stages.test_rewrite import columns, kill_when
from unimo_ds.data.schema import RELATED_SCHEMA, read_manifest
from unimo_ds.data.shards import open_corpus
from unimo_ds.tokenizer import load_tokenizer


@pytest.fixture
def arguments(small):
    unpaired = ("--texts", small.texts, "--images", small.images)
    return ("--tokenizer", small.tokenizer, *unpaired, "--top-k", 4)


def related(folder: Path) -> list[dict]:
    shards = read_manifest(folder).shards
    table = pa.concat_tables([read_shard(folder / shard.related) for shard in shards])
    assert table.schema.equals(RELATED_SCHEMA)
    return table.to_pylist()


def test_neighbours_lie_within_their_bounds_and_are_read_by_training(small, prep, arguments):
    bounds = ("--min-text-score", 0.2, "--min-image-score", 0.6, "--min-overlap", 0.3)
    ran = prep("retrieve", small.pairs, *arguments, *bounds)
    assert ran.code == 0, ran.err
    assert prep("verify", small.pairs).code == 0
    pairs, texts, images = (open_corpus(f) for f in (small.pairs, small.texts, small.images))
    counts = read_manifest(small.pairs).stages["related"]["counts"]
    found = related(small.pairs)
    for row, near in enumerate(found):
        assert near["id"] == pairs.row_id(row)
        read = pairs.related(row)
        assert read.text_rows.tolist() == near["text_rows"]
        assert read.image_rows.tolist() == near["image_rows"]
        assert [texts.row_id(r) for r in near["text_rows"]] == near["text_ids"]
        assert [images.row_id(r) for r in near["image_rows"]] == near["image_ids"]
        for kind, least in (("text", 0.2), ("image", 0.6)):
            scores = near[f"{kind}_scores"]
            assert scores == sorted(scores, reverse=True) and len(scores) <= 4
            assert all(least <= score <= 1.0001 for score in scores)
    assert counts["texts"] == sum(len(near["text_rows"]) for near in found) > 100
    assert counts["images"] == sum(len(near["image_rows"]) for near in found) > 50
    assert counts["image below --min-overlap"] > 0


def test_related_images_show_what_the_pair_shows_more_often_than_chance(small, prep, corpora):
    ran = prep(
        "retrieve", small.pairs, "--tokenizer", small.tokenizer, "--texts", small.texts,
        "--min-text-score", 0,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    words, texts = load_tokenizer(small.tokenizer), open_corpus(small.texts)
    pairs = open_corpus(small.pairs)
    shown = [set(parse_caption(" ".join(pairs.caption_texts(row)))) for row in range(len(pairs))]
    told = [set(parse_caption(words.decode(texts.tokens(row)))) for row in range(len(texts))]
    shared = [
        len(shown[row] & told[near["text_rows"][0]]) / len(shown[row])
        for row, near in enumerate(related(small.pairs))
    ]
    chance = np.mean([[len(a & b) / len(a) for b in told] for a in shown])
    assert np.mean(shared) > 3 * chance


def test_its_own_image_and_copies_of_it_are_left_out(small, prep):
    own = small.pairs / "images"
    ran = prep("retrieve", small.pairs, "--tokenizer", small.tokenizer, "--images", own)
    assert ran.code == 0, ran.err
    pairs = open_corpus(small.pairs)
    for row, near in enumerate(related(small.pairs)):
        assert pairs.image_row(row) not in near["image_rows"]
        assert near["image_rows"] and not near["text_rows"]
    assert read_manifest(small.pairs).stages["related"]["counts"]["image is the pair's own"] >= 60


def test_workers_engines_and_interruptions_change_no_byte(small, copied, prep, arguments):
    assert prep("retrieve", small.pairs, *arguments).code == 0
    one = columns(small.pairs, "related")
    two, killed = copied("two"), copied("killed")
    assert prep("retrieve", two, *arguments, "--workers", 2).code == 0
    assert columns(two, "related") == one and len(one) == 8
    command = [sys.executable, "-m", "data_prep.cli.main", "retrieve", killed, *arguments]
    command = [str(word) for word in (*command, "--workers", 1, "--resume")]
    process = subprocess.Popen(command, env=command_environment(), stderr=subprocess.DEVNULL)
    kill_when(process, killed, 2)
    assert prep("retrieve", killed, *arguments, "--resume").code == 0
    assert columns(killed, "related") == one
    if find_spec("ray"):
        on_ray = copied("ray")
        ran = prep("retrieve", on_ray, *arguments, "--engine", "ray", "--workers", 2)
        assert ran.code == 0, ran.err
        assert columns(on_ray, "related") == one


def test_what_was_searched_before_in_this_process_is_forgotten(small, copied, prep, tmp_path):
    half = tmp_path / "half"
    half.mkdir()
    for folder, every in ((half / "texts", small.texts), (half / "images", small.images)):
        shutil.copytree(every, folder)
    words, read = load_tokenizer(small.tokenizer), open_corpus(small.texts)
    told = [words.decode(read.tokens(row)) for row in range(0, len(read), 2)]
    (tmp_path / "half.txt").write_text("\n\n".join(told))
    text = ("--tokenizer", small.tokenizer, "--max-tokens", 126)
    fresh, options = copied("fresh"), Options(command=["retrieve"], workers=1)
    retrieval = Retrieval(min_text_score=0, min_image_score=0, min_overlap=0.1)

    def made(pairs: Path, unpaired: Path) -> list[dict]:
        searched = (unpaired / "texts", unpaired / "images", str(small.tokenizer))
        retrieve(pairs, *searched, retrieval, options, again=True)
        return related(pairs)

    before = made(small.pairs, half)
    shutil.rmtree(half / "texts")
    assert prep("text", half / "texts", tmp_path / "half.txt", *text).code == 0
    after = made(small.pairs, half)
    assert after != before
    assert after == made(fresh, shutil.copytree(half, tmp_path / "elsewhere"))


def test_both_stages_stand_beside_each_other(small, prep, arguments):
    assert prep("retrieve", small.pairs, *arguments).code == 0
    found = columns(small.pairs, "related")
    assert (
        prep("rewrite", small.pairs, "--tokenizer", small.tokenizer, "--levels", "word").code == 0
    )
    assert columns(small.pairs, "related") == found
    assert read_manifest(small.pairs).stages.keys() == {"rewrites", "related"}
    assert prep("verify", small.pairs).code == 0


def test_what_cannot_be_retrieved_from_is_told(small, prep, corpora, tmp_path):
    words = ("--tokenizer", small.tokenizer)
    other = tmp_path / "other.json"
    assert (
        prep("tokenizer", other, corpora / "raw/texts/prose.jsonl", "--vocab-size", 300).code == 0
    )
    texts = tmp_path / "texts"
    prose = corpora / "raw/texts/prose.jsonl"
    assert prep("text", texts, prose, "--tokenizer", other).code == 0
    images = tmp_path / "images"
    pixels = ("--grid", 2, "--patch", 4, "--num-classes", 4)
    assert prep("images", images, corpora / "raw/images", *pixels).code == 0
    for given, told in (
        ((small.pairs, *words), "name what to retrieve from"),
        ((small.pairs, *words, "--texts", small.images), "holds images, expected texts"),
        ((small.pairs, *words, "--texts", texts), "make both with one tokenizer"),
        (
            (small.pairs, "--tokenizer", other, "--texts", small.texts),
            "name the one it was made with",
        ),
        ((small.pairs, *words, "--images", images), "has other regions than the pairs"),
        ((small.texts, *words, "--texts", small.texts), "expected pairs"),
        (
            (small.pairs, *words, "--texts", small.texts, "--index", "tree"),
            "--index tree: expected",
        ),
        ((small.pairs, *words, "--texts", small.texts, "--top-k", 0), "--top-k 0: 1 at least"),
        ((small.pairs, *words, "--texts", small.texts, "--text-model", tmp_path), "no config.json"),
    ):
        ran = prep("retrieve", *given)
        assert ran.code == 2 and told in ran.err, ran.err
    assert not read_manifest(small.pairs).stages


@pytest.mark.parametrize(("kind", "least"), [(FLAT, 1.0), (IVF, 0.9)])
def test_an_index_finds_what_brute_force_finds(tmp_path, kind, least):
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(40, 24))
    vectors = unit_length(centres[rng.integers(40, size=3000)] + 0.4 * rng.normal(size=(3000, 24)))
    parts = []
    for n, part in enumerate(np.split(vectors, [700, 1900])):
        np.save(tmp_path / f"{n}.npy", part)
        parts.append(tmp_path / f"{n}.npy")
    build_index(tmp_path / "index", parts, kind, seed=1)
    queries = vectors[::37]
    found = search(tmp_path / "index", queries, 10)
    exact = queries @ vectors.T
    best = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    hits = [len({*a} & {*b}) for a, b in zip(found.rows.tolist(), best.tolist(), strict=True)]
    assert np.mean(hits) / 10 >= least
    assert (np.diff(found.scores, axis=1) <= 0).all()
    if kind == FLAT:
        np.testing.assert_allclose(
            found.scores, np.take_along_axis(exact, found.rows, axis=1), atol=1e-5
        )


def test_equal_scores_come_by_row_and_few_vectors_are_all_found(tmp_path):
    np.save(tmp_path / "0.npy", np.tile(np.float32([[1, 0]]), (5, 1)))
    build_index(tmp_path / "index", [tmp_path / "0.npy"], FLAT, seed=1)
    found = search(tmp_path / "index", np.float32([[1, 0]]), 9)
    assert found.rows.tolist() == [[0, 1, 2, 3, 4]]


def test_large_corpora_get_inverted_lists():
    assert (resolved("auto", 200_000), resolved("auto", 200_001)) == (FLAT, IVF)
    with pytest.raises(ValueError, match="--index x: expected one of auto, flat, ivf"):
        resolved("x", 1)


def test_texts_about_the_same_are_near(tmp_path):
    texts = [
        f"a {c} {t} in the {p}" for c in ("red", "blue") for t in ("dog", "car") for p in "xyz"
    ]
    vectors = fit_analysis(tmp_path, texts * 2, 4, seed=1).vectors(["red dog", "blue car", "none"])
    np.testing.assert_allclose(np.linalg.norm(vectors[:2], axis=1), 1, atol=1e-5)
    assert not vectors[2].any()
    near = fit_analysis(tmp_path, texts * 2, 4, seed=1).vectors(["a red dog", "the red dog"])
    assert near[0] @ near[1] > 0.99 > vectors[0] @ vectors[1]
    with pytest.raises(ValueError, match="no word that two of them share"):
        fit_analysis(tmp_path, ["the", "a"], 4, seed=1)


def test_vectors_of_images_are_what_they_say(built):
    corpus = open_corpus(built.images)
    batch = pa.Table.from_batches(read_shard(built.images / "images-00000.arrow").to_batches())
    (batch,) = batch.combine_chunks().to_batches()
    masses, features = class_masses(batch, corpus.source), mean_features(batch, corpus.source)
    for row in (0, len(corpus) - 1):
        regions = corpus.regions(row)
        expected = np.zeros(corpus.source.num_classes)
        np.add.at(expected, regions.class_ids.ravel(), regions.class_probs.ravel().astype(float))
        np.testing.assert_allclose(masses[row], expected / len(regions.features), atol=1e-3)
        mean = unit_length(regions.features.astype(np.float32)).mean(axis=0)
        np.testing.assert_allclose(features[row], mean, atol=1e-5)
    assert overlap(masses[0], masses)[0] == pytest.approx(1)
    assert overlap(np.float32([1, 0]), np.float32([[0, 1], [1, 1]])).tolist() == [0, 0.5]
    for by in (CLASSES, FEATURES):
        raw = raw_vectors(batch, corpus.source, by)
        whole = fit_projection(raw, raw.shape[1], by)(raw)
        small = fit_projection(raw, len(raw), by)(raw)
        np.testing.assert_allclose(whole @ whole.T, small @ small.T, atol=1e-3)


def test_sentence_encoders_of_transformers_are_taken(small, prep, tmp_path):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {
        w: i for i, w in enumerate(["[PAD]", "[UNK]", "red", "blue", "star", "ring", "circle"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(tmp_path / "model")
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "model")
    ran = prep(
        "retrieve", small.pairs, "--tokenizer", small.tokenizer, "--texts", small.texts,
        "--text-model", tmp_path / "model", "--top-k", 3,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert all(len(near["text_rows"]) == 3 for near in related(small.pairs))
    told = json.loads((small.pairs / "manifest.json").read_text())["stages"]["related"]
    assert len(told["parameters"]["text_model"]) == 64
