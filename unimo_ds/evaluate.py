"""Evaluates a model: ``python -m unimo_ds.evaluate MODEL_DIR --task NAME --data CORPUS``.

MODEL_DIR is a Hugging Face folder, as `unimo-convert zero` writes it. The table goes to the
terminal, all numbers as JSON to ``--out``.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers.utils import logging as transformers_logging

from unimo_ds.report.summary import write_atomically
from unimo_ds.storage import StorageError
from unimo_ds.tasks import hard_negatives, retrieval
from unimo_ds.tasks.folder import open_model, open_pairs
from unimo_ds.tasks.packed import Advance, Scorer

RETRIEVAL, HARD_NEGATIVES = "retrieval", "hard_negatives"
TASKS = (RETRIEVAL, HARD_NEGATIVES)


def main(
    model_folder: Annotated[Path, typer.Argument(help="what `unimo-convert zero` made of a run")],
    task: Annotated[str, typer.Option(help=" or ".join(TASKS))],
    data: Annotated[str, typer.Option(help="held-out pairs corpus; hard_negatives: with rewrites")],
    out: Annotated[Path | None, typer.Option(help="JSON file for the numbers")] = None,
    rerank: Annotated[
        int, typer.Option(min=0, help="retrieval: score so many candidates again, jointly encoded")
    ] = 0,
    most: Annotated[int, typer.Option(min=0, help="pairs, the first ones; 0 = all")] = 0,
) -> None:
    """Retrieval among held-out pairs, or accuracy against wrong rewrites of their captions."""
    console = Console(stderr=True)
    transformers_logging.disable_progress_bar()  # ours says more
    try:
        result = evaluate(model_folder, task, data, rerank, most, console)
    except (ValueError, StorageError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    if out:
        write_atomically(out, json.dumps(result, indent=1) + "\n")
    table = retrieval_table(result) if task == RETRIEVAL else hard_negatives_table(result)
    Console().print(table)


def evaluate(
    model_folder: Path, task: str, data: str, rerank: int, most: int, console: Console
) -> dict[str, Any]:
    """The numbers of a task, and what they are of.

    Raises:
        ValueError: no such task, model or corpus, or a model that does not go with the corpus.
    """
    if task not in TASKS:
        raise ValueError(f"--task {task}: expected one of {', '.join(TASKS)}")
    if rerank and task != RETRIEVAL:
        raise ValueError(f"--rerank {rerank} is for --task {RETRIEVAL}, this is {task}")
    corpus = open_pairs(data)
    model = open_model(model_folder, corpus)
    rows = range(min(len(corpus), most or len(corpus)))
    told = {"task": task, "model": str(model_folder), "data": data}
    if task == RETRIEVAL:
        texts = sum(len(corpus.captions(row)) for row in rows)
        total = retrieval.num_scored(len(rows), texts, rerank)
        with _bar(console, total) as advance:
            return told | retrieval.retrieval(Scorer(model, corpus, advance), rows, rerank)
    with _bar(console, hard_negatives.num_scored(corpus, rows)) as advance:
        return told | hard_negatives.hard_negatives(Scorer(model, corpus, advance), rows)


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Advance]:
    columns = TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("scoring", total=total)
        yield lambda done: bar.advance(task, done)
        bar.update(task, total=bar.tasks[task].completed)  # what is asked twice is scored once


def retrieval_table(result: Mapping[str, Any]) -> Table:
    """Per cent."""
    table = Table("encoded", "query", "R@1", "R@5", "R@10")
    table.title = f"{result['images']} images, {result['texts']} captions"
    for key, label in (("individually", "individually"), ("reranked", "jointly, the best")):
        for way, query in (("image_to_text", "image"), ("text_to_image", "caption")):
            if key in result:
                shares = (f"{100 * result[key][way][f'r{k}']:.1f}" for k in (1, 5, 10))
                again = f" {result['rerank']}" if key == "reranked" else ""
                table.add_row(label + again, query, *shares)
    return table


def hard_negatives_table(result: Mapping[str, Any]) -> Table:
    """Per cent, with 95 % intervals of a bootstrap over pictures."""
    table = Table("rewritten", "rewrites", "jointly", "all of a caption's", "individually")
    table.title = (
        f"{result['pairs']} pairs, {result['captions']} captions: the true one is preferred"
    )
    for name, joint in result["jointly"].items():
        share, alone = joint["pairwise"], result["individually"][name]["pairwise"]
        shown = (_interval(share), f"{100 * joint['all']['share']:.1f}", _interval(alone))
        table.add_row(name, str(share["count"]), *shown)
    return table


def _interval(share: Mapping[str, float]) -> str:
    return f"{100 * share['share']:.1f} ({100 * share['low']:.1f} to {100 * share['high']:.1f})"


if __name__ == "__main__":
    typer.run(main)
