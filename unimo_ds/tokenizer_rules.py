"""Which tokenizers cannot work although their files load, and what to do about them.

A ``tokenizer.json`` holds more than words. What would change the ids of words from call to call,
lose characters, or stand at an id that models and corpora take for another, is refused here.
"""

from collections.abc import Mapping
from typing import Any

from tokenizers import pre_tokenizers

_SHOWN = 3
"""Tokens that an error message names."""


def check_words(
    values: Mapping[str, Any], vocabulary: Mapping[str, int], specials: Mapping[str, int], mask: str
) -> None:
    """Refuses tokenizers whose ids are not those of a byte-level BPE in RoBERTa's layout.

    Args:
        values: what ``tokenizer.json`` holds.
        vocabulary: the id of every token, added ones too.
        specials: the ids that the leading special tokens must have.
        mask: the special token that must have the last id.

    Raises:
        ValueError: with what is there, what is expected and the remedy, but not where.
    """
    _check_ids(vocabulary, specials, mask)
    unmarked = {*specials, mask} - {
        added["content"] for added in values["added_tokens"] if added["special"]
    }
    if unmarked:
        raise ValueError(
            f"{_named(unmarked)} are not marked special, so a text that says them would become "
            'them: set "special" to true under "added_tokens"'
        )
    _check_byte_level(values)
    _check_model(values["model"], vocabulary)


def _check_ids(vocabulary: Mapping[str, int], specials: Mapping[str, int], mask: str) -> None:
    ids = [vocabulary.get(token) for token in specials]
    mask_id = vocabulary.get(mask)
    if ids != list(specials.values()) or mask_id is None:
        raise ValueError(
            f"special tokens {' '.join(specials)} {mask} have ids {[*ids, mask_id]}, expected "
            f"{list(specials.values())} and a last one: make it with `unimo-prep tokenizer`"
        )
    behind = [token for token, index in vocabulary.items() if index > mask_id]
    if behind:
        raise ValueError(
            f"{len(behind)} tokens were added behind {mask}, which is {mask_id} and must be the "
            f"last id, {max(vocabulary.values())}: {_named(behind)}; take them out of "
            '"added_tokens", or learn words anew with `unimo-prep tokenizer`'
        )
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError(
            f"the ids of its {len(vocabulary)} tokens are not 0 to {len(vocabulary) - 1}, each "
            "once: make it with `unimo-prep tokenizer`"
        )


def _check_byte_level(values: Mapping[str, Any]) -> None:
    cut = _kinds(values["normalizer"]) | _kinds(values["pre_tokenizer"])
    kinds = values["model"]["type"], "ByteLevel" in cut, "ByteLevel" in _kinds(values["decoder"])
    if kinds != ("BPE", True, True):
        raise ValueError(
            f"it is a {kinds[0]} {'on bytes' if kinds[1] else 'on characters'}"
            f"{'' if kinds[2] else ' without a byte-level decoder'}, expected a byte-level BPE, "
            "by whose bytes the borders of words are known: make it with `unimo-prep tokenizer`"
        )


def _check_model(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    if model.get("dropout"):
        raise ValueError(
            f"BPE dropout {model['dropout']} gives a text other ids at every call: set "
            '"dropout" to null under "model"'
        )
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise ValueError(
                f"{name} is {model[name]!r}, which a byte-level BPE does not have: make it with "
                "`unimo-prep tokenizer`"
            )
    missing = set(pre_tokenizers.ByteLevel.alphabet()) - vocabulary.keys()
    if missing:
        raise ValueError(
            f"{len(missing)} of 256 bytes have no id ({_named(missing)}), so that texts would "
            "lose characters: make it with `unimo-prep tokenizer`"
        )


def _kinds(part: Mapping[str, Any] | None) -> set[str]:
    """The types of a component and of those it consists of."""
    if part is None:
        return set()
    members = (part.get(name, ()) for name in ("normalizers", "pretokenizers", "decoders"))
    return {part["type"]}.union(*(_kinds(inner) for inside in members for inner in inside))


def _named(tokens: set[str] | list[str]) -> str:
    names = sorted(tokens)
    return " ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
