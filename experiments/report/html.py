"""The report as one HTML file: what each of its sections shows, and the file itself."""

from __future__ import annotations

import datetime
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.command_lines import flatten
from experiments.report.confusion import (
    ClassScore,
    Matrix,
    class_scores,
    confusion_matrix,
)
from experiments.report.explanations import ExplainedPhoto, NoExplanationError, explain_photos
from experiments.report.figures import Chart, ladder_chart, learning_curves
from experiments.report.pairs import PairSide, side_by_side
from experiments.report.photos import CellPhotos, PhotosNotFoundError, find_photos
from experiments.report.reproduce import commands, weights_notes
from experiments.report.results import DatasetResults, results
from experiments.report.stored import REPORT_FILE, Row, StoredCell, StoredRun, read_run
from experiments.storage import save_text
from experiments.study.methods import METHODS

logger = logging.getLogger(__name__)

_PAIRS = 5
_MATRIX_CLASSES = 20
_WORST_CLASSES = 12
_EXPLAINED = 3  # wrong ones, and as many right ones


@dataclass(frozen=True)
class Details:
    """All there is to see of one data set beyond its table; one cell stands for its row.

    Attributes:
        anchor: id in the page.
        cell: the one shown.
        title: of its row.
        curves: of all rows that were trained.
        names: of the classes.
        trained_on: training photos of each class, or None where they were not found.
        scores: of the classes, the least recognised first.
        pairs: confused classes, side by side.
        matrix: of the most confused classes.
        explained: predictions taken apart.
        no_photos: why no photos are shown, or "".
        no_explanations: why there are none, or "".
    """

    anchor: str
    dataset: str
    cell: StoredCell
    title: str
    curves: Sequence[Chart]
    names: Sequence[str]
    trained_on: Mapping[int, int] | None
    scores: Sequence[ClassScore]
    pairs: Sequence[tuple[PairSide, PairSide]]
    matrix: Matrix
    explained: Sequence[ExplainedPhoto]
    no_photos: str
    no_explanations: str

    @property
    def stopped(self) -> str:
        """Whether training stopped early, in a sentence, or ""."""
        recipe = self.cell.settings.get("recipe", {})
        planned, done = recipe.get("epochs", 0), len(self.cell.history)
        if not 0 < done < planned:
            return ""
        return (
            f"Training stopped after epoch {done} of {planned}: {recipe.get('patience')} epochs "
            "in a row were no better on the validation photos."
        )


@dataclass(frozen=True)
class _Cost:
    """What a seed of a row took, on average; None where that was not stored or measured."""

    row: Row
    seconds: float | None
    images_per_second: float | None
    peak_bytes: int | None
    model_bytes: int | None
    devices: str

    @classmethod
    def of(cls, row: Row) -> _Cost:
        model = row.cells[0].model
        return cls(
            row,
            _mean([cell.result.get("seconds") for cell in row.cells]),
            _mean([cell.result.get("images_per_second") for cell in row.cells]),
            row.peak_bytes,
            sum(file.stat().st_size for file in model.iterdir()) if model else None,
            ", ".join(dict.fromkeys(cell.result.get("device", "not stored") for cell in row.cells)),
        )


class IncompleteReportError(RuntimeError):
    """The report is written, without what the message lists."""


def write_report(folder: Path, data_root: Path | None = None, output: Path | None = None) -> Path:
    """Write the report of a finished run: one HTML file that needs nothing beside it.

    Args:
        folder: the output folder of run_all.py or finetune.py.
        data_root: folder of the photos, as the run was given it; without it none are shown,
            unless the run generated or stored them.
        output: the file; None for report.html in `folder`.

    Returns:
        The file.

    Raises:
        RunError: there is neither a finished cell nor a study's table in `folder`.
        IncompleteReportError: the file is there, but a part of it could not be made.
    """
    path = output or folder / REPORT_FILE
    page, problems = _page(read_run(folder), data_root)
    save_text(page, path)
    if problems:
        raise IncompleteReportError(f"{path.absolute()} lacks {'; '.join(problems)}")
    return path


