"""Compiles our Triton kernels for GPUs that are not here; reads their needs off the binaries.

``python -m tests.kernels.ahead_of_time CAPABILITY MODULE [PATTERN ...]`` prints one JSON object per
case that a pattern matches (all without one). A process of its own: kernels that are interpreted
cannot be compiled in the same process.
"""

import fnmatch
import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

BLOCK_KIB = {80: 163, 89: 99, 90: 227, 100: 227}
"""Shared memory that one block may take (CUDA C programming guide, compute capabilities)."""


class Report(NamedTuple):
    """What one kernel needs on one GPU."""

    name: str
    capability: int
    registers: int  # per thread
    shared_kib: float
    fits: bool
    stack_bytes: int  # per thread, in slow memory: registers that were spilled, or an array
    local_accesses: int  # instructions that load from or store to it
    wgmma: bool  # Hopper's matrix instructions
    tma: bool  # its bulk loads
    atomics: bool  # which would make sums depend on chance
    seconds: float


def compile_case(case, capability: int) -> Report:
    """Compiles ``case``; raises what the compiler raises."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from unimo_kernels.triton_ops import launch_options

    started = time.perf_counter()
    names = case.kernel.arg_names
    signature = {n: "constexpr" if n in case.constants else case.types[n] for n in names}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, n in enumerate(names)
        if case.types.get(n, "").startswith("*")
    }
    source = ASTSource(
        fn=case.kernel,
        signature=signature,
        constexprs={(names.index(n),): value for n, value in case.constants.items()},
        attrs=aligned,
    )
    options = launch_options(case.num_warps, case.num_stages)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    # All is read off the binary that Triton made, with whatever flags it passed to ptxas.
    listing = _cuobjdump("-sass", built.asm["cubin"])
    usage = _cuobjdump("--dump-resource-usage", built.asm["cubin"])
    kib = built.metadata.shared / 1024
    return Report(
        name=case.name,
        capability=capability,
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        shared_kib=kib,
        fits=kib <= BLOCK_KIB[capability],
        stack_bytes=int(re.search(r"STACK:(\d+)", usage)[1]),
        local_accesses=len(re.findall(r"\b(?:LDL|STL)\b", listing)),
        wgmma="HGMMA" in listing,
        tma="UTMALDG" in listing,
        atomics=bool(re.search(r"\b(atom|red)\.", built.asm["ptx"])),
        seconds=time.perf_counter() - started,
    )


def _cuobjdump(option: str, cubin: bytes) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, option, file.name], capture_output=True, text=True, check=True)
    return done.stdout


def main(capability: str, module: str, *patterns: str) -> None:
    cases = importlib.import_module(module).ahead_of_time(int(capability))
    for case in cases:
        if not patterns or any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns):
            report = compile_case(case, int(capability))
            sys.stdout.write(json.dumps(report._asdict()) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
