"""The options of the commands for texts: what is left out, and what a row holds."""

from typing import Annotated

import typer

from data_prep.cleaning.filters import GOPHER, Filters
from data_prep.cleaning.plan import Cleaning
from data_prep.cleaning.signatures import Nearness
from data_prep.cli.options import Location
from data_prep.packing import Pack
from unimo_ds.storage import location

_FILTERS, _DUPLICATES = "Filters (all off by default)", "Duplicates and held-out texts"


def _filter(told: str) -> typer.models.OptionInfo:
    return typer.Option(help=told, rich_help_panel=_FILTERS)


def _duplicates(told: str) -> typer.models.OptionInfo:
    return typer.Option(help=told, rich_help_panel=_DUPLICATES)


def _corpora(told: str) -> typer.models.OptionInfo:
    return typer.Option(help=told, rich_help_panel=_DUPLICATES, parser=location)


Packing = Annotated[
    Pack,
    typer.Option(
        help="a row holds sentences of one document, one sentence, or goes on with the next"
    ),
]
Gopher = Annotated[
    bool,
    typer.Option(
        "--gopher",
        help="the thresholds of Rae et al. 2021 for those filters below that are not given",
        rich_help_panel=_FILTERS,
    ),
]
Language = Annotated[
    list[str] | None, _filter("keep documents in this language only (en, de, ...); repeatable")
]
Confidence = Annotated[float | None, _filter("of the language, 0 to 1, at least")]
MinCharacters = Annotated[int | None, _filter("of a document")]
MaxCharacters = Annotated[int | None, _filter("of a document")]
MinWords = Annotated[int | None, _filter("of a document [Gopher: 50]")]
MaxWords = Annotated[int | None, _filter("of a document [Gopher: 100000]")]
DuplicateLines = Annotated[
    float | None, _filter("share of lines that stood before in the document [Gopher: 0.3]")
]
DuplicateParagraphs = Annotated[float | None, _filter("the same of paragraphs [Gopher: 0.3]")]
TopGrams = Annotated[
    float | None,
    _filter("share of characters in the most frequent 2-gram; 0.02 less for 3, 4 [Gopher: 0.2]"),
]
DuplicateGrams = Annotated[
    float | None,
    _filter("share of characters in repeated 5-grams; 0.01 less for 6 to 10 each [Gopher: 0.15]"),
]
Symbols = Annotated[float | None, _filter("# and ellipses a word [Gopher: 0.1]")]
MinMeanWord = Annotated[float | None, _filter("mean characters of a word [Gopher: 3]")]
MaxMeanWord = Annotated[float | None, _filter("mean characters of a word [Gopher: 10]")]

Dedup = Annotated[
    str,
    _duplicates("none; exact: the same words in the same order; near: and by MinHash"),
]
Against = Annotated[
    list[Location] | None,
    _corpora("texts or pairs corpus whose documents or captions are not taken again"),
]
Decontaminate = Annotated[
    list[Location] | None,
    _corpora("held-out texts or pairs corpus that no document may share an n-gram with"),
]
Ngram = Annotated[int, _duplicates("words in a row that make a document held out")]
Threshold = Annotated[float, _duplicates("near: Jaccard similarity of two documents' shingles")]
Permutations = Annotated[int, _duplicates("near: of a MinHash; memory and precision grow with it")]
Shingle = Annotated[int, _duplicates("near: words in a shingle")]

_MODES = ("none", "exact", "near")


def cleaning_of(values: dict[str, object]) -> Cleaning:
    """The plan, out of the values of a command's options by name.

    Raises:
        ValueError: ``dedup`` is no mode.
    """
    given = {name: values[name] for name in Filters._fields if name != "languages"}
    if values["gopher"]:
        usual = GOPHER._asdict()
        given = {name: usual[name] if value is None else value for name, value in given.items()}
    filters = Filters(languages=_tuple(values["language"]), **given)  # type: ignore[arg-type]
    return Cleaning(
        filters=filters,
        nearness=nearness_of(values),
        against=_tuple(values["against"]),
        decontaminate=_tuple(values["decontaminate"]),
        ngram=values["ngram"],  # type: ignore[arg-type]
    )


def nearness_of(values: dict[str, object]) -> Nearness | None:
    """When two documents are the same; None: duplicates are not looked for."""
    mode = values["dedup"]
    if mode not in _MODES:
        raise ValueError(f"--dedup {mode}: expected {', '.join(_MODES)}")
    given = {name: values[name] for name in ("threshold", "permutations", "shingle")}
    return None if mode == "none" else Nearness(mode == "near", **given)  # type: ignore[arg-type]


def _tuple(values: object) -> tuple:
    return tuple(values or ())  # type: ignore[call-overload]
