"""Texts and pictures however Parquet and Arrow store them; bytes or path, row by row."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from data_prep.quarantine import Bad
from data_prep.readers.formats import find_sources
from data_prep.readers.pairs import pairs_of, picture_of, read_pairs, read_pictures
from data_prep.readers.text import DocumentReader
from tests.data_prep.shades import shade_of, shade_png

TEXTS = ["a red fox", "a hen of forty letters, more than a view holds", "ü", "last"]
TEXT_TYPES = {
    "string": lambda texts: pa.array(texts),
    "large": lambda texts: pa.array(texts, pa.large_string()),
    "view": lambda texts: pa.array(texts, pa.string_view()),
    "category": lambda texts: pa.array(texts).dictionary_encode(),
    "large category": lambda texts: pa.array(texts, pa.large_string()).dictionary_encode(),
    "bytes": lambda texts: pa.array([text and text.encode() for text in texts]),
    "bytes view": lambda texts: pa.array(
        [text and text.encode() for text in texts], pa.binary_view()
    ),
    "runs": lambda texts: pc.run_end_encode(pa.array(texts)),
}
LIST_TYPES = {
    "list": pa.list_(pa.string()),
    "large": pa.large_list(pa.large_string()),
    "fixed": pa.list_(pa.string(), 2),
    "list view": pa.list_view(pa.string()),
    "of views": pa.list_(pa.string_view()),
    "of bytes": pa.list_(pa.binary()),
    "of categories": pa.list_(pa.dictionary(pa.int32(), pa.string())),
}
DATA_TYPES = {
    "binary": lambda data: pa.array(data),
    "large": lambda data: pa.array(data, pa.large_binary()),
    "view": lambda data: pa.array(data, pa.binary_view()),
    "category": lambda data: pa.array(data).dictionary_encode(),
    "runs": lambda data: pc.run_end_encode(pa.array(data)),
    "struct of views": lambda data: pa.array(
        [{"bytes": value, "path": None} for value in data],
        pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
    ),
}


def _files(folder, columns, rows=3):
    """The same table as Parquet and as Arrow's file and stream, where each can hold it."""
    table = pa.table(columns)
    for new, name in ((pa.ipc.new_file, "a.arrow"), (pa.ipc.new_stream, "b.arrow")):
        with new(str(folder / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
        yield folder / name
    if not any(pa.types.is_run_end_encoded(kind) for kind in table.schema.types):
        pq.write_table(table, folder / "c.parquet", row_group_size=rows)
        yield folder / "c.parquet"


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_text_is_text(kind, tmp_path):
    split = TEXT_TYPES[kind](["train", "test", "train", "train"])
    status = TEXT_TYPES[kind](["success", "success", "failed", None])
    columns = {
        "image_path": [f"{n}.jpg" for n in range(4)],
        "txt": TEXT_TYPES[kind](TEXTS),
        "split": split,
        "status": status,
        "id": TEXT_TYPES[kind](list("abcd")),
    }
    for path in _files(tmp_path, columns):
        (source,) = find_sources([path])
        first, *others, last = pairs_of(source, ["train"])
        assert (first.captions, last.captions) == ((TEXTS[0],), (TEXTS[3],))
        assert [entry.what for entry in others] == ["split 'test'", "status 'failed'"]
        documents = [(found.id, found.text) for found in DocumentReader([path], "txt")]
        assert documents == list(zip("abcd", TEXTS, strict=True))


@pytest.mark.parametrize("kind", LIST_TYPES)
def test_lists_of_texts_are_lists_of_texts(kind, tmp_path):
    said = [[text, f"{text} again"] for text in TEXTS]
    values = said if "bytes" not in kind else [[t.encode() for t in texts] for texts in said]
    columns = {
        "file_name": [f"{n}.jpg" for n in range(4)],
        "captions": pa.array(values, LIST_TYPES[kind]),
    }
    for path in _files(tmp_path, columns):
        found = read_pairs(find_sources([path])).entries
        assert [list(pair.captions) for pair in found] == said


@pytest.mark.parametrize("field", ["raw", "caption", "Text"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_binary()])
def test_structs_with_a_text_are_captions_in_a_list_or_alone(field, kind, tmp_path):
    said = [[text, f"{text} again"] for text in TEXTS]
    struct = pa.struct([("n", pa.int64()), (field, kind)])
    whole = [[{"n": 1, field: text} for text in texts] for texts in said]
    names = pa.array([f"{n}.jpg" for n in range(4)])
    for captions, expected in (
        (pa.array(whole, pa.list_(struct)), said),
        (pa.array([texts[0] for texts in whole], struct), [texts[:1] for texts in said]),
    ):
        for path in _files(tmp_path, {"path": names, "captions": captions, "title": TEXTS}):
            found = read_pairs(find_sources([path])).entries
            assert [list(pair.captions) for pair in found] == expected


@pytest.mark.parametrize("values", [[1, 2], [[1], [2]], [{"score": 0.5}] * 2, [[["a"]], [["b"]]]])
def test_captions_of_another_type_are_refused_not_taken_from_the_title(
    values, make_pictures, tmp_path
):
    names = [file.name for file in make_pictures(tmp_path, 2)]
    for path in _files(tmp_path, {"path": names, "captions": values, "title": ["x", "y"]}):
        with pytest.raises(ValueError, match=r"the column 'captions' holds .*: rename it"):
            read_pairs(find_sources([path], captioned=True))
        assert len(read_pictures(find_sources([path])).records) == 2


def test_a_column_of_captions_without_any_is_told_row_by_row(tmp_path):
    columns = {"path": ["a.jpg", "b.jpg"], "caption": pa.nulls(2), "title": ["x", "y"]}
    for path in _files(tmp_path, columns):
        bad = read_pairs(find_sources([path])).entries
        assert [entry.reason for entry in bad] == ["missing_field"] * 2


def test_one_caption_that_is_no_utf8_costs_itself(tmp_path):
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"one", b"\xff", b"two"]).buffers())
    lists = pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), texts)
    pq.write_table(pa.table({"path": ["a.jpg"], "captions": lists}), tmp_path / "a.parquet")
    bad, pair = read_pairs(find_sources([tmp_path / "a.parquet"])).entries
    assert pair.captions == ("one", "two") and (bad.reason, bad.line) == ("bad_utf8", 1)


