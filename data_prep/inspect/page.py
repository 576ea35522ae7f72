"""The page of some corpora, laid out by ``page.html.jinja``."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from data_prep.inspect.sections import Plan, Section, section_of
from data_prep.inspect.words import Reader
from data_prep.writer import Folder
from unimo_ds.data.schema import read_manifest
from unimo_ds.data.shards import PairCorpus, open_corpus
from unimo_ds.tokenizer import WordTokenizer


def render_page(
    folders: Sequence[Folder],
    *,
    tokenizer: WordTokenizer | None = None,
    image_root: Path | None = None,
    samples: int = 12,
    seed: int = 1,
) -> str:
    """Corpora as one HTML page that needs nothing else; the same for the same arguments.

    Args:
        folders: corpora of any kind; a pairs corpus brings its images along.
        tokenizer: that texts and captions were made with; without it tokens stay ids.
        image_root: folder of the picture files, whose names are the ids of the images.
        samples: images and texts that are shown of each corpus.
        seed: keys which.

    Raises:
        ValueError: a folder is no corpus or damaged, or the tokenizer is not that of the texts.
    """
    if samples < 1:
        raise ValueError(f"--samples {samples}: 1 at least")
    for folder in folders:
        _check_tokenizer(folder, tokenizer)
    plan = Plan(samples, seed, image_root, Reader(tokenizer))
    environment = Environment(
        loader=PackageLoader("data_prep.inspect", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    names = ", ".join(_name(folder) for folder in folders)
    return template.render(
        title=names, sections=_sections(folders, plan), plan=plan, readable=tokenizer is not None
    )


def _name(folder: Folder) -> str:
    return (folder.resolve() if isinstance(folder, Path) else folder).name


def _sections(folders: Sequence[Folder], plan: Plan) -> list[Section]:
    sections = []
    for number, folder in enumerate(folders, 1):
        corpus = open_corpus(folder)
        sections.append(section_of(corpus, f"corpus-{number}", plan))
        if isinstance(corpus, PairCorpus):
            sections.append(section_of(corpus.images, f"corpus-{number}-images", plan, inner=True))
    return sections


def _check_tokenizer(folder: Folder, tokenizer: WordTokenizer | None) -> None:
    found = read_manifest(folder).tokenizer
    if tokenizer and found and found != tokenizer.fingerprint:
        raise ValueError(
            f"{folder} was built with tokenizer {found}, {tokenizer.source} is "
            f"{tokenizer.fingerprint}: name the tokenizer of the corpus"
        )
