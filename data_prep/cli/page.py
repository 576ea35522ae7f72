"""The command that shows corpora as a page: inspect."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.cli.options import Corpora
from data_prep.console import console
from data_prep.inspect.page import render_page
from data_prep.stats import size_text
from data_prep.writer import write_bytes
from unimo_ds.tokenizer import load_tokenizer


def inspect(
    corpora: Corpora,
    output: Annotated[Path, typer.Option("--output", "-o", help="page to write")],
    tokenizer: Annotated[
        str | None, typer.Option(help="of the texts and captions, to show where tokens begin")
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option(help="folder of the picture files that images are named after")
    ] = None,
    samples: Annotated[int, typer.Option(help="images and texts to show of each corpus")] = 12,
    seed: Annotated[int, typer.Option(help="of which they are")] = 1,
) -> None:
    """A page to look at: counts, regions over their pictures, captions, packing, quarantine.

    It needs no network, and a corpus of millions no more memory than a small one: rows are sampled.
    """
    words = load_tokenizer(tokenizer) if tokenizer else None
    page = render_page(corpora, tokenizer=words, image_root=image_root, samples=samples, seed=seed)
    write_bytes(output, page.encode(errors="backslashreplace"))
    told = f"{output}: {size_text(output.stat().st_size)}, for any browser"
    console.print(told, soft_wrap=True, markup=False)
