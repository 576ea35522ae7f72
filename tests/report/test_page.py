"""The page of a tiny run, made by the command and looked at by a real browser."""

import json
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.browser import WIDTHS, look, needs_browser
from tests.colours import contrast
from unimo_ds.report import __main__ as command

HEADINGS = ("Results", "Losses", "Accuracy", "Retrieval", "Captions", "Masked words", "The run")

SEEN = """
      cut: [...page.querySelectorAll("main *, header *, nav *")].filter(
        e => !e.closest("pre, svg") && e.getBoundingClientRect().right > right
      ).map(e => e.outerHTML.slice(0, 80)),
      images: page.images.length,
      broken: [...page.images].filter(image => !image.naturalWidth).map(image => image.alt),
      silent: [...page.images].filter(image => !image.alt).length,
      unnamed: page.querySelectorAll("svg:not([aria-label]):not([aria-hidden])").length,
      text: page.body.innerText,
"""
"""What is looked at on the page beside `tests.browser`'s own, in JavaScript."""


@pytest.fixture(scope="module")
def made(files, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    arguments = [files.run, files.model, "--out", out, "--scenes", files.scenes]
    run_command(*arguments, "--started", time.time() - 1000)
    return out


def run_command(*arguments: object) -> str:
    app = command.typer.Typer()
    app.command()(command.main)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_summary_holds_the_numbers(made: Path):
    summary = json.loads((made.parent / "summary.json").read_text())
    assert summary["retrieval"]["candidates"] == 30
    assert 0 <= summary["retrieval"]["image_to_text_r1"] <= 1
    assert 0 <= summary["retrieval"]["text_to_image_r1"] <= 1
    assert 0 <= summary["caption"]["object_colour_accuracy"] <= 1
    assert set(summary["losses"]) == {"mlm", "seq2seq", "mrfr", "mrc", "cmcl"}
    assert summary["losses"]["mlm"]["first"] > 4 > 2 > summary["losses"]["mlm"]["last"]
    assert 1000 <= summary["seconds"] < 1300
    assert summary["peak_rss_gib"] >= 1.5
    assert [path.name for path in made.parent.iterdir() if path.name.startswith(".")] == []


def test_page_needs_no_network(made: Path):
    page = made.read_text(encoding="utf-8")
    assert made.stat().st_size < 6e6
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert not re.search(r"url\(|@import|<script|<link", page)
    assert "default-src 'none'" in page


@needs_browser
def test_a_browser_shows_all_of_it_on_a_phone_and_on_a_desk(made: Path, tmp_path: Path):
    seen = look(made.read_text(encoding="utf-8"), tmp_path, SEEN)
    assert [page["inner"] for page in seen] == list(WIDTHS)
    for page in seen:
        assert page["scroll"] <= page["client"] and page["cut"] == []
        assert page["images"] == 1 + 8 * 5 + 18 + 12
        assert page["broken"] == [] and page["silent"] == 0 and page["unnamed"] == 0
        assert page["charts"] == 6 + 4 + 2 + 8
        assert page["requests"] == [] and page["scripts"] == 0 and page["anchors"] == 0
        assert page["h1"] == ["UNIMO pre-training: tiny <run>"]
        assert set(HEADINGS) <= set(page["h2"])
        summary = json.loads((made.parent / "summary.json").read_text())
        share = summary["retrieval"]["image_to_text_r1"]
        assert f"Image to text R@1\n{share * 100:.3g} %" in page["text"]
        assert "chance (200 candidates)" in page["text"]
        assert "Command" in page["text"] and "unimo_ds.pretrain tiny.toml" in page["text"]


@needs_browser
def test_a_browser_shows_what_is_missing(files, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    output = run_command(run, tmp_path / "no model")
    assert "report.html" in output.replace("\n", "")
    for page in look((run / "report.html").read_text(encoding="utf-8"), tmp_path, SEEN):
        assert "No curves" in page["text"]
        assert "the run has no data.heldout_pairs" in page["text"]
        assert page["scroll"] <= page["client"] and page["anchors"] == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["retrieval"]["image_to_text_r1"] is None
    assert summary["losses"] == {}


def test_without_scenes_the_page_says_why_there_is_no_score(files, tmp_path: Path):
    run_command(files.run, files.model, "--out", tmp_path / "page.html")
    assert "No object-colour score" in (tmp_path / "page.html").read_text()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["caption"]["object_colour_accuracy"] is None
    assert summary["seconds"] == pytest.approx(181)


def test_without_a_model_the_curves_are_shown(files, tmp_path: Path):
    run_command(files.run, tmp_path / "none", "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "there is no model in" in page and "Masked words (MLM)" in page


def test_a_run_whose_corpus_is_gone_still_has_its_curves(files, tmp_path: Path):
    gone = tmp_path / "gone"
    run_command(files.run, files.model, "--pairs", gone, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert f"there is no folder {gone}" in page and "Masked words (MLM)" in page


def test_pairs_of_another_kind_end_with_a_line_and_not_a_trace(files, tmp_path: Path):
    app = command.typer.Typer()
    app.command()(command.main)
    arguments = [files.run, files.model, "--pairs", files.pairs / "images"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 2
    assert "expected pairs" in result.output and "Traceback" not in result.output


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_can_be_told_apart(mode: str):
    """WCAG 2 AA: 4.5 for text, 3 for lines."""
    sheet = Path(command.__file__).with_name("page.css.jinja").read_text()
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[mode == "dark"]))
    for ink in ("ink", "soft", "accent"):
        assert contrast(colours[ink], colours["ground"]) >= 4.5
        assert contrast(colours[ink], colours["panel"]) >= 4.5
    for name in ("right", "wrong", "note"):
        assert contrast(colours[name], colours[f"{name}-ground"]) >= 4.5
    for name in (*(f"c{i}" for i in range(6)), "held", "r0", "r1", "r2"):
        assert contrast(colours[name], colours["panel"]) >= 3
