"""A run goes on from its checkpoint where settings and rows are the same, wherever they lie."""

import dataclasses
import json
import shutil

import pytest
import torch

from tests.train.test_run_folder import SHORT, everything_in, start
from unimo_ds.config import RunConfig, load_config
from unimo_ds.train.identity import corpus_fingerprint, fingerprint_of_paths

KINDS = ("texts", "images", "pairs")
ONE_ROW = ("batch.rows=1", "batch.tokens_per_row=8192")
"""With 8 samples a step is one micro-step, as it is with the 4 rows of 2,048 of the small run."""


@pytest.fixture(scope="module")
def trained(small_toml, tmp_path_factory):
    """Two steps of four, and all four."""
    folder = tmp_path_factory.mktemp("trained")
    for name, more in (("half", "train.stop_after=2"), ("whole", "train.stop_after=4")):
        assert start(small_toml, folder / name, more) == 0
    return folder


@pytest.fixture
def half(trained, tmp_path):
    return shutil.copytree(trained / "half", tmp_path / "run")


def losses(run):
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["type"] == "train"]


def weights(run):
    (path,) = run.glob("checkpoints/step_00000004/plain_states.pt")
    return torch.load(path, weights_only=True)["model"]


def as_of_an_earlier_release(run, config):
    """Its manifests held one value of settings and paths, its folder no tokenizer."""
    for path in run.glob("checkpoints/*/manifest.json"):
        manifest = json.loads(path.read_text())
        for name in ("identity", "train_steps", "micro_steps"):
            del manifest[name]
        manifest["config_fingerprint"] = fingerprint_of_paths(config)
        path.write_text(json.dumps(manifest))
    for name in ("tokenizer.json", "regions.json"):
        (run / name).unlink()


def test_moved_corpora_go_on_to_the_bit(small_toml, corpora, trained, half, tmp_path, capsys):
    moved = {kind: shutil.copytree(corpora / kind, tmp_path / "moved" / kind) for kind in KINDS}
    shutil.copy(corpora / "tokenizer.json", tmp_path / "moved")
    paths = [f'data.{kind}=["{folder}"]' for kind, folder in moved.items()]
    paths.append(f"data.tokenizer={tmp_path / 'moved' / 'tokenizer.json'}")
    assert start(small_toml, half, *paths) == 0
    assert "resumed from step 2" in capsys.readouterr().out
    assert losses(half) == losses(trained / "whole")
    expected = weights(trained / "whole")
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(half).items())


def test_the_model_that_weights_came_from_may_move(small_toml, half):
    assert start(small_toml, half, "model.init=elsewhere") == 0


def test_corpora_built_anew_under_the_same_path_are_refused(small_toml, corpora, half, capsys):
    before = everything_in(half)
    pairs, other = corpora / "pairs", corpora / "heldout"
    aside = pairs.rename(corpora / "aside")
    try:
        shutil.copytree(other, pairs)
        assert start(small_toml, half) == 2
    finally:
        shutil.rmtree(pairs)
        aside.rename(pairs)
    assert "was trained with other rows or columns in data.pairs[0]" in capsys.readouterr().err
    assert everything_in(half) == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (('data.texts=["{texts}", "{texts}"]',), "1 data.texts (here 2)"),
        (("data.max_regions=17", "optim.beta2=0.9"), "data.max_regions 16 (here 17), optim.beta2"),
    ],
)
def test_others_are_named(small_toml, corpora, half, capsys, overrides, message):
    given = [override.replace("{texts}", str(corpora / "texts")) for override in overrides]
    assert start(small_toml, half, *given) == 2
    assert message in capsys.readouterr().err


