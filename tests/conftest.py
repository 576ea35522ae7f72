"""What many tests share: a small demo corpus, built by the real commands, and a run to fit it."""

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # Without a GPU the Triton kernels are interpreted; it is read when `triton` is imported.
    os.environ["TRITON_INTERPRET"] = "1"

from tests.processes import run_command
from unimo_ds.config import RunConfig, load_config

# A run of the suite tests the change, not luck: its examples are the same every time. To search for
# new ones, as before a release: UNIMO_HYPOTHESIS=search.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("UNIMO_HYPOTHESIS", "suite"))

ROOT = Path(__file__).parents[1]

SMALL_RUN = """
[model]
vocab_size = 400
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
hidden_dropout_prob = 0.0
attention_probs_dropout_prob = 0.0
max_position_embeddings = 130
image_feature_size = 192
image_class_size = 16

[data]
tokenizer = "{corpora}/tokenizer.json"
texts = ["{corpora}/texts"]
images = ["{corpora}/images"]
pairs = ["{corpora}/pairs"]
heldout_pairs = ["{corpora}/heldout"]
max_regions = 16
max_tokens = 128

[batch]
samples = 28
rows = 4
tokens_per_row = 2048

[optim]
lr = 1e-3
warmup_steps = 4

[train]
steps = 20
precision = "fp32"
deepspeed = "{root}/ds_configs/zero3.json"
log_every = 1
eval_every = 10
save_every = 10
heldout_candidates = 16
threads = 1
"""


def command_environment() -> dict[str, str]:
    """For our commands in a process of their own: one thread, no GPU, importable from the tree."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    return os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": paths}


def prep(*arguments: object) -> None:
    """Runs `unimo-prep` and fails with what it said."""
    command = [sys.executable, "-m", "data_prep.cli.main", *arguments]
    done = run_command(command, env=command_environment())
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four demo corpora, 60 pairs, 30 texts and 20 images small, in one folder, with rewritten
    captions and, for the pairs, related texts and images."""
    folder = tmp_path_factory.mktemp("corpora")
    raw, words = folder / "raw", folder / "tokenizer.json"
    prep("demo", raw, "--pairs", 60, "--texts", 30, "--images", 20, "--heldout", 16, "--seed", 3)
    train = raw / "pairs" / "train.jsonl"
    prep("tokenizer", words, raw / "texts" / "prose.jsonl", train, "--vocab-size", 400)
    text = ("--tokenizer", words, "--max-tokens", 126)
    pixels = ("--grid", 4, "--patch", 8, "--num-classes", 16)
    shared = (*pixels, "--visual-words", folder / "pairs" / "images" / "visual_words.npy")
    prep("text", folder / "texts", raw / "texts" / "prose.jsonl", *text)
    prep("pairs", folder / "pairs", train, *text, *pixels)
    prep("pairs", folder / "heldout", raw / "pairs" / "heldout.jsonl", *text, *shared)
    prep("images", folder / "images", raw / "images", *shared)
    for name in ("pairs", "heldout"):
        prep("rewrite", folder / name, "--tokenizer", words, "--paraphrase", "demo")
    unpaired = ("--texts", folder / "texts", "--images", folder / "images")
    prep("retrieve", folder / "pairs", "--tokenizer", words, *unpaired)
    return folder


@pytest.fixture(scope="session")
def small_toml(corpora: Path) -> Path:
    """A configuration file for the small corpora."""
    path = corpora / "small.toml"
    path.write_text(SMALL_RUN.format(corpora=corpora, root=ROOT), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small_config(small_toml: Path) -> RunConfig:
    return load_config(small_toml)
