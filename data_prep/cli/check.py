"""The commands that look at corpora: verify, stats."""

import json
from typing import Annotated

import typer
from rich.console import Console

from data_prep.cli.options import WORKERS, Corpora, Workers
from data_prep.console import advancing, console, printable
from data_prep.stats import corpus_stats, stats_table, totals_table
from data_prep.verify import Checks, bytes_to_read, damage
from unimo_ds.tokenizer import load_tokenizer

DAMAGED = 1


def verify(
    corpora: Corpora,
    tokenizer: Annotated[
        str | None, typer.Option(help="that texts and pairs were made with; checks every token id")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="names, sizes and columns only: reads no content")
    ] = False,
    workers: Workers = WORKERS,
) -> None:
    """Reads every byte of corpora. Exit code 1 if something is not as the manifest says."""
    words = load_tokenizer(tokenizer) if tokenizer else None
    total = sum(bytes_to_read(folder) for folder in corpora)
    problems = 0
    with advancing("verify", total, 1e6, "MB") as advance:
        checks = Checks(workers=workers, quick=quick, tokenizer=words, progress=advance)
        for folder in corpora:
            found = 0
            for problem in damage(folder, checks):
                found += 1
                typer.echo(printable(problem))
            if not found:
                told = "names, sizes and columns fit" if quick else "whole"
                console.print(f"{folder}: [green]{told}[/green]", soft_wrap=True)
            problems += found
    if problems:
        raise typer.Exit(DAMAGED)


def stats(
    corpora: Corpora,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Rows, tokens, lengths, regions, sizes and quarantined records of corpora."""
    found = [entry for folder in corpora for entry in corpus_stats(folder)]
    if as_json:
        typer.echo(json.dumps([entry._asdict() for entry in found], indent=1))
        return
    for entry in found:
        Console().print(stats_table(entry))
    if len(corpora) > 1:
        Console().print(totals_table(found))
