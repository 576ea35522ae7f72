"""`unimo-convert`: models from and to other formats."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

USER_ERROR = 2
"""Exit code where what the user gave does not work."""


@app.callback()
def _group() -> None:
    """Moves UNIMO models between formats."""


def main() -> None:
    """What the command `unimo-convert` starts."""
    app(prog_name="unimo-convert")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        typer.echo(f"unimo-convert: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(USER_ERROR) from error


@app.command()
def roberta(
    source: Annotated[Path, typer.Argument(help="Folder of a Hugging Face RoBERTa model.")],
    destination: Annotated[Path, typer.Argument(help="Folder for the UNIMO model.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the logits of both models.")
    ] = False,
    image_feature_size: Annotated[
        int, typer.Option(help="Width of the region features that will be trained on.")
    ] = 2048,
    image_class_size: Annotated[int, typer.Option(help="Classes of their soft labels.")] = 1601,
) -> None:
    """A RoBERTa model to a UNIMO model whose image side is new."""
    with _one_line_errors():
        # Loads torch and transformers, which --help need not wait for.
        from unimo_ds.convert.roberta import convert_roberta

        report = convert_roberta(
            source,
            destination,
            verify=verify,
            image_feature_size=image_feature_size,
            image_class_size=image_class_size,
        )
    typer.echo(
        f"{report.destination}: {report.parameters:,} parameters taken over, "
        f"{len(report.new)} tensors new ({', '.join(report.new)}), "
        f"{len(report.dropped)} dropped ({', '.join(report.dropped) or 'none'}), "
        f"{'tokenizer copied' if report.tokenizer else 'no tokenizer found'}"
    )
    if report.largest_difference is not None:
        typer.echo(f"verified: logits differ by at most {report.largest_difference:.2e}")


@app.command()
def zero(
    run: Annotated[Path, typer.Argument(help="Folder of a run, runs/NAME.")],
    destination: Annotated[Path, typer.Argument(help="Folder for the UNIMO model.")],
    step: Annotated[
        int | None, typer.Option(help="The checkpoint's step; the latest if left out.")
    ] = None,
) -> None:
    """A ZeRO checkpoint of a run to a UNIMO model."""
    with _one_line_errors():
        # DeepSpeed takes seconds to import.
        from unimo_ds.convert.zero import convert_zero

        folder = convert_zero(run, destination, step)
    typer.echo(str(folder))
