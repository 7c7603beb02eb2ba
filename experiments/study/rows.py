"""The rows of a table: a method, and the backbone it is put on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.study.methods import METHODS, Method
from lca_fused.backbones import BackboneError, find_backbone


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: as it was asked for: "lca", or "lca@resnet50" for a backbone of its own.
        title: how it is printed.
        method_name: key of `experiments.study.methods.METHODS`.
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
