"""What can be compared: how a product is recognised, and the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from experiments.training.recipe import Recipe
from lca_fused import MaxEntropyLoss
from lca_fused.backbones import BackboneError, find_backbone


@dataclass(frozen=True)
class Method:
    """A way to recognise products; a row of the table is a method on a backbone.

    Exactly one of `head` and `detector` is given.

    Attributes:
        title: how it is printed.
        head: key of `lca_fused.heads.HEADS`, for a finetuned network.
        detector: key of `experiments.matching.detectors.DETECTORS`, for keypoint matching.
        max_entropy: whether the maximum-entropy loss joins the cross-entropy.
        trick: what it adds to each of the methods in `against`, as the subject of a sentence.
        against: the methods it is measured against.
    """

    title: str
    head: str | None = None
    detector: str | None = None
    max_entropy: bool = False
    trick: str = ""
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.head is None) == (self.detector is None):
            raise ValueError(f"{self.title}: expected a head or a detector, and not both")

    def loss(self, recipe: Recipe) -> nn.Module:
        """Return the training loss, (N, K) logits and (N,) class indices to a scalar."""
        return MaxEntropyLoss(gamma=recipe.gamma) if self.max_entropy else nn.CrossEntropyLoss()


METHODS = {
    "superpoint": Method("keypoint matching (SuperPoint)", detector="superpoint"),
    "sift": Method("keypoint matching (SIFT)", detector="sift"),
    "gap": Method(
        "global average pooling",
        head="gap",
        trick="finetuning a network",
        against=("superpoint", "sift"),
    ),
    # Against gap the loss without the layer: what of lca-me is owed to it alone.
    "gap-me": Method(
        "global average pooling + maximum entropy",
        head="gap",
        max_entropy=True,
        trick="the maximum-entropy loss without LCA",
        against=("gap",),
    ),
    "gap-fc": Method(
        "global average pooling + FC + ReLU",
        head="gap-fc",
        trick="LCA's layer without its rectangles",
        against=("gap",),
    ),
    "gem": Method("GeM", head="gem", trick="GeM", against=("gap",)),
    "rmac": Method("R-MAC", head="rmac", trick="R-MAC", against=("gap",)),
    # Against gap the paper's claim; against gap-fc what of it is owed to the rectangles.
    "lca": Method("LCA", head="lca", trick="LCA", against=("gap", "gap-fc")),
    "lca-me": Method(
        "LCA + maximum entropy",
        head="lca",
        max_entropy=True,
        trick="the maximum-entropy loss",
        against=("lca",),
    ),
}
"""Methods by the name `--methods` takes."""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: as it was asked for: "lca", or "lca@resnet50" for a backbone of its own.
        title: how it is printed.
        method_name: key of `METHODS`.
        backbone: as `lca_fused.backbones.find_backbone` takes it; None for keypoint matching.
    """

    name: str
    title: str
    method_name: str
    backbone: str | None

    @property
    def method(self) -> Method:
        """The line of `METHODS`."""
        return METHODS[self.method_name]


def parse_rows(names: Sequence[str], backbone: str) -> tuple[Row, ...]:
    """Return the rows that `--methods` asks for.

    Args:
        names: METHOD, or METHOD@BACKBONE.
        backbone: of the rows that name none.

    Raises:
        ValueError: an unknown method or backbone, a backbone for keypoint matching, or a row
            asked for twice.
    """
    pairs = [_parse(name, backbone) for name in names]
    twice = {name for name, pair in zip(names, pairs, strict=True) if pairs.count(pair) > 1}
    if twice:
        raise ValueError(f"--methods holds the same row twice: {', '.join(sorted(twice))}")
    several = len({own for _, own in pairs if own is not None}) > 1
    return tuple(
        Row(name, _title(method, own if several else None), method, own)
        for name, (method, own) in zip(names, pairs, strict=True)
    )


def _parse(name: str, backbone: str) -> tuple[str, str | None]:
    method, separator, own = name.partition("@")
    if method not in METHODS:
        raise ValueError(f"--methods holds {name}; expected from {', '.join(METHODS)}")
    if METHODS[method].detector is not None:
        if separator:
            raise ValueError(f"--methods holds {name}, but {method} has no backbone; drop @{own}")
        return method, None
    chosen = own if separator else backbone
    try:
        find_backbone(chosen)
    except BackboneError as error:
        raise ValueError(f"--methods holds {name}: {error}") from error
    return method, chosen


def _title(method: str, backbone: str | None) -> str:
    title = METHODS[method].title
    return title if backbone is None else f"{title}, {backbone}"
