"""What each trick added: the rows that are compared, and what came of it in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.study.rows import Row
from experiments.table.entry import Entry, Run, Table
from experiments.table.significance import Difference, paired_difference

_SIGNIFICANT = 0.05  # p-values below it are told as a difference


@dataclass(frozen=True)
class Step:
    """Two rows that differ by one trick.

    Attributes:
        trick: the subject of a sentence, e.g. "the maximum-entropy loss".
        before: the row without it.
        after: the row with it.
    """

    trick: str
    before: Row
    after: Row

    @property
    def title(self) -> str:
        """How the step is printed."""
        return f"{self.after.title} against {self.before.title}"


def steps(rows: Sequence[Row]) -> list[Step]:
    """Return the steps between `rows`, in the order of the rows they lead to.

    A trick is measured on the same backbone; a backbone against the one asked for before it, with
    the same method.
    """
    found = []
    for place, after in enumerate(rows):
        same_method = [row for row in rows[:place] if row.method_name == after.method_name]
        if same_method:
            found.append(Step(f"{after.backbone} as the backbone", same_method[-1], after))
        found += [
            Step(after.method.trick, before, after)
            for method in after.method.against
            for before in rows
            if before.method_name == method and _comparable(before, after, bool(same_method))
        ]
    return found


def difference(step: Step, dataset: str, table: Table) -> Difference | None:
    """Return what the step gained on a data set; None where not both rows ran with one seed.

    Runs of the same seed are paired. Rows whose cells were computed on other test photos than each
    other's do not meet in a table: the photos are part of a cell's name.
    """
    before, after = table[step.before.name, dataset], table[step.after.name, dataset]
    pairs = _pairs(before, after)
    if not pairs:
        return None
    first, second = (np.stack([pair[side].right for pair in pairs]) for side in (0, 1))
    return paired_difference(first, second)


def in_words(step: Step, dataset: str, gain: Difference) -> str:
    """Return the sentence that says whether the trick helped, with its interval and p-value.

    The p-value decides. Of one seed it comes from an exact test and the interval does not, so that
    the interval may leave 0 out where p is above 0.05.
    """
    if gain.p_value >= _SIGNIFICANT:
        verdict = "made no difference that can be told from chance"
    else:
        verdict = "helped" if gain.estimate > 0 else "hurt"
    trick = step.trick[0].upper() + step.trick[1:]
    runs = f"{gain.seeds} seeds" if gain.seeds > 1 else "one seed, so of these networks"
    p = in_symbols(gain.p_value)
    return (
        f"{trick} {verdict} on {dataset}: {100 * gain.estimate:+.1f} points against "
        f"{step.before.title} (95 % interval {_interval(gain)}, {p}, {runs})."
    )


def in_short(gain: Difference | None) -> str:
    """Return a difference as it stands in a table, in per cent points."""
    if gain is None:
        return "not run"
    return f"{100 * gain.estimate:+.1f} ({_interval(gain)}; {in_symbols(gain.p_value)})"


def in_symbols(p_value: float) -> str:
    """Return "p = 0.012" or "p < 0.001"."""
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.2g}"


def _comparable(before: Row, after: Row, again: bool) -> bool:
    """Whether only the trick differs; keypoint matching is compared with a method's first row."""
    return before.backbone == after.backbone or (before.backbone is None and not again)


def _interval(gain: Difference) -> str:
    return f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"


def _pairs(before: Entry, after: Entry) -> list[tuple[Run, Run]]:
    """Return the runs of equal seeds; a run without a seed goes with every one."""
    return [
        (one, other)
        for one in before.runs
        for other in after.runs
        if one.seed is None or other.seed is None or one.seed == other.seed
    ]
