"""Explanations as pictures: a heat map over the photo, and its top local concepts.

Draws on the Axes or Figure it is given and leaves matplotlib's global state alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lca_fused.concepts import RectangleContributions
from lca_fused.explain import Explanation

try:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke
    from numpy.typing import NDArray

    from lca_fused.plot_text import Drawable, drawable
except ImportError as error:
    raise ImportError(
        f'pictures need matplotlib ({error}); install it with: pip install "lca-fused[plots]"'
    ) from error

Photo = NDArray[np.uint8] | torch.Tensor
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Corner = tuple[float, float, int, int]  # x, y, and the signs of the way into the box

_DIVERGING = "coolwarm"  # red for, blue against: told apart with any colour vision
_STRONGEST_ALPHA = 0.85
_CAPTION_HEIGHT = 0.4  # inches, of two small lines
_LUMA = (0.299, 0.587, 0.114)
# Okabe and Ito's colours for any colour vision; black is too dark on a photo.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")


def draw_heat_map(
    ax: Axes,
    photo: Photo,
    explanation: Explanation,
    index: int,
    *,
    class_name: str | None = None,
    smooth: bool = True,
    colour_bar: bool = True,
) -> AxesImage:
    """Draw what each position adds to the logit, over the photo in grey.

    Red positions speak for the class, blue ones against it, and those that say little let the
    photo through. The scale is in units of the logit, per position of the map, symmetric around 0.
    A class name in a script that matplotlib's font lacks is drawn in an installed font that has it.

    Args:
        ax: the axes to draw on.
        photo: (H, W, 3) uint8, as the network saw it; any multiple of its size will do.
        explanation: the explanation of the batch with the photo.
        index: the photo's index in the batch.
        class_name: the name of the class explained, for the title; None for its number.
        smooth: whether to interpolate between positions, for the eye.
        colour_bar: whether to add a colour bar beside `ax`.

    Returns:
        The heat map.

    Raises:
        ValueError: the photo has not the proportions of the network's input, or another shape.
        TypeError: the photo is not uint8.
        IndexError: there is no such photo in the batch.
    """
    pixels = _pixels(photo, explanation)
    positions = explanation.positions[index].cpu().double().numpy()
    strongest = float(np.abs(positions).max()) or 1.0
    scale = Normalize(-strongest, strongest)
    height, width = pixels.shape[:2]

    ax.imshow(pixels @ np.array(_LUMA), cmap="gray", vmin=0, vmax=255)
    heat = ax.imshow(
        positions,
        cmap=_DIVERGING,
        norm=scale,
        alpha=_STRONGEST_ALPHA * np.sqrt(np.abs(positions) / strongest),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="bilinear" if smooth else "nearest",
    )
    _frame(ax)
    title = _title(explanation, index, class_name)
    ax.set_title(title.text, fontfamily=title.families, fontsize="medium", parse_math=False)
    if colour_bar:
        bar = ax.figure.colorbar(ScalarMappable(scale, _DIVERGING), ax=ax, shrink=0.8)
        bar.set_label("added to the logit by a position", fontsize="small")
        bar.ax.tick_params(labelsize="small")
    return heat


def draw_concepts(
    figure: Figure | SubFigure,
    photo: Photo,
    explanation: Explanation,
    index: int,
    *,
    k: int = 5,
    max_overlap: float = 0.1,
    class_name: str | None = None,
) -> RectangleContributions:
    """Draw the photo with its top local concepts, and each of them beside it with its share.

    The paper's Fig. 1. A share is that of one rectangle among many thousand or, on a 7x7 map, 735,
    in the logit less the bias; it is left out where that is not positive.

    Args:
        figure: the figure to draw on; about 2.5 times as wide as high suits five concepts.
        photo: (H, W, 3) uint8, as the network saw it; any multiple of its size will do.
        explanation: the explanation of the batch with the photo.
        index: the photo's index in the batch.
        k: the greatest number of concepts.
        max_overlap: as `Explanation.top_rectangles` takes it.
        class_name: the name of the class explained, for the title; None for its number.

    Returns:
        The concepts drawn, the largest contribution first.

    Raises:
        ValueError: the photo has not the proportions of the network's input, or another shape; k
            or max_overlap is out of its range.
        TypeError: the photo is not uint8, or k no integer.
        IndexError: there is no such photo in the batch.
    """
    pixels = _pixels(photo, explanation)
    concepts = explanation.top_rectangles(index, k, max_overlap)
    boxes = _boxes(concepts, pixels)
    widths = _columns(figure, pixels, boxes)
    columns = len(widths) - 1
    rows = math.ceil(len(boxes) / columns) if boxes else 1
    grid = figure.add_gridspec(rows, len(widths), width_ratios=widths)

    # Over all of it: names are often wider than the photo.
    title = _title(explanation, index, class_name, separator=", ")
    figure.suptitle(title.text, fontfamily=title.families, fontsize="medium", parse_math=False)
    whole = figure.add_subplot(grid[:, 0])
    whole.imshow(pixels)
    whole.set_anchor("N")
    _frame(whole)
    shares, taken = _shares(explanation, index, concepts), set[Corner]()
    for number, (box, share) in enumerate(zip(boxes, shares, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        _outline(whole, box, colour)
        _label(whole, _free_corner(box, taken), colour, str(number + 1))
        detail = figure.add_subplot(grid[number // columns, 1 + number % columns])
        _draw_detail(detail, pixels, box, colour)
        detail.set_title(f"{number + 1}:  {share}", fontsize="small")
    return concepts


def _columns(
    figure: Figure | SubFigure, pixels: NDArray[np.uint8], boxes: Sequence[Box]
) -> list[float]:
    """Return the widths of the photo's column and of those of the details, in inches.

    The photo is as high as the figure where that leaves half of the width. The details share the
    rest in equal cells, in as many columns as suit the one that comes out smallest.
    """
    width, height = figure.bbox.width / figure.dpi, figure.bbox.height / figure.dpi
    photo = min(height * pixels.shape[1] / pixels.shape[0], width / 2)
    sizes = [(right - left, bottom - top) for left, top, right, bottom in boxes]

    def area(columns: int) -> float:
        """Return the smallest detail's area, once each is enlarged until it fills its cell."""
        cell_width = (width - photo) / columns
        cell_height = max(0.0, height / math.ceil(len(sizes) / columns) - _CAPTION_HEIGHT)
        return min(w * h * min(cell_width / w, cell_height / h) ** 2 for w, h in sizes)

    if not sizes:
        return [photo]
    columns = max(range(1, len(sizes) + 1), key=area)
    return [photo] + [(width - photo) / columns] * columns


