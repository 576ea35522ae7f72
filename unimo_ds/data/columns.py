"""A list column of an Arrow record batch through numpy views."""

from itertools import pairwise

import numpy as np
import pyarrow as pa


class ListColumn:
    """A list column: where each row begins, and the values as a numpy view."""

    def __init__(self, array: pa.Array) -> None:
        # An item of a memoryview is a Python int at a third of what a numpy scalar costs.
        self.offsets = memoryview(array.offsets.to_numpy())
        # .values ignores the slice of the array, as the offsets do.
        values = array.values
        nested = pa.types.is_nested(values.type)
        self.inner = ListColumn(values) if nested else None
        self.values = None if nested else values.to_numpy(zero_copy_only=True)

    def row(self, i: int) -> np.ndarray:
        assert self.values is not None
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def rows(self, i: int) -> list[np.ndarray]:
        """The inner lists of row ``i``."""
        assert self.inner is not None
        return [self.inner.row(j) for j in range(self.offsets[i], self.offsets[i + 1])]

    def leaf(self, i: int) -> int:
        """How many numbers, of whatever list, stand before row ``i``."""
        at = self.offsets[i]
        return self.inner.leaf(at) if self.inner else at

    def sizes(self, i: int) -> list[int]:
        """The lengths of the inner lists of row ``i``."""
        assert self.inner is not None
        ends = self.inner.offsets[self.offsets[i] : self.offsets[i + 1] + 1].tolist()
        return [end - start for start, end in pairwise(ends)]
