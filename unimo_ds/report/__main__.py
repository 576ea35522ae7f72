"""``python -m unimo_ds.report RUN_FOLDER MODEL_FOLDER``: the page of a run and ``summary.json``."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging as transformers_logging

from unimo_ds.data.shards import PairCorpus, open_corpus
from unimo_ds.report.answering import ask
from unimo_ds.report.gallery import Gallery, build_gallery, missing_things
from unimo_ds.report.metrics_file import Run, read_run
from unimo_ds.report.page import Outcome, render, source_names
from unimo_ds.report.samples import Answers
from unimo_ds.report.scoring import Scenes, read_scenes
from unimo_ds.report.summary import SUMMARY_NAME, summarise, write_atomically
from unimo_ds.storage import StorageError, is_url
from unimo_ds.train.run_folder import METRICS_NAME

PAGE_NAME = "report.html"


def main(
    run_folder: Annotated[
        Path, typer.Argument(help="what a training wrote: metrics.jsonl, config.json")
    ],
    model_folder: Annotated[Path, typer.Argument(help="what `unimo-convert zero` made of it")],
    out: Annotated[
        Path | None, typer.Option(help="the page; RUN_FOLDER/report.html by default")
    ] = None,
    pairs: Annotated[str, typer.Option(help="held-out pairs, instead of the run's own")] = "",
    scenes: Annotated[
        Path | None, typer.Option(help="JSON lines of what each picture shows")
    ] = None,
    started: Annotated[
        float | None, typer.Option(help="when it all began, seconds since 1970")
    ] = None,
) -> None:
    """Writes one HTML page that needs no network, and summary.json beside it."""
    console = Console(stderr=True)
    transformers_logging.disable_progress_bar()  # ours says more
    try:
        page = write_report(run_folder, model_folder, out, pairs, scenes, started, console)
    except (ValueError, StorageError) as error:
        console.print(f"[bold red]error:[/] {error}", highlight=False, soft_wrap=True)
        sys.exit(2)
    console.print(f"report: {page}", highlight=False, soft_wrap=True)


def write_report(
    run_folder: Path,
    model_folder: Path,
    out: Path | None,
    pairs: str,
    scenes_file: Path | None,
    started: float | None,
    console: Console,
) -> Path:
    """The path of the page that it wrote.

    Raises:
        ValueError: an input that is there but is not what it should be.
    """
    run = read_run(run_folder)
    out = out or run_folder / PAGE_NAME
    missing = [] if run.train or run.heldout else [f"No curves: {METRICS_NAME} has no lines."]
    scenes = read_scenes(scenes_file) if scenes_file else None
    pairs = pairs or next(iter(run.section("data").get("heldout_pairs", [])), "")
    answers, gallery = _answers(run, model_folder, pairs, scenes, missing, console)
    recall = gallery.recall if gallery else None
    summary = summarise(run, recall, gallery.object_colours if gallery else None, started)
    similarity = answers.similarity if answers else np.empty((0, 0), np.float32)
    sources = source_names(run_folder, model_folder, pairs, scenes_file)
    page = render(Outcome(run, summary, gallery, similarity, missing, sources))
    write_atomically(out, page)
    write_atomically(out.with_name(SUMMARY_NAME), summary.to_json())
    return out


def _answers(
    run: Run,
    model_folder: Path,
    pairs: str,
    scenes: Scenes | None,
    missing: list[str],
    console: Console,
) -> tuple[Answers | None, Gallery | None]:
    """What the model says, or None and in ``missing`` the reason."""
    absent = _absent(pairs, model_folder)
    if absent:
        missing.append(f"No retrieval, captions and masked words: {absent}.")
        return None, None
    corpus = open_corpus(pairs)
    if not isinstance(corpus, PairCorpus):
        raise ValueError(f"{pairs} holds {corpus.kind}, expected pairs: name others with --pairs")
    with Progress(console=console) as progress:
        answers = ask(
            model_folder,
            corpus,
            seed=int(run.config.get("seed", 1)),
            prefer=scenes.colours | scenes.shapes if scenes else frozenset(),
            track=lambda batches, heading: progress.track(batches, description=heading),
        )
    gallery = build_gallery(answers, corpus.images.source, scenes)
    missing.extend(missing_things(gallery, scenes))
    return answers, gallery


def _absent(pairs: str, model_folder: Path) -> str:
    """What the model cannot be asked without, empty if all is there."""
    if not pairs:
        return "the run has no data.heldout_pairs, and no --pairs was given"
    if not is_url(pairs) and not Path(pairs).is_dir():
        return f"there is no folder {pairs}; name the held-out pairs with --pairs"
    if not (model_folder / "config.json").is_file():
        return f"there is no model in {model_folder}; make one with `unimo-convert zero`"
    return ""


if __name__ == "__main__":
    typer.run(main)
