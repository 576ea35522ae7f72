"""`unimo-prep`: raw text, images and pairs in, corpora out."""

import sys
from concurrent.futures.process import BrokenProcessPool

import typer

from data_prep.cli import build, check, diff, page, quarantine, stages, text
from data_prep.console import console
from data_prep.engine import TooManyBad
from data_prep.ray_pool import WorkerKilled
from data_prep.sources import with_origins
from unimo_ds.storage import StorageError

FAILED, USAGE_ERROR, TOO_MANY_BAD = 1, 2, 3
COMMANDS = (
    build.demo,
    build.tokenizer,
    text.text,
    build.images,
    build.pairs,
    stages.rewrite,
    stages.retrieve,
    check.verify,
    check.stats,
    text.overlap,
    quarantine.quarantine,
    diff.diff,
    page.inspect,
)

app = typer.Typer(
    help="Makes corpora for unimo_ds out of raw text, images and image-text pairs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """Runs the command line; what a user can mend is told in one line, without a traceback."""
    try:
        app()
    except TooManyBad as error:
        console.print("stopped:", str(error), soft_wrap=True, markup=False)
        sys.exit(TOO_MANY_BAD)
    except (BrokenProcessPool, WorkerKilled):
        told = (
            "a worker was killed, perhaps for its memory: go on with --resume and fewer --workers"
        )
        console.print("error:", told, soft_wrap=True, markup=False)
        sys.exit(FAILED)
    except (ValueError, OSError) as error:
        console.print("error:", with_origins(str(error)), soft_wrap=True, markup=False)
        sys.exit(FAILED if isinstance(error, StorageError) else USAGE_ERROR)


if __name__ == "__main__":
    main()
