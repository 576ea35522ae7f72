"""Tables as Excel and pandas write them: delimiters, quotes, and quotes that are none."""

import csv
import io
import time

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.quarantine import Bad, BadRecord
from data_prep.readers.delimited import dialect_of, table_rows
from data_prep.readers.formats import Format, find_sources
from data_prep.readers.pairs import LeftOut, Pair, pairs_of, read_pairs
from data_prep.readers.text import DocumentReader
from tests.data_prep.hostile.inputs import small_words

CAPTIONS = ['a "big" dog', "two\nlines", "a;b, c\td|e", "plain", 'all "', '5" screen']


def _pairs(path, form=None):
    found = read_pairs(find_sources([path], form, captioned=True))
    good = {e.image: e.captions for e in found.entries if not isinstance(e, Bad)}
    return good, [(e.line, e.reason) for e in found.entries if isinstance(e, Bad)], found.guesses


def _dialect(text, delimiter, columns=2):
    return dialect_of(lambda: _lines(text), delimiter, columns)


def _lines(text):
    return ((n, line) for n, line in enumerate(io.StringIO(text, newline="\n"), 1))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_pandas_writes_is_read(delimiter, encoding, tmp_path):
    names = [f"{n}.jpg" for n in range(len(CAPTIONS))]
    frame = pandas.DataFrame({"file_name": names, "caption": CAPTIONS, "n": 1})
    frame.to_csv(tmp_path / "c.csv", sep=delimiter, encoding=encoding)
    good, bad, guesses = _pairs(tmp_path / "c.csv")
    expected = {n: (" ".join(c.split()),) for n, c in zip(names, CAPTIONS, strict=True)}
    assert (good, bad) == (expected, [])
    assert len(guesses) == (delimiter in "\t|")
    assert all("c.csv: line 2 begins a field with a double quote" in guess for guess in guesses)
    assert all("as Excel and pandas write them" in guess for guess in guesses)


def test_conceptual_captions_and_token_files_with_quotes(tmp_path):
    rows = [[caption, f"sub/{n}.jpg"] for n, caption in enumerate(CAPTIONS)]
    with (tmp_path / "cc.tsv").open("w", newline="") as stream:
        csv.writer(stream, "excel-tab").writerows([["caption", "url"], *rows])
    with (tmp_path / "flickr.txt").open("w", newline="") as stream:
        csv.writer(stream, "excel-tab").writerows([f"{image}#0", text] for text, image in rows)
    for name, form in (("cc.tsv", Format.CONCEPTUAL), ("flickr.txt", Format.FLICKR)):
        good, bad, guesses = _pairs(tmp_path / name)
        assert find_sources([tmp_path / name], captioned=True)[0].form is form
        assert good == {image: (" ".join(text.split()),) for text, image in rows} and not bad
        assert len(guesses) == 1


@pytest.mark.parametrize(
    ("rows", "quoted"),
    [
        (['a\t"one', 'b\tends"', "c\tx"], False),  # lone quotes: as quotes they swallow a row
        (['a\t"one" two', "b\tx"], False),  # no tool that quotes writes this
        (['a\t"hello"', "b\tx"], False),  # Excel would have doubled them
        (['"a"\t"hello"', '"b"\t"x"'], True),  # all in quotes
        (['1\t"hello"', '2\t"x"'], True),  # all texts in quotes, as csv.QUOTE_NONNUMERIC
        (['a\t"say ""x"""', "b\tx"], True),
        (['a\t"one\ttwo"', "b\tx"], True),
        (['a\t"one', 'two"', "b\tx"], True),
        (['a\t"one\ttwo"', "b", "c", "g\th"], True),  # with rows that are bad in both
    ],
)
def test_one_decision_for_a_file(rows, quoted):
    dialect = _dialect("\n".join(rows) + "\n", "\t")
    assert dialect.quoted is quoted
    assert ("are text" in dialect.guess) is not quoted


