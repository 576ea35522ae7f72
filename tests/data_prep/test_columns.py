"""Parquet, Arrow and Hugging Face datasets: which columns count, where pictures lie, damage."""

import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value

from data_prep.quarantine import Bad, BadRecord
from data_prep.readers.columns import arrow_records, columns_of, parquet_records
from data_prep.readers.formats import find_sources
from data_prep.readers.images import open_picture
from data_prep.readers.left_out import LeftOut
from data_prep.readers.pairs import picture_of, read_pairs
from data_prep.readers.records import Record
from tests.data_prep.shades import shade_of, shade_png


@pytest.fixture
def write(tmp_path):
    def run(columns, name="a.parquet", **options):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, tmp_path / name, **options)
        return tmp_path / name

    return run


@pytest.mark.parametrize("compression", ["snappy", "none", "zstd"])
def test_rows_in_any_order_and_over_row_groups(compression, write):
    count = 150  # batches of 16 rows, groups of 70
    images = [{"bytes": shade_png(n), "path": None} for n in range(count)]
    path = write({"image": images}, row_group_size=70, compression=compression)
    records = list(parquet_records(path, "L"))
    assert [r.image for r in records] == [f"L#{n}" for n in range(count)]
    order = [*range(count), *range(60, 80), 3, 149, 0, 2, 1]
    random.Random(1).shuffle(order)
    assert [shade_of(records[n].picture) for n in order] == order


def test_columns_that_count(tmp_path):
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    raw = pa.list_(pa.struct([("raw", pa.string()), ("tokens", pa.list_(pa.string()))]))
    fields = [("id", pa.int64()), ("image", struct), ("sentences", raw), ("split", pa.string())]
    found = columns_of(pa.schema(fields), tmp_path)
    assert found == ("image.bytes", "image.path", "", "", ("sentences",), "split", "")
    fields = [
        ("key", pa.string()),
        ("url", pa.string()),
        ("TEXT", pa.string()),
        ("jpg", pa.binary()),
    ]
    found = columns_of(pa.schema([*fields, ("status", pa.string())]), tmp_path)
    assert found == ("jpg", "", "key", "url", ("TEXT",), "", "status")
    with pytest.raises(ValueError, match=r"has the columns text, n; expected pictures in one of"):
        columns_of(pa.schema([("text", pa.string()), ("n", pa.int32())]), tmp_path)


def test_rows_that_are_not_wanted_or_not_good(write):
    bad_text = pa.Array.from_buffers(
        pa.string(), 6, pa.array([b"a", b"b", b"\xff", b"", b"e", b"f"]).buffers()
    )
    path = write(
        {
            "jpg": [shade_png(1), shade_png(2), shade_png(3), shade_png(4), None, shade_png(6)],
            "caption": bad_text,
            "status": ["success", "failed_to_download", "success", "success", "success", None],
        }
    )
    entries = list(parquet_records(path, "L"))
    kinds = [type(entry) for entry in entries]
    assert kinds == [Record, LeftOut, Bad, Record, Record, Record]
    assert (entries[2].line, entries[2].reason) == (3, "bad_utf8")
    with pytest.raises(BadRecord, match="missing_image"):
        open_picture(entries[4].picture)
    found = read_pairs(find_sources([path]))
    assert [entry.detail for entry in found.left_out] == ["status 'failed_to_download': 1"]
    assert [e.reason for e in found.entries if isinstance(e, Bad)] == ["bad_utf8", "empty_caption"]


