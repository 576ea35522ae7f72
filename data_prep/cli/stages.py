"""The commands that add columns to a pairs corpus: rewrite, retrieve."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.cli.options import (
    CACHE,
    WORKERS,
    Cache,
    Engine,
    Location,
    RayAddress,
    Seed,
    TokenizerFile,
    Workers,
    command_of,
)
from data_prep.console import building, console
from data_prep.engine import LOCAL, Options
from data_prep.retrieve.build import retrieve as retrieve_related
from data_prep.retrieve.lookup import Retrieval
from data_prep.rewrite.build import Rewriting, rewrite_pairs
from data_prep.rewrite.paraphrase import make_plug
from data_prep.sources import localise
from data_prep.writer import Folder
from unimo_ds.data.schema import Level, Manifest, read_manifest
from unimo_ds.storage import location

Pairs = Annotated[Location, typer.Argument(help="folder or URL of a pairs corpus", parser=location)]
Again = Annotated[bool, typer.Option("--replace", help="make columns anew that are there")]
GoOn = Annotated[bool, typer.Option("--resume", help="go on where it was interrupted")]


def rewrite(
    ctx: typer.Context,
    corpus: Pairs,
    tokenizer: TokenizerFile,
    levels: Annotated[str, typer.Option(help="of sentence,phrase,word")] = "sentence,phrase,word",
    per_caption: Annotated[int, typer.Option(help="rewrites of a caption at each level")] = 3,
    paraphrase: Annotated[
        str, typer.Option(help="positives: demo, the grammar of the demo world")
    ] = "",
    command: Annotated[
        str, typer.Option(help="positives: a program that reads captions and writes as many lines")
    ] = "",
    translate_to: Annotated[
        Path | None, typer.Option(help="positives: transformers folder that translates captions")
    ] = None,
    translate_back: Annotated[
        Path | None, typer.Option(help="positives: transformers folder that translates them back")
    ] = None,
    min_similarity: Annotated[
        float, typer.Option(help="of a positive: share of content words, or it has drifted")
    ] = 0.4,
    max_similarity: Annotated[
        float, typer.Option(help="of a sentence-level negative: TF-IDF, or it is a paraphrase")
    ] = 0.8,
    seed: Seed = 1,
    workers: Workers = WORKERS,
    engine: Engine = LOCAL,
    ray_address: RayAddress = "",
    cache: Cache = CACHE,
    resume: GoOn = False,
    replace: Again = False,
) -> None:
    """Rewritten captions for cross-modal contrast: positives and hard negatives, by level."""
    rewriting = Rewriting(
        levels=_levels(levels),
        per_caption=per_caption,
        plug=make_plug(paraphrase, command, (translate_to, translate_back)),
        min_similarity=min_similarity,
        max_similarity=max_similarity,
    )
    (words,) = localise([tokenizer], cache)
    total = read_manifest(corpus).rows
    with building(corpus, _options(ctx), total, 1, "pairs", inside=True) as options:
        manifest = rewrite_pairs(corpus, str(words), rewriting, options, again=replace)
    _report(corpus, manifest, "rewrites")


def retrieve(
    ctx: typer.Context,
    corpus: Pairs,
    tokenizer: TokenizerFile,
    texts: Annotated[
        Location | None, typer.Option(help="texts corpus to retrieve from", parser=location)
    ] = None,
    images: Annotated[
        Location | None, typer.Option(help="images corpus to retrieve from", parser=location)
    ] = None,
    top_k: Annotated[int, typer.Option(help="texts and images of a pair, at most")] = 10,
    dimensions: Annotated[int, typer.Option(help="of the vectors that are searched")] = 256,
    text_model: Annotated[
        Path | None,
        typer.Option(help="transformers folder of a sentence encoder [default: TF-IDF and SVD]"),
    ] = None,
    min_text_score: Annotated[float, typer.Option(help="least cosine of a related text")] = 0.3,
    image_by: Annotated[
        str, typer.Option(help="images compared by classes, or by the mean of their features")
    ] = "classes",
    min_image_score: Annotated[float, typer.Option(help="least cosine of a related image")] = 0.5,
    max_image_score: Annotated[float, typer.Option(help="above it, the same picture")] = 0.9999,
    min_overlap: Annotated[
        float, typer.Option(help="least overlap of the classes in two images, 0 to 1")
    ] = 0.0,
    index: Annotated[str, typer.Option(help="flat, ivf, or auto: ivf above 200,000 rows")] = "auto",
    seed: Seed = 1,
    workers: Workers = WORKERS,
    engine: Engine = LOCAL,
    ray_address: RayAddress = "",
    cache: Cache = CACHE,
    resume: GoOn = False,
    replace: Again = False,
) -> None:
    """Related texts and images for every pair, out of unpaired corpora."""
    retrieval = Retrieval(
        top_k=top_k,
        dimensions=dimensions,
        text_model=str(text_model or ""),
        min_text_score=min_text_score,
        image_by=image_by,
        min_image_score=min_image_score,
        max_image_score=max_image_score,
        min_overlap=min_overlap,
        index=index,
    )
    (words,) = localise([tokenizer], cache)
    total = read_manifest(corpus).rows
    with building(corpus, _options(ctx), total, 1, "pairs", inside=True) as options:
        manifest = retrieve_related(
            corpus, texts, images, str(words), retrieval, options, again=replace
        )
    _report(corpus, manifest, "related")


def _levels(text: str) -> tuple[Level, ...]:
    known = {level.name.lower(): level for level in Level}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ValueError(f"--levels {name}: expected some of {', '.join(known)}")
    if not names:
        raise ValueError(f"--levels is empty: expected some of {', '.join(known)}")
    return tuple(sorted({known[name] for name in names}, reverse=True))


def _options(ctx: typer.Context) -> Options:
    given = {name: ctx.params[name] for name in ("workers", "engine", "ray_address", "resume")}
    return Options(command=command_of(ctx), seed=ctx.params.get("seed", 1), **given)


def _report(corpus: Folder, manifest: Manifest | None, stage: str) -> None:
    if manifest is None:
        console.print(f"{corpus} has these columns: nothing to do", soft_wrap=True)
        return
    for what, count in manifest.stages[stage]["counts"].items():
        console.print(f"{count:>12,} {what}", soft_wrap=True, markup=False, highlight=False)
