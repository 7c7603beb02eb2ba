"""The shapes that are measured, and the names they are chosen by."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from lca_fused.rectangles import num_rectangles, resolve_kernel_sizes


@dataclass(frozen=True, order=True)
class Shape:
    """A feature map (n, c, height, width) that is projected to d features."""

    height: int
    width: int
    n: int
    c: int
    d: int

    def __str__(self) -> str:
        """Return the name `parse_shapes` reads: 7x7-N16-C2048, with -D64 where D is not C."""
        name = f"{self.height}x{self.width}-N{self.n}-C{self.c}"
        return name if self.d == self.c else f"{name}-D{self.d}"

    @property
    def rectangles(self) -> int:
        """Rectangles of one map."""
        sizes = resolve_kernel_sizes(self.height, self.width)
        return num_rectangles(self.height, self.width, sizes)


def shape(height: int, width: int, n: int, c: int, d: int | None = None) -> Shape:
    """Return a shape; D is C unless given."""
    return Shape(height, width, n, c, c if d is None else d)


_MAPS = ((7, 7), (12, 5), (14, 14), (28, 28))
ACCEPTANCE_CPU = (
    shape(7, 7, 1, 2048),
    shape(7, 7, 16, 2048),
    shape(14, 14, 4, 2048),
    shape(28, 28, 1, 2048),
)
ACCEPTANCE_CUDA = (
    *(shape(7, 7, n, 2048) for n in (1, 32, 256)),
    shape(14, 14, 64, 2048),
    shape(28, 28, 16, 2048),
)
CURVES = (
    *(shape(7, 7, n, 2048) for n in (1, 4, 16, 64)),
    *(shape(height, width, 1, 2048) for height, width in _MAPS[1:]),
)
GRID = tuple(
    shape(height, width, n, c)
    for c, (height, width), n in itertools.product((2048, 1280, 512), _MAPS, (1, 32, 256))
)
# Few channels: the projection costs next to nothing, and what is left is the rectangles.
RECTANGLES_CPU = tuple(
    shape(side, side, n, 16, 64) for side, n in ((7, 512), (14, 64), (28, 4), (56, 1))
)
RECTANGLES_CUDA = tuple(
    shape(side, side, n, 16, 2048) for side, n in ((7, 512), (14, 128), (28, 16), (56, 1))
)

SETS: dict[str, dict[str, tuple[Shape, ...]]] = {
    "cpu": {
        "acceptance": ACCEPTANCE_CPU,
        "curves": CURVES,
        "grid": GRID,
        "rectangles": RECTANGLES_CPU,
    },
    "cuda": {
        "acceptance": ACCEPTANCE_CUDA,
        "curves": CURVES,
        "grid": GRID,
        "rectangles": RECTANGLES_CUDA,
    },
}
"""Sets of shapes by device type and name."""

DEFAULT_SETS = {
    "cpu": "acceptance,curves,rectangles",
    "cuda": "acceptance,grid,rectangles",
}

# The columns of the page's tables; everything else that was measured is in the results' files.
HEADLINE = {"cpu": ACCEPTANCE_CPU, "cuda": ACCEPTANCE_CUDA}


def is_rectangle_shape(candidate: Shape) -> bool:
    """Whether only implementations of LCA are measured at this shape."""
    return candidate in RECTANGLES_CPU + RECTANGLES_CUDA


def parse_shapes(text: str, device: str) -> list[Shape]:
    """Return the shapes of a comma-separated list of set names and shape names, without repeats.

    Raises:
        ValueError: a name is neither; it says which and what is expected.
    """
    return list(dict.fromkeys(itertools.chain(*(_named(name, device) for name in text.split(",")))))


def _named(name: str, device: str) -> Iterable[Shape]:
    if name in SETS[device]:
        return SETS[device][name]
    match = re.fullmatch(r"(\d+)x(\d+)-N(\d+)-C(\d+)(?:-D(\d+))?", name)
    if match is None:
        raise ValueError(
            f"{name!r} is no shape; expected one of {sorted(SETS[device])} or a shape such as "
            "7x7-N16-C2048 or 56x56-N1-C16-D64"
        )
    height, width, n, c, d = (None if group is None else int(group) for group in match.groups())
    assert height is not None
    assert width is not None
    assert n is not None
    assert c is not None
    return (shape(height, width, n, c, d),)