FIELDS = st.text('ab"\t\n\r ,;', max_size=6).filter(lambda text: not {"\t", "\n"} <= {*text})
"""Both in one field: the pieces may be rows by themselves, and nobody can tell."""


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(FIELDS, min_size=2, max_size=2), min_size=1))
def test_what_csv_writes_comes_back(rows):
    stream = io.StringIO(newline="\n")
    csv.writer(stream, "excel-tab").writerows(rows)
    dialect = _dialect(stream.getvalue(), "\t")
    assert [row for _, row in table_rows(_lines(stream.getvalue()), dialect)] == rows


def test_no_guess_where_nothing_hangs_on_it():
    assert _dialect('a\t5" wide\nb\tx\n', "\t") == ("\t", False, "")
    assert _dialect('a,"x"\n', ",") == (",", True, "")
    assert _dialect('a;"x"\n', ";") == (";", True, "")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_quotes_behind_a_space_hold_fields_together(delimiter, tmp_path):
    rows = ['image; "caption"', 'a.jpg; "A dog; runs"', 'b.jpg;  "two', 'lines"', "c.jpg; d"]
    (tmp_path / "c.csv").write_text("\n".join(rows).replace(";", delimiter))
    good, bad, _ = _pairs(tmp_path / "c.csv")
    assert good == {
        "a.jpg": (f"A dog{delimiter} runs",),
        "b.jpg": ("two lines",),
        "c.jpg": ("d",),
    }
    assert not bad


def test_a_quote_that_nothing_closes_costs_its_line():
    good = [f"{n},text {n}" for n in range(3_000)]
    lines = [*good[:10], 'x,"never closed', *good[10:], 'y,"z"']
    text = "".join(line + "\n" for line in lines)
    rows = list(table_rows(_lines(text), _dialect(text, ",")))
    bad = [(line, row) for line, row in rows if isinstance(row, BadRecord)]
    assert [(line, row.reason) for line, row in bad] == [(11, "bad_record")]
    assert len(rows) == len(lines) and rows[-1] == (len(lines), ["y", "z"])
    begun = time.monotonic()
    text = "".join(f'{n},"x\n' for n in range(20_000))  # every line opens one that the next ends
    rows = [row for _, row in table_rows(_lines(text), _dialect(text, ","))]
    assert len(rows) == 20_000 and all(isinstance(row, BadRecord) for row in rows)
    assert time.monotonic() - begun < 20


def test_semicolons_with_lists_series_splits_and_status(tmp_path):
    (tmp_path / "wide.csv").write_text(
        "Image;Caption_1;caption_0;split;download_status\n"
        'a.jpg;"one; two";zero;train;success\n'
        "b.jpg;;zero;train;200\n"
        "c.jpg;x;y;train;failed\n"
        "d.jpg;x;y;test;success\n"
    )
    (source,) = find_sources([tmp_path / "wide.csv"])
    entries = list(pairs_of(source, ["train"]))
    pairs = [entry for entry in entries if isinstance(entry, Pair)]
    assert [(p.image, p.captions) for p in pairs] == [
        ("a.jpg", ("zero", "one; two")),
        ("b.jpg", ("zero",)),
    ]
    assert not any(isinstance(entry, Bad) for entry in entries)
    left_out = [entry.what for entry in entries if isinstance(entry, LeftOut)]
    assert sorted(left_out) == ["split 'test'", "status 'failed'"]
    frame = pandas.DataFrame({"filename": ["a.jpg", "b.jpg"], "raw": [["it's", "x\ty"], ["z"]]})
    frame.to_csv(tmp_path / "lists.csv")  # pandas writes lists as Python does
    frame["raw"] = frame["raw"].map(pandas.io.json.ujson_dumps)
    frame.to_csv(tmp_path / "json.csv")  # as the splits of Flickr30k on the Hub
    for name in ("lists.csv", "json.csv"):
        assert _pairs(tmp_path / name)[:2] == ({"a.jpg": ("it's", "x y"), "b.jpg": ("z",)}, [])
    (tmp_path / "text.csv").write_text("image,text\na.jpg,[laughs] a man [sic]\nb.jpg,[1]\n")
    assert _pairs(tmp_path / "text.csv")[0] == {
        "a.jpg": ("[laughs] a man [sic]",),
        "b.jpg": ("[1]",),
    }


