"""Every kernel compiles for GPUs that are not here, and fits them.

Values are checked in Triton's interpreter, which knows no registers and no shared memory; here the
real compiler runs, in processes of its own.
"""

import importlib.metadata
import json
import os
import sys
from pathlib import Path

import pytest

from tests.processes import run_command

ROOT = Path(__file__).parents[2]
NEWEST = importlib.metadata.version("triton").startswith("3.9.")
ATTENTION = "unimo_kernels.attention_triton_cases"
SIMILARITY = "unimo_kernels.similarity_triton_cases"
KERNELS = ("attention_forward", "attention_dq", "attention_dkdv")
HOPPER = [
    *(f"{kernel}-K{width}-bf16-dropout" for kernel in KERNELS for width in (64, 128)),
    "attention_forward-K64-bf16",
    "attention_dq-K32-fp16",
    "attention_dkdv-K64-fp32",
    "attention_forward-K64-bf16-dropout-contained",
    "attention_dkdv-K64-bf16-dropout-contained",
]
MATRIX = ["similarity_statistics-bf16-both", "similarity_gradients-bf16-both"]
CASES = {
    (80, ATTENTION): [f"{kernel}-K64-bf16" for kernel in (*KERNELS, "attention_delta")],
    (89, ATTENTION): [
        *(f"{kernel}-K128-bf16-dropout" for kernel in (KERNELS[0], KERNELS[2])),
        "attention_forward-K128-bf16-dropout-contained",
    ],
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
    slow = {n: (r["stack_bytes"], r["local_accesses"]) for n, r in reports.items()}
    # What contains NaN may spill: it runs where a result is NaN, and nowhere else. So may attention
    # in float32, which is for comparisons.
    spared = "contained", "attention_dkdv-K64-fp32"
    spilled = {n for n, used in slow.items() if any(used) and not n.endswith(spared)}
    assert {n: slow[n] for n in spilled} == {}
    assert {n for n, r in reports.items() if not (r["wgmma"] and r["tma"])} == set()


OTHER_TILES = """
import json
import torch
from tests.kernels.ahead_of_time import compile_case
from unimo_kernels import attention_triton_cases as cases
from unimo_kernels.attention_triton_ops import Tiles
cases.tiles = lambda *kind, backward: Tiles(128, 64, {warps}, {stages})
kernel = cases.attention_triton.attention_forward
case = cases._case(kernel, torch.bfloat16, {width}, True, False, 90)
print(json.dumps(compile_case(case, 90)._asdict()))
"""


def _with_other_tiles(**tiles: int) -> dict:
    command = [sys.executable, "-c", OTHER_TILES.format(**tiles)]
    done = run_command(command, env=_environment(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kernel_that_needs_too_much_is_found_out() -> None:
    """The harness itself: 8 stages ask for more shared memory, 4 warps for more registers."""
    report = _with_other_tiles(warps=4, stages=8, width=128)
    assert not report["fits"]
    assert report["stack_bytes"] > 0 and report["local_accesses"] > 0


@pytest.mark.skipif(not NEWEST, reason="another compiler deals registers out otherwise")
def test_what_is_read_is_the_binary_that_triton_made() -> None:
    """This kernel spills under the flags that Triton passes, not under those of ptxas itself."""
    report = _with_other_tiles(warps=4, stages=3, width=64)
    assert report["stack_bytes"] > 0 and report["local_accesses"] > 0
