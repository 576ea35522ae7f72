"""UNIMO among Hugging Face's models: saved, loaded, tied, found by Auto classes, checkpointed."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from unimo_ds.model.body import UnimoModel, UnimoPreTrainedModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.generation import UnimoForConditionalGeneration
from unimo_ds.model.modeling import UnimoForImageTextRetrieval, UnimoForMaskedLM

CLASSES = [
    UnimoModel,
    UnimoForMaskedLM,
    UnimoForConditionalGeneration,
    UnimoForImageTextRetrieval,
]


def _randomised(cls: type[UnimoPreTrainedModel], config: UnimoConfig) -> UnimoPreTrainedModel:
    torch.manual_seed(1)
    model = cls(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("cls", CLASSES)
def test_what_is_saved_is_loaded(
    cls: type[UnimoPreTrainedModel], config: UnimoConfig, tmp_path: Path
) -> None:
    model = _randomised(cls, config)
    model.save_pretrained(tmp_path)
    loaded, report = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()


@pytest.mark.parametrize("cls", CLASSES[:2] + CLASSES[3:])
def test_the_body_of_any_model_loads_from_the_folder_of_another(
    cls: type[UnimoPreTrainedModel], config: UnimoConfig, tmp_path: Path
) -> None:
    saved = _randomised(cls, config)
    saved.save_pretrained(tmp_path)
    body, report = UnimoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = saved if isinstance(saved, UnimoModel) else saved.unimo
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, body.state_dict()[name]), name


def test_new_heads_on_a_loaded_body_are_initialised(config: UnimoConfig, tmp_path: Path) -> None:
    saved = _randomised(UnimoForMaskedLM, config)
    saved.save_pretrained(tmp_path)
    model, report = UnimoForImageTextRetrieval.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.split(".")[0] for name in report["missing_keys"]} == {
        "image_pooler",
        "text_pooler",
        "match_head",
        "temperature",
    }
    assert float(1 / model.temperature().detach()) == pytest.approx(0.07, rel=1e-4)
    assert (
        float(model.image_pooler.dense.weight.detach().abs().max()) <= 2 * config.initializer_range
    )
    body = saved.unimo.state_dict()
    assert all(torch.equal(t, body[n]) for n, t in model.unimo.state_dict().items())


@pytest.mark.parametrize("cls", [UnimoForMaskedLM, UnimoForConditionalGeneration])
def test_the_decoder_is_the_word_embedding(
    cls: type[UnimoPreTrainedModel], config: UnimoConfig, tmp_path: Path
) -> None:
    model = _randomised(cls, config)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert "language_head.decoder.weight" not in stored
    for tied in (model, cls.from_pretrained(tmp_path)):
        words = tied.unimo.embeddings.word_embeddings.weight
        assert tied.language_head.decoder.weight is words
        assert sum(p is words for p in tied.parameters()) == 1


def test_the_auto_classes_know_it(config: UnimoConfig, tmp_path: Path) -> None:
    _randomised(UnimoForMaskedLM, config).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is UnimoConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is UnimoModel
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path)) is UnimoForMaskedLM
    generator = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(generator) is UnimoForConditionalGeneration


def test_activation_checkpointing_replays_dropout(
    config: UnimoConfig, samples: list[Any], padded: Any
) -> None:
    inputs = padded([samples[0], samples[3]])
    recomputed = []

    def gradients(checkpointed: bool) -> dict[str, Tensor]:
        torch.manual_seed(2)
        model = UnimoForMaskedLM(config).train()
        if checkpointed:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the name goes away in v6
                model.gradient_checkpointing_enable()
        layer = model.unimo.encoder.layers[1].up
        layer.register_forward_hook(lambda *_: recomputed.append(checkpointed))
        torch.manual_seed(3)
        model(**inputs._asdict(), labels=inputs.input_ids).loss.backward()
        return {name: p.grad for name, p in model.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    assert recomputed == [False, True, True]
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


@pytest.mark.parametrize("score", ["cosine", "match"])
@torch.no_grad()
def test_images_and_texts_are_encoded_one_by_one(
    config: UnimoConfig, samples: list[Any], padded: Any, score: str
) -> None:
    config.score = score
    model = _randomised(UnimoForImageTextRetrieval, config)
    pairs = padded([samples[0], samples[3]])
    images = model.encode_images(pairs.features, pairs.boxes, pairs.region_mask)
    texts = model.encode_texts(pairs.input_ids, pairs.attention_mask)
    assert images.shape == texts.shape == (2, 32)
    lengths = torch.stack([images, texts]).norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(2, 2), atol=1e-5) == (score == "cosine")
    matrix = model.score_matrix(images, texts)
    for i, j in ((0, 0), (0, 1), (1, 0)):
        expected = float(model._scores(images[i : i + 1], texts[j : j + 1])) / 0.07
        tau = float(1 / model.temperature().detach())
        assert float(matrix[i, j]) == pytest.approx(expected * 0.07 / tau, rel=1e-4)
    scores = model(**pairs._asdict())
    assert scores.shape == (2,)
    with pytest.raises(ValueError, match="a pair has input_ids and features"):
        model(pairs.input_ids)