def test_names_beside_the_table(write, tmp_path):
    """Of a struct without bytes, of img2dataset's keys, of urls."""
    names = ["sub/1.png", "000000002.jpg", "meta/000000003.jpg", "00000/000000000.webp"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    struct = pa.array(
        [{"bytes": None, "path": "sub/1.png"}],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    tables = {
        "a.parquet": ({"image": struct, "text": ["x"]}, [names[0]]),
        "meta.parquet": ({"key": ["000000002", "000000003"], "caption": ["x", "y"]}, names[1:3]),
        "urls.parquet": ({"URL": ["http://x.example/y.jpg"], "TEXT": ["x"]}, names[3:]),
    }
    for file, (columns, expected) in tables.items():
        path = write(columns, file)
        found = read_pairs(find_sources([path])).entries
        assert [picture_of(pair, str(path), None).id for pair in found] == expected


def test_names_that_lead_out_or_are_urls(prep, write, make_pictures, quarantine, tmp_path):
    make_pictures(tmp_path / "p", 2)
    names = ["../p/000.png", "http://x.example/1.jpg", "pipe:cat /etc/passwd", "/etc/passwd", None]
    (tmp_path / "t").mkdir()
    path = write({"image": names, "text": list("abcde")}, "t/a.parquet")
    assert prep("images", tmp_path / "o", path).code == 3
    reasons = [bad["reason"] for bad in quarantine(tmp_path / "o")]
    assert sorted(reasons) == ["missing_image", "path_escapes", "path_escapes", "url", "url"]


def _dataset(count):
    features = Features({"image": Image(), "caption": Value("string")})
    rows = [
        {"image": {"bytes": shade_png(n), "path": None}, "caption": f"c{n}"} for n in range(count)
    ]
    return Dataset.from_list(rows, features=features)


def test_dataset_folders_with_splits(tmp_path):
    DatasetDict({"train": _dataset(3), "test": _dataset(2)}).save_to_disk(tmp_path / "d")
    sources = find_sources([tmp_path / "d"], captioned=True)
    found = read_pairs(sources, ["train"])
    assert [pair.captions for pair in found.entries] == [("c0",), ("c1",), ("c2",)]
    assert [pair.picture.id for pair in found.entries[:1]] == ["train/data-00000-of-00001.arrow#0"]
    (entry,) = found.left_out
    assert entry.reason == "left_out" and entry.detail.startswith("split 'test': 2 (")
    assert [shade_of(pair.picture) for pair in found.entries] == [0, 1, 2]


def test_sharded_and_filtered_datasets(tmp_path):
    kept = _dataset(9).select(range(1, 9))
    kept.save_to_disk(tmp_path / "d", num_shards=3)
    found = read_pairs(find_sources([tmp_path / "d"])).entries
    assert [pair.captions for pair in found] == [(f"c{n}",) for n in range(1, 9)]
    assert [shade_of(pair.picture) for pair in found] == list(range(1, 9))


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ('{"_data_files": [{"filename": "../secret.arrow"}]}', "expected a name in this folder"),
        ('{"_data_files": 3}', "no dataset"),
        ("{}", "no dataset"),
        ("[" * 100_000, "no dataset"),
    ],
)
def test_dataset_folders_that_are_none(state, told, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "state.json").write_text(state)
    with pytest.raises(ValueError, match=told):
        find_sources([tmp_path / "d"])


def test_compressed_arrow_is_refused(tmp_path):
    table = pa.table({"jpg": [b"x" * 1000] * 20, "text": ["y"] * 20})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=r"a\.arrow is compressed: save it uncompressed"):
        list(arrow_records(tmp_path / "a.arrow", "L"))


def _damaged(path, rng):
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 6)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.3:
        content = content[: rng.randrange(len(content))]
    path.write_bytes(content)


@pytest.mark.parametrize("form", ["parquet", "stream", "file"])
def test_damaged_files_end_in_an_error_or_entries(form, write, tmp_path):
    """Bytes flipped and cut 60 times: every reading ends, without a crash and without a trace."""
    columns = {"jpg": [shade_png(n) for n in range(40)], "text": [f"say {n}" for n in range(40)]}
    whole, path = tmp_path / "whole", tmp_path / "a.x"
    if form == "parquet":
        shutil.move(write(columns), whole)
    else:
        new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with new(str(whole), pa.table(columns).schema) as writer:
            writer.write_table(pa.table(columns), max_chunksize=15)
    reader = parquet_records if form == "parquet" else arrow_records
    refused = 0
    for seed in range(60):
        shutil.copy(whole, path)
        _damaged(path, random.Random(seed))
        try:
            records = [e for e in reader(path, "L") if isinstance(e, Record) and e.picture]
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        for record in records:
            try:
                open_picture(record.picture)
            except BadRecord as error:
                assert error.reason
    assert 0 < refused < 60


def test_files_that_are_no_tables(tmp_path):
    for name, reader in (("a.parquet", parquet_records), ("a.arrow", arrow_records)):
        for content in (
            b"",
            b"no such thing" * 100,
            b"PAR1" + b"\0" * 50,
            b"ARROW1" + b"\xff" * 50,
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=name):
                list(reader(tmp_path / name, "L"))
