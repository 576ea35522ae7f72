"""Sentence-level rewrites: similar captions of others, and the same thing said otherwise."""

import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from data_prep.demo.language import WAYS
from data_prep.demo.language import captions as demo_captions
from data_prep.demo.paraphrase import paraphrases_of
from data_prep.demo.world import TRAIN, generator, scenes
from data_prep.rewrite import paraphrase
from data_prep.rewrite.paraphrase import Plug, make_plug, positives
from data_prep.rewrite.replacement import normalised
from data_prep.rewrite.similar_captions import (
    COMMON,
    Similar,
    content,
    save_captions,
    sentence_negatives,
    similar_captions,
)

TEXTS = [
    "a brown dog runs on the beach",
    "a brown dog runs along the sandy beach",
    "the black cat sleeps on a sofa",
    "a cat sleeps",
    "two men ride horses on the beach",
    "a man rides a brown horse",
    "the the the",
]


def test_the_nearest_captions_are_those_of_brute_force(tmp_path):
    captions = [(n // 2, text) for n, text in enumerate(TEXTS)]
    assert save_captions(tmp_path, captions)["searched"] == len(TEXTS)
    model = TfidfVectorizer(preprocessor=normalised, stop_words=sorted(COMMON), sublinear_tf=True)
    vectors = model.fit_transform(TEXTS).toarray()
    cosine = vectors @ vectors.T
    found = list(similar_captions(tmp_path, captions, 3))
    for at, near in enumerate(found):
        others = [n for n in range(len(TEXTS)) if n // 2 != at // 2 and cosine[at, n] > 0]
        order = sorted(others, key=lambda n: (-round(cosine[at, n], 6), n))
        assert [one.text for one in near] == [TEXTS[n] for n in order]
        expected = [cosine[at, n] for n in order]
        np.testing.assert_allclose([one.similarity for one in near], expected, rtol=1e-5)


def test_captions_without_a_word_that_counts_have_no_neighbours(tmp_path):
    assert save_captions(tmp_path, [(0, "the"), (1, "a")]) == {}


def test_negatives_are_neither_paraphrases_nor_true_of_the_image():
    own = {"a dog runs", "a brown dog plays in the sand"}
    told = content("a dog runs") | content("a brown dog plays in the sand")
    found = [
        Similar("A dog runs .", 1.0),
        Similar("a dog runs fast", 0.95),
        Similar("the dog plays", 0.7),
        Similar("a dog runs in the snow", 0.6),
        Similar("a cat runs", 0.5),
        Similar("a cow runs", 0.4),
    ]
    rejected: dict[str, int] = {}
    made = list(sentence_negatives("a dog runs", found, 2, own, told, 0.8, rejected))
    assert [one.text for one in made] == ["a dog runs in the snow", "a cat runs"]
    assert rejected == {
        "too similar": 1,
        "says nothing that the image's captions do not say": 1,
    }
    assert all((one.begin, one.end) == (0, len("a dog runs")) for one in made)


def test_positives_within_bounds_are_kept_and_others_counted():
    caption = "a brown dog runs on the beach"
    found = [
        "A brown dog runs on the beach.",
        "a brown dog is running along a beach",
        "on the beach runs a brown dog",
        "the stock market fell",
        "",
        "on the beach runs a  brown dog",
    ]
    rejected: dict[str, int] = {}
    made = list(positives(caption, found, "command", 0.4, {normalised(caption)}, rejected))
    assert [one.text for one in made] == [found[1], found[2]]
    assert all(one.positive and 0.4 <= one.similarity <= 1 for one in made)
    assert rejected == {
        "positive: near-identical": 1,
        "positive: drifted": 1,
        "positive: empty": 1,
        "positive: is a caption already": 1,
    }


def test_demo_captions_are_said_otherwise_as_the_world_would_say_them_of_the_scene():
    told = 0
    for index, scene in enumerate(scenes(5, TRAIN, 60)):
        true = {way(scene) for way in WAYS}
        for caption in demo_captions(scene, generator(5, TRAIN, index, 1)):
            others = paraphrases_of(caption)
            assert caption not in others
            assert {*others} <= true
            assert len({*others}) == len(others)
            told += len(others)
    assert told > 300
    assert paraphrases_of("a man rides a horse") == []


def test_a_command_gets_lines_and_gives_lines():
    plug = make_plug("", "sed s/dog/hound/", (None, None))
    assert plug.paraphrase(["a dog", "two\ndogs", "$(touch x)"], 3) == [
        ["a hound"],
        ["two hounds"],
        ["$(touch x)"],
    ]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/no/such/program", "cannot be started"),
        ("head -n 1", "exit code 0, 1 lines for 2"),
        (
            f"{sys.executable} -c 'import sys; sys.exit(\"gone\")'",
            "exit code 1, 0 lines for 2.*gone",
        ),
        (f"{sys.executable} -c 'import time; time.sleep(9)'", "no end after 1 s"),
    ],
)
def test_a_command_that_does_not_do_its_work_is_told(command, told, monkeypatch):
    monkeypatch.setattr(paraphrase, "SECONDS", 1)
    plug = make_plug("", command, (None, None))
    with pytest.raises(ValueError, match=f"--command.*{told}"):
        plug.paraphrase(["a", "b"], 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("world", "", (None, None)), "--paraphrase world: expected demo"),
        (("demo", "cat", (None, None)), "at most one of them"),
        (("", "''", (None, None)), None),
        (("", "", (".", None)), "go together"),
    ],
)
def test_plugs_that_cannot_work_are_refused(arguments, told):
    if told is None:
        assert make_plug(*arguments).arguments == ("",)
        return
    with pytest.raises(ValueError, match=told):
        make_plug(*arguments)


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """A translation model of the real architecture, tiny, with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("marian")
    words = ["<pad>", "</s>", "<unk>", "a", "dog", "runs", "on", "the", "red", "beach", "cats"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(2)
    config = MarianConfig(
        vocab_size=len(words),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=160,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
        decoder_start_token_id=0,
        forced_eos_token_id=1,
    )
    MarianMTModel(config).save_pretrained(folder)
    return folder


def test_captions_go_through_two_translation_models(marian):
    plug = make_plug("", "", (marian, marian))
    assert plug == Plug("back-translation", (str(marian), str(marian)))
    captions = ["a dog runs", "two cats play on the red beach"] * 20  # more than one batch
    found = plug.paraphrase(captions, 2)
    assert [len(texts) for texts in found] == [2] * 40
    assert all(isinstance(text, str) for texts in found for text in texts)
    assert plug.paraphrase(captions[:2], 2) == found[:2] == found[2:4]


def test_pickled_weights_are_not_read(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="pickled weights can run code"):
        make_plug("", "", (tmp_path, tmp_path))
