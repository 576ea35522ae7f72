"""`unimo-prep inspect`: the page of small corpora and of hostile ones, looked at by a browser."""

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from data_prep.inspect import page as page_module
from data_prep.writer import write_shard
from tests.browser import WIDTHS, look, needs_browser
from tests.colours import contrast
from unimo_ds.data.schema import MANIFEST_NAME

SEEN = """
      cut: [...page.querySelectorAll("main *, header *, nav *")].filter(
        e => !e.closest("svg") && e.getBoundingClientRect().right > right
      ).map(e => e.outerHTML.slice(0, 80)),
      unnamed: page.querySelectorAll("svg:not([aria-label])").length,
      pictures: page.querySelectorAll("svg.picture image").length,
      empty: page.querySelectorAll("svg.picture .canvas").length,
      boxes: page.querySelectorAll("svg.picture .box").length,
      labels: [...page.querySelectorAll("svg.picture .label text")].map(e => e.textContent),
      maps: page.querySelectorAll("svg.words").length,
      tokens: page.querySelectorAll(".tokens span").length,
      bold: page.querySelectorAll("main b").length,
      text: page.body.textContent,
"""
"""What is looked at on the page beside `tests.browser`'s own, in JavaScript."""


class Files(NamedTuple):
    """What the pages are made of."""

    texts: Path
    pairs: Path  # pixels
    boxes: Path  # images of a feature table, with class names
    pictures: Path
    tokenizer: Path


@pytest.fixture
def files(prep, make_pictures, write_lines, sentences, tokenizer_file, tmp_path, tmp_path_factory):
    """Small corpora of each kind, whose texts and names are HTML; built once."""
    root = tmp_path_factory.getbasetemp() / "inspected"
    made = Files(root / "texts", root / "pairs", root / "boxes", root / "p", tokenizer_file)
    if root.exists():
        return made
    make_pictures(made.pictures, 9)
    told = [*sentences, "a <b>red</b> star & a ring"]
    lines = [{"image": f"{n:03d}.png", "captions": told[: 1 + n % 4]} for n in range(9)]
    source = write_lines(made.pictures / "a.jsonl", [*lines, b"{<b>bad"])
    few = ("--max-bad", 0.5, "--tokenizer", tokenizer_file)
    small = ("--grid", 3, "--patch", 4, "--num-classes", 7, "--rows-per-shard", 4)
    assert prep("pairs", made.pairs, source, *few, *small).code == 0
    texts = [{"id": f"<b>{n}</b>", "text": " ".join(told * 30)} for n in range(20)]
    source = write_lines(tmp_path / "t.jsonl", [*texts, {"text": ""}, b"\xff<b>"])
    assert prep("text", made.texts, source, *few).code == 0
    rng = np.random.default_rng(3)
    for number in range(9):
        corner = rng.integers(0, 10, (4, 2))
        np.savez(
            made.pictures / f"{number:03d}.png.npz",
            features=rng.normal(size=(4, 6)),
            boxes=np.concatenate([corner, corner + 6], axis=1),
            image_w=16,
            image_h=16,
            probs=rng.dirichlet(np.ones(5), 4),
        )
    table = (made.pictures, "--regions", "precomputed", "--kept-classes", 2)
    assert prep("images", made.boxes, *table).code == 0
    (made.boxes / "class_names.txt").write_text("sky\ndog,hound\n<b>cat</b>\ntree\nman\n")
    return made


@pytest.fixture
def show(prep, tmp_path):
    """Makes a page and returns its text."""

    def run(*arguments):
        ran = prep("inspect", *arguments, "-o", tmp_path / "page.html")
        assert ran.code == 0, ran.err
        return (tmp_path / "page.html").read_text()

    return run


def test_the_page_needs_no_network_and_data_is_no_html(show, files):
    read = ("--tokenizer", files.tokenizer, "--image-root", files.pictures)
    text = show(files.texts, files.pairs, files.boxes, *read)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.search(r"url\(|@import|<script|<link|<b>", text)
    assert "default-src 'none'" in text and len(text) < 1e6


def test_the_same_arguments_give_the_same_page(show, files):
    first = show(files.texts, files.pairs, "--samples", 3)
    assert first == show(files.texts, files.pairs, "--samples", 3)
    assert first != show(files.texts, files.pairs, "--samples", 3, "--seed", 2)


def test_without_a_tokenizer_texts_are_ids_and_captions_are_texts(show, files):
    text = show(files.texts, files.pairs, "--samples", 2)
    assert 'class="tokens"' not in text and "with <code>--tokenizer</code>" in text
    assert "nobody knows why" in text or "a red star stands" in text or "the quick brown" in text


