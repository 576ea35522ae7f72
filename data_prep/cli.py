"""`unimo-prep`: raw text, images and pairs in, corpora out."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from data_prep.demo.build import DemoSize, build_demo
from data_prep.engine import Options, TooManyBad
from data_prep.images import Images, RegionPlan, build_images
from data_prep.pairs import build_pairs, group_by_picture
from data_prep.pool import default_workers
from data_prep.readers.images import read_pictures
from data_prep.readers.pairs import read_pairs
from data_prep.readers.text import DocumentReader
from data_prep.texts import build_texts
from data_prep.tokenizer import make_tokenizer
from unimo_ds.data.schema import Manifest

USAGE_ERROR, TOO_MANY_BAD = 2, 3

app = typer.Typer(
    help="Makes corpora for unimo_ds out of raw text, images and image-text pairs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(stderr=True)

Output = Annotated[Path, typer.Argument(help="folder to fill; it must be new, or --resume")]
Workers = Annotated[int, typer.Option(help="processes; the result does not depend on it")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted build")]
MaxBad = Annotated[float, typer.Option(help="stop (exit code 3) above this share of bad records")]
Seed = Annotated[int, typer.Option(help="of everything drawn at random")]
TokenizerFile = Annotated[str, typer.Option("--tokenizer", help="file of `unimo-prep tokenizer`")]
MaxTokens = Annotated[int, typer.Option(help="the longest row or caption, without [CLS] and [SEP]")]
Regions = Annotated[str, typer.Option(help="where regions come from: pixels or precomputed")]
Grid = Annotated[int, typer.Option(help="pixels: patches a side")]
Patch = Annotated[int, typer.Option(help="pixels: pixels a side of a patch")]
NumClasses = Annotated[int, typer.Option(help="visual words to fit, K of the soft labels")]
VisualWords = Annotated[
    Path | None, typer.Option(help="visual_words.npy of another corpus, to share its classes")
]
MaxRegions = Annotated[int, typer.Option(help="precomputed: keep the first N regions of an image")]
RowsPerShard = Annotated[int, typer.Option(help="records in a full shard")]
ImageRoot = Annotated[
    Path | None,
    typer.Option(help="folder of the pictures that files name [default: the file's own]"),
]


@app.command()
def demo(
    out: Output,
    pairs: int = 4000,
    texts: int = 800,
    images: int = 800,
    heldout: int = 200,
    seed: Seed = 1,
    workers: Workers = default_workers(),
) -> None:
    """A raw demo corpus: small scenes, five captions each, and prose about the same world."""
    begun = time.monotonic()
    build_demo(out, DemoSize(pairs, heldout, images, texts), seed, workers)
    _console.print(
        f"{out}: {pairs} + {heldout} held-out pairs, {images} images, {texts} texts in "
        f"{time.monotonic() - begun:.1f} s"
    )


@app.command()
def tokenizer(
    out: Annotated[Path, typer.Argument(help="tokenizer.json to write")],
    files: Annotated[list[Path], typer.Argument(help="texts and captions, or one RoBERTa folder")],
    vocab_size: int = 50_265,
) -> None:
    """A byte-level BPE learned from .txt, .jsonl, .json, .parquet, or taken over from RoBERTa."""
    made = make_tokenizer(out, files, vocab_size)
    _console.print(f"{out}: {made.vocab_size} words, fingerprint {made.fingerprint}")


@app.command()
def text(
    ctx: typer.Context,
    out: Output,
    files: Annotated[
        list[Path], typer.Argument(help=".txt, .jsonl (also .gz, .xz), .parquet, dataset folders")
    ],
    tokenizer: TokenizerFile,
    field: Annotated[str, typer.Option(help="of a record that holds the text")] = "text",
    max_tokens: MaxTokens = 510,
    rows_per_shard: RowsPerShard = 65_536,
    seed: Seed = 1,
    workers: Workers = default_workers(),
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """A texts corpus. Documents longer than a row are cut where sentences end."""
    reader = DocumentReader(files, field)
    options = Options(
        command=_command(ctx), seed=seed, workers=workers, resume=resume, max_bad=max_bad
    )
    with _building(out, options, reader.total_bytes, 1e6, "MB") as options:
        manifest = build_texts(
            out, reader, tokenizer, options, max_tokens=max_tokens, rows_per_shard=rows_per_shard
        )
    _report(out, manifest)


@app.command()
def images(
    ctx: typer.Context,
    out: Output,
    sources: Annotated[
        list[Path], typer.Argument(help="folders of pictures, .jsonl that name them")
    ],
    regions: Regions = "pixels",
    grid: Grid = 7,
    patch: Patch = 16,
    num_classes: NumClasses = 1601,
    visual_words: VisualWords = None,
    max_regions: MaxRegions = 100,
    image_root: ImageRoot = None,
    rows_per_shard: RowsPerShard = 8192,
    seed: Seed = 1,
    workers: Workers = default_workers(),
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """An images corpus: every image a set of regions."""
    plan = RegionPlan(regions, grid, patch, num_classes, visual_words, max_regions)
    plan = plan._replace(rows_per_shard=rows_per_shard)
    found = Images(*read_pictures(sources, image_root))
    options = Options(
        command=_command(ctx), seed=seed, workers=workers, resume=resume, max_bad=max_bad
    )
    with _building(out, options, len(found.records), 1, "images") as options:
        manifest = build_images(out, found, plan, options)
    _report(out, manifest)


@app.command()
def pairs(
    ctx: typer.Context,
    out: Output,
    sources: Annotated[list[Path], typer.Argument(help=".jsonl, or .json of COCO or Karpathy")],
    tokenizer: TokenizerFile,
    split: Annotated[list[str] | None, typer.Option(help="take records of this split only")] = None,
    max_tokens: MaxTokens = 510,
    regions: Regions = "pixels",
    grid: Grid = 7,
    patch: Patch = 16,
    num_classes: NumClasses = 1601,
    visual_words: VisualWords = None,
    max_regions: MaxRegions = 100,
    image_root: ImageRoot = None,
    rows_per_shard: RowsPerShard = 8192,
    seed: Seed = 1,
    workers: Workers = default_workers(),
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """A pairs corpus, and inside it the images corpus that its rows refer to."""
    plan = RegionPlan(regions, grid, patch, num_classes, visual_words, max_regions)
    plan = plan._replace(rows_per_shard=rows_per_shard)
    entries = [entry for source in sources for entry in read_pairs(source, split or ())]
    grouped = group_by_picture(entries, image_root)
    options = Options(
        command=_command(ctx), seed=seed, workers=workers, resume=resume, max_bad=max_bad
    )
    with _building(out, options, len(grouped.images.records), 1, "images") as options:
        manifest = build_pairs(out, grouped, plan, tokenizer, options, max_tokens=max_tokens)
    _report(out, manifest)


def _command(ctx: typer.Context) -> list[str]:
    """The command as the manifest tells it: all that the bytes depend on, in one order."""
    command = ["unimo-prep", str(ctx.info_name)]
    for name, value in ctx.params.items():
        if name in ("out", "files", "sources"):
            command += [str(v) for v in (value if isinstance(value, list) else [value])]
        elif name not in ("workers", "resume", "max_bad") and value is not None:
            option = f"--{name.replace('_', '-')}"
            for item in value if isinstance(value, list) else [value]:
                command += [option, str(item)]
    return command


class _Rate(ProgressColumn):
    """Units a second since the beginning."""

    def __init__(self, unit: float, name: str) -> None:
        super().__init__()
        self._unit, self._name = unit, name

    def render(self, task: Task) -> Text:
        rate = task.completed / self._unit / max(task.elapsed or 0.0, 1e-9)
        total = (task.total or 0) / self._unit
        return Text(f"{task.completed / self._unit:,.0f}/{total:,.0f} {self._name}, {rate:,.1f}/s")


@contextmanager
def _building(
    out: Path, options: Options, total: float, unit: float, name: str
) -> Iterator[Options]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(unit, name),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(str(out), total=total)
        yield replace(options, progress=lambda size: progress.advance(task, size))


def _report(out: Path, manifest: Manifest | None) -> None:
    if manifest is None:
        _console.print(f"{out} is complete: nothing to do")
        return
    _console.print(f"{out}: {manifest.rows:,} rows in {len(manifest.shards)} shards")
    if manifest.quarantined:
        table = Table("quarantined because", "records", title=f"{out}/quarantine.jsonl")
        for reason, count in manifest.quarantined.items():
            table.add_row(reason, f"{count:,}")
        _console.print(table)


def main() -> None:
    """Runs the command line; what a user can mend is told in one line, without a traceback."""
    try:
        app()
    except TooManyBad as error:
        _console.print(f"[red]stopped:[/red] {error}", soft_wrap=True)
        sys.exit(TOO_MANY_BAD)
    except ValueError as error:
        _console.print(f"[red]error:[/red] {error}", soft_wrap=True)
        sys.exit(USAGE_ERROR)


if __name__ == "__main__":
    main()