@pytest.mark.parametrize("kind", DATA_TYPES)
def test_pictures_lie_where_they_are_said_to(kind, tmp_path):
    data = [shade_png(n) if n not in (1, 6) else None for n in range(9)]
    data[4] = data[3]
    rows = 9 if "struct" in kind else 3  # Parquet's writer slices no views within structs
    for path in _files(tmp_path, {"image": DATA_TYPES[kind](data)}, rows):
        found = read_pictures(find_sources([path])).records
        held = [picture for picture in found if picture.line not in (2, 7)]
        assert [shade_of(picture) for picture in held] == [0, 2, 3, 3, 5, 7, 8], path


def test_short_values_lie_in_their_views(tmp_path):
    """Up to 12 bytes: no picture is as short, but the place must be right for the message."""
    columns = {"jpg": pa.array([b"no picture", shade_png(3), b"x"], pa.binary_view())}
    path = next(_files(tmp_path, columns))
    places = [picture.place for picture in read_pictures(find_sources([path])).records]
    content = path.read_bytes()
    parts = [content[place.offset : place.offset + place.length] for place in places]
    assert parts == [b"no picture", shade_png(3), b"x"]


@pytest.mark.parametrize("nulls", [{0}, {20}, {0, 1, 2, 39}, set(range(1, 40)), set(range(40))])
def test_bytes_or_path_is_decided_row_by_row(nulls, make_pictures, tmp_path):
    """As `datasets` writes what it was given; in two parts, of which the readers probe the first
    rows."""
    files = make_pictures(tmp_path, 40)
    images = [(None if n in nulls else shade_png(n), file.name) for n, file in enumerate(files)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    captions = [f"text {n}" for n in range(40)]
    columns = {"image": pa.array([*map(_struct, images)], struct), "caption": captions}
    for path in _files(tmp_path, columns, 25):
        (source,) = find_sources([path])
        found = [picture_of(pair, str(path), None) for pair in read_pairs([source]).entries]
        assert {n for n, picture in enumerate(found) if picture.id == files[n].name} == nulls
        shades = [shade_of(picture) for n, picture in enumerate(found) if n not in nulls]
        assert shades == [n for n in range(40) if n not in nulls]
        assert read_pictures([source]).records == found


def _struct(image):
    return dict(zip(("bytes", "path"), image, strict=True))


def test_rows_with_neither_are_told(make_pictures, tmp_path):
    make_pictures(tmp_path, 1)
    images = [{"bytes": None, "path": name} for name in (None, "../up.png", "gone.png", "000.png")]
    pq.write_table(pa.table({"image": images, "text": list("abcd")}), tmp_path / "c.parquet")
    found = read_pictures(find_sources([tmp_path / "c.parquet"]))
    assert [picture.id for picture in found.records] == ["000.png"]
    assert [entry.reason for entry in found.bad] == [
        "missing_image",
        "path_escapes",
        "missing_image",
    ]
    only = pa.table({"image": pa.array([{"path": "000.png"}]), "text": ["a"]})
    pq.write_table(only, tmp_path / "c.parquet")
    assert len(read_pictures(find_sources([tmp_path / "c.parquet"])).records) == 1


def test_texts_of_another_type_are_refused(tmp_path):
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"the column 'text' of .* holds int64, no text"):
        list(DocumentReader([tmp_path / "a.parquet"]))
    bad = pa.array([b"one", b"\xff"]).dictionary_encode()
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    found = list(DocumentReader([tmp_path / "a.parquet"]))
    assert found[0].text == "one" and isinstance(found[1], Bad) and found[1].reason == "bad_utf8"
