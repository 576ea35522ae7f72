"""Captions through two translation models, the second of which leads back."""

from collections.abc import Sequence
from functools import cache
from typing import Any

_TRANSLATED_AT_ONCE = 32


def back_translated(captions: Sequence[str], folders: Sequence[str], count: int) -> list[list[str]]:
    """``count`` versions of each caption, by way of another language.

    Args:
        folders: `transformers` models that translate captions, and back.

    Raises:
        ValueError: one of them holds no such model.
    """
    abroad = [texts[0] for texts in _translated(captions, folders[0], 1)]
    return _translated(abroad, folders[1], count)


def _translated(texts: Sequence[str], folder: str, count: int) -> list[list[str]]:
    """The ``count`` best beams for each text."""
    import torch

    tokenizer, model = _translator(folder)
    found: list[list[str]] = []
    for first in range(0, len(texts), _TRANSLATED_AT_ONCE):
        block = list(texts[first : first + _TRANSLATED_AT_ONCE])
        inputs = tokenizer(block, return_tensors="pt", padding=True, truncation=True)
        with torch.inference_mode():
            beams = model.generate(
                **inputs.to(model.device),
                num_beams=max(4, count),
                num_return_sequences=count,
                max_new_tokens=128,
            )
        told = tokenizer.batch_decode(beams, skip_special_tokens=True)
        found += [told[i : i + count] for i in range(0, len(told), count)]
    return found


@cache
def _translator(folder: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    safely = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safely)
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, use_safetensors=True, **safely)
    except Exception as error:  # whatever transformers raises for a folder that it cannot read
        raise ValueError(f"{folder} is no sequence-to-sequence model: {error}") from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return tokenizer, model.eval().to(device)