@pytest.mark.parametrize(("name", "delimiter"), [("a.tsv", "\t"), ("a.csv", ","), ("a.csv", ";")])
def test_texts_with_a_header_and_quotes(name, delimiter, tmp_path):
    texts = ["one\n\ntwo", 'a "b"', "x" * 200_000 + delimiter, "last"]
    frame = pandas.DataFrame({"text": texts, "id": ["i", "j", "k", "l"]})
    frame.to_csv(tmp_path / name, sep=delimiter)
    reader = DocumentReader([tmp_path / name])
    found = list(reader)
    assert [(document.id, document.text) for document in found] == list(
        zip("ijkl", texts, strict=True)
    )
    assert len(reader.guesses) == (delimiter == "\t") and list(reader) == found
    frame.rename(columns={"text": "Body"}).drop(columns="id").to_csv(tmp_path / name, sep=delimiter)
    found = list(DocumentReader([tmp_path / name], "body"))
    assert [document.id for document in found] == [f"{name}:{line}" for line in (2, 5, 6, 7)]


def test_long_texts_in_quotes_decide_too(tmp_path):
    texts = [f'"{n}"\n' + "word " * 40_000 for n in range(3)]
    frame = pandas.DataFrame({"text": texts}, index=pandas.Index(list("abc"), name="id"))
    frame.to_csv(tmp_path / "a.tsv", sep="\t")
    assert [document.text for document in DocumentReader([tmp_path / "a.tsv"])] == texts


def test_texts_without_a_header(tmp_path):
    (tmp_path / "a.tsv").write_text('x\t"one", text\ny\ttext\nz\tthree\tcolumns\n')
    found = list(DocumentReader([tmp_path / "a.tsv"]))
    assert [entry.text for entry in found[:2]] == ['"one", text', "text"]
    assert found[2].reason == "bad_record" and "expected 2: id, tab, text" in found[2].detail
    (tmp_path / "a.csv").write_text("x,one\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 1: expected a header with a column 'text'"):
        list(DocumentReader([tmp_path / "a.csv"]))
    folder = [
        document.source for document in DocumentReader([tmp_path]) if not isinstance(document, Bad)
    ]
    assert {*folder} == {str(tmp_path / "a.tsv")}  # a table beside texts mostly tells of them
    (tmp_path / "wide.tsv").write_text("id\ttext\tn\n1\tone\t1\n2\ttwo\n")
    found = list(DocumentReader([tmp_path / "wide.tsv"]))
    assert found[0].text == "one" and "2 columns, expected 3: as in the header" in found[1].detail
    (tmp_path / "one.csv").write_text('Text\none\n"two, three"\n')
    assert [found.text for found in DocumentReader([tmp_path / "one.csv"])] == ["one", "two, three"]


def test_guesses_are_told_on_the_screen(prep, make_pictures, tokenizer_file, tmp_path):
    make_pictures(tmp_path, 2)
    (tmp_path / "c.tsv").write_text('image\tcaption\n000.png\t"a ""red"" fox"\n001.png\thens\n')
    (tmp_path / "t.tsv").write_text('1\t"a fox" ran\n')
    words = small_words(tmp_path / "words.npy")
    for command, name, more in (
        ("pairs", "c.tsv", ["--grid", 3, "--patch", 4, "--visual-words", words]),
        ("text", "t.tsv", []),
    ):
        source, out = tmp_path / name, tmp_path / command
        told = prep(command, out, source, "--tokenizer", tokenizer_file, *more)
        assert told.code == 0
        line = 2 if name == "c.tsv" else 1
        assert f"guessed: {source}: line {line} begins a field with a double quote" in told.err


def test_a_tokenizer_learns_from_a_table_whose_quotes_are_guessed(prep, tmp_path):
    rows = [[f"{n}.jpg", caption] for n, caption in enumerate(CAPTIONS * 9)]
    with (tmp_path / "c.tsv").open("w", newline="") as stream:
        csv.writer(stream, "excel-tab").writerows([["image", "caption"], *rows])
    ran = prep("tokenizer", tmp_path / "words.json", tmp_path / "c.tsv", "--vocab-size", 280)
    assert ran.code == 0 and f"guessed: {tmp_path / 'c.tsv'}: line 2 begins" in ran.err
