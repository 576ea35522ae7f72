"""A run converts on another machine, from another folder, without its corpora; or not at all."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from tests.train.test_resume import as_of_an_earlier_release
from unimo_ds.config import RunConfig, load_config
from unimo_ds.convert.cli import app
from unimo_ds.convert.destination import whole_folder
from unimo_ds.model.processing import UnimoProcessor
from unimo_ds.objectives.pretraining import UnimoForPreTraining
from unimo_ds.train.checkpoint import save_checkpoint
from unimo_ds.train.engine import PlainEngine
from unimo_ds.train.model import build_model
from unimo_ds.train.run_folder import commit_start

KINDS = ("texts", "images", "pairs", "heldout")


@pytest.fixture(scope="module")
def config(small_toml, corpora, tmp_path_factory) -> RunConfig:
    """Of a run, with one checkpoint, on corpora that are gone."""
    machine = tmp_path_factory.mktemp("cluster")
    for kind in KINDS:
        shutil.copytree(corpora / kind, machine / kind)
    shutil.copy(corpora / "tokenizer.json", machine)
    there = small_toml.read_text().replace(str(corpora), str(machine))
    (machine / "there.toml").write_text(there)
    config = load_config(machine / "there.toml", [f"folder={machine}", "train.deepspeed="])
    commit_start(config, fresh=False, command=["train"])
    save_checkpoint(PlainEngine(build_model(config), config), config, 1, 0.0)
    for kind in KINDS:
        shutil.rmtree(machine / kind)
    (machine / "tokenizer.json").unlink()
    return config


@pytest.fixture
def run(config, tmp_path, monkeypatch):
    """The run alone, copied; and another working directory."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(config.run_folder, tmp_path / "copied")


def convert(run, destination):
    done = CliRunner().invoke(app, ["zero", str(run), str(destination)])
    return done.exit_code, " ".join(done.output.split())


def test_a_copied_run_converts_without_its_corpora(config, corpora, run, tmp_path):
    code, told = convert(run, tmp_path / "model")
    assert code == 0, told
    expected = build_model(config).state_dict()
    for name, weight in UnimoForPreTraining.from_pretrained("model").state_dict().items():
        assert torch.equal(weight, expected[name]), name
    assert UnimoProcessor.from_pretrained("model").grid is not None
    text = "a red circle"
    ids = AutoTokenizer.from_pretrained("model")(text)["input_ids"]
    assert ids[1:-1] == AutoTokenizer.from_pretrained(corpora)(text)["input_ids"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copied", "model"]


def edit(path, **changes):
    values = json.loads(path.read_text())
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values[section] = values[section] | {key: value} if key else value
    path.write_text(json.dumps(values))


CHANGES = {
    "config.json": (
        {"model__score": "match"},
        "config.json is not the configuration that step_00000001 was trained with, which has "
        "model.score 'cosine' (here 'match')",
    ),
    "tokenizer.json": ({"normalizer": {"type": "Lowercase"}}, "the tokenizer of"),
    "regions.json": ({"parameters__grid": 8}, "the source of regions of"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_not_the_checkpoints_is_refused_and_leaves_nothing(run, tmp_path, name):
    changes, message = CHANGES[name]
    edit(run / name, **changes)
    code, told = convert(run, tmp_path / "models" / "model")
    assert code == 2
    assert message in told.replace(f"{run}/checkpoints/", "")
    assert not (tmp_path / "models").exists()


def test_a_run_of_another_model_is_refused_by_its_config(config, run, tmp_path):
    other = dataclasses.replace(config.model, num_attention_heads=4)
    (run / "config.json").write_text(dataclasses.replace(config, model=other).to_json())
    code, told = convert(run, tmp_path / "model")
    assert code == 2 and "model.num_attention_heads 2 (here 4)" in told


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(OSError, match="full"), whole_folder(tmp_path / "model") as folder:
        (folder / "config.json").write_text("{}")
        raise OSError("the disk is full")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_filled_and_stays(tmp_path, monkeypatch):
    """It may be a mount point, or where somebody stands."""
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    with whole_folder(Path(".")) as folder:
        (folder / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert tmp_path.stat().st_ino == before
    with pytest.raises(OSError, match="full"), whole_folder(tmp_path) as folder:
        (folder / "model.safetensors").write_text("half")
        raise OSError("the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("lacks", "message"), [("tokenizer.json", "copy the tokenizer.json"), ("", "kept no regions")]
)
def test_runs_of_earlier_releases_say_what_is_missing(config, corpora, run, lacks, message):
    as_of_an_earlier_release(run, config)
    if not lacks:
        shutil.copy(corpora / "tokenizer.json", run)
    code, told = convert(run, "model")
    assert code == 2 and message in told


def test_runs_of_earlier_releases_convert_where_their_corpora_are(small_config, run, tmp_path):
    as_of_an_earlier_release(run, small_config)
    (run / "config.json").write_text(small_config.to_json())
    assert convert(run, tmp_path / "model")[0] == 0
    assert UnimoProcessor.from_pretrained(tmp_path / "model").grid is not None
    edit(run / "config.json", model__score="match")
    code, told = convert(run, tmp_path / "other")
    assert code == 2 and "in earlier releases a start that was refused overwrote it" in told
