"""Photos -> one npz of grid features each, by a Hugging Face vision encoder.

    python benchmarks/encoder_regions.py PHOTOS ENCODER OUT

The folder OUT is what `unimo-prep --regions precomputed` takes: OUT/NAME.npz for PHOTOS/NAME.jpg,
with every cell of the encoder's last feature map as a region ([R, F] float16 in ``features``), its
box in pixels in ``boxes``, and the size of the picture.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from transformers import AutoModel

SIDE = 224
BATCH = 32


def pixels(path: Path) -> torch.Tensor:
    """float32 [3, 224, 224] in [-1, 1], as MobileNetV2 takes it."""
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def grid_boxes(rows: int, columns: int) -> np.ndarray:
    """float32 [rows*columns, 4]: x1, y1, x2, y2 in pixels of the resized picture."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    high, wide = SIDE / rows, SIDE / columns
    edges = [column * wide, row * high, (column + 1) * wide, (row + 1) * high]
    return np.stack(edges, axis=1).astype(np.float32)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("encoder", help="folder of a transformers vision model")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    encoder = AutoModel.from_pretrained(options.encoder).float().eval()
    photos = sorted(options.photos.glob("*.jpg"))
    options.out.mkdir(parents=True, exist_ok=True)
    for start in track(range(0, len(photos), BATCH), "encoding"):
        paths = photos[start : start + BATCH]
        maps = encoder(torch.stack([pixels(path) for path in paths])).last_hidden_state
        boxes = grid_boxes(*maps.shape[2:])
        for path, features in zip(
            paths, maps.flatten(2).transpose(1, 2).half().numpy(), strict=True
        ):
            np.savez(
                options.out / f"{path.stem}.npz",
                features=features,
                boxes=boxes,
                image_w=SIDE,
                image_h=SIDE,
            )


if __name__ == "__main__":
    main()
