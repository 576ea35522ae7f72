"""The commands for texts: text builds a corpus, overlap compares two."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from data_prep.cleaning.overlap import find_overlap, overlap_table
from data_prep.cleaning.signatures import Nearness
from data_prep.cli.options import (
    CACHE,
    WORKERS,
    Cache,
    Engine,
    Location,
    MaxBad,
    MaxTokens,
    Output,
    Phrases,
    RayAddress,
    Resume,
    RowsPerShard,
    Seed,
    Sources,
    TokenizerFile,
    Workers,
    build_options,
)
from data_prep.cli.text_options import (
    Against,
    Confidence,
    Decontaminate,
    Dedup,
    DuplicateGrams,
    DuplicateLines,
    DuplicateParagraphs,
    Gopher,
    Language,
    MaxCharacters,
    MaxMeanWord,
    MaxWords,
    MinCharacters,
    MinMeanWord,
    MinWords,
    Ngram,
    Packing,
    Permutations,
    Shingle,
    Symbols,
    Threshold,
    TopGrams,
    cleaning_of,
)
from data_prep.console import building, report, report_guesses, report_left_out, waiting
from data_prep.engine import LOCAL
from data_prep.packing import Pack
from data_prep.quarantine import Reason, read_quarantine
from data_prep.readers.text import DocumentReader
from data_prep.sources import localise
from data_prep.texts import build_texts
from unimo_ds.storage import location

OVERLAPS = 1


def text(
    ctx: typer.Context,
    out: Output,
    files: Annotated[
        Sources,
        typer.Argument(
            help=".txt, .jsonl, .tsv, .csv, .tar (also .gz, .xz, .zst), .parquet, .arrow; "
            "folders and patterns of them; datasets of save_to_disk",
            parser=location,
        ),
    ],
    tokenizer: TokenizerFile,
    field: Annotated[str, typer.Option(help="of a record that holds the text")] = "text",
    pack: Packing = Pack.DOCUMENT,
    max_tokens: MaxTokens = 510,
    phrases: Phrases = False,
    gopher: Gopher = False,
    language: Language = None,
    language_confidence: Confidence = None,
    min_characters: MinCharacters = None,
    max_characters: MaxCharacters = None,
    min_words: MinWords = None,
    max_words: MaxWords = None,
    max_duplicate_lines: DuplicateLines = None,
    max_duplicate_paragraphs: DuplicateParagraphs = None,
    max_top_grams: TopGrams = None,
    max_duplicate_grams: DuplicateGrams = None,
    max_symbols: Symbols = None,
    min_mean_word: MinMeanWord = None,
    max_mean_word: MaxMeanWord = None,
    dedup: Dedup = "none",
    against: Against = None,
    decontaminate: Decontaminate = None,
    ngram: Ngram = 13,
    threshold: Threshold = 0.8,
    permutations: Permutations = 128,
    shingle: Shingle = 5,
    rows_per_shard: RowsPerShard = 65_536,
    seed: Seed = 1,
    workers: Workers = WORKERS,
    engine: Engine = LOCAL,
    ray_address: RayAddress = "",
    cache: Cache = CACHE,
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """A texts corpus. Documents longer than a row are cut where sentences end."""
    cleaning = cleaning_of(ctx.params)
    with waiting("fetching sources"):
        reader = DocumentReader(localise(files, cache), field)
        (words,) = localise([tokenizer], cache)
    passes = 2 if cleaning.nearness else 1
    with building(out, build_options(ctx), passes * reader.total_bytes, 1e6, "MB") as options:
        manifest = build_texts(
            out,
            reader,
            str(words),
            options,
            max_tokens=max_tokens,
            rows_per_shard=rows_per_shard,
            pack=pack,
            cleaning=cleaning,
            phrases=phrases,
        )
    report_guesses(reader.guesses)
    report(out, manifest)
    if manifest and Reason.LEFT_OUT in manifest.quarantined:
        report_left_out(read_quarantine(out))


def overlap(
    train: Annotated[
        Location, typer.Argument(help="texts or pairs corpus to train on", parser=location)
    ],
    held_out: Annotated[
        Location, typer.Argument(help="texts or pairs corpus to evaluate on", parser=location)
    ],
    tokenizer: Annotated[str | None, typer.Option(help="of texts corpora; pairs need none")] = None,
    ngram: Ngram = 13,
    threshold: Threshold = 0.8,
    permutations: Permutations = 128,
    shingle: Shingle = 5,
    most: Annotated[
        float | None, typer.Option(help="exit code 1 above this share of held-out texts")
    ] = None,
    listing: Annotated[
        Path | None, typer.Option("--list", help="file to list every match in, as JSON lines")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    workers: Workers = WORKERS,
) -> None:
    """How much of a held-out corpus stands in a training corpus: documents, captions, pictures."""
    nearness = Nearness(True, threshold, permutations, shingle)
    with waiting("comparing"):
        found = find_overlap(train, held_out, tokenizer, nearness, ngram, workers)
    if listing:
        lines = "".join(json.dumps(match._asdict()) + "\n" for match in found.matches)
        listing.write_text(lines, encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found.summary(), indent=1))
    else:
        Console().print(overlap_table(found))
    if most is not None and found.share > most:
        raise typer.Exit(OVERLAPS)
