"""How fast captions are rewritten, and whether the rewrites are what they say.

    UNIMO_REAL_DATA=... python -m benchmarks.rewriting

Flickr8k's captions [Hodosh et al. 2013], all 32,360, through `unimo-prep rewrite` at word and
phrase level, start-up included; then those of the first 60 photos as a page, with three checks:
the span, the type by a second tagger (NLTK's averaged perceptron), and other captions of the image.
Writes benchmarks/rewriting.md.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data_prep.pool import default_workers
from data_prep.rewrite.replacement import normalised
from data_prep.writer import read_shard
from unimo_ds.data.schema import Level, read_manifest

OUT = Path(__file__).with_name("rewriting.md")
PHOTOS = 60
REPEATS = 3
TAGS = {
    "object": ("NN", "NNS", "NNP", "NNPS"),
    "attribute": ("JJ", "JJR", "JJS", "CD", "VBN", "VBG", "VBD", "NN"),
    "relation": ("IN", "TO", "RP", "RB", "VB", "VBZ", "VBP", "VBG", "VBN", "VBD"),
}
"""Tags of the Penn treebank that a word of the type may have; a noun may describe another."""


class One(NamedTuple):
    """A rewrite beside its source."""

    photo: int
    source: str
    own: list[str]  # all captions of the photo
    level: Level
    how: str
    begin: int
    end: int
    text: str

    @property
    def replacement(self) -> str:
        return self.text[self.begin : len(self.text) - (len(self.source) - self.end)]


def rewrites(folder: Path, photos: int) -> Iterator[One]:
    """Of the first photos of a corpus, in its order."""
    shards = read_manifest(folder).shards
    pairs = pa.concat_tables([read_shard(folder / s.name) for s in shards]).slice(0, photos)
    found = pa.concat_tables([read_shard(folder / s.rewrites) for s in shards]).slice(0, photos)
    names = ("caption", "level", "begin", "end", "how", "text")
    for photo, (pair, row) in enumerate(zip(pairs.to_pylist(), found.to_pylist(), strict=True)):
        own = pair["caption_texts"]
        for caption, level, begin, end, how, text in zip(*(row[n] for n in names), strict=True):
            yield One(photo, own[caption], own, Level(level), how, begin, end, text)


def is_its_span(one: One) -> bool:
    """Is everything but the span as it was, and the span not?"""
    rest = one.source[one.end :]
    same = one.text.startswith(one.source[: one.begin]) and one.text.endswith(rest)
    return same and one.replacement != one.source[one.begin : one.end]


def is_its_type(one: One, tag: Any) -> bool:
    """Has a word of the type been put into the caption, for a tagger that did not choose it?"""
    before = one.text[: one.begin].lower().split()
    words = one.replacement.lower().split()
    after = one.text[one.begin + len(one.replacement) :].lower().split()
    tags = [found for _, found in tag(before + words + after)][len(before) :][: len(words)]
    if one.how == "relation":
        return any(found in TAGS[one.how] for found in tags)
    return tags[-1] in TAGS[one.how]  # the last word is what the others describe


def checks(found: list[One], tag: Any) -> dict[str, tuple[int, int]]:
    """Name -> (right, all)."""
    replaced = [one for one in found if one.level != Level.SENTENCE]
    words = [one for one in found if one.level == Level.WORD]
    own = [normalised(one.text) in map(normalised, one.own) for one in found]
    told = {
        "differ in exactly the stated span": (sum(map(is_its_span, replaced)), len(replaced)),
        "equal no caption of their photo": (own.count(False), len(own)),
        "word level: of the stated type": (sum(is_its_type(one, tag) for one in words), len(words)),
    }
    for how in TAGS:
        some = [one for one in words if one.how == how]
        told[f"word level: {how}"] = sum(is_its_type(one, tag) for one in some), len(some)
    return told


def measure(folder: Path, real: Path) -> dict[str, float]:
    """Builds the pairs and rewrites them; seconds and captions a second."""
    records = json.loads((real / "flickr8k" / "captions.json").read_text(encoding="utf-8"))
    lines = [json.dumps({"image": r["image"], "captions": r["captions"]}) for r in records]
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ("--tokenizer", real / "tokenizer" / "hf_roberta")
    photos = ("--image-root", real / "flickr8k" / "images")
    pixels = ("--grid", 2, "--patch", 8, "--num-classes", 16)
    prep("pairs", folder / "pairs", folder / "pairs.jsonl", *words, *photos, *pixels)
    captions = sum(len(record["captions"]) for record in records)
    numbers = {"captions": float(captions)}
    for name, levels in (
        ("word and phrase", "word,phrase"),
        ("all levels", "sentence,phrase,word"),
    ):
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            prep("rewrite", folder / "pairs", *words, "--levels", levels, "--replace")
            seconds.append(time.perf_counter() - began)
        numbers[f"{name}, s"] = statistics.median(seconds)
        numbers[f"{name}, captions/s"] = captions / statistics.median(seconds)
    return numbers


def prep(*arguments: object) -> None:
    """Runs `unimo-prep`."""
    command = [sys.executable, "-m", "data_prep.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def page(found: list[One], told: dict[str, tuple[int, int]], numbers: dict[str, float]) -> str:
    """The Markdown: numbers, checks, then every caption with its first rewrite of each kind."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    lines = [
        "# Rewritten captions",
        "",
        f"`UNIMO_REAL_DATA=... python -m benchmarks.rewriting`, {time.strftime('%Y-%m-%d')}: "
        f"{_processor()}, {default_workers()} cores (load {load}), Python "
        f"{platform.python_version()}, textblob {version('textblob')}, nltk {version('nltk')}, "
        f"scikit-learn {version('scikit-learn')}.",
        "",
        "Captions: Flickr8k [Hodosh, Young and Hockenmaier 2013], for research and education.",
        "",
        "| what | |",
        "|---|---|",
        *(f"| {name} | {value:,.1f} |" for name, value in numbers.items()),
        "",
        f"Of the {len(found):,} rewrites of the {len({o.source for o in found})} captions below, "
        "all levels, three of each to a caption:",
        "",
        "| check | right | of | |",
        "|---|---|---|---|",
        *(f"| {n} | {a:,} | {b:,} | {a / max(b, 1):.1%} |" for n, (a, b) in told.items()),
        "",
        "The second tagger is NLTK's averaged perceptron on the whole rewritten caption in lower "
        "case. Shown is the first rewrite of every kind; what was replaced is bold.",
    ]
    by_caption: dict[tuple[int, str], dict[tuple[Level, str], One]] = defaultdict(dict)
    for one in found:
        by_caption[one.photo, one.source].setdefault((one.level, one.how), one)
    for (_, source), kinds in by_caption.items():
        lines += ["", f"* {_escaped(source)}"]
        for (level, how), one in sorted(kinds.items()):
            end = one.begin + len(one.replacement)
            parts = one.text[: one.begin], one.replacement, one.text[end:]
            before, changed, after = map(_escaped, parts)
            shown = one.text if level == Level.SENTENCE else f"{before}**{changed}**{after}"
            lines.append(f"  * {level.name.lower()}, {how}: {shown}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def main() -> None:
    real = os.environ.get("UNIMO_REAL_DATA")
    if not real:
        sys.exit("set UNIMO_REAL_DATA to the folder with flickr8k, tokenizer and nltk_pos")
    import nltk

    nltk.data.path.insert(0, str(Path(real) / "nltk_pos"))
    with tempfile.TemporaryDirectory() as name:
        numbers = measure(Path(name), Path(real))
        found = list(rewrites(Path(name) / "pairs", PHOTOS))
    told = checks(found, nltk.pos_tag)
    OUT.write_text(page(found, told, numbers), encoding="utf-8")
    print(json.dumps(numbers | {n: f"{a}/{b}" for n, (a, b) in told.items()}, indent=1))
    print(Counter(one.how for one in found))


if __name__ == "__main__":
    main()
