"""The report as one HTML file: what each of its sections shows, and the file itself."""

from __future__ import annotations

import datetime
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.command_lines import flatten
from experiments.methods import paper_dataset
from experiments.report.explanations import ExplainedPhoto, NoExplanationError, explain_photos
from experiments.report.figures import Chart, ladder_chart, learning_curves
from experiments.report.mistakes import (
    ClassScore,
    Matrix,
    PairSide,
    class_scores,
    confusion_matrix,
    side_by_side,
)
from experiments.report.run import (
    REPORT_FILE,
    Run,
    next_commands,
    read_run,
    results_by_dataset,
)
from experiments.report.templates import environment
from experiments.results import Entry, PhotosNotFoundError, Result
from experiments.storage import save_text

logger = logging.getLogger(__name__)

_PAIRS = 5
_MATRIX_CLASSES = 20
_WORST_CLASSES = 12
_EXPLAINED = 3  # wrong ones, and as many right ones


@dataclass(frozen=True)
class Details:
    """All there is to see of one data set beyond its table; one result stands for its row.

    Attributes:
        anchor: id of the section in the page.
        dataset: name of the data set.
        result: the result that is shown.
        title: title of the result's row.
        curves: charts of all rows that were trained.
        scores: accuracy of each class, the least recognised first.
        pairs: confused classes, side by side.
        matrix: confusion matrix of the most confused classes.
        explained: predictions taken apart.
        no_photos: reason why no photos are shown, or "".
        no_explanations: reason why no explanations are shown, or "".
    """

    anchor: str
    dataset: str
    result: Result
    title: str
    curves: Sequence[Chart]
    scores: Sequence[ClassScore]
    pairs: Sequence[tuple[PairSide, PairSide]]
    matrix: Matrix
    explained: Sequence[ExplainedPhoto]
    no_photos: str
    no_explanations: str

    @property
    def stopped(self) -> str:
        """Whether training stopped early, in a sentence, or ""."""
        recipe = self.result.settings.get("recipe", {})
        epochs = 0 if recipe.get("finetune") == "head" else recipe.get("epochs", 0)
        planned, done = recipe.get("head_epochs", 0) + epochs, len(self.result.history)
        if not 0 < done < planned:
            return ""
        return (
            f"Training stopped after epoch {done} of {planned}: {recipe['patience']} epochs "
            "in a row were no better on the validation photos."
        )


class IncompleteReportError(RuntimeError):
    """The report is written, without what the message lists."""


def write_report(folder: Path, data_root: Path | None = None, output: Path | None = None) -> Path:
    """Write the report of a finished run: one HTML file that needs nothing beside it.

    Args:
        folder: output folder of run_all.py or finetune.py.
        data_root: folder that holds the photos, where they were moved since.
        output: file to write; None for report.html in `folder`.

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


def render(run: Run, data_root: Path | None = None) -> str:
    """Return the report's HTML."""
    return _page(run, data_root)[0]


def _page(run: Run, data_root: Path | None) -> tuple[str, list[str]]:
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
    templates = environment()
    templates.filters |= {"percent": _percent, "duration": _duration, "flatten": flatten}
    tables = results_by_dataset(run)
    page = templates.get_template("report.html.jinja").render(
        run=run,
        title=_title(run),
        date=datetime.date.today().isoformat(),
        tables=tables,
        ladders={
            table.dataset: ladder_chart(table.entries, list(map(table.paper, table.entries)))
            for table in tables
            if table.entries
        },
        details=details,
        median=statistics.median,
        paper_dataset=paper_dataset,
        model_bytes=_model_bytes,
        commands=dict.fromkeys(result.command for result in run.results),
        next_commands=next_commands(run.finetuning, run.folder) if run.finetuning else [],
        versions=_versions(run),
        worst_classes=_WORST_CLASSES,
    )
    return page, problems


def _title(run: Run) -> str:
    if run.finetuning is not None:
        return f"Finetuning on {Path(run.finetuning.folder).name}"
    return f"Study {run.folder.resolve().name}"


def _details_or_problem(run: Run, dataset: str, data_root: Path | None) -> Details | str:
    try:
        return _details(run, dataset, data_root)
    except Exception as error:  # of one data set: the others are shown
        logger.debug("details of %s", dataset, exc_info=True)
        return f"the details of {dataset}: {type(error).__name__}: {error}"


def _details(run: Run, dataset: str, data_root: Path | None) -> Details:
    entries = run.entries_of(dataset)
    entry = _shown(entries)
    result = entry.results[0]
    photos, no_photos = None, ""
    explained: list[ExplainedPhoto] = []
    no_explanations = ""
    try:
        photos = result.find_photos([*([data_root] if data_root else []), run.folder])
        explained = explain_photos(result, photos, _EXPLAINED)
    except PhotosNotFoundError as error:
        no_photos = no_explanations = str(error)
    except NoExplanationError as error:
        no_explanations = str(error)
    return Details(
        anchor=f"details-{run.datasets.index(dataset) + 1}",
        dataset=dataset,
        result=result,
        title=entry.row.title,
        curves=learning_curves(entries),
        scores=class_scores(result.labels, result.predicted),
        pairs=side_by_side(result, photos, _PAIRS),
        matrix=confusion_matrix(result.labels, result.predicted, _MATRIX_CLASSES),
        explained=explained,
        no_photos=no_photos,
        no_explanations=no_explanations,
    )


def _shown(entries: Sequence[Entry]) -> Entry:
    """Return the last row with LCA and a stored model, else the last trained one, else the last.

    The choice does not look at the test accuracy.
    """
    explained = [
        entry for entry in entries if entry.row.method.head == "lca" and entry.results[0].model
    ]
    trained = [entry for entry in entries if entry.results[0].history]
    return (explained or trained or list(entries))[-1]


def _model_bytes(entry: Entry) -> int:
    model = entry.results[0].model
    return sum(file.stat().st_size for file in model.iterdir()) if model else 0


def _versions(run: Run) -> dict[str, str]:
    """Return the versions the results were computed with; several where they differ."""
    found: dict[str, dict[str, None]] = {}
    for result in run.results:
        for name, version in result.versions.items():
            found.setdefault(name, {})[version] = None
    return {name: ", ".join(versions) for name, versions in found.items()}


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
