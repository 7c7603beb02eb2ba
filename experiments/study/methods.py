"""The rows of the table, and what the paper reports for them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from experiments.recipe import Recipe
from lca_fused import MaxEntropyLoss

PAPER_DATASETS = ("GroZi-120", "CAPG-GP", "DM4VM")


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        title: how the row is printed.
        head: key of `experiments.heads.HEADS`, or None for keypoint matching.
        max_entropy: whether the maximum-entropy loss joins the cross-entropy.
        paper_row: the row of the paper's Table I it stands beside, or None.
        paper_accuracy: that row's test accuracy in per cent on `PAPER_DATASETS`.
    """

    title: str
    head: str | None
    max_entropy: bool = False
    paper_row: str | None = None
    paper_accuracy: tuple[float, float, float] | None = None

    def loss(self, recipe: Recipe) -> nn.Module:
        """Return the training loss, (N, K) logits and (N,) class indices to a scalar."""
        return MaxEntropyLoss(gamma=recipe.gamma) if self.max_entropy else nn.CrossEntropyLoss()


METHODS = {
    "sift": Method(
        "keypoint matching (SIFT)",
        head=None,
        paper_row="SuperPoint matching",
        paper_accuracy=(44.8, 84.7, 96.16),
    ),
    "gap": Method(
        "global average pooling",
        head="gap",
        paper_row="ResNeXt-INet",
        paper_accuracy=(58.66, 83.9, 99.3),
    ),
    "gap-fc": Method("global average pooling + FC + ReLU", head="gap-fc"),
    "lca": Method(
        "LCA", head="lca", paper_row="ResNeXt-WSL + LCA", paper_accuracy=(70.8, 90.4, 100.0)
    ),
    "lca-me": Method(
        "LCA + maximum entropy",
        head="lca",
        max_entropy=True,
        paper_row="ResNeXt-WSL + LCA + ME",
        paper_accuracy=(72.3, 92.2, 100.0),
    ),
}
"""Methods by the name `--methods` takes."""

PAPER_ROWS_WITHOUT_METHOD = {"ResNeXt-WSL": (60.4, 84.1, 100.0)}
"""Rows of Table I that have no method here yet."""