def test_pictures_come_from_files_from_pixels_or_are_empty(show, files, tmp_path):
    drawn = {
        (): (0, 9),
        ("--image-root", files.pictures): (9, 0),
        ("--image-root", tmp_path): (0, 9),
    }
    for options, (photos, empty) in drawn.items():
        text = show(files.boxes, *options)
        assert text.count("data:image/jpeg") == photos
        assert text.count('class="canvas"') == empty
    assert "no file &#39;" in text  # the last one says why
    pixels = show(files.pairs / "images")
    assert pixels.count("data:image/jpeg") == 9 and "rebuilt from its pixels" in pixels
    both = show(files.pairs / "images", "--image-root", files.pictures)
    assert both.count("data:image/jpeg") == 18 and "as the model sees it" in both


def test_an_image_id_that_leads_out_of_the_folder_is_not_opened(show, files, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (tmp_path / "root").mkdir()
    copy = shutil.copytree(files.boxes, tmp_path / "c")
    rows = [row | {"id": f"../secret.png#{n}"} for n, row in enumerate(_rows(copy))]
    rows[0]["id"] = "../secret.png"
    record = write_shard(copy, "images-00000.arrow", "images", rows)
    assert record is not None and record.rows == 9
    manifest = json.loads((copy / MANIFEST_NAME).read_text())
    manifest["shards"][0] |= {"bytes": record.bytes}
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    text = show(copy, "--image-root", tmp_path / "root")
    assert "data:image" not in text and "leads out of" in text


def _rows(folder):
    table = pa.ipc.open_file(str(folder / "images-00000.arrow")).read_all()
    return [
        {name: np.asarray(v) if isinstance(v, list) else v for name, v in row.items()}
        for row in table.to_pylist()
    ]


@needs_browser
def test_a_browser_shows_all_of_it_on_a_phone_and_on_a_desk(show, files, tmp_path):
    read = ("--tokenizer", files.tokenizer, "--image-root", files.pictures)
    text = show(files.texts, files.pairs, files.boxes, *read)
    seen = look(text, tmp_path, SEEN)
    assert [page["inner"] for page in seen] == list(WIDTHS)
    for page in seen:
        assert page["scroll"] <= page["client"] and page["cut"] == []
        assert page["requests"] == [] and page["scripts"] == page["bold"] == 0
        assert page["unnamed"] == page["anchors"] == page["empty"] == 0
        assert page["h1"] == ["texts, pairs, boxes"]
        assert page["h2"] == ["Texts", "Pairs", "Images", "Images"]
        # lengths and packing; 3 and packing; 2 of the pairs' images; 4 and packing
        assert page["charts"] == 2 + 4 + 2 + 5
        assert page["pictures"] == 9 * 2 + 9 and page["maps"] == 9
        assert page["boxes"] == 9 * 4 and page["tokens"] > 12 * 100
        assert set(page["labels"]) <= {"sky", "dog", "<b>cat</b>", "tree", "man"}
        assert len(set(page["labels"])) == 5
        for told in ("Quarantined", "bad_utf8", "\\xff<b>", "{<b>bad", "unimo-prep pairs"):
            assert told in page["text"], told
        assert "a <b>red</b> star & a ring" in page["text"]


def test_what_cannot_be_shown_ends_with_a_line(prep, files, tmp_path):
    out = ("-o", tmp_path / "p.html")
    assert prep("inspect", tmp_path, *out).code == 2
    assert prep("inspect", files.texts, *out, "--samples", 0).code == 2
    assert prep("tokenizer", tmp_path / "other.json", files.pictures / "a.jsonl").code == 0
    ran = prep("inspect", files.texts, *out, "--tokenizer", tmp_path / "other.json")
    assert ran.code == 2 and "was built with tokenizer" in ran.err
    copy = shutil.copytree(files.pairs, tmp_path / "c")
    for name in ("pairs-00001.arrow", "images/images-00000.lengths.npy", "quarantine.jsonl"):
        kept = (copy / name).read_bytes()
        (copy / name).unlink()
        ran = prep("inspect", copy, *out)
        assert ran.code == 2 and Path(name).name in ran.err and not out[1].exists()
        (copy / name).write_bytes(kept)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colours_can_be_told_apart(mode: str):
    """WCAG 2 AA: 4.5 for text, 3 for bars."""
    sheet = Path(page_module.__file__).with_name("page.css.jinja").read_text()
    blocks = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[mode == "dark"]))
    for ink, grounds in (
        ("ink", ("ground", "panel", "room", "goes-on")),
        ("soft", ("ground", "panel", "room")),
        ("accent", ("ground",)),
        ("note", ("note-ground",)),
    ):
        assert all(contrast(colours[ink], colours[ground]) >= 4.5 for ground in grounds)
    assert contrast(colours["bar"], colours["panel"]) >= 3
    assert contrast(colours["p0"], colours["room"]) >= 3
    assert contrast(colours["p0"], colours["p1"]) >= 1.8  # neighbours, told apart by turns only
