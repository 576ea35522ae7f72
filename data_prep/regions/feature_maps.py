"""The map of cells among the states that a vision encoder ends with."""

from collections.abc import Iterator
from typing import Any

# B pictures, N states, D features, h x w cells

_MOST_EXTRA = 2  # [CLS] and DeiT's distillation token; registers are counted by the configuration


def feature_map(states: Any, config: Any, height: int, width: int) -> Any:
    """Tensor [B, D, h, w] of states [B, D, h, w], or [B, N, D] with other tokens before the cells.

    ``height`` and ``width`` are of the pictures; the configuration tells how large a patch is.

    Raises:
        ValueError: no grid of cells is recognised.
    """
    if states.ndim == 4:
        rows, columns = states.shape[2:]
        if rows * width == columns * height:
            return states
    elif states.ndim == 3:
        for rows, columns in _grids(config, height, width):
            extra = states.shape[1] - rows * columns
            if 0 <= extra <= _MOST_EXTRA + (getattr(config, "num_register_tokens", 0) or 0):
                cells = states[:, extra:].transpose(1, 2)
                return cells.reshape(*cells.shape[:2], rows, columns)
    raise ValueError(
        f"the states {tuple(states.shape)} that {config.model_type} ends with for pictures of "
        f"{height} x {width} are no grid of patches: expected [B, D, h, w], or [B, N, D] with at "
        "most a few tokens before the patches (object detectors belong to --regions detector)"
    )


def _grids(config: Any, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of patches, which some encoders merge 2 x 2 from stage to stage."""
    patch = getattr(config, "patch_stride", None) or getattr(config, "patch_size", None)
    if patch is None:
        return
    high, wide = patch if isinstance(patch, list | tuple) else (patch, patch)
    stages = len(getattr(config, "depths", None) or (1,))
    for stage in reversed(range(stages)):
        yield height // (high * 2**stage), width // (wide * 2**stage)
