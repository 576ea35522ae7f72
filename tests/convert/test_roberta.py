"""RoBERTa to UNIMO through the command line: the same logits, and clear refusals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig, RobertaForMaskedLM
from typer.testing import CliRunner, Result

from unimo_ds.convert.cli import USER_ERROR, app
from unimo_ds.convert.roberta import convert_roberta
from unimo_ds.convert.roberta_logits import TOLERANCE, verified_texts
from unimo_ds.model.body import UnimoModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.modeling import UnimoForMaskedLM
from unimo_ds.model.padded import check_padded, pack
from unimo_ds.model.processing import UnimoProcessor
from unimo_ds.tokenizer import train_tokenizer

TEXTS = ["a red ball rolls under the table", "three dogs, one of them asleep, watch it"] * 4


@pytest.fixture
def roberta(tmp_path: Path) -> RobertaForMaskedLM:
    """A random RoBERTa, token type embedding included, saved in tmp_path / "roberta"."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = RobertaForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(tmp_path / "roberta")
    return model


def _convert(source: Path, destination: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["roberta", str(source), str(destination), *options])


@torch.no_grad()
def test_both_interfaces_give_robertas_logits(roberta: RobertaForMaskedLM, tmp_path: Path) -> None:
    assert roberta.roberta.embeddings.token_type_embeddings.weight.any()
    options = "--verify", "--image-feature-size", "12", "--image-class-size", "7"
    result = _convert(tmp_path / "roberta", tmp_path / "unimo", *options)
    assert result.exit_code == 0, result.output
    assert "verified" in result.output and "6 tensors new" in result.output

    unimo, report = UnimoForMaskedLM.from_pretrained(tmp_path / "unimo", output_loading_info=True)
    assert not any(report.values())
    assert (unimo.config.image_feature_size, unimo.config.image_class_size) == (12, 7)
    ids = torch.randint(4, 300, (3, 20), generator=torch.Generator().manual_seed(5))
    ids[0, 7:] = 1
    ids[1, 19:] = 1
    there = ids != 1
    expected = roberta(ids, attention_mask=there.long()).logits[there]
    torch.testing.assert_close(unimo(ids).logits[there], expected, atol=TOLERANCE, rtol=0)
    batch, _ = pack(check_padded(unimo.config, ids, None, None, None, None), unimo.config)
    packed = unimo.language_head(unimo.unimo(batch))
    torch.testing.assert_close(packed, expected, atol=TOLERANCE, rtol=0)


