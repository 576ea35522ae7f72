"""The whole path on real photos and articles: corpora, ZeRO-3, resume, conversion, use."""

import itertools
import json
import lzma
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from tests.cluster.launch import curve, metrics, train
from tests.conftest import ROOT, prep
from unimo_ds.convert.zero import convert_zero
from unimo_ds.evaluate import evaluate
from unimo_ds.model.generation import UnimoForConditionalGeneration
from unimo_ds.model.processing import UnimoProcessor

pytestmark = [
    pytest.mark.alone,
    pytest.mark.real,
    pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set"),
]
STEPS = 30
PHOTOS, ARTICLES, UNPAIRED = 160, 60, 60

TOML = """
[model]
vocab_size = 50265
hidden_size = 64
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 128
image_feature_size = 768
image_class_size = 64

[data]
tokenizer = "{corpora}/tokenizer.json"
texts = ["{corpora}/texts"]
images = ["{corpora}/images"]
pairs = ["{corpora}/pairs"]
heldout_pairs = ["{corpora}/heldout"]
max_regions = 49
max_tokens = 128

[batch]
samples = 14
rows = 2
tokens_per_row = 4096

[optim]
lr = 2e-3
warmup_steps = 5

[train]
steps = 30
precision = "bf16"
deepspeed = "{root}/ds_configs/zero3.json"
log_every = 1
eval_every = 15
save_every = 15
heldout_candidates = 40
threads = 1
"""


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def real_toml(tmp_path_factory):
    """Three corpora and a held-out one of a slice of the real data, and a run's configuration."""
    real, out = Path(os.environ["UNIMO_REAL_DATA"]), tmp_path_factory.mktemp("real")
    captions = json.loads((real / "flickr8k" / "captions.json").read_text(encoding="utf-8"))
    split = {s: [c for c in captions if c["split"] == s] for s in ("train", "val")}
    for name, rows in (("pairs", split["train"][:PHOTOS]), ("heldout", split["val"][:40])):
        keep = ({"image": row["image"], "captions": row["captions"]} for row in rows)
        write_jsonl(out / f"{name}.jsonl", keep)
    rooms = sorted((real / "daquar_vqa" / "images").glob("*.jpg"))[:UNPAIRED]
    write_jsonl(out / "images.jsonl", ({"image": path.name} for path in rooms))
    with lzma.open(real / "text" / "wikipedia_en.jsonl.xz", "rt", encoding="utf-8") as lines:
        articles = [json.loads(line) for line in itertools.islice(lines, ARTICLES)]
    write_jsonl(out / "articles.jsonl", ({"text": article["text"]} for article in articles))

    prep("tokenizer", out / "tokenizer.json", real / "tokenizer" / "hf_roberta")
    text = ("--tokenizer", out / "tokenizer.json", "--max-tokens", 126)
    pixels = ("--grid", 7, "--patch", 16, "--num-classes", 64)
    photos = ("--image-root", real / "flickr8k" / "images")
    words = ("--visual-words", out / "pairs" / "images" / "visual_words.npy")
    prep("pairs", out / "pairs", out / "pairs.jsonl", *text, *pixels, *photos)
    prep("pairs", out / "heldout", out / "heldout.jsonl", *text, *pixels, *photos, *words)
    rooms_root = ("--image-root", real / "daquar_vqa" / "images")
    prep("images", out / "images", out / "images.jsonl", *pixels, *words, *rooms_root)
    prep("text", out / "texts", out / "articles.jsonl", *text)
    prep("rewrite", out / "heldout", "--tokenizer", out / "tokenizer.json")
    prep("verify", out / "pairs", out / "heldout", out / "images", out / "texts")
    path = out / "real.toml"
    path.write_text(TOML.format(corpora=out, root=ROOT), encoding="utf-8")
    return path


def test_real_input_becomes_a_usable_model(real_toml, tmp_path):
    run = tmp_path / "real"
    train("deepspeed", 2, real_toml, run, "train.stop_after=15")
    assert "resumed from step 15" in train("deepspeed", 2, real_toml, run)
    assert len(curve(run)) == STEPS
    early, late = metrics(run, "heldout")
    for name in ("mlm", "seq2seq", "mrc"):  # features and contrast take more than 30 steps
        assert late[f"loss/{name}"] < early[f"loss/{name}"], name
    packing = [line["packing"] for line in metrics(run)]
    assert sum(packing) / STEPS >= 0.97
    assert metrics(run, "heldout")[-1]["candidates"] == 40

    model_folder = convert_zero(run, tmp_path / "model")
    tasks = {
        task: evaluate(model_folder, task, str(real_toml.parent / "heldout"), rerank, 0, Console())
        for task, rerank in (("retrieval", 5), ("hard_negatives", 0))
    }
    assert (tasks["retrieval"]["images"], tasks["retrieval"]["texts"]) == (40, 200)
    assert {"individually", "reranked"} <= {*tasks["retrieval"]}
    levels = {"word", "phrase", "sentence", "word/object", "word/attribute", "word/relation"}
    assert levels <= {*tasks["hard_negatives"]["jointly"]}

    processor = UnimoProcessor.from_pretrained(model_folder)
    model = UnimoForConditionalGeneration.from_pretrained(model_folder).eval()
    photo = next((Path(os.environ["UNIMO_REAL_DATA"]) / "flickr8k" / "images").glob("*.jpg"))
    with Image.open(photo) as picture:
        inputs = processor(images=[picture])
    with torch.no_grad():
        words = model.generate(**inputs, max_new_tokens=10)
    assert words.shape[0] == 1 and 2 <= words.shape[1] <= 11
    assert (words < model.config.vocab_size).all()
