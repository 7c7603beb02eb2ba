"""What `--weights` says: a file, or NAME=FILE for several networks in one study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.matching.detectors import DETECTORS
from experiments.study.rows import Row
from lca_fused.backbones import BackboneError, find_backbone


def parse_weights(given: Sequence[str], rows: Sequence[Row]) -> dict[str, Path]:
    """Return the weights files by the backbone or detector they are for.

    Args:
        given: FILE or NAME=FILE each.
        rows: of the study; a FILE without a name is for their one backbone.

    Raises:
        ValueError: a name that is unknown, given twice or of no row, or a FILE without a name
            where the study has several backbones, or none.
    """
    files: dict[str, Path] = {}
    for text in given:
        name, file = _split(text)
        name = name or _only_backbone(text, rows)
        if name in files:
            raise ValueError(f"--weights holds two files for {name}; keep one of them")
        _check_used(name, text, rows)
        files[name] = Path(file)
    return files


def _split(text: str) -> tuple[str, str]:
    """Return (name, file); the name is empty where there is none."""
    name, separator, file = text.partition("=")
    if not separator or Path(text).exists():
        return "", text
    if name not in DETECTORS:
        try:
            find_backbone(name)
        except BackboneError as error:
            raise ValueError(
                f"--weights holds {text}: there is no file of this name, and no network {name!r}: "
                f"{error}; or a detector, {', '.join(DETECTORS)}"
            ) from error
    return name, file


def _only_backbone(text: str, rows: Sequence[Row]) -> str:
    names = sorted({row.backbone for row in rows if row.backbone})
    if not names:
        raise ValueError(
            f"--weights holds {text}, but no row of this study has a backbone; leave the file "
            "out, or say which detector it is for: NAME=FILE"
        )
    if len(names) > 1:
        raise ValueError(
            f"--weights holds {text}, but this study has the backbones {', '.join(names)}; "
            "say which one the file is for: " + " or ".join(f"{name}={text}" for name in names)
        )
    return names[0]


def _check_used(name: str, text: str, rows: Sequence[Row]) -> None:
    used = dict.fromkeys(row.backbone or row.method.detector for row in rows)
    if name not in used:
        raise ValueError(
            f"--weights holds {text}, but no row of this study is made with {name}; its rows are "
            f"made with {', '.join(map(str, used))}"
        )