def render(run: StoredRun, data_root: Path | None = None) -> str:
    """Return the report's HTML."""
    return _page(run, data_root)[0]


def _page(run: StoredRun, data_root: Path | None) -> tuple[str, list[str]]:
    """Return the report's HTML, and what could not be made for it."""
    details, problems = [], []
    for dataset in run.datasets:
        part = _details_or_problem(run, dataset, data_root)
        if isinstance(part, Details):
            details.append(part)
            problems += [photo.problem for photo in part.explained if photo.problem]
        else:
            problems.append(part)
            run = replace(run, problems=(*run.problems, part))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "duration": _duration, "flatten": flatten}
    tables = results(run)
    page = environment.get_template("report.html.jinja").render(
        run=run,
        title=_title(run),
        runs=sum(len(row.cells) for row in run.rows),
        date=datetime.date.today().isoformat(),
        results=tables,
        ladders={table.dataset: _ladder(table) for table in tables if table.rows},
        details=details,
        costs=[_Cost.of(row) for row in run.rows],
        commands=commands(run, data_root),
        weights_notes=weights_notes(run),
        versions=_versions(run),
        worst_classes=_WORST_CLASSES,
    )
    return page, problems


def _title(run: StoredRun) -> str:
    if run.facts is not None:
        return f"Finetuning on {Path(run.facts['photos']).name}"
    return f"Study {run.folder.resolve().name}"


def _ladder(table: DatasetResults) -> Chart:
    return ladder_chart(table.rows, [table.paper_percent(row) for row in table.rows])


def _details_or_problem(run: StoredRun, dataset: str, data_root: Path | None) -> Details | str:
    try:
        return _details(run, dataset, data_root)
    except Exception as error:  # of one data set: the others are shown
        logger.debug("details of %s", dataset, exc_info=True)
        return f"the details of {dataset}: {type(error).__name__}: {error}"


def _details(run: StoredRun, dataset: str, data_root: Path | None) -> Details:
    row = _shown(run.rows_of(dataset))
    cell = row.cells[0]
    photos, no_photos = None, ""
    explained: list[ExplainedPhoto] = []
    no_explanations = ""
    try:
        photos = find_photos(cell, run, data_root)
        explained = explain_photos(cell, photos, _EXPLAINED)
    except PhotosNotFoundError as error:
        no_photos = no_explanations = str(error)
    except NoExplanationError as error:
        no_explanations = str(error)
    names = _names(cell, photos)
    return Details(
        anchor=f"details-{run.datasets.index(dataset) + 1}",
        dataset=dataset,
        cell=cell,
        title=row.title,
        curves=learning_curves(run.rows_of(dataset)),
        names=names,
        trained_on=Counter(sample.label for sample in photos.train) if photos else None,
        scores=class_scores(cell.labels, cell.predicted),
        pairs=side_by_side(cell, names, photos, _PAIRS),
        matrix=confusion_matrix(cell.labels, cell.predicted, _MATRIX_CLASSES),
        explained=explained,
        no_photos=no_photos,
        no_explanations=no_explanations,
    )


def _shown(rows: Sequence[Row]) -> Row:
    """Return the last row with LCA and a stored model, else the last trained one, else the last.

    The choice does not look at the test accuracy.
    """
    explained = [
        row
        for row in rows
        if row.method in METHODS and METHODS[row.method].head == "lca" and row.cells[0].model
    ]
    trained = [row for row in rows if row.cells[0].history]
    return (explained or trained or list(rows))[-1]


def _names(cell: StoredCell, photos: CellPhotos | None) -> Sequence[str]:
    if photos is not None:
        return photos.classes
    return [cell.class_name(label) for label in range(max(*cell.labels, *cell.predicted) + 1)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _versions(run: StoredRun) -> dict[str, str]:
    """Return the versions the cells were computed with; several where they differ."""
    found: dict[str, dict[str, None]] = {}
    for row in run.rows:
        for cell in row.cells:
            for name, version in cell.result.get("versions", {}).items():
                found.setdefault(name, {})[str(version)] = None
    return {name: ", ".join(versions) for name, versions in found.items()}


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