def test_columns_count_where_they_are_read(small_toml, corpora, tmp_path):
    """Rewriting captions while a run goes on changes nothing for one that reads no rewrites."""
    rewritten = shutil.copytree(corpora / "pairs", tmp_path / "pairs")
    path = rewritten / "manifest.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["shards"]:
        shard["rewrites_sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    for override, is_same in (("cmcl.word_negatives=0", True), ("cmcl.word_negatives=1", False)):
        config = load_config(small_toml, [override])
        before, after = (
            corpus_fingerprint(str(folder), config) for folder in (corpora / "pairs", rewritten)
        )
        assert (before == after) == is_same, override


def test_other_rows_of_one_micro_step_give_the_same_losses(small_toml, trained, half):
    assert start(small_toml, half, *ONE_ROW) == 0
    assert losses(half) == pytest.approx(losses(trained / "whole"), rel=1e-5)
    manifest = json.loads((half / "checkpoints/step_00000004/manifest.json").read_text())
    assert manifest["micro_steps"] == 1
    assert manifest["identity"]["settings"]["batch.rows"] == 1


def test_other_rows_are_refused_where_a_step_would_be_several(small_toml, half, capsys):
    before = everything_in(half)
    assert start(small_toml, half, "batch.rows=1", "batch.tokens_per_row=900") == 2
    message = capsys.readouterr().err
    assert "batch.rows 4 (here 1) and batch.tokens_per_row 2048 (here 900) in 1 micro" in message
    assert "the next one would be 2: raise batch.tokens_per_row" in message
    assert everything_in(half) == before


def test_other_rows_are_refused_where_a_step_was_several(small_toml, tmp_path, capsys):
    run, small_rows = tmp_path / "run", ("batch.rows=1", "batch.tokens_per_row=1100")
    assert start(small_toml, run, *small_rows, "train.stop_after=2") == 0
    assert "step 1 is 2 micro-steps: batch.rows 1 of" in capsys.readouterr().out
    assert start(small_toml, run, "batch.rows=2", "batch.tokens_per_row=1100") == 2
    message = capsys.readouterr().err
    assert "batch.rows 1 (here 2) in up to 2 micro-steps a step" in message
    assert start(small_toml, run, *small_rows) == 0


def test_another_end_says_what_the_learning_rate_does(small_toml, trained, tmp_path, capsys):
    run = shutil.copytree(trained / "whole", tmp_path / "run")
    assert start(small_toml, run, "train.steps=6") == 0
    assert (
        "train.steps is 6, it was 4: the learning rate of step 5 goes from 0.000e+00 to 4.000e-04, "
        "and from there linearly to 0 at step 6"
    ) in capsys.readouterr().out
    rates = [
        json.loads(line).get("lr") for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    assert rates[-2:] == pytest.approx([4e-4, 2e-4])


def test_the_fingerprint_of_earlier_releases_is_what_it_was():
    """Checkpoints hold it: a field that is new since goes into `SINCE_FINGERPRINTS`."""
    assert fingerprint_of_paths(RunConfig()) == "52b4d0437e1d7370"
    other = dataclasses.replace(RunConfig(), seed=2)
    assert fingerprint_of_paths(other) != "52b4d0437e1d7370"


def test_checkpoints_of_earlier_releases_go_on(small_toml, trained, half, capsys):
    config = load_config(small_toml, SHORT)
    as_of_an_earlier_release(half, config)
    assert start(small_toml, half, "seed=5") == 2
    assert "it is of an earlier release, which compared paths" in capsys.readouterr().err
    assert start(small_toml, half, "train.steps=5") == 0
    assert "train.steps is 5, it was 4" in capsys.readouterr().out
    assert losses(half)[:3] == losses(trained / "whole")[:3]
    manifest = json.loads((half / "checkpoints/step_00000004/manifest.json").read_text())
    assert manifest["micro_steps"] == 0 and manifest["identity"]["corpora"]["texts"]
    assert (half / "tokenizer.json").is_file()
    assert start(small_toml, half, "train.steps=6", *ONE_ROW) == 2
    assert "(here 1) and batch.tokens_per_row 2048 (here 8192) in an" in capsys.readouterr().err
