"""Which of several records with one id is taken: the first that regions can be made of.

Whether a picture or a row of a table is whole is known only when it is read, so this is decided
after reading them: a damaged one does not hide the whole one behind it.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from data_prep.engine import Options
from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.regions.rows import RegionReader, Regions
from data_prep.sources import bring

_RECORDS_PER_TASK = 64


class Settled(NamedTuple):
    """Records of which each has an id of its own, in their order, and entries for the others."""

    records: Sequence[Any]
    bad: list[Bad]


class _Task(NamedTuple):
    places: Sequence[int]  # in the list of all records
    records: Sequence[Any]


def settled(
    reader: RegionReader, records: Sequence[Any], options: Options, *, one_image: bool
) -> Settled:
    """Reads the records whose id others have, too, and keeps the first that is whole.

    Args:
        one_image: an id that whole records with different regions have is nobody's: it is what
            captions name their image by, and they may be about either.
    """
    rivals = _rivals(records)
    if not rivals:
        return Settled(records, [])
    verdicts = _verdicts(reader, records, sorted(chain.from_iterable(rivals)), options)
    bad: dict[int, Bad] = {}
    for places in rivals:
        whole = [place for place in places if isinstance(verdicts[place], str)]
        alike = len({verdicts[place] for place in whole}) < 2
        kept = whole[:1] if alike or not one_image else []
        for place in places:
            verdict = verdicts[place]
            if isinstance(verdict, Bad):
                bad[place] = verdict
            elif place not in kept:
                bad[place] = _twice(records[place], records[whole[0]], ambiguous=not kept)
    taken = [record for place, record in enumerate(records) if place not in bad]
    return Settled(taken, [bad[place] for place in sorted(bad)])


def _rivals(records: Sequence[Any]) -> list[list[int]]:
    """The places of records that have the same id, for every id that comes again."""
    first: dict[str, int] = {}
    rivals: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        begin = first.setdefault(record.id, place)
        if begin != place:
            rivals.setdefault(record.id, [begin]).append(place)
    return list(rivals.values())


def _verdicts(
    reader: RegionReader, records: Sequence[Any], places: Sequence[int], options: Options
) -> dict[int, Bad | str]:
    """Place -> a hash of the record's regions, or why it has none."""
    starts = range(0, len(places), _RECORDS_PER_TASK)
    chunks = [places[start : start + _RECORDS_PER_TASK] for start in starts]
    tasks = [_Task(chunk, [records[place] for place in chunk]) for chunk in chunks]
    verdicts: dict[int, Bad | str] = {}
    for part in options.run(partial(_read, reader), tasks, reader.wants_gpu):
        verdicts |= part
    return verdicts


def _read(reader: RegionReader, task: _Task) -> dict[int, Bad | str]:
    bring(task.records)
    verdicts: dict[int, Bad | str] = {}
    regions = reader.regions_of(task.records)
    for place, record, found in zip(task.places, task.records, regions, strict=True):
        if isinstance(found, BadRecord):
            verdicts[place] = found.at(record.source, record.line, record.id)
        else:
            verdicts[place] = _digest(found)
    return verdicts


def _digest(regions: Regions) -> str:
    digest = hashlib.sha256(f"{regions.width} {regions.height}".encode())
    for array in (regions.features, regions.boxes, regions.class_ids, regions.class_probs):
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _twice(record: Any, first: Any, *, ambiguous: bool) -> Bad:
    other = first.path if first.path != record.path else f"line {first.line} of it"
    detail = f"id {record.id!r} was there before, in {other}"
    if ambiguous:
        other = "other rows" if first is record else other
        detail = (
            f"id {record.id!r} is also that of {other}, with other regions: its captions may be "
            "about either; give every image an id of its own"
        )
    return BadRecord(Reason.DUPLICATE_ID, detail).at(record.source, record.line, record.id)
