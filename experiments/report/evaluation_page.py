"""An evaluation as one HTML file: accuracy, confusions, calibration, and what is refused."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.report.evaluation import Evaluation
from experiments.report.figures import coverage_chart, reliability_chart
from experiments.report.mistakes import class_scores, confused_pairs
from experiments.report.templates import environment
from experiments.selective import coverage_curve
from experiments.storage import save_text

_PAIRS = 12


def write_evaluation_page(
    evaluation: Evaluation, notes: Sequence[str], model: str, command: str, path: Path
) -> None:
    """Write an evaluation as one HTML file that needs nothing beside it.

    Args:
        evaluation: what was measured.
        notes: sentences about photos and proof.
        model: name of the classifier.
        command: that wrote it.
        path: of the file.

    Raises:
        OSError: it cannot be written.
    """
    labels = evaluation.labels[evaluation.known].tolist()
    predicted = evaluation.predicted[evaluation.known].tolist()
    accepted = evaluation.accepted
    unknown = Counter(
        (name, evaluation.classes[taken])
        for name, known, taken, let in zip(
            evaluation.names, evaluation.known, evaluation.predicted, accepted, strict=True
        )
        if let and not known
    )
    chosen = None
    if evaluation.decision.threshold is not None and evaluation.precision.value is not None:
        chosen = (float(accepted.mean()), evaluation.precision.value)
    page = (
        environment()
        .get_template("evaluation.html.jinja")
        .render(
            title=f"Evaluation of {model}",
            date=datetime.date.today().isoformat(),
            evaluation=evaluation,
            notes=notes,
            command=command,
            scores=class_scores(labels, predicted),
            pairs=confused_pairs(labels, predicted, _PAIRS),
            totals=Counter(labels),
            taken=unknown.most_common(_PAIRS),
            reliability=reliability_chart(
                evaluation.reliability(calibrated=False), evaluation.reliability(calibrated=True)
            ),
            coverage=coverage_chart(coverage_curve(evaluation.scores, evaluation.right), chosen),
        )
    )
    save_text(page, path)
