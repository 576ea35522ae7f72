"""A start that is refused leaves the run's folder, and what stands beside it, as they were."""

import dataclasses
import json
import shutil
import socket

import pytest

from unimo_ds.pretrain import main
from unimo_ds.train.run_folder import read_config, read_regions, read_tokenizer

SHORT = (
    "train.deepspeed=",
    "train.steps=4",
    "train.save_every=2",
    "optim.warmup_steps=1",
    "data.heldout_pairs=[]",
    "batch.samples=8",
)


def start(toml, run, *overrides):
    """The exit code of a training into the folder ``run``."""
    where = (f"folder={run.parent}", f"name={run.name}")
    return main([str(toml), *where, *SHORT, *overrides])


def everything_in(folder):
    """Every path below ``folder``, with the bytes of files."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def trained(small_toml, tmp_path_factory):
    """Two steps of four."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert start(small_toml, run, "train.stop_after=2") == 0
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs" / "run")


@pytest.fixture
def damaged_texts(corpora, tmp_path):
    """A copy whose manifest is whole and whose shard is short, which is seen when it is read."""
    texts = shutil.copytree(corpora / "texts", tmp_path / "damaged")
    (shard,) = texts.glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:-64])
    return texts


REFUSED = {
    "another loss": (("loss.mrc=0.5",), "was trained with loss.mrc 1.0 (here 0.5)"),
    "no such corpus": (('data.texts=["nowhere"]',), "nowhere is no corpus"),
    "fewer corpora": (("data.texts=[]", "data.text_weight=0"), "data.text_weight 1 (here 0)"),
    "fresh, no such tokenizer": (("--fresh", "data.tokenizer=nowhere"), "no tokenizer at nowhere"),
    "fresh, other words": (("--fresh", "model.vocab_size=401"), "vocab_size 401 is not that of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(small_toml, run, capsys, case):
    overrides, message = REFUSED[case]
    before = everything_in(run.parent)
    assert start(small_toml, run, *overrides) == 2
    assert message in capsys.readouterr().err
    assert everything_in(run.parent) == before


@pytest.mark.parametrize("fresh", [(), ("--fresh",)], ids=["resumed", "fresh"])
def test_damage_that_shows_in_the_first_batch_changes_nothing(
    small_toml, run, damaged_texts, capsys, fresh
):
    before = everything_in(run.parent)
    assert start(small_toml, run, f'data.texts=["{damaged_texts}"]', *fresh) == 2
    assert "its manifest says" in capsys.readouterr().err
    assert everything_in(run.parent) == before


def test_checkpoints_that_cannot_be_loaded_change_nothing(small_toml, run, capsys):
    path = run / "checkpoints" / "step_00000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"world_size": 4}))
    before = everything_in(run.parent)
    assert start(small_toml, run) == 2
    assert "written by 4 ranks, this run has 1" in capsys.readouterr().err
    assert everything_in(run.parent) == before


def test_a_first_start_that_is_refused_makes_no_folder(small_toml, tmp_path, damaged_texts):
    assert start(small_toml, tmp_path / "new" / "run", f'data.texts=["{damaged_texts}"]') == 2
    assert not (tmp_path / "new").exists()


def test_storage_that_does_not_answer_is_told_in_one_line(small_toml, run, monkeypatch, capsys):
    monkeypatch.setattr("unimo_ds.storage.FIRST_PAUSE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/corpus"
    before = everything_in(run.parent)  # nobody listens there any more
    assert start(small_toml, run, f'data.texts=["{url}"]') == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("unimo_ds.pretrain")]
    assert f"cannot look at {url}/manifest.json, tried 6 times" in line
    assert everything_in(run.parent) == before


def test_a_folder_that_cannot_be_made_is_told_in_one_line(small_toml, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert start(small_toml, tmp_path / "file" / "run") == 2
    assert f"cannot write into {tmp_path / 'file' / 'run'}" in capsys.readouterr().err


def test_an_accepted_start_says_what_it_runs_and_keeps_what_converts_it(
    small_toml, small_config, trained
):
    assert read_config(trained).train.stop_after == 2
    (line,) = (trained / "command.txt").read_text().splitlines()
    assert "ranks=1" in line
    nowhere = dataclasses.replace(
        small_config, data=dataclasses.replace(small_config.data, tokenizer="", pairs=[], images=[])
    )
    here = small_config
    kept = read_tokenizer(trained, nowhere)
    assert kept.fingerprint == read_tokenizer(trained.parent, here).fingerprint
    regions = read_regions(trained, nowhere)
    assert regions is not None and regions == read_regions(trained.parent, here)


def test_fresh_sets_the_old_run_aside(small_toml, run):
    before = (run / "metrics.jsonl").read_bytes()
    assert start(small_toml, run, "--fresh", "train.stop_after=1") == 0
    (aside,) = [path for path in run.parent.iterdir() if path.name.startswith("run.")]
    assert (aside / "metrics.jsonl").read_bytes() == before
    assert (aside / "checkpoints" / "step_00000002").is_dir()
    assert [path.name for path in (run / "checkpoints").glob("step_*")] == ["step_00000001"]
    assert len((run / "command.txt").read_text().splitlines()) == 1
