"""The command from end to end on small corpora: trained, evaluated, killed, gone on, told."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import command_environment, prep
from tests.processes import kill_tree, run_command
from unimo_ds.ablate import app
from unimo_ds.ablation.grid import run_grid
from unimo_ds.ablation.run import LEVELS, finished, plan
from unimo_ds.ablation.table import METRICS
from unimo_ds.config import load_config
from unimo_ds.data.schema import read_manifest

STEPS = 6
FEW = ("batch.samples=14", "optim.warmup_steps=2", "train.log_every=2", "cmcl.word_negatives=1")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "unimo_ds.ablate", *map(str, arguments)]


def ablate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_command(command(*arguments), env=command_environment())


def real(small_toml: Path, corpora: Path, out: Path, steps: int = STEPS) -> list[object]:
    asked = [*FEW, f"train.steps={steps}", "--scarce", corpora / "pairs", "--sizes", "scarce"]
    asked += ["--variants", "full,no-rewriting", "--seeds", 1, "--out", out]
    return ["real", small_toml, *asked]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("result.json")}


@pytest.fixture(scope="module")
def done(small_toml, corpora, tmp_path_factory) -> Path:
    """A whole ablation of two runs."""
    out = tmp_path_factory.mktemp("ablation") / "out"
    ran = ablate(*real(small_toml, corpora, out))
    assert ran.returncode == 0, ran.stderr
    assert "2 of 2 runs" in ran.stderr
    return out


def test_every_run_leaves_its_numbers_and_the_page_shows_them(done):
    results = json.loads((done / "ablation.json").read_text())
    assert [(r["size"], r["variant"], r["seed"]) for r in results] == [
        ("scarce", "full", 1),
        ("scarce", "no-rewriting", 1),
    ]
    names = {metric.name for metric in METRICS} | {f"{level}_individually" for level in LEVELS}
    text = (done / "ablation.md").read_text()
    for result in results:
        assert {*result["values"]} == names
        assert result["config"]["train"]["steps"] == STEPS
        shown = f"| {100 * result['values']['word_jointly']:.1f} |"
        assert shown in text
    full, without = (result["config"]["cmcl"] for result in results)
    assert (full["word_negatives"], without["word_negatives"]) == (1, 0)
    assert without["other_negatives"] == full["other_negatives"] + 1
    assert not list(done.rglob("checkpoints"))
    assert (done / "ablation.html").read_text().count("<svg") == len(METRICS)


def test_what_has_ended_is_not_made_again_and_what_is_missing_comes_out_the_same(
    done, small_toml, corpora
):
    before = contents(done)
    lost = done / "runs" / "scarce" / "no-rewriting" / "seed-1" / "result.json"
    lost.unlink()
    kept = done / "runs" / "scarce" / "full" / "seed-1" / "result.json"
    older = json.loads(kept.read_text())
    del older["config"]["train"]["timeout_minutes"]  # as of a release that had no such field
    kept.write_text(json.dumps(older))
    written = kept.stat().st_mtime_ns
    ran = ablate(*real(small_toml, corpora, done))
    assert ran.returncode == 0, ran.stderr
    assert kept.stat().st_mtime_ns == written
    again = contents(done)
    for name, text in before.items():
        old, new = json.loads(text), json.loads(again[name])
        assert old["values"] == new["values"]


def test_killed_in_its_second_run_it_goes_on(small_toml, corpora, done, tmp_path):
    out = tmp_path / "out"
    asked = command(*real(small_toml, corpora, out))
    process = subprocess.Popen(asked, env=command_environment(), stderr=subprocess.DEVNULL)
    second = out / "runs" / "scarce" / "no-rewriting" / "seed-1" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not second.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_tree(process.pid)
    process.wait()
    assert len(contents(out)) == 1
    ran = run_command(asked, env=command_environment())
    assert ran.returncode == 0, ran.stderr
    for name, text in contents(done).items():
        assert json.loads(text)["values"] == json.loads(contents(out)[name])["values"]


@pytest.fixture(scope="module")
def heldouts(corpora, tmp_path_factory) -> Path:
    """Held-out pairs without any rewrites, and with those of words alone."""
    folder = tmp_path_factory.mktemp("heldouts")
    for name in ("bare", "words"):
        shutil.copytree(corpora / "heldout", folder / name)
    manifest = read_manifest(folder / "bare")
    shards = [replace(shard, rewrites="", rewrites_sha256="") for shard in manifest.shards]
    bare = replace(manifest, stages={}, shards=shards)
    (folder / "bare" / "manifest.json").write_text(bare.to_json())
    words = ("--tokenizer", corpora / "tokenizer.json", "--levels", "word")
    prep("rewrite", folder / "words", *words, "--replace")
    return folder


def refused(*arguments: object) -> str:
    ran = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert ran.exit_code == 2, ran.output
    return " ".join(ran.output.split())


def test_results_of_other_settings_are_refused(done, small_toml, corpora):
    told = refused(*real(small_toml, corpora, done, steps=STEPS + 1))
    assert "was made with train = " in told
    assert "name a new folder with --out" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--variants", "full,nothing"), "--variants 'full,nothing': expected some of full, no-w"),
        (("--sizes", "huge"), "--sizes 'huge': expected some of scarce, plenty"),
        (("--sizes", "scarce,plenty"), "--plenty is empty"),
        (("train.stepps=1",), "train.stepps"),
        (("data.heldout_pairs=[]",), "data.heldout_pairs is empty"),
        (
            ('data.heldout_pairs=["{corpora}/bare"]',),
            "has no rewritten captions: run",
        ),
        (
            ('data.heldout_pairs=["{corpora}/words"]',),
            "of level phrase, sentence: run",
        ),
    ],
)
def test_what_cannot_work_is_one_line(small_toml, corpora, heldouts, tmp_path, change, message):
    change = [part.format(corpora=heldouts) for part in change]
    assert message in refused(*real(small_toml, corpora, tmp_path / "out"), *change)


def test_no_run_begins_that_would_not_end_in_time(small_toml, corpora, done):
    overrides = [f"folder={done / 'runs'}", *FEW, f"train.steps={STEPS}"]
    base = load_config(small_toml, overrides)
    pairs = {"scarce": str(corpora / "pairs")}
    names = ("full", "no-cmcl")
    planned = [plan(base, pairs, name, "scarce", 1) for name in names]
    told: list[str] = []
    results = run_grid(planned, 1, 1e-9, lambda run, result: told.append(run.variant))
    assert [result["variant"] for result in results] == told == ["full"]
    assert finished(planned[1]) is None


def test_the_demo_makes_its_own_world(tmp_path):
    few = ("--scarce", 16, "--plenty", 40, "--heldout", 12, "--unpaired", 30)
    asked = (f"train.steps={STEPS}", "optim.warmup_steps=2", "cmcl.hardness_steps=2")
    asked += (
        "batch.samples=12",
        "--variants",
        "full,pairs-only",
        "--seeds",
        1,
        "--sizes",
        "scarce",
    )
    ran = ablate("demo", *asked, "--out", tmp_path, *few)
    assert ran.returncode == 0, ran.stderr
    results = json.loads((tmp_path / "ablation.json").read_text())
    assert [result["variant"] for result in results] == ["full", "pairs-only"]
    assert [result["config"]["batch"]["samples"] for result in results] == [12, 8]
    told = refused("demo", *asked, "--out", tmp_path, "--plenty", 41)
    assert "holds a world of" in told
