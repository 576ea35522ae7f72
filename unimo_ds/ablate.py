"""What each part of UNIMO's contrast is worth: ``python -m unimo_ds.ablate demo|real``.

The ablation that the paper never published. Runs that have ended are not made again, so a killed
ablation goes on when it is started again.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unimo_ds.ablation.corpora import PLENTY, SCARCE, WorldSize, build_world
from unimo_ds.ablation.grid import run_grid
from unimo_ds.ablation.page import write_pages
from unimo_ds.ablation.run import Planned, check_measurable, plan
from unimo_ds.ablation.variants import VARIANTS
from unimo_ds.config import RunConfig, load_config
from unimo_ds.storage import StorageError
from unimo_ds.tokenizer import load_tokenizer
from unimo_ds.train.nonfinite import NonFinite

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

EVERY = ",".join(variant.name for variant in VARIANTS)
BOTH = f"{SCARCE},{PLENTY}"

Out = Annotated[Path, typer.Option(help="takes corpora, runs and the pages")]
Minutes = Annotated[float, typer.Option(help="begin no run that would end later; 0 = no limit")]
Seeds = Annotated[int, typer.Option(min=1, help="runs of each variant at each size")]
Chosen = Annotated[str, typer.Option(help="some of them, with commas between")]
Jobs = Annotated[int, typer.Option(min=1, help="runs at a time, each on one core")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key=value, e.g. train.steps=100")]


@app.command()
def demo(
    overrides: Overrides = None,
    out: Out = Path("runs/ablation"),
    minutes: Minutes = 0.0,
    seeds: Seeds = 3,
    variants: Chosen = EVERY,
    sizes: Chosen = BOTH,
    jobs: Jobs = 2,
    scarce: Annotated[int, typer.Option(help="pairs")] = WorldSize().scarce,
    plenty: Annotated[int, typer.Option(help="pairs")] = WorldSize().plenty,
    heldout: Annotated[int, typer.Option(help="pairs")] = WorldSize().heldout,
    unpaired: Annotated[int, typer.Option(help="texts, and as many images")] = WorldSize().texts,
) -> None:
    """The ablation in the demo world, whose corpora it makes itself."""
    console = Console(stderr=True)
    with _one_line_errors(console):
        size = WorldSize(scarce, plenty, heldout, unpaired, unpaired)
        world = build_world(out / "corpora", size, lambda text: console.print(text, markup=False))
        told = [
            f"data.tokenizer={world.tokenizer}",
            f"model.vocab_size={load_tokenizer(world.tokenizer).vocab_size}",
            f'data.texts=["{world.corpus("texts")}"]',
            f'data.images=["{world.corpus("images")}"]',
            f'data.heldout_pairs=["{world.corpus("heldout")}"]',
            *(overrides or ()),
        ]
        config = resources.files("unimo_ds") / "configs" / "ablation.toml"
        pairs = {SCARCE: world.corpus(SCARCE), PLENTY: world.corpus(PLENTY)}
        base = load_config(str(config), [f'data.pairs=["{pairs[PLENTY]}"]', *told])
        chosen = Grid(base, pairs, sizes, variants, seeds)
        _ablate(chosen, out, minutes, jobs, console)


@app.command()
def real(
    config: Annotated[Path, typer.Argument(help="TOML of a run that has everything on")],
    overrides: Overrides = None,
    scarce: Annotated[str, typer.Option(help="few pairs: a corpus with rewrites and related")] = "",
    plenty: Annotated[str, typer.Option(help="many pairs, likewise")] = "",
    out: Out = Path("runs/ablation"),
    minutes: Minutes = 0.0,
    seeds: Seeds = 3,
    variants: Chosen = EVERY,
    sizes: Chosen = BOTH,
    jobs: Jobs = 1,
) -> None:
    """The ablation of your own run, at two sizes of its paired set."""
    console = Console(stderr=True)
    with _one_line_errors(console):
        pairs = {SCARCE: scarce, PLENTY: plenty}
        chosen = Grid(load_config(config, overrides or ()), pairs, sizes, variants, seeds)
        _ablate(chosen, out, minutes, jobs, console)


class Grid(NamedTuple):
    """What is asked for."""

    base: RunConfig
    pairs: dict[str, str]
    sizes: str
    variants: str
    seeds: int

    def planned(self, folder: Path) -> list[Planned]:
        """All runs, seed by seed, so that an ablation that is cut short has every variant."""
        base = replace(self.base, folder=str(folder))
        sizes = _some(self.sizes, self.pairs, "--sizes")
        variants = _some(self.variants, EVERY.split(","), "--variants")
        return [
            plan(base, self.pairs, name, size, seed)
            for seed in range(1, self.seeds + 1)
            for name in variants
            for size in sizes
        ]


def _some(text: str, known: Collection[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or not {*names} <= {*known}:
        raise ValueError(f"{option} {text!r}: expected some of {', '.join(known)}")
    return [name for name in known if name in names]


def _ablate(grid: Grid, out: Path, minutes: float, jobs: int, console: Console) -> None:
    planned = grid.planned(out / "runs")
    check_measurable(grid.base)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("runs", total=len(planned))

        def told(run: Planned, result: dict[str, Any]) -> None:
            values = result["values"]
            bar.console.print(
                f"{run.size}, {run.variant}, seed {run.seed}: R@1 {values['r1']:.1%}, hard "
                f"negatives {values['word_jointly']:.1%} in {result['seconds']:.0f} s",
                highlight=False,
            )
            bar.advance(task)

        results = run_grid(planned, jobs, minutes, told)
    pages = write_pages(out, results, len(planned), grid.base)
    console.print(f"{len(results)} of {len(planned)} runs: {' '.join(map(str, pages))}")


@contextmanager
def _one_line_errors(console: Console) -> Iterator[None]:
    try:
        yield
    except (ValueError, StorageError, NonFinite) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app(prog_name="python -m unimo_ds.ablate")