def test_a_folder_with_bin_weights_gives_the_same(
    roberta: RobertaForMaskedLM, tmp_path: Path
) -> None:
    convert_roberta(tmp_path / "roberta", tmp_path / "a", verify=False, seed=3)
    (tmp_path / "roberta" / "model.safetensors").unlink()
    torch.save(roberta.state_dict(), tmp_path / "roberta" / "pytorch_model.bin")
    convert_roberta(tmp_path / "roberta", tmp_path / "b", verify=False, seed=3)
    first, second = (load_file(tmp_path / x / "model.safetensors") for x in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_body_without_language_head_becomes_a_body(
    roberta: RobertaForMaskedLM, tmp_path: Path
) -> None:
    roberta.roberta.save_pretrained(tmp_path / "body")
    report = convert_roberta(tmp_path / "body", tmp_path / "unimo", verify=False)
    assert len(report.new) == 6 and report.largest_difference is None
    body, loading = UnimoModel.from_pretrained(tmp_path / "unimo", output_loading_info=True)
    assert not any(loading.values())
    expected = roberta.roberta.encoder.layer[1].intermediate.dense.weight
    assert torch.equal(body.encoder.layers[1].up.weight, expected)
    result = _convert(tmp_path / "body", tmp_path / "again", "--verify")
    assert result.exit_code == USER_ERROR and "no language head" in result.output


def test_the_tokenizer_comes_along(roberta: RobertaForMaskedLM, tmp_path: Path) -> None:
    words = train_tokenizer(TEXTS, vocab_size=300)
    words.save(tmp_path / "roberta" / "tokenizer.json")
    assert "tokenizer copied" in _convert(tmp_path / "roberta", tmp_path / "unimo").output
    found = UnimoProcessor.from_pretrained(tmp_path / "unimo")(text="a red ball")["input_ids"]
    assert found.tolist() == [[0, *words.encode(["a red ball"])[0], 2]]


def test_wrong_weights_do_not_pass_verification(
    roberta: RobertaForMaskedLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two projections confused: every shape fits.
    import unimo_ds.convert.roberta as module

    names = dict(module._LAYER)
    names["attention.self.query"], names["attention.self.key"] = "attention.key", "attention.query"
    names["attention.self.value"], names["attention.output.dense"] = (
        names["attention.output.dense"],
        names["attention.self.value"],
    )
    monkeypatch.setattr(module, "_LAYER", names)
    result = _convert(tmp_path / "roberta", tmp_path / "unimo", "--verify")
    assert result.exit_code == USER_ERROR
    assert "more than 1e-04" in result.output
    assert not (tmp_path / "unimo").exists()


def test_a_folder_in_use_is_left_alone(roberta: RobertaForMaskedLM, tmp_path: Path) -> None:
    (tmp_path / "unimo").mkdir()
    (tmp_path / "unimo" / "notes.txt").write_text("mine")
    result = _convert(tmp_path / "roberta", tmp_path / "unimo")
    assert result.exit_code == USER_ERROR and "holds something already" in result.output
    assert [path.name for path in (tmp_path / "unimo").iterdir()] == ["notes.txt"]


def _head(roberta: RobertaForMaskedLM, folder: Path, **weights: torch.Tensor) -> None:
    """Gives the saved model an untied head; `transformers` reads its decoder and its bias."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    state = {name: tensor.clone() for name, tensor in roberta.state_dict().items()}
    state |= {f"lm_head.{name}": tensor for name, tensor in weights.items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_untied_head_is_refused_unless_it_is_the_same(
    roberta: RobertaForMaskedLM, tmp_path: Path
) -> None:
    decoder = roberta.lm_head.decoder.weight.detach()
    _head(roberta, tmp_path / "roberta")
    result = _convert(tmp_path / "roberta", tmp_path / "unimo", "--verify")
    assert result.exit_code == 0, result.output
    nearly = decoder.clone()
    nearly[7, 3] += 0.5
    _head(roberta, tmp_path / "roberta", **{"decoder.weight": nearly})
    result = _convert(tmp_path / "roberta", tmp_path / "other")
    assert result.exit_code == USER_ERROR and "has a decoder of its own" in result.output
    roberta.roberta.save_pretrained(tmp_path / "body")  # has no head to lose
    assert _convert(tmp_path / "body", tmp_path / "another").exit_code == 0


def test_two_biases_of_one_head_are_refused(roberta: RobertaForMaskedLM, tmp_path: Path) -> None:
    _head(roberta, tmp_path / "roberta", bias=torch.randn(300))
    result = _convert(tmp_path / "roberta", tmp_path / "unimo")
    assert result.exit_code == USER_ERROR and "two biases of its language head" in result.output


def test_a_padded_vocabulary_is_refused(roberta: RobertaForMaskedLM, tmp_path: Path) -> None:
    words = train_tokenizer(TEXTS, vocab_size=297)
    words.save(tmp_path / "roberta" / "tokenizer.json")
    result = _convert(tmp_path / "roberta", tmp_path / "unimo")
    assert result.exit_code == USER_ERROR
    assert "the tokenizer has 297 words" in result.output and "has 300" in result.output
    roberta.resize_token_embeddings(297)  # the remedy that the message names
    roberta.save_pretrained(tmp_path / "roberta")
    result = _convert(tmp_path / "roberta", tmp_path / "unimo", "--verify")
    assert result.exit_code == 0, result.output
    assert UnimoForMaskedLM.from_pretrained(tmp_path / "unimo").config.mask_token_id == 296


def test_further_token_types_are_told(roberta: RobertaForMaskedLM, tmp_path: Path) -> None:
    weights = load_file(tmp_path / "roberta" / "model.safetensors")
    name = "roberta.embeddings.token_type_embeddings.weight"
    weights[name] = torch.cat([weights[name], torch.ones(1, 32)])
    save_file(weights, tmp_path / "roberta" / "model.safetensors", metadata={"format": "pt"})
    report = convert_roberta(tmp_path / "roberta", tmp_path / "unimo", verify=False)
    assert report.dropped == ("embeddings.token_type_embeddings.weight[1:]",)


def test_verification_shows_special_words_among_real_ones(
    roberta: RobertaForMaskedLM, tmp_path: Path
) -> None:
    config = UnimoConfig(vocab_size=300, max_position_embeddings=40)
    words = train_tokenizer(TEXTS, vocab_size=300)
    at_random = verified_texts(tmp_path, config, seed=1)
    words.save(tmp_path / "tokenizer.json")
    texts = verified_texts(tmp_path, config, seed=1)
    for text in (*at_random, *texts):
        there = torch.nonzero(text != 1).flatten()
        first, last = int(there[0]), int(there[-1])
        assert (text[first], text[last]) == (0, 2)
        assert {1, 2, 3, 299} <= set(text[first + 1 : last].tolist())
    assert [int(text[0]) for text in texts] == [0, 0, 0, 1]  # the last is padded left
    sentence = set(words.encode([" An empty train station."])[0])
    assert len(sentence & set(texts[3].tolist())) > len(sentence) // 2


REFUSED = {
    "is_decoder": (True, "is_decoder True, UNIMO takes over False only"),
    "pad_token_id": (0, "pad_token_id 0, UNIMO takes over 1 only"),
    "eos_token_id": (4, "eos_token_id 4, UNIMO takes over 2 only"),
    "model_type": ("bert", "describes a bert model"),
    "hidden_act": ("relu", "hidden_act 'relu', UNIMO takes over 'gelu' only"),
    "position_embedding_type": ("relative_key", "UNIMO takes over 'absolute' only"),
    "num_hidden_layers": (3, "has no weights for"),
    "intermediate_size": (64, "do not fit its config.json"),
}


@pytest.mark.parametrize("field", REFUSED)
def test_another_architecture_is_refused_in_one_line(
    roberta: RobertaForMaskedLM, tmp_path: Path, field: str
) -> None:
    value, message = REFUSED[field]
    path = tmp_path / "roberta" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    result = _convert(tmp_path / "roberta", tmp_path / "unimo")
    assert result.exit_code == USER_ERROR
    assert message in result.output
    assert result.output.startswith("unimo-convert: ") and result.output.count("\n") == 1
    assert not (tmp_path / "unimo").exists()


def test_missing_and_partial_folders_are_refused(
    roberta: RobertaForMaskedLM, tmp_path: Path
) -> None:
    result = _convert(tmp_path / "nowhere", tmp_path / "unimo")
    assert result.exit_code == USER_ERROR and "config.json is missing" in result.output
    weights = load_file(tmp_path / "roberta" / "model.safetensors")
    del weights["roberta.encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "roberta" / "model.safetensors")
    result = _convert(tmp_path / "roberta", tmp_path / "unimo")
    assert result.exit_code == USER_ERROR and "layers.1.down.weight" in result.output
    (tmp_path / "roberta" / "model.safetensors").unlink()
    result = _convert(tmp_path / "roberta", tmp_path / "unimo")
    assert result.exit_code == USER_ERROR and "no weights in" in result.output
