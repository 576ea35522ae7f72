"""What the commands are told: options that several share, and what a manifest says of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from data_prep.engine import Options
from data_prep.pool import default_workers
from data_prep.readers.formats import Format
from unimo_ds.storage import location
from unimo_ds.transfer import default_cache

Location = Any  # Path or RemotePath: typer knows no unions
WORKERS = default_workers()
_NO_EFFECT = (
    "workers",
    "engine",
    "ray_address",
    "cache",
    "resume",
    "max_bad",
    "replace",
)  # on the bytes of a corpus

Output = Annotated[
    Location,
    typer.Argument(help="folder or URL to fill; it must be new, or --resume", parser=location),
]
Corpora = Annotated[
    list[Location], typer.Argument(help="folders or URLs that builders filled", parser=location)
]
Engine = Annotated[str, typer.Option(help="local: processes; ray: a Ray cluster")]
RayAddress = Annotated[
    str, typer.Option(help="ray: of a running cluster [default: one is started on this machine]")
]
Cache = Annotated[
    Path,
    typer.Option(envvar="UNIMO_CACHE", help="folder for local copies of sources that are URLs"),
]
CACHE = default_cache()
Sources = list[Location]
Workers = Annotated[int, typer.Option(help="processes; the result does not depend on it")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted build")]
MaxBad = Annotated[float, typer.Option(help="stop (exit code 3) above this share of bad records")]
Seed = Annotated[int, typer.Option(help="of everything drawn at random")]
TokenizerFile = Annotated[str, typer.Option("--tokenizer", help="file of `unimo-prep tokenizer`")]
MaxTokens = Annotated[int, typer.Option(help="of a row or caption, without [CLS] and [SEP]")]
Phrases = Annotated[
    bool,
    typer.Option("--phrases", help="mark English noun phrases, which training masks as a whole"),
]
Regions = Annotated[str, typer.Option(help="pixels, grid, detector or precomputed")]
Grid = Annotated[
    int | None, typer.Option(help="regions a side [default: pixels 7, grid all cells of the map]")
]
Patch = Annotated[int, typer.Option(help="pixels: pixels a side of a patch")]
Model = Annotated[
    Path | None, typer.Option(help="grid, detector: transformers folder with safetensors")
]
Preprocessor = Annotated[
    Path | None, typer.Option(help="grid, detector: JSON file [default: the model folder's own]")
]
Device = Annotated[str, typer.Option(help="grid, detector: auto, cpu or cuda")]
Precision = Annotated[
    str, typer.Option(help="grid, detector: float32, bfloat16, or auto (bfloat16 on cuda)")
]
BatchSize = Annotated[int, typer.Option(help="grid, detector: pictures at a time")]
Boxes = Annotated[Path | None, typer.Option(help="grid: pool the map over the boxes in this file")]
ClassNames = Annotated[
    Path | None, typer.Option(help="one class a line; gives ids to classes that have names only")
]
MinScore = Annotated[float, typer.Option(help="detector: confidence that a region needs")]
MinRegions = Annotated[int, typer.Option(help="detector: the N surest regions need none")]
NumClasses = Annotated[
    int, typer.Option(help="visual words to fit; the tables' own number of classes wins over it")
]
VisualWords = Annotated[
    Location | None,
    typer.Option(help="visual_words.npy of another corpus, to share its classes", parser=location),
]
MaxRegions = Annotated[int, typer.Option(help="at most, of an image; detector: the surest")]
KeptClasses = Annotated[int, typer.Option(help="detector, precomputed: keep the N likeliest")]
BoxOrder = Annotated[str, typer.Option(help="precomputed: size columns are wh, hw, or auto")]
RowsPerShard = Annotated[int, typer.Option(help="records in a full shard")]
ImageRoot = Annotated[
    Location | None,
    typer.Option(
        help="folder of the named pictures [default: the naming file's own]", parser=location
    ),
]
FormatName = Annotated[
    Format | None, typer.Option("--format", help="of the sources [default: found by itself]")
]


def build_options(ctx: typer.Context) -> Options:
    """The options of a builder, out of what the command line gave."""
    names = ("seed", "workers", "engine", "ray_address", "resume", "max_bad")
    given = {name: ctx.params[name] for name in names}
    return Options(command=command_of(ctx), **given)


def command_of(ctx: typer.Context) -> list[str]:
    """The command as the manifest tells it: all that the bytes depend on, in one order."""
    positional: list[str] = []
    named: list[str] = []
    for parameter in ctx.command.params:
        name = str(parameter.name)
        values = _as_list(ctx.params.get(name))
        if name in _NO_EFFECT:
            continue
        if parameter.param_type_name == "argument":
            positional += values
        else:
            named += [part for value in values for part in (parameter.opts[0], value)]
    return ["unimo-prep", str(ctx.info_name), *positional, *named]


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
