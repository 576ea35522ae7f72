"""The same pictures and captions, written in every form that sources have."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from datasets import Dataset, Features, Image, Value

Captioned = Sequence[tuple[Path, list[str]]]
"""Picture files, which have different names, and what is said about each."""


def write_jsonl(folder: Path, pairs: Captioned) -> Path:
    lines = [{"image": path.name, "captions": captions} for path, captions in pairs]
    return _write(folder / "pairs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def write_json(folder: Path, pairs: Captioned) -> Path:
    records = [{"file_name": path.name, "captions": captions} for path, captions in pairs]
    return _write(folder / "pairs.json", json.dumps(records))


def write_coco(folder: Path, pairs: Captioned) -> Path:
    content = {
        "info": {"year": 2017},
        "annotations": [
            {"id": n, "image_id": 100 + n, "caption": text}
            for n, (_, captions) in enumerate(pairs)
            for text in captions
        ],
        "images": [{"id": 100 + n, "file_name": path.name} for n, (path, _) in enumerate(pairs)],
    }
    return _write(folder / "captions_val2017.json", json.dumps(content))


def write_karpathy(folder: Path, pairs: Captioned) -> Path:
    content = {
        "dataset": "coco",
        "images": [
            {
                "filepath": "val2014",  # the pictures lie beside the file: the other name counts
                "filename": path.name,
                "split": "train",
                "sentences": [{"raw": text, "tokens": text.split()} for text in captions],
            }
            for path, captions in pairs
        ],
    }
    return _write(folder / "dataset_coco.json", json.dumps(content))


def write_tokens(folder: Path, pairs: Captioned) -> Path:
    lines = [f"{p.name}#{n}\t{text}\n" for p, captions in pairs for n, text in enumerate(captions)]
    return _write(folder / "Flickr8k.token.txt", "".join(lines))


def write_bars(folder: Path, pairs: Captioned) -> Path:
    lines = [f"{p.name}| {n}| {text}\n" for p, captions in pairs for n, text in enumerate(captions)]
    return _write(folder / "results.csv", "image_name| comment_number| comment\n" + "".join(lines))


def write_commas(folder: Path, pairs: Captioned) -> Path:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(["image", "caption"])
    writer.writerows([path.name, text] for path, captions in pairs for text in captions)
    return _write(folder / "captions.txt", stream.getvalue())


def write_conceptual(folder: Path, pairs: Captioned) -> Path:
    lines = [
        f"{text}\thttp://host{n}.example/a/{path.name}?size=2\n"
        for path, captions in pairs
        for n, text in enumerate(captions)
    ]
    shared = [line.replace("host1", "host0").replace("host2", "host0") for line in lines]
    return _write(folder / "Train_GCC-training.tsv", "".join(shared))


def write_sidecars(folder: Path, pairs: Captioned) -> Path:
    """As img2dataset's `files`, with a picture that was not downloaded."""
    out = folder / "files" / "00000"
    out.mkdir(parents=True)
    for path, captions in pairs:
        (out / path.name).write_bytes(path.read_bytes())
        fields = {"captions": captions, "status": "success", "url": "http://x.example/1"}
        (out / path.name).with_suffix(".json").write_text(json.dumps(fields))
    pq.write_table(pa.table({"key": ["9"], "status": ["failed_to_download"]}), out / "0.parquet")
    return folder / "files"


def write_tar(folder: Path, pairs: Captioned) -> Path:
    """Two shards in a folder, by webdataset's own writer."""
    out = folder / "shards"
    out.mkdir()
    for shard in range(2):
        with webdataset.TarWriter(str(out / f"{shard:05d}.tar")) as writer:
            for path, captions in pairs[shard::2]:
                fields = {"captions": captions, "status": "success"}
                sample = {"__key__": path.stem, "json": fields, "cls": 7}
                writer.write({**sample, path.suffix[1:]: path.read_bytes()})
    return out


def write_parquet(folder: Path, pairs: Captioned) -> Path:
    """As Hugging Face writes images, in row groups of three."""
    images = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in pairs]
    table = pa.table({"image": images, "captions": [captions for _, captions in pairs]})
    pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=3)
    return folder / "train-00000-of-00001.parquet"


def write_names_parquet(folder: Path, pairs: Captioned) -> Path:
    """As LAION's metadata beside pictures, one caption a row."""
    rows = [
        {"image_path": path.name, "TEXT": text, "NSFW": "UNLIKELY"}
        for path, captions in pairs
        for text in captions
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "laion.parquet")
    return folder / "laion.parquet"


def write_dataset(folder: Path, pairs: Captioned) -> Path:
    """By `datasets` itself."""
    features = Features({"image": Image(), "captions": [Value("string")]})
    rows = [{"image": str(path), "captions": captions} for path, captions in pairs]
    Dataset.from_list(rows, features=features).save_to_disk(folder / "saved")
    return folder / "saved"


def write_arrow_file(folder: Path, pairs: Captioned) -> Path:
    images = pa.array([path.read_bytes() for path, _ in pairs], pa.large_binary())
    table = pa.table({"jpg": images, "caption": [captions for _, captions in pairs]})
    with pa.ipc.new_file(str(folder / "pictures.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return folder / "pictures.arrow"


FORMS: dict[str, Callable[[Path, Captioned], Path]] = {
    "jsonl": write_jsonl,
    "json": write_json,
    "coco": write_coco,
    "karpathy": write_karpathy,
    "flickr-token": write_tokens,
    "table-bars": write_bars,
    "table": write_commas,
    "conceptual-captions": write_conceptual,
    "sidecars": write_sidecars,
    "webdataset": write_tar,
    "parquet": write_parquet,
    "parquet-names": write_names_parquet,
    "dataset": write_dataset,
    "arrow": write_arrow_file,
}


def _write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path
