import json

import pytest

from experiments.table import Entry, to_json, to_markdown

METHODS = ["sift", "gap", "lca"]
DATASETS = ["embedded/one-shot", "folder"]


def table(**entries):
    full = {(m, d): Entry(missing="no photos were given") for m in METHODS for d in DATASETS}
    full["lca", "embedded/one-shot"] = Entry((0.5, 0.6, 0.7))
    full["gap", "embedded/one-shot"] = Entry((0.5,))
    return full


def test_interval_is_students_t_over_seeds():
    # t(0.975, 2 degrees) = 4.303, deviation 10 points, sqrt(3) = 1.732
    assert Entry((0.5, 0.6, 0.7)).mean == pytest.approx(60)
    assert Entry((0.5, 0.6, 0.7)).half_width == pytest.approx(4.30265 * 10 / 3**0.5, rel=1e-5)


def test_one_seed_has_no_interval():
    assert Entry((0.5,)).half_width is None
    assert str(Entry((0.5,))) == "50.0 (n=1)"


def test_markdown_shows_ours_the_papers_and_why_something_was_not_run():
    text = to_markdown(table(), METHODS, DATASETS, {"backbone": "embedded"})
    lca = next(line for line in text.splitlines() if line.startswith("| LCA"))
    assert "60.0 ± 24.8" in lca
    assert "90.4" in lca, "the paper's LCA accuracy on CAPG-GP, whose role one-shot plays"
    assert "no photos were given" in text
    assert "ResNeXt-WSL)" in text, "a row of the paper that has no method here is still shown"
    assert "- backbone: embedded" in text


def test_json_holds_every_entry_and_survives_a_round_trip():
    value = json.loads(json.dumps(to_json(table(), METHODS, DATASETS, {})))
    assert len(value["entries"]) == len(METHODS) * len(DATASETS)
    lca = next(
        entry
        for entry in value["entries"]
        if entry["method"] == "lca" and entry["dataset"] == "embedded/one-shot"
    )
    assert lca["accuracies"] == [0.5, 0.6, 0.7]
    assert lca["paper_percent"] == 90.4
    assert lca["not_run"] is None
