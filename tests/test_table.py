import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.data.dataset import ProductDataset
from experiments.study.rows import parse_rows
from experiments.table import plots
from experiments.table.entry import Entry, NotRun, Run
from experiments.table.json_report import to_json
from experiments.table.markdown import to_markdown
from experiments.table.paper_table import paper_table
from experiments.table.plots import save_ladder

ROWS = parse_rows(["sift", "gap", "lca"], "embedded")
DATASETS = ["embedded/one-shot", "folder"]
LABELS = np.repeat([0, 1], 10)


def run(accuracy: float, seed: int = 0, rate: float | None = None, peak: int | None = None) -> Run:
    """A run that gets the first photos of 20 right: those of class 0 first."""
    right = np.arange(20) < round(20 * accuracy)
    return Run(accuracy, LABELS, right, seed, rate, peak)


def table():
    missing = Entry(not_run=NotRun("no photos", "no photos were given; give some"))
    full = {(row.name, dataset): missing for row in ROWS for dataset in DATASETS}
    full["lca", "embedded/one-shot"] = Entry(
        (run(0.5), run(0.6, 1, 30.0, 3 * 2**20), run(0.7, 2, 10.0))
    )
    full["gap", "embedded/one-shot"] = Entry((run(0.5),))
    return full


def markdown(description=None) -> str:
    return to_markdown(table(), ROWS, DATASETS, description or {})


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_interval_is_students_t_over_seeds():
    # t(0.975, 2 degrees) = 4.303, deviation 10 points, sqrt(3) = 1.732
    entry = table()["lca", "embedded/one-shot"]
    assert entry.mean == pytest.approx(60)
    assert entry.half_width == pytest.approx(4.30265 * 10 / 3**0.5, rel=1e-5)
    assert entry.interval == pytest.approx((60 - entry.half_width, 60 + entry.half_width))


def test_one_seed_has_the_interval_of_its_photos():
    entry = Entry((run(0.5),))
    assert entry.half_width is None
    low, high = entry.interval
    assert low == pytest.approx(29.9, abs=0.05)  # Wilson's for 10 of 20
    assert high == pytest.approx(70.1, abs=0.05)
    assert str(entry) == "50.0 (29.9 to 70.1, n=1)"


def test_markdown_shows_ours_the_papers_and_why_something_was_not_run():
    text = markdown({"backbone": "embedded"})
    lca = line(text, "| LCA")
    assert "60.0 ± 24.8" in lca
    assert "90.4" in lca, "the paper's LCA accuracy on CAPG-GP, whose role one-shot plays"
    assert "not run: no photos [1]" in lca
    assert "- [1] sift on embedded/one-shot, all rows on folder: no photos were given" in text
    assert "- backbone: embedded" in text


def test_markdown_shows_what_the_tricks_added():
    text = markdown()
    difference = line(text, "| LCA against global average pooling")
    assert "+0.0 (" in difference, "seed 0, the only one of both"
    assert "not run" in difference, "on the other data set"
    assert "made no difference that can be told from chance on embedded/one-shot" in text


def test_markdown_shows_what_training_costs():
    text = markdown().split("Cost of training")[1]
    assert "| 20 " in line(text, "| LCA"), "the median of the runs that measured it"
    assert "3 MiB" in line(text, "| LCA")
    assert line(text, "| global").count("not measured") == 3
    assert "SIFT" not in text.split("\n\n")[1]


def test_what_was_trained_on_other_devices_is_told():
    full, place = table(), "embedded/one-shot"
    assert "Trained on" not in to_markdown(full, ROWS, DATASETS, {}), "earlier versions' results"
    full["lca", place] = Entry((replace(run(0.5), device="NVIDIA H200"),))
    text = to_markdown(full, ROWS, DATASETS, {})
    assert "Trained on NVIDIA H200." in text
    full["gap", place] = Entry((replace(run(0.5), device="AMD EPYC"),))
    text = to_markdown(full, ROWS, DATASETS, {})
    assert "do not compare. AMD EPYC: global average pooling; NVIDIA H200: LCA." in text
    costs = to_json(full, ROWS, DATASETS, {}, {})["cost"]
    devices = {cost["method"]: cost["devices"] for cost in costs if cost["dataset"] == place}
    assert devices == {"lca": ["NVIDIA H200"], "gap": ["AMD EPYC"]}