def _draw_detail(ax: Axes, pixels: NDArray[np.uint8], box: Box, colour: str) -> None:
    left, top, right, bottom = box
    ax.imshow(pixels)
    ax.set_xlim(left - 0.5, right - 0.5)
    ax.set_ylim(bottom - 0.5, top - 0.5)
    ax.set_anchor("N")  # captions of a row at one height
    _frame(ax, colour)


def _outline(ax: Axes, box: Box, colour: str) -> None:
    left, top, right, bottom = box
    patch = Rectangle(
        (left - 0.5, top - 0.5),
        right - left,
        bottom - top,
        fill=False,
        edgecolor=colour,
        linewidth=2,
        path_effects=[withStroke(linewidth=4, foreground="black", alpha=0.6)],
    )
    ax.add_patch(patch)


def _label(ax: Axes, corner: Corner, colour: str, label: str) -> None:
    """Write beside a corner, inside the box, readable on any photo."""
    x, y, rightwards, downwards = corner
    ax.annotate(
        label,
        (x - 0.5, y - 0.5),
        xytext=(5 * rightwards, -5 * downwards),
        textcoords="offset points",
        color=colour,
        weight="bold",
        ha="left" if rightwards > 0 else "right",
        va="top" if downwards > 0 else "bottom",
        path_effects=[withStroke(linewidth=2.5, foreground="black")],
    )


def _free_corner(box: Box, taken: set[Corner]) -> Corner:
    """Return the first corner of a box that no other box has its number in, and take it."""
    left, top, right, bottom = box
    corners = [(left, top, 1, 1), (right, top, -1, 1), (right, bottom, -1, -1)]
    corners.append((left, bottom, 1, -1))
    free = next((corner for corner in corners if corner not in taken), corners[0])
    taken.add(free)
    return free


def _frame(ax: Axes, colour: str | None = None) -> None:
    """Leave of the axes their frame alone, or nothing without a colour."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set(visible=colour is not None, edgecolor=colour, linewidth=3)


def _boxes(concepts: RectangleContributions, pixels: NDArray[np.uint8]) -> list[Box]:
    """Return left, top, right and bottom of each concept in pixels of the photo drawn."""
    enlarged = pixels.shape[0] / concepts.input_size[0]
    boxes = (concepts.pixel_boxes.cpu() * enlarged).tolist()
    return [(left, top, right, bottom) for left, top, right, bottom in boxes]


def _shares(explanation: Explanation, index: int, concepts: RectangleContributions) -> list[str]:
    total = float(explanation.positions[index].sum())
    contributions: list[float] = concepts.contribution.tolist()
    if total <= 0:
        return [f"{contribution:+.3g}" for contribution in contributions]
    return [f"{value:+.3g}\n({100 * value / total:.2g} %)" for value in contributions]


def _title(
    explanation: Explanation, index: int, class_name: str | None, separator: str = "\n"
) -> Drawable:
    number = f"class {int(explanation.target[index])}"
    name = drawable(number if class_name is None else class_name)
    told = name.text if name.complete else f"{number}: {name.text}"
    text = f"{told}{separator}logit {float(explanation.target_logits[index]):.3g}"
    return replace(name, text=text)


def _pixels(photo: Any, explanation: Explanation) -> NDArray[np.uint8]:
    """Return the photo as an array, once it is one that fits the explanation."""
    pixels = photo.cpu().numpy() if isinstance(photo, torch.Tensor) else np.asarray(photo)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"photo has shape {pixels.shape}; expected (H, W, 3), for a tensor (3, H, W) "
            "photo.permute(1, 2, 0)"
        )
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"photo has dtype {pixels.dtype}; expected uint8, 0 to 255, before normalisation"
        )
    height, width = explanation.input_size
    if abs(pixels.shape[0] * width - pixels.shape[1] * height) > max(height, width):
        raise ValueError(
            f"photo is {pixels.shape[0]}x{pixels.shape[1]} and the network's input "
            f"{height}x{width} (height x width); expected the photo as the network saw it, "
            "resized and cropped, or an enlargement of that"
        )
    return pixels
