"""What can be compared: how a product is recognised, the rows of a table, and the paper's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from experiments.data.catalog import CATALOG
from experiments.training.arcface import ArcFaceLoss
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
        arcface: whether ArcFace's loss takes the place of the cross-entropy, and what is learnt of
            the products becomes a gallery.
        gallery: whether training photos are enrolled in a gallery, and nothing is trained.
        changes: fields of the recipe that this method has in its own way.
        trick: what it adds to each of the methods in `against`, as the subject of a sentence.
        against: the methods it is measured against.
    """

    title: str
    head: str | None = None
    detector: str | None = None
    max_entropy: bool = False
    arcface: bool = False
    gallery: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    trick: str = ""
    against: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.head is None) == (self.detector is None):
            raise ValueError(f"{self.title}: expected a head or a detector, and not both")

    def adapt(self, recipe: Recipe) -> Recipe:
        """Return the recipe as this method trains by it."""
        return replace(recipe, **self.changes)

    def loss(self, recipe: Recipe) -> nn.Module:
        """Return the training loss, (N, K) logits and (N,) class indices to a scalar.

        Raises:
            ModelError: as `ArcFaceLoss` does.
        """
        if self.arcface:
            return ArcFaceLoss()
        return MaxEntropyLoss(gamma=recipe.gamma) if self.max_entropy else nn.CrossEntropyLoss()


