"""Dropout as a pure function of seed and place: the specification that kernels replay.

Philox4x32-10 is the counter-based generator of Salmon et al., "Parallel random numbers: as easy as
1, 2, 3" (2011): four 32-bit words of counter and two of key give four 32-bit words. With

    threshold = round(256 p)
    w0..w3    = Philox(key = (seed mod 2^32, seed div 2^32), counter = (j div 16, i, h, 0))

the weight of head h, query i and key j is kept iff byte j mod 16 of w0..w3 (little endian, w0
first) is at least the threshold. Kept weights are scaled by 256 / (256 - threshold), so that the
probability is p rounded to a multiple of 1/256 and the mean is exact.

Legend: H heads · T positions · G groups of 16 keys
"""

import torch
from torch import Tensor

from unimo_kernels.dispatch import Unsupported

Words = tuple[Tensor, Tensor, Tensor, Tensor]

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF
_LEVELS = 256  # of a byte
_GROUP = 16  # bytes in four words


def drop_share(dropout_p: float) -> float:
    """``dropout_p`` itself.

    Raises:
        ValueError: not 0 <= dropout_p < 1.
    """
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p {dropout_p} is no probability from 0 to below 1")
    return dropout_p


def drop_threshold(dropout_p: float) -> int:
    """How many of the 256 values of a byte drop a weight: ``dropout_p`` in 256ths, rounded.

    Raises:
        ValueError: no probability, or one above 0 that would drop nothing, or keep nothing.
    """
    threshold = round(_LEVELS * drop_share(dropout_p))
    if threshold == _LEVELS:
        raise Unsupported(
            f"dropout_p {dropout_p} rounds to 256/256 and would drop every weight: the most is "
            f"255/256 = {255 / 256}, or use backend sdpa"
        )
    if threshold == 0 and dropout_p > 0:
        raise Unsupported(
            f"dropout_p {dropout_p} rounds to 0/256 and would drop no weight: the least is "
            f"1/256 = {1 / 256}, or set it to 0, or use backend sdpa"
        )
    return threshold


def keep_scale(dropout_p: float) -> float:
    """What kept weights are multiplied by; errors as in drop_threshold."""
    return _LEVELS / (_LEVELS - drop_threshold(dropout_p))


def philox(key: tuple[int, int], counter: Words) -> Words:
    """Philox4x32-10 of int64 tensors that hold 32-bit words and broadcast with each other."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def _multiply(word: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    # The product may pass 2^63 and wrap; its 64 bits are right, and the arithmetic shift only
    # brings copies of the sign into bits that the mask cuts off.
    product = word * factor
    return (product >> 32) & _WORD, product & _WORD


def keep_mask(
    seed: int, heads: int, length: int, dropout_p: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Which weights stay: bool [H, T, T], all of them in memory, for references and tests.

    Args:
        seed: from 0 to below 2**63.
        heads, length: H and T.
        dropout_p: see drop_threshold.
        device: where the mask is computed; it is the same everywhere.
    """
    threshold = drop_threshold(dropout_p)
    groups = -(-length // _GROUP)
    head_H11 = torch.arange(heads, device=device)[:, None, None]
    query_T1 = torch.arange(length, device=device)[:, None]
    group_G = torch.arange(groups, device=device)
    counter = (group_G, query_T1, head_H11, torch.zeros_like(group_G))
    words = torch.stack(philox((seed & _WORD, seed >> 32), counter), dim=-1)  # [H, T, G, 4]
    shifts = torch.arange(0, 32, 8, device=device)
    bytes_HTGB = ((words[..., None] >> shifts) & (_LEVELS - 1)).flatten(-2)
    return bytes_HTGB.flatten(-2)[..., :length] >= threshold
