"""The commands that compute a run's cells again, put together from what the cells say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.command_lines import command_line, flatten, option
from experiments.report.stored import Row, StoredRun
from experiments.study.options import PRESETS

_PRESET = "folder"  # its defaults are those of `Recipe`; everything else is spelled out
_BACKBONE_SETTINGS = ("backbone", "weights", "recipe", "precision")


def commands(run: StoredRun, data_root: Path | None = None) -> list[str]:
    """Return the command lines, one for each backbone and recipe there is.

    Args:
        run: that they make.
        data_root: folder of the photos; DIR stands for it where it is not known.
    """
    if run.facts is not None:
        return [run.facts["command"]]
    groups: dict[str, list[Row]] = {}
    for row in run.rows:
        settings = row.cells[0].settings
        shared = {name: settings.get(name) for name in _BACKBONE_SETTINGS}
        groups.setdefault(json.dumps(shared, sort_keys=True), []).append(row)
    return [_command(rows, data_root) for rows in groups.values()]


def weights_notes(run: StoredRun) -> list[str]:
    """Return how to know the weights files the commands speak of."""
    seen = {
        (cell.settings["backbone"], cell.settings["weights"])
        for row in run.rows
        for cell in row.cells
        if _has_file(cell.settings)
    }
    return [
        f"FILE: the weights of {backbone} whose sha256 begins with {digest}"
        for backbone, digest in sorted(seen)
    ]


def _command(rows: Iterable[Row], data_root: Path | None) -> str:
    rows = list(rows)
    settings = rows[0].cells[0].settings
    datasets = _in_order(_catalog_name(row.dataset) for row in rows)
    words: list[str | Path] = [_PRESET, "--datasets", *datasets]
    if not all(name.startswith("embedded/") for name in datasets):
        words += ["--data-root", data_root or "DIR"]
    words += ["--methods", *_in_order(row.method for row in rows)]
    seeds = _in_order(cell.seed for row in rows for cell in row.cells if cell.seed is not None)
    if seeds:
        words += ["--seeds", *map(str, sorted(seeds))]
    if "backbone" in settings:
        words += ["--backbone", settings["backbone"]]
        words += ["--weights", "FILE"] if _has_file(settings) else []
        words += ["--precision", settings["precision"]]
        words += _recipe_options(settings["recipe"])
    return command_line("run_all.py", *words)


def _has_file(settings: Mapping[str, Any]) -> bool:
    """Whether the weights were given as a file; run_all.py makes those of "embedded" itself."""
    # A file is told by its digest, what is fetched by its source: "timm:NAME.TAG", and
    # "torchvision" alone in older results.
    source, named, _ = settings.get("weights", "torchvision").partition(":")
    given = not named and source != "torchvision"
    return given and settings["backbone"] != "embedded"


def _catalog_name(dataset: str) -> str:
    return "folder" if dataset.startswith("folder/") else dataset


def _recipe_options(recipe: Mapping[str, Any]) -> list[str]:
    """Return the options that make the preset's recipe this one."""
    default = json.loads(json.dumps(flatten(asdict(PRESETS[_PRESET][1].recipe))))
    changed = {name: value for name, value in flatten(recipe).items() if default.get(name) != value}
    return [word for name, value in changed.items() for word in option(f"recipe.{name}", value)]


def _in_order(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
