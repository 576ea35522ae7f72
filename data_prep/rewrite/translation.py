"""Captions through two translation models, the second of which leads back."""

from collections.abc import Sequence
from typing import Any

from data_prep.regions.model_folder import load_text_model

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


def _translator(folder: str) -> tuple[Any, Any]:
    return load_text_model(
        folder, "AutoModelForSeq2SeqLM", f"{folder} is no sequence-to-sequence model"
    )
