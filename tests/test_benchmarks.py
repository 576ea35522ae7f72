"""The benchmarks run from end to end; what they measure on tiny sizes says nothing."""

import json
import math
import sys

import pytest

from tests.conftest import ROOT, command_environment
from tests.processes import run_command

pytestmark = pytest.mark.alone


def test_all_of_it_runs_on_tiny_sizes_and_writes_its_numbers(small_toml, tmp_path):
    command = [sys.executable, "-m", "benchmarks.run", "--quick", "--out", tmp_path]
    done = run_command([*command, "--demo", small_toml], cwd=ROOT, env=command_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["load"]) == 3 and results["machine"]["datasets"]
    numbers = results["numbers"]
    assert all(math.isfinite(number) and number > 0 for number in numbers.values())
    compared = {"unimo_ds shards", "numpy memmap", "datasets (arrow)", "datasets (numpy)"}
    assert {f"reading: {name}, random rows/s" for name in compared} <= numbers.keys()
    assert "reading: webdataset, sequential rows/s" in numbers
    assert numbers["batches: base, workers for 3 times as fast"] >= 1
    assert numbers["batches: base, packing"] > 0.9
    page = (tmp_path / "results.md").read_text()
    assert all(f"| {name} | " in page for name in numbers)


def test_tiny_sizes_are_no_results(monkeypatch, capsys):
    from benchmarks import run

    monkeypatch.setattr(sys, "argv", ["run", "--quick"])
    with pytest.raises(SystemExit, match="2"):
        run.main()
    assert "say with --out where its files go" in capsys.readouterr().err


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_every_store_reads_the_same_rows(tmp_path, order):
    from benchmarks import reading
    from benchmarks.corpora import write_images
    from unimo_ds.data.shards import open_corpus

    rng = reading.np.random.default_rng(3)
    write_images(tmp_path / "corpus", reading.BATCH, (reading.REGIONS, reading.REGIONS), rng)
    corpus = open_corpus(tmp_path / "corpus")
    stores = [
        reading.ours(corpus),
        reading.memmap(corpus, tmp_path),
        *reading.hugging_face(corpus, tmp_path / "datasets"),
        reading.tars(corpus, tmp_path / "tars"),
    ]
    rows = list(range(reading.BATCH))
    if order == "random":
        rows, stores = rng.permutation(rows).tolist(), [s for s in stores if s.random]
    read = []
    for store in stores:
        batch = reading.new_batch()
        store.read(rows, batch)
        read.append(batch.features.tobytes() + batch.boxes.tobytes())
    assert len(set(read)) == 1, [store.name for store in stores]
