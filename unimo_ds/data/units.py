"""Where the units of span masking begin: one bit a token, in an array beside a shard."""

from pathlib import Path

import numpy as np

NONE = np.empty(0, dtype=bool)
"""Of a corpus that says nothing of units."""


def open_units(path: Path, num_tokens: int) -> np.ndarray:
    """uint8 [ceil(num_tokens / 8)], memory-mapped.

    Raises:
        ValueError: missing, or not the bits of so many tokens.
    """
    wanted = (-(-num_tokens // 8),)
    try:
        bits = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path}: {error}: rebuild the corpus or copy it again") from error
    if bits.dtype != np.uint8 or bits.shape != wanted:
        raise ValueError(
            f"{path}: {bits.dtype} {bits.shape}, expected uint8 {wanted}: rebuild the corpus or "
            "copy it again"
        )
    return bits.view(np.ndarray)  # a slice of a memmap object costs several times as much


def unit_begins(bits: np.ndarray, first: int, size: int) -> np.ndarray:
    """bool [size]: do the tokens from ``first`` on begin a unit?"""
    skipped = first % 8
    part = np.unpackbits(bits[first // 8 : -(-(first + size) // 8)], count=skipped + size)
    return part[skipped:].view(bool)
