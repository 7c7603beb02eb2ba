"""What can be compared: how a product is recognised, a line a method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from experiments.training.recipe import Recipe
from lca_fused import MaxEntropyLoss


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
