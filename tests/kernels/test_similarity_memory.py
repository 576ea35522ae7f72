"""What the similarity matrix takes in memory: in tiles next to nothing, materialised gigabytes."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.processes import run_command
from unimo_kernels.similarity import similarity_logsumexp

ROOT = Path(__file__).parents[2]

# Arguments: backend, and the MiB of address space that it may take beyond its inputs, 0 = all.
# The peak is read from /proc: getrusage's survives exec, and would begin with that of the parent.
MEASURE = """
import json, resource, sys, time
import torch
from unimo_kernels.similarity import similarity_logsumexp

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1]) // 1024

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
a, b = (torch.randn(16384, 256, generator=generator) / 16 for _ in range(2))
a.requires_grad_(), b.requires_grad_()
group = torch.randperm(16384, generator=generator)
before, started = status("VmRSS"), time.perf_counter()
if int(sys.argv[2]):
    limit = (status("VmSize") + int(sys.argv[2])) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
finished = True
try:
    rows, columns = similarity_logsumexp(
        a, b, group, group, scale=14.3, both_directions=True, backend=sys.argv[1]
    )
    (rows.all - rows.positive + columns.all - columns.positive).sum().backward()
except RuntimeError as error:
    if "allocate memory" not in str(error):
        raise
    finished = False
print(json.dumps({
    "finished": finished,
    "mib": status("VmHWM") - before,
    "seconds": time.perf_counter() - started,
}))
"""


def measure(backend: str, limit_mib: int = 0) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, backend, str(limit_mib)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "kernels")}
    done = run_command(command, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    print(backend, found)
    return found


on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@on_linux
def test_tiles_of_16384_by_16384_take_a_quarter_of_a_gibibyte_at_most():
    """Beyond inputs of 32 MiB: forward and backward, both directions. The matrix is a gibibyte."""
    found = measure("chunked")
    assert found["finished"] and found["mib"] < 256


@on_linux
def test_the_materialised_matrix_takes_more_than_three_gibibytes():
    # Stopped there: all of it takes three times as much, and most of a minute.
    found = measure("reference", limit_mib=3584)
    assert not found["finished"] and found["mib"] > 3072


def test_the_matrix_is_not_kept_for_the_backward():
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    a, b = torch.randn(64, 4, requires_grad=True), torch.randn(96, 4, requires_grad=True)
    groups = torch.arange(64), torch.arange(96)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        similarity_logsumexp(a, b, *groups, scale=1.0, both_directions=True, backend="chunked")
    assert max(saved) < 64 * 96
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        similarity_logsumexp(a, b, *groups, scale=1.0, both_directions=True, backend="reference")
    assert max(saved) >= 64 * 96  # which the specification does keep
