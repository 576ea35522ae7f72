"""Generation: the cache changes nothing, beams search, every source works."""

import itertools
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, StaticCache

from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.generation import UnimoForConditionalGeneration


@pytest.fixture
def model(config: UnimoConfig) -> UnimoForConditionalGeneration:
    """A model whose answers depend on its source; a new one repeats one word."""
    config.vocab_size, config.mask_token_id = 40, 39
    torch.manual_seed(2)
    model = UnimoForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.fixture
def source(samples: list[Any], padded: Any) -> dict[str, Tensor]:
    inputs = padded(samples)._asdict()
    inputs["input_ids"] = inputs["input_ids"] % 39
    return inputs


MODES = {
    "greedy": {},
    "beam3": {"num_beams": 3},
    "beam4-long": {"num_beams": 4, "length_penalty": 2.0},
    "minimum": {"num_beams": 2, "min_new_tokens": 5},
    "two-of-three": {"num_beams": 3, "num_return_sequences": 2},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_cache_changes_nothing(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor], mode: str
) -> None:
    options = {**MODES[mode], "max_new_tokens": 9, "output_logits": True}
    options |= {"return_dict_in_generate": True}
    cached = model.generate(**source, **options)
    plain = model.generate(**source, **options, use_cache=False)
    assert torch.equal(cached.sequences, plain.sequences)
    for found, expected in zip(cached.logits, plain.logits, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    answers = {tuple(row) for row in cached.sequences.tolist()}
    assert len(answers) > 1, "all sources gave one answer: the test shows nothing"


SAMPLED = {
    "three-each": {"num_return_sequences": 3},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "nucleus": {"top_p": 0.8, "temperature": 1.5, "repetition_penalty": 1.2},
}


@pytest.mark.parametrize("mode", SAMPLED)
def test_the_cache_changes_no_draw(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor], mode: str
) -> None:
    drawn = []
    for options in ({}, {"use_cache": False}, {"cache_implementation": "dynamic"}):
        torch.manual_seed(3)
        options |= {**SAMPLED[mode], "do_sample": True, "max_new_tokens": 5}
        drawn.append(model.generate(**source, **options))
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert len(drawn[0]) == 4 * SAMPLED[mode].get("num_return_sequences", 1)


def test_greedy_takes_the_likeliest_word_each_time(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor]
) -> None:
    found = model.generate(**source, max_new_tokens=6, num_beams=1, eos_token_id=39)
    target = torch.zeros(4, 1, dtype=torch.long)
    with torch.no_grad():
        for _ in range(found.shape[1] - 1):
            words = model(**source, decoder_input_ids=target).logits[:, -1].argmax(-1)
            done = (target == 39).any(dim=1)
            target = torch.cat([target, words.masked_fill(done, 1)[:, None]], dim=1)
    assert torch.equal(found, target)


def _score(model: UnimoForConditionalGeneration, source: dict[str, Tensor], words: tuple) -> float:
    target = torch.tensor([[0, *words]])
    with torch.no_grad():
        log_p = model(**source, decoder_input_ids=target).logits.log_softmax(-1)
    return float(sum(log_p[0, i, word] for i, word in enumerate(words)))


def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_pair_of_words(
    config: UnimoConfig, samples: list[Any]
) -> None:
    config.vocab_size = 12
    torch.manual_seed(4)
    model = UnimoForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    source = {"input_ids": samples[0].words[None] % 11}
    scores = {
        words: _score(model, source, words)
        for words in itertools.product(range(12), repeat=2)
        if 2 not in words
    }
    best = max(scores, key=scores.__getitem__)
    found = model.generate(
        **source, num_beams=12, max_new_tokens=2, min_new_tokens=2, length_penalty=0.0
    )
    assert tuple(found[0, 1:].tolist()) == best


def test_length_penalty_and_end_word_decide_the_length(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        model.language_head.decoder.bias[2] += (
            4  # ends are likely, so that beams of many lengths exist
        )
    lengths = {}
    for penalty in (-3.0, 3.0):
        found = model.generate(**source, num_beams=4, max_new_tokens=10, length_penalty=penalty)
        lengths[penalty] = int((found != 1).sum())
    assert lengths[-3.0] < lengths[3.0]
    longer = model.generate(**source, max_new_tokens=10, min_new_tokens=7)
    assert not (longer[:, 1:8] == 2).any()
    never = model.generate(**source, max_new_tokens=10, eos_token_id=model.config.mask_token_id)
    assert int((never != 1).sum()) > int((model.generate(**source, max_new_tokens=10) != 1).sum())


def test_every_kind_of_source_alone_gives_what_it_gives_in_company(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor], samples: list[Any]
) -> None:
    together = model.generate(**source, max_new_tokens=6, min_new_tokens=6)
    text = model.generate(samples[1].words[None] % 39, max_new_tokens=6, min_new_tokens=6)
    image = model.generate(
        features=samples[2].features[None],
        boxes=samples[2].boxes[None],
        max_new_tokens=6,
        min_new_tokens=6,
    )
    assert torch.equal(text[0], together[1])
    assert torch.equal(image[0], together[2])