_FROZEN = {"finetune": "head", "head_epochs": 12}
_HEAD_FIRST = {"head_epochs": 8, "backbone_lr": 0.0005}
_WHITENED = {"start": "whitened"}

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
    # Against gap the loss without the layer, as for maximum entropy.
    "gap-arcface": Method(
        "global average pooling, ArcFace",
        head="gap",
        arcface=True,
        trick="ArcFace's loss without LCA",
        against=("gap",),
    ),
    "lca-arcface": Method(
        "LCA, ArcFace",
        head="lca",
        arcface=True,
        trick="ArcFace's loss",
        against=("lca",),
    ),
    # Nothing is trained: what a backbone and its pooling tell apart as they are.
    "gap-gallery": Method("global average pooling, gallery", head="gap", gallery=True),
    "rmac-gallery": Method(
        "R-MAC, gallery",
        head="rmac",
        gallery=True,
        trick="R-MAC without any training",
        against=("gap-gallery",),
    ),
    "lca-gallery": Method(
        "whitened LCA, gallery",
        head="lca",
        gallery=True,
        trick="whitened LCA without any training",
        against=("gap-gallery", "rmac-gallery"),
    ),
    # With a frozen backbone: what LCA is worth where features stay what they are.
    "gap-frozen": Method("global average pooling, frozen backbone", head="gap", changes=_FROZEN),
    "gap-fc-frozen": Method(
        "global average pooling + FC + ReLU, frozen backbone",
        head="gap-fc",
        changes=_FROZEN,
        trick="LCA's layer without its rectangles, on a frozen backbone",
        against=("gap-frozen",),
    ),
    "rmac-frozen": Method(
        "R-MAC, frozen backbone",
        head="rmac",
        changes=_FROZEN,
        trick="R-MAC on a frozen backbone",
        against=("gap-frozen",),
    ),
    "lca-frozen": Method(
        "LCA, frozen backbone",
        head="lca",
        changes=_FROZEN,
        trick="LCA on a frozen backbone",
        against=("gap-frozen", "gap-fc-frozen"),
    ),
    "lca-whitened-frozen": Method(
        "LCA from a whitened start, frozen backbone",
        head="lca",
        changes=_FROZEN | _WHITENED,
        trick="a whitened start on a frozen backbone",
        against=("lca-frozen",),
    ),
    # The head on a frozen backbone first, then everything at a tenth of the backbone's rate.
    "gap-head-first": Method(
        "global average pooling, head first",
        head="gap",
        changes=_HEAD_FIRST,
        trick="training the head first",
        against=("gap",),
    ),
    "gap-fc-head-first": Method(
        "global average pooling + FC + ReLU, head first",
        head="gap-fc",
        changes=_HEAD_FIRST,
        trick="training the head first",
        against=("gap-fc",),
    ),
    "lca-head-first": Method(
        "LCA, head first",
        head="lca",
        changes=_HEAD_FIRST,
        trick="training the head first",
        against=("lca",),
    ),
    "lca-whitened-head-first": Method(
        "LCA from a whitened start, head first",
        head="lca",
        changes=_HEAD_FIRST | _WHITENED,
        trick="a whitened start",
        against=("lca-head-first",),
    ),
    "lca-me-head-first": Method(
        "LCA + maximum entropy, head first",
        head="lca",
        max_entropy=True,
        changes=_HEAD_FIRST,
        trick="training the head first",
        against=("lca-me",),
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


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's Table I.

    Attributes:
        title: name of the row as the paper prints it.
        method: key of `METHODS`.
        backbone: backbone as `lca_fused.backbones.find_backbone` takes it; None for keypoint
            matching.
        accuracies: test accuracy on each data set, in per cent.
        played_by: methods that stand beside this row where the row itself was not asked for.
    """

    title: str
    method: str
    backbone: str | None
    accuracies: dict[str, float]
    played_by: tuple[str, ...]

    @property
    def name(self) -> str:
        """The row as `--methods` takes it."""
        return self.method if self.backbone is None else f"{self.method}@{self.backbone}"


_INET, _WSL = "resnext101-32x8d", "resnext101-32x8d-wsl"


def _accuracies(grozi: float, capg: float, dm4vm: float) -> dict[str, float]:
    return {"GroZi-120": grozi, "CAPG-GP": capg, "DM4VM": dm4vm}


PAPER_TABLE = (
    PaperRow("SuperPoint matching", "superpoint", None, _accuracies(44.8, 84.7, 96.16), ("sift",)),
    PaperRow("ResNeXt-INet", "gap", _INET, _accuracies(58.66, 83.9, 99.3), ("gap",)),
    PaperRow("ResNeXt-WSL", "gap", _WSL, _accuracies(60.4, 84.1, 100.0), ()),
    PaperRow("ResNeXt-WSL + LCA", "lca", _WSL, _accuracies(70.8, 90.4, 100.0), ("lca",)),
    PaperRow("ResNeXt-WSL + LCA + ME", "lca-me", _WSL, _accuracies(72.3, 92.2, 100.0), ("lca-me",)),
)
"""Table I of arXiv 2001.03992, from the top."""

PAPER_DATASETS = {"GroZi-120": "grozi-120/in-vitro", "CAPG-GP": "capg-gp", "DM4VM": "dm4vm"}
"""The paper's data sets, and their names in `experiments.data.catalog.CATALOG`."""

PAPER_BACKBONE = _WSL
"""What the paper's tricks were put on."""

PAPER_ROWS = (
    "superpoint",
    "sift",
    f"gap@{_INET}",
    f"gap@{_WSL}",
    f"gap-fc@{_WSL}",
    f"lca@{_WSL}",
    f"lca-me@{_WSL}",
)
"""Table I's rows as `--methods` takes them, with SIFT and LCA's parameter-matched control."""


def counterpart(row: Row, rows: Sequence[Row]) -> PaperRow | None:
    """Return the paper's row that `row` stands beside, among the other `rows` of its table.

    That is the paper's very row, or else, where none of `rows` is that one, the row whose part
    the method plays on another backbone.
    """
    asked_for = {(other.method_name, other.backbone) for other in rows}
    for paper in PAPER_TABLE:
        if (paper.method, paper.backbone) == (row.method_name, row.backbone):
            return paper
    for paper in PAPER_TABLE:
        if row.method_name in paper.played_by and (paper.method, paper.backbone) not in asked_for:
            return paper
    return None


def paper_dataset(name: str) -> str | None:
    """Return the paper's name of a data set, or of the one whose part it plays; None for others."""
    return CATALOG[name].paper_dataset if name in CATALOG else None


def paper_accuracy(row: Row, rows: Sequence[Row], dataset: str) -> float | None:
    """Return the figure of Table I that stands beside `row` on `dataset`, per cent, or None."""
    paper, name = counterpart(row, rows), paper_dataset(dataset)
    return paper.accuracies[name] if paper and name else None
