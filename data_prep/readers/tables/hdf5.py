"""HDF5 files: one for each image, or one with a group for each image; see `arrays`.

Nothing outside the file is read: links into other files, external and virtual data are refused, and
so are filters that HDF5 would load from a library of that name.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.tables.arrays import regions_of_arrays
from data_prep.readers.tables.rows import MOST_NUMBERS, RawRegions

HDF5_SUFFIXES = frozenset((".h5", ".hdf5"))
_FILTERS = frozenset((1, 2, 3, 32000))  # deflate, shuffle, Fletcher's checksum, h5py's own LZF


def image_groups(path: Path) -> list[str]:
    """Names of the groups in a file that has one for each image; none if it is of one image.

    Raises:
        ValueError: no HDF5 file, or h5py is not installed.
    """
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            names = sorted(file)
            if any(file.get(name, getclass=True) is not h5py.Group for name in names):
                return []
            return names
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is no HDF5 file that can be read: {error}") from error


def read_hdf5(path: str, group: str) -> RawRegions:
    """The regions in a group of the file; ``""`` is the file itself.

    Raises:
        BadRecord: not of the format, or something that is not read.
    """
    h5py = _h5py()
    try:
        with h5py.File(path, "r") as file:
            holder = _hard(h5py, file, group) if group else file
            if not isinstance(holder, h5py.Group):
                raise BadRecord(Reason.BAD_RECORD, f"{group!r} is no group")

            def read(name: str) -> np.ndarray | None:
                if name in holder.attrs:
                    return _numbers(name, np.asarray(holder.attrs[name]))
                return _array(h5py, _hard(h5py, holder, name)) if name in holder else None

            return regions_of_arrays(read)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise BadRecord(Reason.BAD_RECORD, f"{type(error).__name__}: {error}") from error


def _hard(h5py: Any, holder: Any, name: str) -> Any:
    if not isinstance(holder.get(name, getlink=True), h5py.HardLink):
        raise BadRecord(Reason.PATH_ESCAPES, f"{name!r} is a link, possibly into another file")
    return holder[name]


def _array(h5py: Any, data: Any) -> np.ndarray:
    if not isinstance(data, h5py.Dataset):
        raise BadRecord(Reason.BAD_RECORD, f"{data.name} is no array")
    if data.external or data.is_virtual:
        raise BadRecord(Reason.PATH_ESCAPES, f"{data.name} lies in another file")
    plan = data.id.get_create_plist()
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    if not filters <= _FILTERS:
        raise BadRecord(Reason.BAD_RECORD, f"{data.name} is packed by filters {sorted(filters)}")
    if data.size is None or data.size > MOST_NUMBERS:
        told = f"{data.name} declares {data.size} numbers, at most {MOST_NUMBERS} are read"
        raise BadRecord(Reason.TOO_LARGE, told)
    if data.dtype.kind not in "fiub":
        raise BadRecord(Reason.BAD_RECORD, f"{data.name} holds {data.dtype}, not numbers")
    return data[()] if data.ndim else np.asarray(data[()])


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise BadRecord(Reason.BAD_RECORD, f"attribute {name} holds {array.dtype}, not numbers")
    return array


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "HDF5 files need h5py, which is not installed: pip install unimo-ds[hdf5]"
        ) from error
    return h5py
