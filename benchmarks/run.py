"""Measures reading, batches and training on this machine. `make bench` runs it.

    python -m benchmarks.run                       builds the demo's corpora and a region corpus
    python -m benchmarks.run --quick --out DIR --demo RUN.toml     tiny, to try it

Writes ``benchmarks/results.json`` (machine, versions, date, load, every number) and the same as a
table in ``benchmarks/results.md``. Each number is the median of several runs after a warm-up. The
kernels have a bench of their own, kernels/bench, which `make bench` runs first.
"""

import argparse
import dataclasses
import json
import os
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
from typing import Any, NamedTuple

import torch

from benchmarks import reading
from benchmarks.batches import BASE_SAMPLES, BASE_SIZES, base_config, bench_base, bench_demo
from benchmarks.corpora import Sizes
from unimo_ds.batch import num_filled
from unimo_ds.config import RunConfig, load_config
from unimo_ds.data.loader import Loader
from unimo_ds.train.engine import PlainEngine
from unimo_ds.train.loop import train_step
from unimo_ds.train.metrics import Tally
from unimo_ds.train.model import build_model

ROOT = Path(__file__).parents[1]
REPEATS = 5
PACKAGES = ("torch", "deepspeed", "transformers", "pyarrow", "numpy", "datasets", "webdataset")
Numbers = dict[str, float]


class Effort(NamedTuple):
    """How much is measured, and how often."""

    sizes: Sizes  # of the base corpora
    samples: int  # of a step
    repeats: int
    readings: int  # repeats of the reading race


FULL = Effort(BASE_SIZES, BASE_SAMPLES, REPEATS, reading.REPEATS)
TINY = Effort(Sizes(texts=10, images=5, pairs=15), 14, 1, 2)


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    run()
    seconds = []
    for _ in range(repeats):
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


def bench_steps(config: RunConfig, repeats: int) -> Numbers:
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

        numbers[f"training: {precision}, tokens/s"] = tokens / median_seconds(step, repeats)
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
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = load_config(options.demo, []) if options.demo else demo_run(folder)
        effort = TINY if options.quick else FULL
        gib = 0 if options.quick else options.gib
        numbers = reading.measure(folder / "reading", gib, effort.readings)
        base = base_config(folder / "base", effort.sizes, effort.samples)
        numbers |= bench_base(base, effort.repeats) | bench_demo(config, effort.repeats)
        numbers |= bench_steps(config, effort.repeats)
    about = {
        "command": shlex.join(["make", "bench"]),
        "date": time.strftime("%Y-%m-%d"),
        "load": [round(load, 2) for load in os.getloadavg()],
        "machine": machine(),
    }
    results = options.out / "results"
    text = json.dumps(about | {"numbers": numbers}, indent=1) + "\n"
    results.with_suffix(".json").write_text(text, encoding="utf-8")
    page = _page(about, numbers)
    results.with_suffix(".md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the region corpus")
    parser.add_argument("--demo", type=Path, help="a demo-like run whose corpora are there already")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try it; with --out")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks", help="of the results")
    options = parser.parse_args()
    if options.quick and options.out == ROOT / "benchmarks":
        parser.error("--quick measures no real sizes: say with --out where its files go")
    return options


def _page(about: dict[str, Any], numbers: Numbers) -> str:
    where = ", ".join(f"{key} {value}" for key, value in about["machine"].items())
    load = "load {} {} {} of 1, 5 and 15 minutes at the end".format(*about["load"])
    table = "\n".join(f"| {name} | {_figure(value)} |" for name, value in numbers.items())
    head = f"# `make bench`\n\n{about['date']}: {where}; {load}."
    return f"{head}\n\n| what | median |\n|---|---|\n{table}\n"


def _figure(value: float) -> str:
    """Three figures, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
