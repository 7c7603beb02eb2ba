"""What the network is trained on, at a glance: photos as the augmentation leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from experiments.data.dataset import Sample
from experiments.data.own_output import PICTURE_METADATA
from experiments.data.torch_dataset import PhotoDataset
from experiments.storage import write_atomically

_GAP = 2  # px, between photos


def save_contact_sheet(
    dataset: PhotoDataset,
    path: Path,
    rows: int,
    columns: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Draw photos as they are trained on: a row is a photo, a column one epoch's draw of it.

    Where some are cut out and some are not, both are shown. The same photos and draws come out
    whenever the data set and its seed are the same; its epoch is left as it was.

    Args:
        dataset: whose items are normalised photos, float (3, S, S).
        path: of the PNG.
        rows: photos at most, spread evenly over the data set.
        columns: draws of each.
        mean: of each channel, that the items were normalised with.
        std: of each channel, that the items were normalised with.

    Raises:
        ValueError: `rows` or `columns` is below 1.
        ImageError: a photo cannot be read.
        OSError: the file cannot be written.
    """
    if rows < 1 or columns < 1:
        raise ValueError(f"rows is {rows} and columns is {columns}; expected at least 1 of each")
    chosen = _chosen(dataset.samples, rows)
    draws = _draws(dataset, chosen, columns)
    pixels = draws * _per_channel(std) + _per_channel(mean)
    sheet = make_grid(pixels.clamp(0, 1), nrow=columns, padding=_GAP, pad_value=1.0)
    text = PngInfo()
    for name, value in PICTURE_METADATA.items():
        text.add_text(name, value)
    picture = to_pil_image(sheet.mul(255).round().to(torch.uint8))
    write_atomically(path, lambda file: picture.save(file, format="png", pnginfo=text))


def _chosen(samples: Sequence[Sample], most: int) -> list[int]:
    """Return up to `most` indices, as far as there are as many half of them of cut-outs."""
    cut = [index for index, sample in enumerate(samples) if sample.mask is not None]
    rest = [index for index, sample in enumerate(samples) if sample.mask is None]
    of_cut = max(most - len(rest), (most + 1) // 2)
    first = _spread(cut, of_cut)
    return [*first, *_spread(rest, most - len(first))]


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """Return up to `most` of the indices, evenly spread."""
    chosen = min(len(indices), most)
    return [indices[index * len(indices) // chosen] for index in range(chosen)]


def _draws(dataset: PhotoDataset, photos: Sequence[int], columns: int) -> Tensor:
    """Return (len(photos) * columns, 3, S, S), a photo's draws one after the other."""
    before = dataset.epoch
    items: list[list[Tensor]] = [[] for _ in photos]
    try:
        for epoch in range(columns):
            dataset.set_epoch(epoch)
            for row, photo in zip(items, photos, strict=True):
                row.append(dataset[photo][0])
    finally:
        dataset.set_epoch(before)
    return torch.stack([item for row in items for item in row])


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