def test_json_holds_every_entry_and_survives_a_round_trip():
    loaded = ProductDataset("embedded/one-shot", ("apple", "lime", "plum"), (), (), ())
    made = to_json(table(), ROWS, DATASETS, {}, {"embedded/one-shot": loaded})
    value = json.loads(json.dumps(made))
    assert value["stored_as"] == {"embedded/one-shot": "embedded/one-shot"}
    entries = {(entry["method"], entry["dataset"]): entry for entry in value["entries"]}
    assert len(entries) == len(ROWS) * len(DATASETS)
    lca = entries["lca", "embedded/one-shot"]
    assert lca["accuracies"] == [0.5, 0.6, 0.7]
    assert lca["seeds"] == [0, 1, 2]
    assert lca["paper_percent"] == 90.4
    assert lca["not_run"] is None
    assert lca["class_accuracies"] == {"apple": 1.0, "lime": pytest.approx(0.2), "plum": None}
    assert lca["wilson_95"][0] == pytest.approx([0.299, 0.701], abs=1e-3)
    assert entries["sift", "folder"]["not_run"] == "no photos were given; give some"
    (difference,) = value["differences"]
    assert (difference["method"], difference["against"]) == ("lca", "gap")
    assert len(difference["seed_p_values"]) == 1
    peaks = {(cost["method"], cost["dataset"]): cost["peak_bytes"] for cost in value["cost"]}
    assert peaks["lca", "embedded/one-shot"] == 3 * 2**20
    assert peaks["gap", "embedded/one-shot"] is None


def test_results_stored_by_earlier_versions_are_read():
    stored = {
        "accuracy": 0.5,
        "labels": [0, 1],
        "top5": [[0, 1], [0, 1]],
        "settings": {"method": "sift"},
    }
    read = Run.of_cell(stored)
    assert read.right.tolist() == [True, False]
    assert read.seed is None
    assert read.images_per_second is None


def test_the_papers_table_stands_complete_where_nothing_was_run():
    text = paper_table()
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == 7
    assert all(row.count("not run: no photos [") == 3 for row in lines)
    wsl_lca = next(row for row in lines if "(paper: ResNeXt-WSL + LCA)" in row)
    assert [cell.strip() for cell in wsl_lca.split("|")][3::2][:3] == ["70.8", "90.4", "100"]
    assert "--data-root" in text
    assert "resnext101_32x8d, fb_wsl_ig1b_ft_in1k (cc-by-nc-4.0)" in text
    assert "superpoint_v1.pth" in text


def test_the_ladder_shows_means_intervals_and_the_papers_figures():
    axes = Figure().subplots()
    plots._draw(axes, table(), ROWS, "embedded/one-shot")
    (bars,) = axes.containers
    marks, _, (spans,) = bars.lines
    assert marks.get_xdata().tolist() == [50, 60]
    assert marks.get_ydata().tolist() == [1, 2], "the places of gap and lca"
    entry = table()["lca", "embedded/one-shot"]
    assert spans.get_segments()[1][:, 0].tolist() == pytest.approx(entry.interval)
    papers = next(drawn for drawn in axes.lines if drawn.get_label() == "the paper")
    assert list(papers.get_xdata()) == [84.7, 83.9, 90.4]
    assert [text.get_text() for text in axes.texts] == ["not run"]


def test_the_ladder_is_a_picture_with_a_panel_for_each_data_set_with_results(tmp_path):
    entries = table()
    save_ladder(entries, ROWS, DATASETS, tmp_path / "one.png")
    entries["gap", "folder"] = Entry((run(0.8),))
    save_ladder(entries, ROWS, DATASETS, tmp_path / "two.png")
    one, two = (Image.open(tmp_path / name) for name in ("one.png", "two.png"))
    assert one.width < two.width
    assert one.height == two.height


def test_without_results_there_is_no_picture(tmp_path):
    save_ladder(table(), ROWS, ["folder"], tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
