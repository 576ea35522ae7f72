"""A million rows: `inspect`, `verify` and `diff` take bounded time and memory."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_prep.quarantine import QUARANTINE_NAME
from data_prep.writer import array_bytes, sha256_of, write_bytes
from unimo_ds.data.schema import MANIFEST_NAME, TEXT_SCHEMA, TEXTS, Manifest, ShardRecord

ROOT = Path(__file__).parents[2]
ROWS, TOKENS = 1_000_000, 8
MOST_SECONDS, MOST_MIB = 40, 400  # of one core; of the whole process


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> Path:
    """A texts corpus of a million rows."""
    folder = tmp_path_factory.mktemp("million")
    per_shard, shards = 65_536, []
    rng = np.random.default_rng(1)
    for number, start in enumerate(range(0, ROWS, per_shard)):
        rows = min(per_shard, ROWS - start)
        tokens = pa.array(rng.integers(4, 400, rows * TOKENS, dtype=np.uint16))
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * TOKENS)
        lists = pa.ListArray.from_arrays(offsets, tokens, type=TEXT_SCHEMA.field("tokens").type)
        ids = pa.array([f"row-{start + i}#0" for i in range(rows)])
        path = folder / f"texts-{number:05d}.arrow"
        with pa.ipc.new_file(str(path), TEXT_SCHEMA) as writer:
            table = pa.Table.from_arrays([ids, lists], schema=TEXT_SCHEMA)
            writer.write_table(table, max_chunksize=8192)
        lengths = folder / f"texts-{number:05d}.lengths.npy"
        write_bytes(lengths, array_bytes(np.full(rows, TOKENS, np.int32)))
        hashes = {"sha256": sha256_of(path), "lengths_sha256": sha256_of(lengths)}
        names = {"name": path.name, "lengths": lengths.name}
        size = path.stat().st_size
        sums = {"rows": rows, "bytes": size, "length_sum": rows * TOKENS}
        shards.append(ShardRecord(**names, **hashes, **sums))
    (folder / QUARANTINE_NAME).touch()
    manifest = Manifest(
        kind=TEXTS,
        rows=ROWS,
        shards=shards,
        quarantined={},
        command=["made", "by", "a", "test"],
        seed=1,
        max_tokens=TOKENS,
        tokenizer="none",
        files={QUARANTINE_NAME: sha256_of(folder / QUARANTINE_NAME)},
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json())
    return folder


MEASURED = """import re, time
from pathlib import Path
from data_prep.cli.main import main
try:
    main()
except SystemExit as error:
    assert not error.code
peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
print("measured", time.process_time(), int(peak) / 1024)
"""


@pytest.mark.parametrize("command", ["inspect", "verify", "diff"])
def test_a_million_rows_take_bounded_time_and_memory(command, million, tmp_path):
    path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    rest = {
        "inspect": [million, "-o", tmp_path / "page.html"],
        "verify": [million, "--workers", "1"],
        "diff": [million, _moved(million, tmp_path / "moved"), "--workers", "1"],
    }
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, command, *map(str, rest[command])],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    seconds, mib = map(float, re.search(r"measured (\S+) (\S+)", ran.stdout).groups())
    assert seconds < MOST_SECONDS and mib < MOST_MIB, (seconds, mib)


def _moved(folder: Path, copy: Path) -> Path:
    """The same rows in the same order, with links for shards cut at other places: all is hashed."""
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).symlink_to(path)
    manifest = json.loads((copy / MANIFEST_NAME).read_text())
    for shard in manifest["shards"]:
        shard["sha256"] = "0"
    (copy / MANIFEST_NAME).unlink()
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    return copy
