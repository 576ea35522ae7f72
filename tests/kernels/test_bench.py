"""The bench of the kernels: one command, whose table shows what was measured and nothing else."""

import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import collect, layouts, rivals
from bench.attention import case as attention_case
from bench.clocks import CpuClock
from bench.collect import Collection
from bench.exactness import WrongResultError, require_exact
from bench.rows import BOTH, FAILED, MEASURED, SKIPPED, WRONG, Job, Row, as_json
from bench.similarity import case as similarity_case
from bench.table import BEGIN, END, NO_GPU, tables, write_readme
from bench.targets import targets
from bench.worker import _rows as rows_of
from bench.worker import planned

from tests.processes import run_command

KERNELS = Path(__file__).parents[2] / "kernels"


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command writes on a processor, from a folder that is not the repository."""
    folder = tmp_path_factory.mktemp("quick")
    command = [sys.executable, KERNELS / "bench" / "run.py", "--device", "cpu", "--quick"]
    # Nothing but torch on the path: the command finds the rest itself.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = run_command(
        [*command, "--out", "results"], cwd=folder, env=environment | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "results" / "cpu.json").read_text(encoding="utf-8").endswith("}\n")
    file: dict[str, Any] = json.loads((folder / "results" / "cpu.json").read_text(encoding="utf-8"))
    return file


def _readme(folder: Path) -> Path:
    path = folder / "README.md"
    path.write_text(f"before\n{BEGIN}\n| an invented row |\n{END}\nafter\n", encoding="utf-8")
    return path


def test_one_command_measures_what_a_processor_can(quick: dict[str, Any]) -> None:
    assert quick["command"] == "python kernels/bench/run.py --device cpu --quick"
    assert {"device", "cores", "python", "torch", "triton"} <= set(quick["machine"])
    rows = [Row(**fields) for fields in quick["rows"]]
    assert {row.status for row in rows} == {MEASURED}, rows
    assert {(row.section, row.variant) for row in rows} == {
        ("peak", "matrix product"),
        ("peak", "copy"),
        ("similarity", "chunked"),
        ("similarity", "reference"),
        ("attention", "sdpa"),
        ("attention", "reference"),
    }
    for row in rows:
        assert row.ms is not None and 0 < row.ms_low <= row.ms <= row.ms_high
        if row.section != "peak":
            assert row.error is not None and row.error < 1e-4 and row.share > 0
        if row.step == BOTH:
            assert row.extra_mib is not None


def test_a_missing_rival_is_named(
    quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quick["missing"] == rivals.missing()
    monkeypatch.setitem(rivals.PACKAGES, "rival-of-nobody", "rival_of_nobody")
    assert "rival-of-nobody" in rivals.missing()
    file = quick | {"missing": ["rival-of-nobody"]}
    (tmp_path / "cpu.json").write_text(json.dumps(file), encoding="utf-8")
    assert "Not installed, so not measured: rival-of-nobody." in tables(tmp_path)


def test_a_row_without_a_file_does_not_survive(quick: dict[str, Any], tmp_path: Path) -> None:
    readme, results = _readme(tmp_path), tmp_path / "results"
    results.mkdir()
    write_readme(readme, results)
    assert readme.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{NO_GPU}\n{END}\nafter\n"
    (results / "cpu.json").write_text(json.dumps(quick), encoding="utf-8")
    write_readme(readme, results)
    text = readme.read_text(encoding="utf-8")
    assert NO_GPU in text and "| 256 x 256 x 32 | forward+backward |" in text
    (results / "cpu.json").unlink()
    write_readme(readme, results)
    assert readme.read_text(encoding="utf-8") == f"before\n{BEGIN}\n{NO_GPU}\n{END}\nafter\n"


def test_the_readme_shows_the_committed_results() -> None:
    text = (KERNELS / "README.md").read_text(encoding="utf-8")
    shown = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == tables(KERNELS / "bench" / "results"), "python kernels/bench/run.py --table"


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{END} and then {BEGIN}", encoding="utf-8")
    with pytest.raises(ValueError, match="one line <!-- bench:begin -->"):
        write_readme(readme, tmp_path)


def test_a_gpu_file_replaces_the_note_and_is_held_against_the_targets(
    quick: dict[str, Any], tmp_path: Path
) -> None:
    def row(section: str, case: str, variant: str, ms: float) -> Row:
        return Row(section, case, variant, BOTH, ms=ms, extra_mib=1025.0)

    size, caption = similarity_case(65536, 768), attention_case(layouts.CAPTIONS)
    rows = [
        row("similarity", size, "triton", 47.9),
        row("attention", caption, "triton", 1.0),
        row("attention", caption, "flash_attn", 1.25),
        Row("attention", caption, "flex", status=FAILED, reason="out | of order"),
    ]
    met = {target.wanted: target.met for target in targets(rows)}
    assert met == {"<= 48 ms": True, "<= 1,024 MiB extra": False, ">= 1.3 times as fast": False}
    file = quick | {"kind": "cuda", "rows": [as_json(row) for row in rows]}
    (tmp_path / "some-gpu.json").write_text(json.dumps(file), encoding="utf-8")
    text = tables(tmp_path)
    assert NO_GPU not in text
    assert "47.9 ms · +1,025 MiB" in text
    assert "| failed |" in text and "* flex, failed in 1: out / of order" in text


def test_every_job_has_a_name_of_its_own_and_the_targets_are_among_them() -> None:
    for device, quick in product(("cuda", "cpu"), (True, False)):
        keys = [job.key for job in planned(device, quick)]
        assert len(set(keys)) == len(keys)
    cases = {(job.section, job.case, job.variant) for job in planned("cuda", False)}
    assert ("similarity", similarity_case(65536, 768), "triton") in cases
    for layout, dropout_p in product(layouts.NAMES, (0.0, 0.1)):
        case = attention_case(layout, dropout_p=dropout_p)
        assert {("attention", case, name) for name in ("triton", "flash_attn")} <= cases


@pytest.mark.parametrize("name", layouts.NAMES)
def test_visible_pairs_are_counted_as_the_mask_says(name: str) -> None:
    row = layouts.packed_row(name, 1500)
    sees = (row.segment[:, None] == row.segment) & (row.order <= row.order[:, None])
    filled = row.segment != layouts.PADDING_SEGMENT
    assert row.pairs == int((sees & filled).sum())
    assert row.prefix_lm == bool(row.order.any())


def test_what_is_wrong_is_named_and_not_timed() -> None:
    def off(job: Job, clock: Any) -> Any:
        require_exact([("the output", torch.ones(2), torch.zeros(2))], torch.float32)
        yield Row(*job[:3], ms=1.0)

    (row,) = rows_of(Job("section", "case", "variant", off), CpuClock(0.01))
    assert (row.status, row.ms) == (WRONG, None)
    assert "the output is off by" in row.reason
    with pytest.raises(WrongResultError, match="off by nan"):
        require_exact([("x", torch.tensor([float("nan")]), torch.ones(1))], torch.float32)


def _never(job: Job, clock: Any) -> Any:
    raise AssertionError("measured in this process")


def _collect(jobs: list[Job], seconds: float) -> list[Row]:
    said: list[Row] = []
    run = Collection(jobs, "cpu", True, {"section": seconds}, said.append)
    found = run.run().rows
    assert sorted(found) == sorted(said)
    return found


def test_what_there_is_no_time_for_is_named() -> None:
    jobs = [Job("section", case, "variant", _never) for case in ("a", "b")]
    rows = _collect(jobs, 0.0)
    assert [(row.case, row.status) for row in rows] == [("a", SKIPPED), ("b", SKIPPED)]


def test_a_job_that_hangs_is_stopped_and_its_variant_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collect, "LONGEST_JOB", 0.05)  # a worker takes longer to start
    names = [("a", "slow"), ("a", "other"), ("b", "slow")]
    rows = _collect([Job("section", *name, _never) for name in names], 60.0)
    assert [(row.case, row.variant, row.status) for row in rows] == [
        ("a", "slow", FAILED),
        ("a", "other", FAILED),
        ("b", "slow", SKIPPED),
    ]
    assert rows[2].reason == "its process ended in a"


def test_a_worker_that_ends_early_costs_one_variant() -> None:
    # No worker knows this job: it ends without an answer.
    (row,) = _collect([Job("section", "a", "unknown", _never)], 60.0)
    assert row.status == FAILED and row.reason.startswith("exit code 0")
