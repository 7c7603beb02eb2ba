"""Where LCA's gain goes as the backbone learns faster: a study at several rates, and its figure.

    python -m experiments.study.backbone_rates --rates 0 0.0005 0.005 -- folder --data-root DIR

What stands behind "--" is as `run_all.py` takes it. Cells are stored like any others.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from experiments.console import set_up_console
from experiments.data.own_output import PICTURE_METADATA
from experiments.networks.model import new_classifier
from experiments.results import Table, steps
from experiments.storage import save_json, write_atomically
from experiments.study.options import Study, command, parse_study
from experiments.study.runner import Runner
from experiments.training.layer_groups import layer_groups
from experiments.training.recipe import Recipe
from lca_fused.backbones import find_backbone

Gain = dict[str, float | str | int]


def study_at(study: Study, preset: str, rate: float) -> Study:
    """Return the study with the backbone learning at a rate; at 0 all its layers are frozen."""
    name = f"{(study.report or study.output / preset).name}-rate-{rate:g}"
    report = (study.report or study.output / preset).with_name(name)
    return replace(study, recipe=_at_rate(study.recipe, study.backbone, rate), report=report)


def _at_rate(recipe: Recipe, backbone: str, rate: float) -> Recipe:
    if rate > 0:
        return replace(recipe, backbone_lr=rate)
    size = recipe.for_backbone(backbone).image_size
    model = new_classifier(find_backbone(backbone).at(size).build(), "gap", 2, size)
    return replace(recipe, freeze=len(layer_groups(model.backbone)))


def gains(tables: Mapping[float, Table]) -> list[Gain]:
    """Return what every trick gained at every rate, in points with a 95 % interval and p-value."""
    return [
        {
            "rate": rate,
            "trick": step.trick,
            "against": step.before.title,
            "dataset": dataset,
            "points": 100 * gain.estimate,
            "low": 100 * gain.low,
            "high": 100 * gain.high,
            "p_value": gain.p_value,
            "seeds": gain.seeds,
        }
        for rate, table in tables.items()
        for step in steps(table.rows)
        for dataset, gain in table.differences(step).items()
        if gain is not None
    ]


def draw(measured: Sequence[Gain], trick: str) -> Figure:
    """Draw what a trick gained against the backbone's rate, a panel for each data set.

    Args:
        measured: as `gains` returns it.
        trick: `Method.trick` of the row whose gains are drawn.

    Raises:
        ValueError: no such gain was measured.
    """
    shown = [gain for gain in measured if gain["trick"] == trick]
    datasets = list(dict.fromkeys(str(gain["dataset"]) for gain in shown))
    if not datasets:
        known = ", ".join(dict.fromkeys(str(gain["trick"]) for gain in measured))
        raise ValueError(f"no gain of {trick!r} was measured; there are those of: {known}")
    rates = sorted({float(gain["rate"]) for gain in shown})
    figure = Figure(figsize=(1 + 3.2 * len(datasets), 3.4), layout="constrained")
    for ax, dataset in zip(
        figure.subplots(1, len(datasets), sharey=True, squeeze=False)[0], datasets, strict=True
    ):
        for number, against in enumerate(dict.fromkeys(str(gain["against"]) for gain in shown)):
            line = [g for g in shown if (g["dataset"], g["against"]) == (dataset, against)]
            places = [rates.index(float(gain["rate"])) + 0.08 * number for gain in line]
            points = [float(gain["points"]) for gain in line]
            below = [float(gain["points"]) - float(gain["low"]) for gain in line]
            above = [float(gain["high"]) - float(gain["points"]) for gain in line]
            ax.errorbar(places, points, [below, above], marker="o", label=f"against {against}")
        ax.axhline(0, color="gray", lw=0.8)
        ax.set_xticks(range(len(rates)), [f"{rate:g}" if rate else "frozen" for rate in rates])
        ax.set(title=dataset, xlabel="peak learning rate of the backbone")
    figure.axes[0].set_ylabel(f"gain of {trick}, points")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center")
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study at each rate, write the gains and their figure; return the exit status."""
    set_up_console()
    parser = argparse.ArgumentParser("backbone_rates", description=__doc__)
    parser.add_argument("--rates", type=float, nargs="+", required=True, help="0: frozen")
    parser.add_argument("--trick", default="LCA", help="whose gain is drawn")
    parser.add_argument("study", nargs=argparse.REMAINDER, help="-- and a study, as run_all.py's")
    given = parser.parse_args(arguments)
    if min(given.rates) < 0:
        parser.error("argument --rates: expected 0 or above")
    preset, study = parse_study([word for word in given.study if word != "--"])
    tables: dict[float, Table] = {}
    failed = False
    try:
        for rate in given.rates:
            own = study_at(study, preset, rate)
            assert own.report is not None
            runner = Runner(own, own.report, command(preset, own))
            runner.run()
            failed |= runner.failed
            tables[rate] = runner.table
        _write(gains(tables), given.trick, study.report or study.output / preset)
    except (ValueError, OSError) as error:
        logging.error("error: %s", error)
        return 2
    return 1 if failed else 0


def _write(measured: Sequence[Gain], trick: str, report: Path) -> None:
    path = report.with_name(f"{report.name}-rates.json")
    save_json(measured, path)
    picture = path.with_suffix(".png")
    figure = draw(measured, trick)
    write_atomically(
        picture, partial(figure.savefig, format="png", dpi=120, metadata=PICTURE_METADATA)
    )
    logging.info("written to %s and %s", path, picture)


if __name__ == "__main__":
    sys.exit(main())
