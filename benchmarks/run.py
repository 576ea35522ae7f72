"""Measures what this machine can: batches, attention, training steps. `make bench` runs it.

Writes ``benchmarks/results.json`` (machine, versions, date, every number) and the same as a table
in ``benchmarks/results.md``. Each number is the median of several runs after a warm-up.
"""

import dataclasses
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from unimo_ds.batch import num_filled
from unimo_ds.config import RunConfig, load_config
from unimo_ds.data.loader import Loader
from unimo_ds.train.engine import PlainEngine
from unimo_ds.train.loop import train_step
from unimo_ds.train.metrics import Tally
from unimo_ds.train.model import build_model
from unimo_kernels.attention import attention

ROOT = Path(__file__).parents[1]
REPEATS = 5
PACKAGES = ("torch", "deepspeed", "transformers", "pyarrow", "numpy")
Numbers = dict[str, float]


def median_seconds(run: Callable[[], object]) -> float:
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def demo_run(folder: Path) -> RunConfig:
    """The demo's configuration over its corpora, built by the demo's own commands."""
    corpora = folder / "corpora"
    command = ["make", "-C", str(ROOT), "demo-corpora", f"DEMO={corpora}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    overrides = [f'data.tokenizer="{corpora}/tokenizer.json"', "train.deepspeed="]
    for key, name in (("texts", "texts"), ("images", "images"), ("pairs", "pairs")):
        overrides.append(f'data.{key}=["{corpora}/{name}"]')
    overrides.append(f'data.heldout_pairs=["{corpora}/heldout"]')
    return load_config(ROOT / "unimo_ds" / "configs" / "demo.toml", overrides)


def bench_batches(config: RunConfig) -> Numbers:
    """Building batches on one thread."""
    loader = Loader(config)
    steps = iter(range(10**6))
    built = []
    seconds = median_seconds(lambda: built.append(loader.step(next(steps))))
    rows = [micro.batch for step in built for micro in step]
    return {
        "batches: samples/s": config.batch.samples / seconds,
        "batches: packing": sum(map(num_filled, rows)) / sum(len(row.segment) for row in rows),
    }


def bench_attention(config: RunConfig) -> Numbers:
    """Forward and backward over one of the demo's rows."""
    batch = Loader(config).step(0)[0].batch
    heads, width = config.model.num_attention_heads, config.model.hidden_size
    shape = (len(batch.segment), heads, width // heads)
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    numbers = {}
    for backend in ("sdpa", "reference"):

        def run(backend: str = backend) -> None:
            attention(q, k, v, batch.segment, batch.order, backend=backend).sum().backward()

        numbers[f"attention: {backend}, T={shape[0]}, ms"] = 1e3 * median_seconds(run)
    return numbers


def bench_steps(config: RunConfig) -> Numbers:
    """Whole training steps in plain torch, all cores."""
    numbers = {}
    for precision in ("fp32", "bf16"):
        train = dataclasses.replace(config.train, precision=precision)
        run = dataclasses.replace(config, train=train)
        engine, batches = PlainEngine(build_model(run), run), Loader(run).step(0)
        engine.train(True)
        tokens = sum(num_filled(micro.batch) for micro in batches)

        def step(engine=engine, batches=batches, run=run) -> None:
            train_step(engine, batches, 0, 1e-4, run, Tally())

        numbers[f"training: {precision}, tokens/s"] = tokens / median_seconds(step)
    return numbers


def machine() -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.machine(),
        "cores": str(len(names)),
        "gpu": gpu,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = demo_run(Path(folder))
        numbers = bench_batches(config) | bench_attention(config) | bench_steps(config)
    about = {
        "command": shlex.join(["make", "bench"]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
    }
    results = ROOT / "benchmarks" / "results"
    text = json.dumps(about | {"numbers": numbers}, indent=1) + "\n"
    results.with_suffix(".json").write_text(text, encoding="utf-8")
    where = ", ".join(f"{key} {value}" for key, value in machine().items())
    table = "\n".join(f"| {name} | {value:,.3g} |" for name, value in numbers.items())
    page = f"# `make bench`\n\n{about['date']}: {where}.\n\n| what | median |\n|---|---|\n{table}\n"
    results.with_suffix(".md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)


if __name__ == "__main__":
    main()
