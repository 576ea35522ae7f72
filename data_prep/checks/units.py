"""Where units of span masking begin, beside the tokens of the shard: are they of whole words?"""

from collections.abc import Iterator

import numpy as np

from data_prep.checks.rows import Rules, token_lists
from data_prep.writer import Folder, read_array, read_batches
from unimo_ds.tokenizer import SEP_ID


def unit_problems(shard: Folder, path: Folder, num_tokens: int, rules: Rules) -> Iterator[str]:
    """What is wrong with the units file ``path`` of a whole shard that has so many tokens."""
    try:
        begins = _begins(path, num_tokens)
    except (ValueError, EOFError, OSError) as error:
        yield f"{path}: {error}"
        return
    row = token = 0
    for batch in read_batches(shard):
        ids, first_of_list, first_of_row = token_lists(batch, rules.kind)
        found = _wrong(ids, first_of_list, begins[token : token + len(ids)], rules)
        for what, wrong in found.items():
            if wrong.any():
                at = int(np.argmax(wrong))
                first = row + int(np.searchsorted(first_of_row, at, side="right")) - 1
                yield f"{path}: row {first}: {what}, {int(wrong.sum())} times in its record batch"
        row += batch.num_rows
        token += len(ids)


def _begins(path: Folder, num_tokens: int) -> np.ndarray:
    """bool [num_tokens]: the bits of a units file."""
    bits = read_array(path)
    wanted = (-(-num_tokens // 8),)
    if bits.dtype != np.uint8 or bits.shape != wanted:
        raise ValueError(f"{bits.dtype} {bits.shape}, expected uint8 {wanted}")
    every = np.unpackbits(bits).view(bool)
    if every[num_tokens:].any():
        raise ValueError(f"has units beyond its {num_tokens} tokens")
    return every[:num_tokens]


def _wrong(
    ids: np.ndarray, first_of_list: np.ndarray, begins: np.ndarray, rules: Rules
) -> dict[str, np.ndarray]:
    """For each rule which of the tokens [n] break it."""
    must = ids == SEP_ID
    must[1:] |= must[:-1].copy()
    must[first_of_list] = True
    found = {"a text, caption or [SEP] within a unit": must & ~begins}
    if rules.word_starts is not None:
        found["a unit that begins within a word"] = begins & ~must & ~rules.word_starts[ids]
    return found
