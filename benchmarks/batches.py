"""Building batches: how fast, beside how fast they can be eaten.

    python -m benchmarks.batches          the base configuration alone; no corpus needed

The demo's batches beside two ranks that train on them under DeepSpeed; those of the base
configuration (texts of about 450 tokens, images of 36 to 100 regions x 2048) beside the tokens that
one H200 would train on at 45 % of its peak, by the FLOP model that the training log uses.
"""

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.corpora import Sizes, write_corpora
from unimo_ds.batch import num_filled
from unimo_ds.config import ContrastConfig, RunConfig, load_config
from unimo_ds.data.loader import AHEAD, Loader, MicroStep
from unimo_ds.train.metrics import PEAK_FLOPS, useful_flops

ROOT = Path(__file__).parents[1]
REPEATS = 7
MARGIN = 3  # how much faster than training batches should come
UTILISATION = 0.45
BASE_SIZES = Sizes(texts=1500, images=300, pairs=1200)
BASE_SAMPLES = 256  # of a step; the configuration's 1,024 fill more memory, at the same speed
RANKS, LOG_EVERY = 2, 10
STEPS_PER_REPEAT = 8  # that workers build
WORKER_REPEATS = 2  # processes take seconds to start
Numbers = dict[str, float]


class Work:
    """What the steps of a loader hold, and the processor seconds that building them took."""

    def __init__(self) -> None:
        self.tokens = self.positions = self.samples = 0
        self.flops = 0.0
        self.speeds: list[float] = []  # tokens per second of each step

    def add(self, step: list[MicroStep], seconds: float, config: RunConfig) -> None:
        batches = [micro.batch for micro in step]
        tokens = sum(map(num_filled, batches))
        self.tokens += tokens
        self.positions += sum(len(batch.segment) for batch in batches)
        self.flops += sum(useful_flops(batch, config.model) for batch in batches)
        self.samples += config.batch.samples
        self.speeds.append(tokens / seconds)

    @property
    def speed(self) -> float:
        """Tokens per second, the median of the steps."""
        return statistics.median(self.speeds)


def bench_demo(config: RunConfig, repeats: int = REPEATS) -> Numbers:
    """The demo's batches on one core, and its training on all."""
    work = _work_of_one_core(Loader(config), repeats)
    speed = work.speed * work.samples / work.tokens
    trained = training_speed(config, repeats)
    return {
        "batches: demo, samples/s of a core": speed,
        "batches: demo, packing": work.tokens / work.positions,
        "batches: demo, samples/s that 2 ranks train": trained,
        "batches: demo, times as fast as training": speed / trained,
    }


def training_speed(config: RunConfig, laps: int) -> float:
    """Samples per second of ``config`` under DeepSpeed on two ranks, the median of the laps."""
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "name": "speed",
            "folder": folder,
            "train.deepspeed": str(ROOT / "ds_configs" / "zero3.json"),
            "train.log_every": LOG_EVERY,
            "train.stop_after": LOG_EVERY * (laps + 1),
            "data.tokenizer": config.data.tokenizer,
            **{
                f"data.{kind}": getattr(config.data, kind)
                for kind in ("texts", "images", "pairs", "heldout_pairs")
            },
        }
        overrides = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", str(RANKS)]
        command = [*launcher, "--module", "unimo_ds.pretrain", _toml(config, Path(folder))]
        environment = os.environ | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [*command, *overrides], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"training failed:\n{done.stdout}{done.stderr}")
        lines = (Path(folder) / "speed" / "metrics.jsonl").read_text().splitlines()
    laps = [line for line in map(json.loads, lines) if line["type"] == "train"]
    return statistics.median(lap["samples_per_second"] for lap in laps[1:])  # the first warms up


def bench_base(config: RunConfig, repeats: int = REPEATS) -> Numbers:
    """The base configuration's batches on one core and by one and two workers."""
    work = _work_of_one_core(Loader(config), repeats)
    tokens, speed = work.tokens / len(work.speeds), work.speed
    per_token = work.flops / work.tokens
    eaten = UTILISATION * PEAK_FLOPS["H200"] / per_token
    one, two = workers_speed(config, tokens, repeats)
    per_worker = two / 2
    return {
        "batches: base, tokens/s of a core": speed,
        "batches: base, samples/s of a core": speed * work.samples / work.tokens,
        "batches: base, packing": work.tokens / work.positions,
        "batches: base, tokens/s by 1 worker (a thread)": one,
        "batches: base, tokens/s by 2 workers (processes)": two,
        "batches: base, GFLOP a token": per_token / 1e9,
        "batches: base, tokens/s of one H200 at 45 %": eaten,
        "batches: base, workers that keep up with it": math.ceil(eaten / per_worker),
        "batches: base, workers for 3 times as fast": math.ceil(MARGIN * eaten / per_worker),
    }


def workers_speed(config: RunConfig, tokens: float, repeats: int) -> tuple[float, float]:
    """Tokens per second by the clock with one and with two workers, measured in turns."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(min(repeats, WORKER_REPEATS)):
        for workers, found in speeds.items():
            data = dataclasses.replace(config.data, workers=workers)
            loader = Loader(dataclasses.replace(config, data=data))
            warm_up = 2 + (AHEAD + 1) * workers  # until the memory of early steps serves late ones
            steps = loader.steps(range(warm_up + STEPS_PER_REPEAT))
            for _ in range(warm_up):
                next(steps)
            start = time.perf_counter()
            for _ in range(STEPS_PER_REPEAT):
                next(steps)
            found.append(STEPS_PER_REPEAT * tokens / (time.perf_counter() - start))
            steps.close()
    return statistics.median(speeds[1]), statistics.median(speeds[2])


def base_config(folder: Path, sizes: Sizes = BASE_SIZES, samples: int = BASE_SAMPLES) -> RunConfig:
    """`configs/base.toml` over corpora of its sizes, written into ``folder``.

    Their words mean nothing and have no rewrites and neighbours: the contrast is of captions alone.
    """
    path = ROOT / "unimo_ds" / "configs" / "base.toml"
    vocab_size = load_config(path, []).model.vocab_size
    write_corpora(folder, sizes, vocab_size, seed=1)
    overrides = [f'data.tokenizer="{folder}/tokenizer.json"', f"batch.samples={samples}"]
    overrides += [f'data.{kind}=["{folder}/{kind}"]' for kind in ("texts", "images", "pairs")]
    config = load_config(path, [*overrides, "data.heldout_pairs=[]"])
    return dataclasses.replace(config, cmcl=ContrastConfig())


def _toml(config: RunConfig, folder: Path) -> str:
    """``config`` as a file that the launched processes read."""
    lines = []
    for section, values in dataclasses.asdict(config).items():
        if isinstance(values, dict):
            lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    path = folder / "run.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _work_of_one_core(loader: Loader, repeats: int) -> Work:
    """Some steps after two to warm up. None is kept: its memory serves the next, as in training."""
    work = Work()
    for step in range(2 + repeats):
        start = time.process_time()
        built = loader.step(step)
        seconds = time.process_time() - start
        if step >= 2:
            work.add(built, seconds, loader.config)
        del built
    return work


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, number in bench_base(base_config(Path(folder))).items():
            sys.stdout.write(f"{name}: {number:,.4g}\n")


if __name__ == "__main__":
    main()