def test_labels_are_the_next_words(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor]
) -> None:
    labels = torch.tensor([[5, 6, 2, -100], [7, 2, -100, -100], [8, 9, 10, 2], [11, 2, -100, -100]])
    output = model(**source, labels=labels)
    target = torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1], [0, 8, 9, 10], [0, 11, 2, 1]])
    with torch.no_grad():
        logits = model(**source, decoder_input_ids=target).logits
    torch.testing.assert_close(output.logits.detach(), logits)
    expected = torch.nn.functional.cross_entropy(logits[labels != -100], labels[labels != -100])
    torch.testing.assert_close(output.loss.detach(), expected)
    output.loss.backward()
    assert model.unimo.encoder.layers[0].attention.key.weight.grad.any()


def test_the_source_never_sees_the_target(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor]
) -> None:
    target = torch.tensor([[0, 5, 6, 7]] * 4)
    with torch.no_grad():
        before = model(**source, decoder_input_ids=target).logits
        target[:, 2:] = 20
        after = model(**source, decoder_input_ids=target).logits
    torch.testing.assert_close(before[:, :2], after[:, :2], atol=1e-5, rtol=0)
    assert not torch.allclose(before[:, 2], after[:, 2])


def test_what_cannot_be_generated_is_refused(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor]
) -> None:
    with pytest.raises(ValueError, match="nothing to encode"):
        model.generate(max_new_tokens=3)
    with pytest.raises(ValueError, match="no target"):
        model(**source)
    with pytest.raises(ValueError, match="23 columns, the model has positions for 22"):
        model.generate(**source, max_new_tokens=30, min_new_tokens=30)
    first = torch.zeros(4, 1, dtype=torch.long)
    cache = model(**source, decoder_input_ids=first, use_cache=True)[1]
    longer = torch.zeros(4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="give the whole target so far"):
        model(**source, decoder_input_ids=longer, cache=cache)
    with pytest.raises(ValueError, match="give the whole target so far"):
        model(**source, decoder_input_ids=longer, past_key_values=cache)


CANNOT_FOLLOW = {
    "cache_implementation='static'": {"cache_implementation": "static"},
    "cache_implementation='sliding_window'": {"cache_implementation": "sliding_window"},
    "cache_implementation='offloaded'": {"cache_implementation": "offloaded", "num_beams": 2},
    "cache_implementation='quantized'": {"cache_implementation": "quantized"},
    "cache_implementation='paged'": {"cache_implementation": "paged"},
    "cache_implementation='offloaded_static'": {
        "generation_config": GenerationConfig(cache_implementation="offloaded_static")
    },
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 3},
    "assistant_early_exit": {"assistant_early_exit": 1},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 5.0},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "guidance_scale": {"guidance_scale": 2.0},
    "output_attentions": {"output_attentions": True, "return_dict_in_generate": True},
    "output_hidden_states": {"output_hidden_states": True, "return_dict_in_generate": True},
    "position_ids": {"position_ids": torch.zeros(4, 1, dtype=torch.long)},
    "bos_token_id=7": {"bos_token_id": 7},
    "decoder_start_token_id=9": {"decoder_start_token_id": 9},
}


@pytest.mark.parametrize("name", CANNOT_FOLLOW)
def test_options_that_would_be_left_out_of_account_are_refused_in_one_line(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor], name: str
) -> None:
    with pytest.raises(ValueError, match=f"generate.{re.escape(name)}.*; leave it out") as refusal:
        model.generate(**source, max_new_tokens=3, **CANNOT_FOLLOW[name])
    assert "\n" not in str(refusal.value)
    assert name[:5] != "cache" or "static caches" in str(refusal.value)


def test_another_model_as_assistant_and_defaults_of_a_folder_are_refused_too(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor]
) -> None:
    one = {name: tensor[:1] for name, tensor in source.items()}
    before = model.generate(**one, max_new_tokens=4)
    with pytest.raises(ValueError, match="assistant_model"):
        model.generate(**one, max_new_tokens=4, assistant_model=model)
    assert torch.equal(model.generate(**one, max_new_tokens=4), before)
    model.generation_config.cache_implementation = "static"
    with pytest.raises(ValueError, match="static caches"):
        model.generate(**one, max_new_tokens=4)
    allowed = model.generate(**one, max_new_tokens=4, cache_implementation="dynamic")
    assert torch.equal(allowed, before)


def test_caches_of_a_fixed_length_are_refused_wherever_they_come_from(
    model: UnimoForConditionalGeneration, source: dict[str, Tensor]
) -> None:
    first = torch.zeros(4, 1, dtype=torch.long)
    for name in ("cache", "past_key_values"):
        fixed = StaticCache(config=model.config, max_cache_len=64)
        with pytest.raises(ValueError, match=r"StaticCache: .* static caches"):
            model(**source, decoder_input_ids=first, **{name: fixed})
        with pytest.raises(ValueError, match=r"StaticCache: .* static caches"):
            model.generate(**source, max_new_tokens=3, **{name: fixed})
