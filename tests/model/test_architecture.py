"""The architecture is the paper's: block, embeddings, heads, initialisation.

Legend: T positions · D hidden width · N rows
"""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimo_ds.config import ModelConfig
from unimo_ds.model.body import UnimoModel
from unimo_ds.model.configuration import UnimoConfig, configuration_of
from unimo_ds.model.encoder import EncoderLayer
from unimo_ds.model.heads import LanguageHead, MatchHead, Pooler, Temperature


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def _norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return scaled * layer.weight + layer.bias


def _randomise(module: nn.Module) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)


@torch.no_grad()
def test_a_block_is_post_norm_with_exact_gelu(config: UnimoConfig) -> None:
    layer = EncoderLayer(config, 0).eval()
    _randomise(layer)
    x_TD = torch.randn(6, 32)
    attention = layer.attention
    q, k, v = (
        project(x_TD).view(6, 4, 8).transpose(0, 1)
        for project in (attention.query, attention.key, attention.value)
    )
    context = ((q @ k.mT) / math.sqrt(8)).softmax(-1) @ v
    attended = attention.output(context.transpose(0, 1).flatten(1))
    y_TD = _norm(x_TD + attended, layer.attention_layer_norm)
    expected = _norm(y_TD + layer.down(_gelu(layer.up(y_TD))), layer.output_layer_norm)

    class Everybody:
        def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
            views = (x.transpose(0, 1)[None] for x in (q, k, v))
            return F.scaled_dot_product_attention(*views)[0].transpose(0, 1)

    torch.testing.assert_close(layer(x_TD, Everybody()), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_embeddings_of_words_and_regions(
    config: UnimoConfig, samples: list[Any], packed: Any
) -> None:
    model = UnimoModel(config).eval()
    e = model.embeddings
    _randomise(e)
    batch = packed(samples[:1])
    hidden = e(batch)
    word = e.word_embeddings.weight[batch.word_ids[4]] + e.position_embeddings.weight[2]
    torch.testing.assert_close(hidden[4], _norm(word, e.layer_norm), atol=1e-5, rtol=1e-5)
    mean = samples[0].features.mean(dim=0)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
    image = F.linear(mean, e.region_feature.weight, e.region_feature.bias) + e.region_box(whole)
    expected = _norm(image, e.region_layer_norm)
    torch.testing.assert_close(hidden[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_masked_region_loses_its_feature_and_keeps_its_box(
    config: UnimoConfig, samples: list[Any], packed: Any
) -> None:
    embeddings = UnimoModel(config).eval().embeddings
    batch = packed(samples[:1])
    masked = batch._replace(region_masked=torch.tensor([False, True, False, False]))
    zeroed = batch.features.clone()
    zeroed[1] = 0
    assert torch.equal(embeddings(masked), embeddings(batch._replace(features=zeroed)))
    moved = masked._replace(boxes=masked.boxes + 1)
    assert not torch.allclose(embeddings(moved)[1], embeddings(masked)[1])


def test_dropout_follows_the_layer_norms(
    config: UnimoConfig, samples: list[Any], packed: Any
) -> None:
    config.hidden_dropout_prob = 0.5
    embeddings = UnimoModel(config).train().embeddings
    hidden = embeddings(packed([samples[0], samples[3]])).detach()
    assert float((hidden == 0).float().mean()) == pytest.approx(0.5, abs=0.1)


@torch.no_grad()
def test_heads_are_the_papers(config: UnimoConfig) -> None:
    x_ND = torch.randn(5, 32)
    pooler = Pooler(config)
    torch.testing.assert_close(pooler(x_ND), pooler.dense(x_ND).clamp(min=0))
    head = LanguageHead(config)
    _randomise(head)
    hidden = _norm(_gelu(head.dense(x_ND)), head.layer_norm)
    expected = hidden @ head.decoder.weight.T + head.decoder.bias
    torch.testing.assert_close(head(x_ND), expected, atol=1e-5, rtol=1e-5)
    assert pooler(x_ND[:0]).shape == (0, 32)
    assert head(x_ND[:0]).shape == (0, 99)


@torch.no_grad()
def test_the_match_head_scores_pairs_and_matrices_alike(config: UnimoConfig) -> None:
    head = MatchHead(config).eval()
    _randomise(head)
    image, text = torch.randn(3, 32), torch.randn(4, 32)
    scores = head(image, text[:3], image)
    matrix = scores.weighted_image @ text.T + scores.bias
    torch.testing.assert_close(matrix[range(3), range(3)], scores.pair)
    expected = float(((image[1] * text[1]) @ head.weight[0]) + head.bias)
    assert float(scores.pair[1]) == pytest.approx(expected, abs=1e-5)
    dropped = head.train()(torch.ones(1, 32), torch.ones(1, 32), torch.ones(50, 32))
    assert float((dropped.weighted_image == 0).float().mean()) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(
    "tau, expected", [(0.07, 0.07), (1e-5, 0.001), (3.0, 0.5)], ids=["inside", "below", "above"]
)
def test_the_temperature_stays_in_bounds_and_can_come_back(tau: float, expected: float) -> None:
    temperature = Temperature(UnimoConfig(initial_temperature=tau))
    assert float(1 / temperature().detach()) == pytest.approx(expected, rel=1e-4)
    gradients = {}
    for sign in (1, -1):
        (gradients[sign],) = torch.autograd.grad(sign * temperature(), temperature.parameters())
    # Descending on +scale raises tau, on -scale lowers it.
    assert bool(gradients[1] < 0) == (tau < 0.5)
    assert bool(gradients[-1] > 0) == (tau > 0.001)


@torch.no_grad()
def test_initialisation_is_truncated_at_two_sigma(config: UnimoConfig) -> None:
    config.hidden_size, config.initializer_range = 64, 0.02
    model = UnimoModel(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert bool((parameter == (1 if name.endswith("weight") else 0)).all()), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            sigma = 0.02
            if "region" in name:  # what a region looks like and where it is start equally loud
                spread = 0.25 if "box" in name else 1.0
                sigma = 1 / (spread * parameter.shape[1] ** 0.5)
            assert float(parameter.abs().max()) <= 2 * sigma + 1e-6, name
            # A normal cut at two sigma has 0.88 of its deviation.
            close = 0.1 if parameter.numel() > 1000 else 0.2
            assert float(parameter.std()) == pytest.approx(sigma * 0.88, rel=close), name


def test_a_run_s_model_becomes_a_configuration() -> None:
    config = configuration_of(
        ModelConfig(hidden_size=32, num_attention_heads=2, temperature=0.1), "reference"
    )
    assert (config.hidden_size, config.initial_temperature) == (32, 0.1)
    assert config.attention_backend == "reference"
    assert config.mask_token_id == config.vocab_size - 1


def test_a_configuration_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match="hidden_size 30 is not a multiple of"):
        UnimoConfig(hidden_size=30, num_attention_heads=4)
    with pytest.raises(ValueError, match="'dot' is unknown, known are cosine, match"):
        UnimoConfig(score="dot")
