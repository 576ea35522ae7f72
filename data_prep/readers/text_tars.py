"""Texts out of tars, as webdataset writes them: every member KEY.txt is one."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.encoding import utf8_bytes
from data_prep.readers.left_out import LeftOut, by_name, of_other_kind, suffix_of
from data_prep.readers.lines import MAX_RECORD_BYTES, decoded

_SUFFIX = ".txt"
_BLOCK = 1 << 20


def tar_records(
    stream: IO[bytes], file: Path, field: str
) -> Iterator[tuple[int, dict[str, Any] | BadRecord | LeftOut]]:
    """(number of the member from 1, {"id": KEY, ``field``: text}); members of other kinds, such as
    pictures and .json, are left out.

    Raises:
        ValueError: no member is a text.
        tarfile.TarError: the file is damaged.
    """
    found = False
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for number, member in enumerate(tar, 1):
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
            if member.isdir():
                continue
            name = os.path.normpath(member.name)
            entry = by_name(name)
            if entry or suffix_of(name) != _SUFFIX:
                yield number, entry or of_other_kind(name)
                continue
            found = True
            yield number, _record(tar, member, field)
    while stream.read(_BLOCK):  # the padding behind the end, where a packed file may be damaged
        pass
    if not found:
        raise ValueError(f"{file}: no member of this tar ends in {_SUFFIX}")


def _record(tar: tarfile.TarFile, member: tarfile.TarInfo, field: str) -> Any:
    if not member.isreg():
        return BadRecord(Reason.BAD_RECORD, f"{member.name!r} is no regular file")
    if member.size > MAX_RECORD_BYTES:
        told = f"{member.name!r} has {member.size:,} bytes, at most {MAX_RECORD_BYTES:,} are read"
        return BadRecord(Reason.TOO_LARGE, told)
    content = tar.extractfile(member)
    assert content is not None
    try:
        text = decoded(utf8_bytes(content.read()))
    except BadRecord as error:
        return error
    if isinstance(text, BadRecord):
        return text
    return {"id": os.path.splitext(member.name)[0], field: text}
