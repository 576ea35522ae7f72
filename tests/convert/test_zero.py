"""Checkpoint -> Hugging Face folder: the weights are those that were trained; everything loads."""

import dataclasses
import json

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from tests.cluster.launch import train
from tests.conftest import ROOT
from unimo_ds.convert.cli import app
from unimo_ds.convert.zero import convert_zero
from unimo_ds.data.loader import Loader
from unimo_ds.model.generation import UnimoForConditionalGeneration
from unimo_ds.model.modeling import UnimoForImageTextRetrieval, UnimoForMaskedLM
from unimo_ds.model.processing import UnimoProcessor
from unimo_ds.objectives.pretraining import UnimoForPreTraining, terms
from unimo_ds.tokenizer import load_tokenizer
from unimo_ds.train.checkpoint import save_checkpoint
from unimo_ds.train.engine import PlainEngine
from unimo_ds.train.model import build_model
from unimo_ds.train.run_folder import commit_start

pytestmark = pytest.mark.alone

STEPS = "train.steps=6", "train.save_every=3", "train.eval_every=6"


@pytest.fixture(scope="module")
def zero3(small_toml, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "zero3"
    train("deepspeed", 2, small_toml, run, *STEPS)
    return run


@pytest.fixture(scope="module")
def converted(zero3):
    done = CliRunner().invoke(app, ["zero", str(zero3), str(zero3 / "model")])
    assert done.exit_code == 0, done.output
    return zero3 / "model"


def test_the_folder_holds_no_pickle_and_all_a_user_needs(converted):
    names = {path.name for path in converted.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_zero3_plain_and_zero0_checkpoints_convert_to_one_model(small_toml, converted, tmp_path):
    ours = UnimoForPreTraining.from_pretrained(converted).state_dict()
    for name, deepspeed in (("plain", ""), ("zero0", f"{ROOT}/ds_configs/zero0.json")):
        train("plain", 1, small_toml, tmp_path / name, *STEPS, f"train.deepspeed={deepspeed}")
        folder = convert_zero(tmp_path / name, tmp_path / f"{name}-model")
        theirs = UnimoForPreTraining.from_pretrained(folder).state_dict()
        assert theirs.keys() == ours.keys()
        for key, weight in ours.items():
            # Adam divides by the gradient's own size: where that is rounding error alone, so is
            # the step, of which none is longer than the learning rate, 1e-3.
            torch.testing.assert_close(theirs[key], weight, rtol=0, atol=1e-4, msg=key)
            alike = torch.isclose(theirs[key], weight, rtol=1e-3, atol=2e-6)
            assert (~alike).sum() <= max(1, len(alike.flatten()) // 100), key


def test_converted_weights_give_the_losses_of_the_run(zero3, converted, small_config):
    """The held-out losses that the trained engine logged, again from the converted model."""
    lines = map(json.loads, (zero3 / "metrics.jsonl").read_text().splitlines())
    (logged,) = [line for line in lines if line["type"] == "heldout"]
    model = UnimoForPreTraining.from_pretrained(converted).eval()
    sums = torch.zeros(5, 2, dtype=torch.float64)
    with torch.no_grad():
        for micro_steps in Loader(small_config, heldout=True).heldout():
            for micro_step in micro_steps:
                losses = terms(model(micro_step.batch.to("cpu")))
                sums += torch.tensor([[float(t.loss), float(t.count)] for t in losses.values()])
    for name, (loss, count) in zip(losses, sums.tolist(), strict=True):
        assert loss / count == pytest.approx(logged[f"loss/{name}"], rel=1e-5), name


def test_every_class_loads_and_answers(converted, corpora):
    processor = UnimoProcessor.from_pretrained(converted)
    picture = Image.open(corpora / "raw" / "pairs" / "train" / "00000.png")
    inputs = processor(images=[picture], text=["a red circle is left of a blue star."])
    hidden = AutoModel.from_pretrained(converted)(**inputs).last_hidden_state
    assert hidden.shape[1] == 17 + inputs["input_ids"].shape[1]
    masked = UnimoForMaskedLM.from_pretrained(converted)(**inputs)
    assert masked.logits.shape[:2] == inputs["input_ids"].shape
    generator = UnimoForConditionalGeneration.from_pretrained(converted)
    seen = {name: inputs[name] for name in ("features", "boxes", "region_mask")}
    written = generator.generate(**seen, max_new_tokens=8)
    assert written.shape[0] == 1 and isinstance(processor.decode(written[0]), str)
    retrieval = UnimoForImageTextRetrieval.from_pretrained(converted)
    image = retrieval.encode_images(**seen)
    assert image.norm(dim=-1).tolist() == pytest.approx([1.0], rel=1e-4)


def test_the_tokenizer_travels_unchanged(converted, corpora):
    text = "a small dotted ring above two big crosses."
    (ids,) = load_tokenizer(corpora / "tokenizer.json").encode([text])
    assert AutoTokenizer.from_pretrained(converted)(text)["input_ids"] == [0, *ids, 2]
    travelled, original = load_tokenizer(converted), load_tokenizer(corpora / "tokenizer.json")
    assert travelled.fingerprint == original.fingerprint


def test_a_step_can_be_chosen_and_wrong_calls_are_refused(zero3, converted, tmp_path):
    run_cli = CliRunner().invoke
    assert run_cli(app, ["zero", str(zero3), str(tmp_path / "m"), "--step", "3"]).exit_code == 0
    early = UnimoForPreTraining.from_pretrained(tmp_path / "m").state_dict()
    late = UnimoForPreTraining.from_pretrained(converted).state_dict()
    assert any(not torch.equal(early[key], late[key]) for key in early)
    for arguments, said in (
        ((zero3, converted), "holds something already"),
        ((zero3, tmp_path / "x", "--step", "4"), "no checkpoint step_00000004"),
        ((tmp_path, tmp_path / "x"), "is no run"),
    ):
        done = run_cli(app, ["zero", *map(str, arguments)])
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())
    assert not (tmp_path / "x").exists()


def test_weights_that_are_missing_are_named(small_config, tmp_path):
    config = dataclasses.replace(small_config, folder=str(tmp_path), name="run")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, deepspeed=""))
    commit_start(config, fresh=False, command=["test"])
    engine = PlainEngine(build_model(config), config)
    del engine.model.image_pooler.dense.bias
    engine.model.image_pooler.dense.register_parameter("bias", None)
    save_checkpoint(engine, config, 1, 0.0)
    with pytest.raises(ValueError, match=r"weights missing \['image_pooler.dense.bias'\]"):
        convert_zero(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()
