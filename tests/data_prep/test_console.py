"""A command tells how far it is, also where its output is no terminal, and ends with a remedy."""

import re
import time

import pytest

from data_prep import console
from data_prep.engine import Options


def test_lines_say_the_stage_how_much_is_done_and_how_fast(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.05)
    out = tmp_path / "o"
    with console.building(out, Options(command=[]), 6472, 1, "images") as options:
        options.on_stage("a sample")
        time.sleep(0.2)
        options.on_stage("regions")
        options.progress(1024)
        time.sleep(0.2)
    with console.listing("pictures") as seen:
        seen(2000)
        time.sleep(0.2)
    with console.waiting("fetching sources"):
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    patterns = (
        rf"{re.escape(str(out))}: a sample, 0/6,472 images, 0\.0/s, 0:00:00",
        rf"{re.escape(str(out))}: regions, 1,024/6,472 images, [\d,]+\.\d/s, 0:00:00",
        r"reading, 2,000 pictures, [\d,]+\.\d/s, 0:00:00",
        r"fetching sources, 0:00:00",
    )
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), (pattern, lines)
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "stages"),
    [
        ("images", ["a sample for visual words", "fitting 2 visual words", "regions"]),
        ("text", ["signatures", "documents"]),
        ("rewrite", ["scene graphs", "rewrites"]),
    ],
)
def test_every_builder_names_its_stages(
    command, stages, prep, builder_sources, write_lines, tokenizer_file, monkeypatch, tmp_path
):
    sources = builder_sources(6, 60)
    small = ("--grid", 2, "--num-classes", 2, "--max-bad", 1)
    words = ("--tokenizer", tokenizer_file)
    arguments = {
        "images": (tmp_path / "o", sources["images"], *small),
        "text": (tmp_path / "o", sources["text"], *words, "--max-bad", 1, "--dedup", "exact"),
        "rewrite": (tmp_path / "o", *words, "--paraphrase", "demo"),
    }
    if command == "rewrite":
        ran = prep("pairs", tmp_path / "o", sources["pairs"], *words, *small)
        assert ran.code == 0, ran.err
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0005)
    ran = prep(command, *arguments[command])
    assert ran.code == 0, ran.err
    for stage in stages:
        assert f"{tmp_path / 'o'}: {stage}, " in ran.err


@pytest.mark.parametrize("command", ["images", "pairs"])
def test_the_remedy_for_few_pictures_works_in_the_same_folder(
    command, prep, make_pictures, write_lines, tokenizer_file, tmp_path
):
    paths = make_pictures(tmp_path / "p", 2)
    lines = [{"image": path.name, "captions": ["a red star"]} for path in paths]
    sources = {"images": tmp_path / "p", "pairs": tmp_path / "p" / "pairs.jsonl"}
    write_lines(sources["pairs"], lines)
    words = ("--tokenizer", tokenizer_file) if command == "pairs" else ()
    ran = prep(command, tmp_path / "o", sources[command], *words)
    assert ran.code == 2
    assert "1601 visual words (--num-classes) cannot be fitted on 98 regions" in ran.err
    assert "name --num-classes K with K from 2 to 98, or more pictures" in ran.err
    ran = prep(command, tmp_path / "o", sources[command], *words, "--num-classes", 98)
    assert ran.code == 0, ran.err


def test_pictures_that_are_all_broken_are_told_as_such(prep, quarantine, tmp_path):
    (tmp_path / "p").mkdir()
    for n in range(3):
        (tmp_path / "p" / f"{n}.jpg").write_bytes(b"no picture")
    ran = prep("images", tmp_path / "o", tmp_path / "p")
    assert ran.code == 3 and "no record is left (3 broken_image)" in ran.err
    assert [q["record"] for q in quarantine(tmp_path / "o")] == ["0.jpg", "1.jpg", "2.jpg"]
