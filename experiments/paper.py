"""Table I of the paper, and which rows and data sets here it stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.data.catalog import CATALOG
from experiments.methods import Row


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's Table I.

    Attributes:
        title: name of the row as the paper prints it.
        method: key of `experiments.methods.METHODS`.
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
