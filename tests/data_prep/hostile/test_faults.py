"""Hostile and broken records in every form: each is refused by name, the good ones are kept."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data_prep.conftest import Ran
from tests.data_prep.hostile.faults import (
    CAPTIONS,
    CONTENTS,
    GOOD,
    NAMES,
    Named,
    place_traps,
)
from tests.data_prep.hostile.inputs import Input, Tools, paired, pictures
from tests.data_prep.source_forms import FORMS

NAMING = ("jsonl", "json", "coco", "karpathy", "table", "parquet-names")
"""Forms that name pictures by any path; flickr-token and others have rules of their own."""
NO_EMPTY = ("flickr-token", "table-bars", "conceptual-captions")
"""Forms whose lines are no lines without a caption: the line is what is refused."""
GOOD_PAIRS = [["a red star"], ["two blue rings"], ["a hen"]]


@pytest.fixture
def refused(
    attempt: Callable[[Input], Ran], read_rows: Callable, tmp_path: Path, tools: Tools
) -> Callable[..., list[dict]]:
    """Builds three good pairs and a bad one; the quarantine, where only the bad one may stand."""

    def run(form: str, folder: Path, bad: tuple) -> list[dict]:
        good = list(zip(pictures(folder, 3), GOOD_PAIRS, strict=True))
        given = paired(form, folder, [*good[:2], bad, good[2]], tools)
        ran = attempt(given)
        assert ran.code == 0, ran.err
        rows = read_rows(tmp_path / "out")
        texts = sorted(text for row in rows for text in row["caption_texts"])
        assert texts == sorted(text for captions in GOOD_PAIRS for text in captions)
        lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
        entries = [entry for entry in map(json.loads, lines) if entry["reason"] != "left_out"]
        assert entries, "the bad record is not told of"
        assert not list(tmp_path.rglob("pwned")) and not Path("pwned").exists()
        return entries

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("fault", CONTENTS)
@pytest.mark.parametrize("form", FORMS)
def test_no_row_comes_of_what_is_no_picture(
    form: str, fault: str, folder: Path, refused: Callable[..., list[dict]]
) -> None:
    path = folder / "bad.png"
    CONTENTS[fault].make(path)
    told = refused(form, folder, (path, GOOD))
    reasons = {entry["reason"] for entry in told}
    assert reasons <= {"broken_image", "decompression_bomb", "missing_image"}, told
    if fault in ("gigapixel", "bomb"):
        assert reasons == {"decompression_bomb"}, told


@pytest.mark.parametrize("fault", NAMES)
@pytest.mark.parametrize("form", NAMING)
def test_no_name_leads_out_of_the_folder_or_to_the_network(
    form: str, fault: str, folder: Path, refused: Callable[..., list[dict]]
) -> None:
    place_traps(folder)
    told = refused(form, folder, (Named(NAMES[fault]), GOOD))
    assert all(entry["source"] and entry["detail"] for entry in told)


@pytest.mark.parametrize("fault", CAPTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_captions_that_say_nothing_or_too_much_are_told_of(
    form: str, fault: str, folder: Path, refused: Callable[..., list[dict]]
) -> None:
    path = pictures(folder / "more", 1)[0]
    path = path.rename(folder / "bad.png")
    told = refused(form, folder, (path, CAPTIONS[fault]))
    wanted = {"too_long", "too_large"} if fault == "too-long" else {"empty_caption"}
    if form in NO_EMPTY:
        wanted |= {"bad_record", "missing_field"}
    assert {entry["reason"] for entry in told} <= wanted, told
