"""Vectors of texts by any sentence encoder of `transformers`, out of a local folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.regions.model_folder import load_text_model
from data_prep.retrieve.text_vectors import unit_length
from data_prep.writer import sha256_of

_AT_ONCE = 64  # texts that the encoder gets


class Encoder(NamedTuple):
    """A `transformers` folder; the mean of the last states, as sentence encoders are trained."""

    path: str

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, D], of length 1."""
        import torch

        tokenizer, model = _encoder(self.path)
        parts = [np.empty((0, model.config.hidden_size), np.float32)]
        for first in range(0, len(texts), _AT_ONCE):
            block = list(texts[first : first + _AT_ONCE])
            inputs = tokenizer(block, return_tensors="pt", padding=True, truncation=True)
            inputs = inputs.to(model.device)
            with torch.inference_mode():
                states = model(**inputs).last_hidden_state.float()
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            parts.append(((states * mask).sum(1) / mask.sum(1).clamp_min(1)).cpu().numpy())
        return unit_length(np.concatenate(parts))


def text_model_fingerprint(path: Path) -> str:
    """SHA-256 of a sentence encoder's configuration, weights and tokenizer."""
    files = [*path.glob("*.json"), *path.glob("*.safetensors"), *path.glob("*.txt")]
    told = [f"{file.name} {sha256_of(file)}" for file in sorted(files)]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _encoder(path: str) -> tuple[Any, Any]:
    return load_text_model(path, "AutoModel", f"--text-model {path} is no sentence encoder")
