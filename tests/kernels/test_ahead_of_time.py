"""Every kernel compiles for GPUs that are not here, and fits them.

Values are checked in Triton's interpreter, which knows no registers and no shared memory; here the
real compiler runs, in processes of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import run_command

ROOT = Path(__file__).parents[2]
ATTENTION = "unimo_kernels.attention_triton_cases"
SIMILARITY = "unimo_kernels.similarity_triton_cases"
KERNELS = ("attention_forward", "attention_dq", "attention_dkdv")
HOPPER = [
    *(f"{kernel}-K{width}-bf16-dropout" for kernel in KERNELS for width in (64, 128)),
    "attention_forward-K64-bf16",
    "attention_dq-K32-fp16",
    "attention_dkdv-K64-fp32",
]
MATRIX = ["similarity_statistics-bf16-both", "similarity_gradients-bf16-both"]
CASES = {
    (80, ATTENTION): [f"{kernel}-K64-bf16" for kernel in (*KERNELS, "attention_delta")],
    (89, ATTENTION): [f"{kernel}-K128-bf16-dropout" for kernel in (KERNELS[0], KERNELS[2])],
    (90, ATTENTION): HOPPER,
    (100, ATTENTION): [f"{kernel}-K64-bf16" for kernel in KERNELS],
    (80, SIMILARITY): [*MATRIX, "combine"],
    (90, SIMILARITY): [
        *MATRIX,
        "similarity_gradients-bf16-both-weights",
        "similarity_gradients-fp32-both",
    ],
    (100, SIMILARITY): MATRIX,
}


def _environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return compiling | {"PYTHONPATH": paths}


def _compile(capability: int, module: str, names: list[str]) -> dict[str, dict]:
    command = [sys.executable, "-m", "tests.kernels.ahead_of_time", str(capability), module, *names]
    done = run_command(command, env=_environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    return {report["name"]: report for report in reports}


def _title(key: tuple[int, str]) -> str:
    capability, module = key
    return f"sm_{capability}-{module.split('.')[1].split('_')[0]}"


@pytest.fixture(scope="module", params=CASES, ids=_title)
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, dict[str, dict]]:
    """Reports of all cases of one module for one GPU; nothing comes from a cache."""
    capability, module = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        reports = _compile(capability, module, CASES[request.param])
    assert sorted(reports) == sorted(CASES[request.param])
    return capability, reports


def test_kernels_fit_shared_memory_and_add_nothing_by_chance(
    compiled: tuple[int, dict[str, dict]],
) -> None:
    _, reports = compiled
    assert {name for name, r in reports.items() if r["atomics"]} == set()
    assert {name: r["shared_kib"] for name, r in reports.items() if not r["fits"]} == {}


@pytest.mark.parametrize(
    "compiled", [key for key in CASES if key[0] == 90], indirect=True, ids=_title
)
def test_on_hopper_nothing_spills_and_matrix_units_are_fed_in_bulk(
    compiled: tuple[int, dict[str, dict]],
) -> None:
    _, reports = compiled
    assert {n: r["spilled_bytes"] for n, r in reports.items() if r["spilled_bytes"]} == {}
    assert {n for n, r in reports.items() if not (r["wgmma"] and r["tma"])} == set()


TOO_LARGE = """
import json
import torch
from tests.kernels.ahead_of_time import compile_case
from unimo_kernels import attention_triton_cases as cases
from unimo_kernels.attention_triton_ops import Tiles
cases.tiles = lambda *kind, backward: Tiles(128, 64, 4, 8)
kernel = cases.attention_triton.attention_forward
case = cases._case(kernel, torch.bfloat16, 128, True, 90)
print(json.dumps(compile_case(case, 90)._asdict()))
"""


def test_a_kernel_that_needs_too_much_is_found_out() -> None:
    """The harness itself: 8 stages ask for more shared memory, 4 warps for more registers."""
    done = subprocess.run(
        [sys.executable, "-c", TOO_LARGE], env=_environment(), cwd=ROOT, capture_output=True
    )
    report = json.loads(done.stdout)
    assert not report["fits"]
    assert report["spilled_bytes"] > 0
