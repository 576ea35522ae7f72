"""Hostile sources through the command line: refused with a reason, in bounded memory, never run,
never followed, never fetched."""

import json
import os
import resource
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from data_prep.readers.json_stream import MAX_RECORD

ROOT = Path(__file__).parents[2]
SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 2)


@pytest.fixture
def build(prep, tokenizer_file, tmp_path):
    def run(source, *more):
        return prep("pairs", tmp_path / "o", source, "--tokenizer", tokenizer_file, *SMALL, *more)

    return run


_READ = """
import resource, sys
from pathlib import Path
from data_prep.readers.formats import find_sources
from data_prep.readers.pairs import read_pairs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for entry in read_pairs(find_sources([Path(sys.argv[1])], captioned=True)).entries:
        print(entry.line, getattr(entry, "reason", "good"))
except ValueError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_record_of_100_megabytes_takes_no_memory(name, tmp_path):
    good = b'{"image": "000.png", "caption": "a red star."}'
    begin, between, end = (b"", b"\n", b"\n") if name == "a.jsonl" else (b"[", b",", b"]")
    with (tmp_path / name).open("wb") as file:
        file.write(begin + good + between + b'{"image": "000.png", "caption": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}' + between + good + end)
    command = [sys.executable, "-c", _READ, str(tmp_path / name)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    *told, grown = ran.stdout.splitlines()
    if name == "a.jsonl":
        assert told == ["1 good", "2 too_large", "3 good"]
    else:
        assert len(told) == 1 and "too_large" in told[0] and "record at character 48" in told[0]
    assert int(grown) < 6 * MAX_RECORD


def test_a_record_just_below_the_limit_is_read(build, make_pictures, read_rows, tmp_path):
    make_pictures(tmp_path, 1)
    record = {"image": "000.png", "captions": ["a red star."], "more": "x" * (MAX_RECORD - 100)}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    assert build(tmp_path / "a.jsonl").code == 0
    assert len(read_rows(tmp_path / "o")) == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_deep_nesting(name, build, tmp_path):
    deep = b'{"image": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    (tmp_path / name).write_bytes(deep if name == "a.jsonl" else b"[" + deep + b"]")
    ran = build(tmp_path / name, "--max-bad", 1)
    assert (ran.code, "bad_json" in ran.err) == (3, True) or "nested too deeply" in ran.err


def test_names_that_are_no_paths(build, make_pictures, write_lines, quarantine, tmp_path):
    make_pictures(tmp_path / "p", 3)
    (tmp_path / "secret.png").write_bytes((tmp_path / "p" / "000.png").read_bytes())
    (tmp_path / "p" / "link").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "p" / "fifo.png")
    (tmp_path / "p" / "device.png").symlink_to("/dev/zero")
    os.link(tmp_path / "p" / "000.png", tmp_path / "p" / "hard.png")
    with socket.socket(socket.AF_INET) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.05)
        port = server.getsockname()[1]
        names = [
            f"http://127.0.0.1:{port}/a.png",
            f"HTTPS://127.0.0.1:{port}/a.png",
            f"file:///{tmp_path}/secret.png",
            f"pipe:curl 127.0.0.1:{port}",
            "data:image/png;base64,AAAA",
            "s3://bucket/a.png",
            "../secret.png",
            "link/secret.png",
            str(tmp_path / "secret.png"),
            "fifo.png",
            "device.png",
            "nul\0.png",
            "x" * 5000,
            "half \ud83d",
            ".",
            "",
            "hard.png",
            "001.png",
            "002.png",
        ]
        lines = [{"image": name, "caption": "a red star."} for name in names]
        ran = build(write_lines(tmp_path / "p" / "a.jsonl", lines), "--max-bad", 1)
        with pytest.raises(TimeoutError):
            server.accept()
    assert ran.code == 0, ran.err
    reasons = [bad["reason"] for bad in sorted(quarantine(tmp_path / "o"), key=lambda b: b["line"])]
    assert reasons == (
        ["url"] * 6
        + ["path_escapes"] * 3
        + ["no_file", "path_escapes", "missing_image", "missing_image", "bad_utf8"]
        + ["no_file", "missing_field"]
    )


def test_captions_beside_pictures_are_not_read_through_links(
    build, make_pictures, quarantine, read_rows, tmp_path
):
    paths = make_pictures(tmp_path / "p", 4)
    for path in paths[:2]:
        path.with_suffix(".txt").write_text("a red star.")
    (tmp_path / "secret").write_text("root:x:0:0")
    paths[2].with_suffix(".txt").symlink_to(tmp_path / "secret")
    os.mkfifo(paths[3].with_suffix(".txt"))
    (tmp_path / "p" / "zz.txt").write_text("of no picture")
    ran = build(tmp_path / "p", "--max-bad", 1)
    assert ran.code == 0, ran.err
    found = [bad["reason"] for bad in quarantine(tmp_path / "o")]
    assert found == ["path_escapes", "no_file", "missing_image"]
    assert all(row["caption_texts"] == ["a red star."] for row in read_rows(tmp_path / "o"))


def _png(path, width, height, rows):
    """A gray PNG that holds so many rows of zeros, whatever its header says."""

    def chunk(kind, data):
        sum_of = zlib.crc32(kind + data)
        return len(data).to_bytes(4) + kind + data + sum_of.to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 0, 0, 0, 0])
    pixels = zlib.compress(bytes(width + 1) * rows, 1)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def test_gigapixels_are_refused_before_they_are_decoded(
    build, make_pictures, write_lines, quarantine, tmp_path
):
    make_pictures(tmp_path, 2)
    _png(tmp_path / "big.png", 40_000, 25_000, 100)  # 1 gigapixel
    _png(tmp_path / "bomb.png", 8, 8, 10_000_000)  # 90 MB of zeros behind 64 pixels
    names = ["000.png", "big.png", "bomb.png", "001.png"]
    lines = [{"image": name, "caption": "a red star."} for name in names]
    source = write_lines(tmp_path / "a.jsonl", lines)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert build(source, "--max-bad", 1).code == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 80_000  # KiB
    found = [(bad["record"], bad["reason"]) for bad in quarantine(tmp_path / "o")]
    assert found == [("big.png", "decompression_bomb")]  # of the other 64 pixels are decoded


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.tsv", "a.tar", "a.parquet", "a.arrow"])
def test_empty_sources(name, build, tmp_path):
    (tmp_path / name).touch()
    ran = build(tmp_path / name)
    assert ran.code == 2 and name in ran.err and "Traceback" not in ran.err


def test_an_empty_folder(build, tmp_path):
    (tmp_path / "e").mkdir()
    ran = build(tmp_path / "e")
    assert ran.code == 2 and "looked for" in ran.err
