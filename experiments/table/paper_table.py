"""Table I of the paper as it stands where none of it was run: its figures, and what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.data.catalog import DataOptions, load_dataset
from experiments.data.dataset import DataError
from experiments.matching.superpoint_weights import HOW_TO_GIVE_WEIGHTS
from experiments.networks.backbones import weights_source
from experiments.study.paper import PAPER_BACKBONE, PAPER_DATASETS, PAPER_ROWS
from experiments.study.rows import Row, parse_rows
from experiments.table.entry import Entry, NotRun
from experiments.table.markdown import to_markdown

COMMAND = "python experiments/run_all.py paper --data-root DIR"


def paper_table() -> str:
    """Return the paper's Table I as Markdown; nothing is computed, fetched or looked for."""
    rows = parse_rows(PAPER_ROWS, PAPER_BACKBONE)
    datasets = tuple(PAPER_DATASETS.values())
    entries = {
        (row.name, name): Entry(not_run=not_run)
        for name, not_run in zip(datasets, map(_not_run, datasets), strict=True)
        for row in rows
    }
    heading = f"The paper's own data sets and backbones, not part of this run: `{COMMAND}`"
    return f"{heading}\n\n{to_markdown(entries, rows, datasets, weights_sources(rows))}"


def weights_sources(rows: Sequence[Row]) -> dict[str, str]:
    """Return where the weights of the rows' networks come from when no file is given."""
    names = dict.fromkeys(row.backbone for row in rows if row.backbone)
    sources = {f"weights of {name}": weights_source(name) for name in names}
    if any(row.method.detector == "superpoint" for row in rows):
        sources["weights of superpoint"] = HOW_TO_GIVE_WEIGHTS
    return sources


def _not_run(dataset: str) -> NotRun:
    try:
        load_dataset(dataset, DataOptions(root=None, cache=Path(), image_size=224))
    except DataError as error:
        return NotRun("no photos", str(error))
    return NotRun("not asked for", f"`{COMMAND}` runs it")
