"""The readers under a coverage-guided fuzzer for a bounded time, from valid files onwards."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, command_environment
from tests.data_prep.hostile.inputs import INPUTS, Tools

SECONDS = 25
KINDS = {
    "pairs-jsonl": (0,),
    "pairs-json": (1,),
    "pairs-coco": (2, 14),
    "pairs-karpathy": (3,),
    "pairs-flickr-token": (5,),
    "pairs-table": (6,),
    "pairs-conceptual-captions": (7,),
    "pairs-webdataset": (8,),
    "text-paragraphs": (9,),
    "text-jsonl": (10, 15),
    "text-jsonl-gz": (11,),
    "images-table": (12,),
    "images-npz": (13,),
}
"""Kind of input -> the readers in `fuzz_readers.READERS` that its files are seeds for."""


def _seeds(folder: Path, made: Path, tools: Tools) -> Path:
    folder.mkdir()
    for kind, readers in KINDS.items():
        (made / kind).mkdir(parents=True)
        source = INPUTS[kind](made / kind, tools).sources[0]
        file = source if source.is_file() else sorted(p for p in source.rglob("*.*"))[0]
        for reader in readers:
            (folder / f"{reader}-{kind}").write_bytes(bytes([reader]) + file.read_bytes())
    (folder / "manifest").write_bytes(bytes([16]) + b'{"schema_version": 1, "shards": []}')
    (folder / "tokenizer").write_bytes(bytes([17]) + tools.tokenizer.read_bytes())
    return folder


def test_no_reader_fails_in_another_way_than_by_refusing(tmp_path: Path, tools: Tools) -> None:
    pytest.importorskip("atheris", reason="atheris is not installed")
    seeds = _seeds(tmp_path / "seeds", tmp_path / "made", tools)
    options = [f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=4096", "-seed=1"]
    command = [sys.executable, "-m", "tests.data_prep.hostile.fuzz_readers", str(seeds)]
    done = subprocess.run(
        [*command, *options, f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        env=command_environment() | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        timeout=300,
    )
    told = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, told[-4000:]
    assert "Done " in told, told[-1000:]  # libFuzzer's last line: so many runs
