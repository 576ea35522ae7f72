"""Which rows the tables have, found in one pass over them, and what is in a row.

A source is a file of lines (`tabs`, `semicolons`, `vinvl`), an .npz or HDF5 file, or a folder of
these two; the id of a file's image is its path below the folder, without the suffix.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.encoding import mark_size
from data_prep.readers.left_out import LeftOut, Tally, note_of, of_other_kind, suffix_of, walk
from data_prep.readers.tables.hdf5 import HDF5_SUFFIXES, image_groups, read_hdf5
from data_prep.readers.tables.npz import read_npz
from data_prep.readers.tables.rows import (
    Geometry,
    RawRegions,
    TableFormat,
    TableRow,
    fits,
)
from data_prep.readers.tables.semicolons import (
    fields_of,
    image_id,
    parse_semicolons,
    same_regions,
    semicolon_geometry,
)
from data_prep.readers.tables.tabs import HEADERS, columns_of, parse_tabs, tabs_geometry
from data_prep.readers.tables.vinvl import parse_vinvl, picture_sizes

_WIDTH_FIRST, _HEIGHT_FIRST = "wh", "hw"
BOX_ORDERS = ("auto", _WIDTH_FIRST, _HEIGHT_FIRST)
_LONGEST_LINE = 1 << 26  # bytes: 6,000 regions of 2,048 features
_ARRAYS = (".npz", *sorted(HDF5_SUFFIXES))
_COMPRESSED = frozenset((".gz", ".bz2", ".xz", ".zst", ".zip"))


class _Line(NamedTuple):
    """A row, and what tells whether it repeats another."""

    row: TableRow
    regions: int = 0  # the same for lines that tell of the same regions; 0: unlike any other


class _SizeOrder:
    """Is height before width in a file? The boxes tell, else the format."""

    def __init__(self) -> None:
        self._misfits = self._misfits_swapped = 0
        self._format_says = False

    def see(self, found: Geometry) -> None:
        right, bottom = found.boxes[:, 2].max(), found.boxes[:, 3].max()
        self._misfits += not fits(right, bottom, found.first, found.second)
        self._misfits_swapped += not fits(right, bottom, found.second, found.first)
        self._format_says = self._format_says or found.height_first

    def height_first(self, told: str) -> bool:
        if told != "auto":
            return told == _HEIGHT_FIRST
        if self._misfits == self._misfits_swapped:
            return self._format_says
        return self._misfits_swapped < self._misfits


def read_tables(
    sources: Sequence[Path], box_order: str = "auto"
) -> tuple[list[TableRow], list[Bad]]:
    """The rows of all tables, and entries for lines that are none.

    Rows of UNIMO's fine-tuning data that repeat an image's regions for another text are one row;
    other rows of one id all stay, see `data_prep.regions.rivals`.

    Raises:
        ValueError: a source that is no table, or no row in any of them.
    """
    if box_order not in BOX_ORDERS:
        raise ValueError(f"--box-order {box_order}: expected one of {', '.join(BOX_ORDERS)}")
    rows: list[TableRow] = []
    repeated: set[tuple[str, int]] = set()
    bad: list[Bad] = []
    tally = Tally()
    for source in sources:
        for entry in _rows_of(source, box_order):
            if isinstance(entry, Bad):
                bad.append(entry)
            elif isinstance(entry, LeftOut):
                tally.add(source, entry)
            elif not entry.regions:
                rows.append(entry.row)
            elif (entry.row.id, entry.regions) not in repeated:
                repeated.add((entry.row.id, entry.regions))
                rows.append(entry.row)
    left_out = tally.entries()
    if not rows:
        first = f" ({bad[0].source}, line {bad[0].line}: {bad[0].detail})" if bad else ""
        paths = ", ".join(map(str, sources))
        raise ValueError(f"no row of regions in {paths}{first}{note_of(left_out)}")
    return rows, bad + left_out


def read_row(row: TableRow) -> RawRegions:
    """The content of one row.

    Raises:
        BadRecord: not of the format.
    """
    if row.format == TableFormat.NPZ:
        return read_npz(row.path)
    if row.format == TableFormat.HDF5:
        return read_hdf5(row.path, row.member)
    with open(row.path, "rb") as file:
        file.seek(row.offset)
        line = file.read(row.length)
    if row.format == TableFormat.VINVL:
        return parse_vinvl(line, row)
    parse = parse_tabs if row.format == TableFormat.TABS else parse_semicolons
    return parse(line, row.height_first)


def _rows_of(source: Path, box_order: str) -> Iterator[_Line | Bad | LeftOut]:
    if source.is_dir():
        yield from _of_folder(source)
    elif not source.is_file():
        raise ValueError(f"no file {source}")
    elif suffix_of(source.name) in _ARRAYS:
        yield from _of_arrays(source, source.stem)
    elif suffix_of(source.name) in _COMPRESSED:
        raise ValueError(f"{source} is compressed, rows in it cannot be found again: unpack it")
    else:
        yield from _of_lines(source, box_order)


def _of_folder(folder: Path) -> Iterator[_Line | Bad | LeftOut]:
    names = list(walk(folder))
    if not any(isinstance(name, str) and suffix_of(name) in _ARRAYS for name in names):
        tally = Tally()
        for name in names:
            tally.add(folder, name if isinstance(name, LeftOut) else of_other_kind(name))
        less = note_of(tally.entries())
        raise ValueError(f"{folder} is a folder without {', '.join(_ARRAYS)} files{less}")
    for name in names:
        if isinstance(name, LeftOut):
            yield name
        elif suffix_of(name) not in _ARRAYS:
            yield of_other_kind(name)
        elif (folder / name).resolve().is_relative_to(folder.resolve()):
            yield from _of_arrays(folder / name, os.path.splitext(name)[0])
        else:
            error = BadRecord(Reason.PATH_ESCAPES, f"{name!r} leads out of {folder}")
            yield error.at(str(folder), 0, os.path.splitext(name)[0])


def _of_arrays(file: Path, name: str) -> Iterator[_Line | Bad]:
    state = file.stat()
    is_npz = suffix_of(file.name) == ".npz"
    row = TableRow(
        id=name,
        path=str(file),
        format=TableFormat.NPZ if is_npz else TableFormat.HDF5,
        source=str(file),
        line=1,
        size=state.st_size,
        changed_ns=state.st_mtime_ns,
    )
    try:
        groups = [] if is_npz else image_groups(file)
    except ValueError as error:
        yield BadRecord(Reason.BAD_RECORD, str(error)).at(str(file), 1, name)
        return
    if not groups:
        yield _Line(row)
    for number, group in enumerate(groups, 1):
        yield _Line(row._replace(id=group, member=group, line=number))


def _of_lines(file: Path, box_order: str) -> Iterator[_Line | Bad]:
    state = file.stat()
    sizes, order = picture_sizes(file), _SizeOrder()
    found: list[_Line | Bad] = []
    with file.open("rb") as stream:
        mark = mark_size(stream.read(64), file)
        stream.seek(mark)
        for line, offset, content in _lines(stream, mark):
            if not content.strip() or (line == 1 and columns_of(content)[0] in HEADERS):
                continue
            row = TableRow(
                id="",
                path=str(file),
                format=TableFormat.TABS,
                source=str(file),
                line=line,
                size=state.st_size,
                changed_ns=state.st_mtime_ns,
                offset=offset,
                length=len(content),
            )
            try:
                found.append(_scanned(row, content, sizes, order))
            except BadRecord as error:
                name = content[:200].split(b"\t")[0].split(b";")[0].decode("utf-8", "replace")
                found.append(error.at(str(file), line, name, content))
    height_first = order.height_first(box_order)
    for entry in found:
        if isinstance(entry, Bad) or entry.row.format == TableFormat.VINVL:
            yield entry
        else:
            yield entry._replace(row=entry.row._replace(height_first=height_first))


def _lines(stream: IO[bytes], offset: int) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and content of every line; one that is too long is given as its beginning."""
    line = 0
    while content := stream.readline(_LONGEST_LINE + 1):
        line += 1
        yield line, offset, content
        offset += len(content)
        while not content.endswith(b"\n") and (
            content := stream.readline(_LONGEST_LINE)
        ):  # the rest of a line that is too long
            offset += len(content)


def _scanned(
    row: TableRow, content: bytes, sizes: dict[str, tuple[int, int]], order: _SizeOrder
) -> _Line:
    if len(content) > _LONGEST_LINE:
        raise BadRecord(Reason.TOO_LARGE, f"a line of more than {_LONGEST_LINE} bytes")
    columns = columns_of(content)
    if len(columns) == 1:
        fields = fields_of(content)
        order.see(semicolon_geometry(fields))
        name = image_id(fields).decode("utf-8", "replace")
        row = row._replace(id=name, format=TableFormat.SEMICOLONS)
        return _Line(row, same_regions(fields))
    name = columns[0].decode("utf-8", "replace")
    if len(columns) in (2, 3):
        width, height = sizes.get(name, (0, 0))
        row = row._replace(id=name, format=TableFormat.VINVL, width=width, height=height)
        return _Line(row)
    order.see(tabs_geometry(columns))
    return _Line(row._replace(id=name))
