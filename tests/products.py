"""Small folders of product-like photos and a small backbone for tests of the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lca_fused.backbones import small_resnet

COLOURS = {"apple": (200, 40, 40), "lime": (60, 180, 60), "plum": (90, 40, 150)}


def write_photos(root: Path, *, train: int = 6, test: int = 4, side: int = 48) -> Path:
    """Write root/{train,test}/<product>/<k>.png: a coloured pack with a textured label."""
    for split, count in (("train", train), ("test", test)):
        for label, (product, colour) in enumerate(COLOURS.items()):
            folder = root / split / product
            folder.mkdir(parents=True)
            for k in range(count):
                rng = np.random.default_rng([label, k, len(split)])
                pixels = np.full((side, side, 3), colour) + rng.integers(-30, 30, (side, side, 3))
                pixels[:: 4 + label] = 255
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return root


def write_weights(path: Path) -> Path:
    """Write a state dict of the embedded backbone, untrained but for its seed."""
    torch.manual_seed(0)
    torch.save(small_resnet().state_dict(), path)
    return path
