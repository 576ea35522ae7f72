"""One .npz file for each image; see `arrays` for what is in it. Nothing pickled is ever read."""

import tokenize
import zipfile
import zlib
from typing import IO

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.tables.arrays import regions_of_arrays
from data_prep.readers.tables.rows import MOST_NUMBERS, RawRegions

_LONGEST_HEADER = 10_000  # characters; numpy's own limit


def read_npz(path: str) -> RawRegions:
    """The regions in the file.

    Raises:
        BadRecord: not of the format, pickled, or of a size that no image has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}

            def read(name: str) -> np.ndarray | None:
                info = members.get(f"{name}.npy")
                return None if info is None else _array(archive, info)

            return regions_of_arrays(read)
    except (
        OSError,
        ValueError,
        EOFError,
        RuntimeError,  # an encrypted member
        NotImplementedError,  # a method of compression that zipfile does not know
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise BadRecord(Reason.BAD_RECORD, f"{type(error).__name__}: {error}") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """A member; what its header declares is checked before memory is taken for it."""
    with archive.open(info) as file:
        shape, in_columns, dtype = _header(file)
        if dtype.kind not in "fiub":
            raise BadRecord(
                Reason.BAD_RECORD, f"{info.filename} holds {dtype}, not numbers: it is not read"
            )
        count = int(np.prod(shape, dtype=object)) if shape else 1
        if count > MOST_NUMBERS:
            told = f"{info.filename} declares {count} numbers, at most {MOST_NUMBERS} are read"
            raise BadRecord(Reason.TOO_LARGE, told)
        data = file.read(count * dtype.itemsize)  # never more than that, whatever it unpacks to
    if len(data) != count * dtype.itemsize:
        raise BadRecord(Reason.BAD_RECORD, f"{info.filename} is cut off")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, columns first?, dtype."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    elif version == (2, 0):
        read = np.lib.format.read_array_header_2_0
    else:
        raise ValueError(f"version {version} of the .npy format")
    try:
        return read(file, _LONGEST_HEADER)
    except (SyntaxError, tokenize.TokenError, MemoryError, RecursionError) as error:
        raise ValueError(f"a header that is no literal: {error}") from error
