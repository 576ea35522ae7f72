"""The command that compares two corpora: diff."""

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from data_prep.cli.options import WORKERS, Location, Workers
from data_prep.compare.corpora import Difference, Example, differences
from data_prep.console import printable
from data_prep.quarantine import Bad
from unimo_ds.storage import location

DIFFERENT = 1
_TITLES = {"changed": "changed", "only_a": "only in A", "only_b": "only in B"}


def diff(
    a: Annotated[Location, typer.Argument(help="a corpus", parser=location)],
    b: Annotated[Location, typer.Argument(help="another of its kind", parser=location)],
    rows: Annotated[int, typer.Option(help="examples of each sort of difference")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    workers: Workers = WORKERS,
) -> None:
    """What changed between two corpora. Exit code 0 if nothing did, 1 if something, 2 on trouble.

    Rows are matched by id through hashes in temporary files (under TMPDIR, some 40 to 90 bytes a
    row): memory does not grow with the corpora.
    """
    found = list(differences(a, b, workers=workers, most=rows))
    if as_json:
        typer.echo(json.dumps([_values(difference) for difference in found], indent=1))
    else:
        for difference in found:
            for line in _lines(difference):
                typer.echo(printable(line))
    if not all(difference.same for difference in found):
        raise typer.Exit(DIFFERENT)


def _lines(found: Difference) -> Iterator[str]:
    yield f"A  {found.a} ({found.kind}, {found.rows_a:,} rows)"
    yield f"B  {found.b} ({found.rows_b:,} rows)"
    if found.same:
        yield "   no difference"
        return
    for fact in found.facts:
        yield f"   {fact.name}: {_side(fact.a)} -> {_side(fact.b)}"
    if rows := found.rows:
        counts = f"{rows.only_a:,} only in A, {rows.only_b:,} only in B, {rows.changed:,} changed"
        yield f"   rows: {rows.same:,} the same, {counts}"
        if rows.columns:
            told = ", ".join(f"{name} {count:,}" for name, count in rows.columns.items())
            yield f"   changed columns: {told}"
        if not (rows.only_a or rows.only_b or rows.changed or rows.same_order):
            yield "   the rows are the same, their order is not"
    moved = found.quarantine
    if moved.only_a or moved.only_b:
        yield f"   quarantine: {moved.only_a:,} only in A, {moved.only_b:,} only in B"
    for sort, title in _TITLES.items():
        yield from (_example_line(title, example) for example in found.examples.get(sort, []))
    for title, bads in (("only in A", moved.examples_a), ("only in B", moved.examples_b)):
        yield from (_bad_line(title, bad) for bad in bads)


def _side(value: object) -> str:
    return "nothing" if value is None else str(value)


def _example_line(title: str, example: Example) -> str:
    places = ", ".join(
        f"{place} of {side}" if place else ""
        for side, place in (("A", example.a), ("B", example.b))
        if place
    )
    told = "; ".join(example.changes)
    return f"   {title}: {example.id} ({places}){': ' + told if told else ''}"


def _bad_line(title: str, bad: Bad) -> str:
    return f"   quarantine {title}: {bad.reason} {bad.source}:{bad.line} {bad.record} {bad.detail}"


def _values(found: Difference) -> dict[str, object]:
    rows, moved = found.rows, found.quarantine
    counts = {} if rows is None else rows._asdict()
    return {
        "a": found.a,
        "b": found.b,
        "kind": found.kind,
        "same": found.same,
        "facts": [fact._asdict() for fact in found.facts],
        "rows": {name: value for name, value in counts.items() if not name.startswith("examples")},
        "examples": {
            sort: [example._asdict() for example in examples]
            for sort, examples in found.examples.items()
        },
        "quarantine": {
            "only_a": moved.only_a,
            "only_b": moved.only_b,
            "examples_a": [bad._asdict() for bad in moved.examples_a],
            "examples_b": [bad._asdict() for bad in moved.examples_b],
        },
    }
