"""The command: a table for people, JSON for programs, one line for what does not go together."""

import json
import shutil

import pytest
from typer import Typer
from typer.testing import CliRunner

from tests.tasks.conftest import ROWS
from unimo_ds.evaluate import main
from unimo_ds.model.modeling import UnimoForImageTextRetrieval
from unimo_ds.tasks.hard_negatives import hard_negatives
from unimo_ds.tasks.packed import Scorer
from unimo_ds.tasks.retrieval import retrieval

app = Typer()
app.command()(main)


def evaluate(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("task", ["retrieval", "hard_negatives"])
def test_a_folder_is_evaluated_like_the_model_in_it(folder, corpora, heldout, tmp_path, task):
    out = tmp_path / "out.json"
    extra = ("--rerank", 3) if task == "retrieval" else ()
    data = corpora / "heldout"
    ran = evaluate(folder, "--task", task, "--data", data, "--most", 6, "--out", out, *extra)
    assert ran.exit_code == 0, ran.output
    scorer = Scorer(UnimoForImageTextRetrieval.from_pretrained(folder).eval(), heldout)
    expected = retrieval(scorer, ROWS, 3) if task == "retrieval" else hard_negatives(scorer, ROWS)
    told = {"task": task, "model": str(folder), "data": str(data)}
    assert json.loads(out.read_text()) == told | json.loads(json.dumps(expected))
    if task == "retrieval":
        shares = expected["reranked"]["text_to_image"]
        shown = [f"{100 * shares[f'r{depth}']:.1f}" for depth in (1, 5, 10)]
        (line,) = (li for li in ran.output.splitlines() if "best 3" in li and "caption" in li)
        assert [part for part in line.split() if "." in part] == shown
    else:
        assert "word/attribute" in ran.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--task", "vqa"), "expected one of retrieval, hard_negatives"),
        (("--task", "hard_negatives", "--rerank", 2), "--rerank 2 is for --task retrieval"),
        (("--data", "{corpora}/texts"), "holds texts, expected pairs"),
        (("--data", "{corpora}/nowhere"), "nowhere"),
    ],
)
def test_what_does_not_go_together_is_one_line(folder, corpora, change, message):
    arguments = [str(part).format(corpora=corpora) for part in change]
    for option, value in (("--task", "retrieval"), ("--data", str(corpora / "heldout"))):
        if option not in arguments:
            arguments += [option, value]
    ran = evaluate(folder, *arguments)
    assert ran.exit_code == 2
    assert message in ran.output
    assert "Traceback" not in ran.output


def test_no_model_is_told_how_one_is_made(corpora, tmp_path):
    ran = evaluate(tmp_path, "--task", "retrieval", "--data", corpora / "heldout")
    assert ran.exit_code == 2
    assert "unimo-convert zero" in ran.output.replace("\n", " ")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_feature_size", 12, "has regions of 192 features"),
        ("max_position_embeddings", 40, "rebuild with --max-tokens 36"),
    ],
)
def test_a_model_of_other_pairs_is_refused(folder, corpora, tmp_path, key, value, message):
    config = UnimoForImageTextRetrieval.config_class.from_pretrained(folder)
    setattr(config, key, value)
    UnimoForImageTextRetrieval(config).save_pretrained(tmp_path)
    shutil.copy(folder / "tokenizer.json", tmp_path)
    ran = evaluate(tmp_path, "--task", "retrieval", "--data", corpora / "heldout")
    assert ran.exit_code == 2
    assert message in ran.output


def test_a_model_of_other_words_is_refused(folder, corpora, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["merges"] = words["model"]["merges"][:20]
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    ran = evaluate(tmp_path, "--task", "retrieval", "--data", corpora / "heldout")
    assert ran.exit_code == 2
    assert "name pairs of the model's own tokenizer" in ran.output
