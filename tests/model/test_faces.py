"""The padded and the packed interface are one model; both say what they cannot take.

Legend: B samples · L words · R regions · D hidden width
"""

from typing import Any

import pytest
import torch

from unimo_ds.model.body import UnimoModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.modeling import UnimoForMaskedLM


@pytest.fixture
def model(config: UnimoConfig) -> UnimoModel:
    torch.manual_seed(0)
    return UnimoModel(config).eval()


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
@torch.no_grad()
def test_both_interfaces_give_the_same_states(
    model: UnimoModel, samples: list[Any], padded: Any, packed: Any, backend: str
) -> None:
    model.config.attention_backend = backend
    hidden_TD = model(packed(samples, padding=5))
    states = model(**padded(samples)._asdict()).last_hidden_state
    regions = max(len(s.features) for s in samples)
    start = 0
    for i, sample in enumerate(samples):
        images = 1 + len(sample.features) if len(sample.features) else 0
        end = start + images + len(sample.words)
        columns = [*range(images), *range(1 + regions, 1 + regions + len(sample.words))]
        torch.testing.assert_close(states[i, columns], hidden_TD[start:end], atol=1e-5, rtol=0)
        rest = [c for c in range(states.shape[1]) if c not in columns]
        assert not states[i, rest].any()
        start = end


@torch.no_grad()
def test_a_sample_is_the_same_alone_and_in_company(
    model: UnimoModel, samples: list[Any], padded: Any
) -> None:
    together = model(**padded(samples)._asdict())
    text = model(input_ids=samples[1].words[None])
    torch.testing.assert_close(text.last_hidden_state[0, 0], together.text_state[1])
    assert text.image_state is None
    image = model(features=samples[2].features[None], boxes=samples[2].boxes[None])
    torch.testing.assert_close(image.last_hidden_state[0, 0], together.image_state[2])
    assert image.text_state is None
    assert image.last_hidden_state.shape == (1, 1 + 5, 32)
    assert not together.image_state[1].any()
    assert not together.text_state[2].any()


@torch.no_grad()
def test_left_padding_moves_nothing(model: UnimoModel, samples: list[Any]) -> None:
    words = samples[0].words
    shifted = torch.cat([torch.ones(3, dtype=torch.long), words])[None]
    found = model(input_ids=shifted)
    alone = model(input_ids=words[None])
    torch.testing.assert_close(found.last_hidden_state[:, 3:], alone.last_hidden_state)
    torch.testing.assert_close(found.text_state, alone.text_state)


@torch.no_grad()
def test_a_segment_sees_its_past_only_where_order_says_so(
    model: UnimoModel, samples: list[Any], packed: Any
) -> None:
    batch = packed(samples[1:2])
    causal = batch._replace(order=torch.arange(len(batch.segment), dtype=torch.int32))
    changed = batch.word_ids.clone()
    changed[-1] = 50
    for row, sees_future in ((batch, True), (causal, False)):
        before, after = model(row), model(row._replace(word_ids=changed))
        assert torch.allclose(before[:-1], after[:-1], atol=1e-6) != sees_future


def test_no_gradient_is_left_out_of_a_row_without_images_or_of_padding(
    config: UnimoConfig, samples: list[Any], packed: Any
) -> None:
    model = UnimoModel(config)
    for row in (packed(samples[1:2]), packed([], padding=4)):
        model.zero_grad(set_to_none=True)
        model(row).sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


@torch.no_grad()
def test_masked_lm_gives_logits_and_loss_of_the_words(
    config: UnimoConfig, samples: list[Any], padded: Any, packed: Any
) -> None:
    torch.manual_seed(0)
    model = UnimoForMaskedLM(config).eval()
    inputs = padded([samples[0], samples[3]])
    labels = inputs.input_ids.masked_fill(inputs.attention_mask == 0, -100)
    output = model(**inputs._asdict(), labels=labels)
    assert output.logits.shape == (2, 11, 99)
    row = packed([samples[0], samples[3]])
    words = torch.ones(len(row.segment), dtype=torch.bool).index_fill_(0, row.region_at, False)
    logits_NV = model.language_head(model.unimo(row)[words])
    torch.testing.assert_close(output.logits[labels != -100], logits_NV, atol=1e-5, rtol=0)
    expected = torch.nn.functional.cross_entropy(logits_NV, row.word_ids[words])
    torch.testing.assert_close(output.loss, expected)
    assert isinstance(model(**inputs._asdict(), return_dict=False), tuple)


WRONG = {
    "nothing": ({}, "nothing to encode"),
    "no-boxes": ({"features": torch.zeros(2, 3, 12)}, "features without boxes"),
    "boxes-only": (
        {"input_ids": torch.zeros(2, 3, dtype=torch.long), "boxes": torch.zeros(2, 3, 5)},
        "without features",
    ),
    "feature-width": (
        {"features": torch.zeros(2, 3, 13), "boxes": torch.zeros(2, 3, 5)},
        r"features is \[2, 3, 13\], expected \[2, 3, 12\]",
    ),
    "box-width": (
        {"features": torch.zeros(2, 3, 12), "boxes": torch.zeros(2, 3, 4)},
        r"boxes is \[2, 3, 4\], expected \[2, 3, 5\]",
    ),
    "mask": (
        {
            "input_ids": torch.zeros(2, 3, dtype=torch.long),
            "attention_mask": torch.ones(2, 4),
        },
        r"attention_mask is \[2, 4\], expected \[2, 3\]",
    ),
    "batch": (
        {
            "input_ids": torch.zeros(1, 3, dtype=torch.long),
            "features": torch.zeros(2, 3, 12),
            "boxes": torch.zeros(2, 3, 5),
        },
        r"features is \[2, 3, 12\], expected \[1, 3, 12\]",
    ),
    "too-long": (
        {"input_ids": torch.zeros(1, 23, dtype=torch.long)},
        "input_ids has 23 columns, the model has positions for 22",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(model: UnimoModel, name: str) -> None:
    arguments, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        model(**arguments)
