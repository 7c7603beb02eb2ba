import json
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.methods import parse_rows
from experiments.report.compare import main as compare
from experiments.report.figures import draw_ladder, save_ladder
from experiments.report.table import paper_table, read_table, to_json, to_markdown
from experiments.results import NotRun, Result, Table
from experiments.storage import CheckpointError
from tests.stored_runs import entry, outcome

ROWS = parse_rows(["sift", "gap", "lca"], "embedded")
DATASETS = ["embedded/one-shot", "folder"]
ONE_SHOT = DATASETS[0]
MISSING = dict.fromkeys(DATASETS, NotRun("no photos", "no photos were given; give some"))


def run(accuracy: float, seed: int = 0, rate: float | None = None, **more) -> Result:
    """A result that gets the first photos of 20 right: those of class 0 first."""
    right = np.arange(20) < round(20 * accuracy)
    return outcome(right, seed, images_per_second=rate, **more)


def table(description=None, **results) -> Table:
    """A table without results but those of the rows given on the first data set."""
    made = Table.empty(ROWS, DATASETS, description or {}, MISSING)
    results = {
        "lca": (run(0.5), run(0.6, 1, 30.0, peak_bytes=3 * 2**20), run(0.7, 2, 10.0)),
        "gap": (run(0.5),),
    } | results
    for row in ROWS:
        if row.name in results:
            fill(made, row.name, ONE_SHOT, *results[row.name])
    return made


def fill(made: Table, name: str, dataset: str, *results: Result) -> None:
    empty = made.entries[name, dataset]
    made.entries[name, dataset] = replace(empty, results=results, not_run=None)


def markdown(description=None) -> str:
    return to_markdown(table(description))


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_interval_is_students_t_over_seeds():
    # t(0.975, 2 degrees) = 4.303, deviation 10 points, sqrt(3) = 1.732
    lca = table().entries["lca", ONE_SHOT]
    assert lca.mean == pytest.approx(60)
    assert lca.half_width == pytest.approx(4.30265 * 10 / 3**0.5, rel=1e-5)
    assert lca.interval == pytest.approx((60 - lca.half_width, 60 + lca.half_width))


def test_interval_ends_at_0_and_100():
    assert entry(run(1.0), run(0.9, 1)).interval[1] == 100
    assert entry(run(0.0), run(0.1, 1)).interval[0] == 0


def test_one_seed_has_the_interval_of_its_photos():
    one = entry(run(0.5))
    assert one.half_width is None
    low, high = one.interval
    assert low == pytest.approx(29.9, abs=0.05)  # Wilson's for 10 of 20
    assert high == pytest.approx(70.1, abs=0.05)
    assert str(one) == "50.0 (29.9 to 70.1, n=1)"
    same = entry(run(0.5), run(0.5, 1))
    assert str(same) == str(one), "seeds that change no answer are one"


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
    cpu, gpu = (run(0.5, device=name) for name in ("AMD EPYC", "NVIDIA H200"))
    assert "Trained on AMD EPYC." in to_markdown(table(lca=(cpu,), gap=(cpu,)))
    both = table(lca=(gpu,), gap=(cpu,))
    said = "do not compare. AMD EPYC: global average pooling; NVIDIA H200: LCA."
    assert said in to_markdown(both)
    costs = to_json(both)["cost"]
    devices = {cost["method"]: cost["devices"] for cost in costs if cost["dataset"] == ONE_SHOT}
    assert devices == {"lca": ["NVIDIA H200"], "gap": ["AMD EPYC"]}


def test_json_holds_every_entry_and_survives_a_round_trip():
    value = json.loads(json.dumps(to_json(table())))
    entries = {(entry["method"], entry["dataset"]): entry for entry in value["entries"]}
    assert len(entries) == len(ROWS) * len(DATASETS)
    lca = entries["lca", ONE_SHOT]
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
    assert peaks["lca", ONE_SHOT] == 3 * 2**20
    assert peaks["gap", ONE_SHOT] is None


def test_the_table_is_read_back_with_the_results_it_names():
    only = run(0.5, path="only.json")
    made = table(lca=(only,), gap=())
    read = read_table(to_json(made), {only.name: only, "another": run(0.7)})
    assert read.rows == ROWS
    assert read.entries["lca", ONE_SHOT].results == (only,)
    assert only.name == "cells/data/only.json"
    assert read.entries["sift", "folder"].not_run.reason == "no photos were given; give some"
    assert to_json(read) == to_json(made)
    assert str(read_table(to_json(made), {}).entries["lca", ONE_SHOT]) == "not run", "it is gone"


@pytest.mark.parametrize(
    ("labels", "top5", "message"),
    [([0] * 9, [[0]] * 10, "9 labels, 10 pred"), ([], [], "0 labels, 0 pred"), ([0], [[]], "none")],
)
def test_a_result_without_a_label_and_a_prediction_of_every_photo_is_none(
    tmp_path, labels, top5, message
):
    path = tmp_path / "none.json"
    replace(run(0.5), path=path, labels=labels, top5=top5).save()
    with pytest.raises(CheckpointError, match=message):
        Result.read(path)


def stored_table(folder, made: Table):
    """The JSON of a table, in the folder of its results."""
    for result in (result for filled in made.entries.values() for result in filled.results):
        place = folder / result.name
        place.parent.mkdir(parents=True, exist_ok=True)
        replace(result, path=place).save()
    path = folder / "study.json"
    path.write_text(json.dumps(to_json(made)))
    return str(path)


def test_the_same_rows_of_two_tables_are_compared(tmp_path, capsys, caplog):
    seeds = {"path": "lca-0.json"}, {"path": "lca-1.json"}
    lca = [(run(0.5, 0, **seeds[0]), run(0.6, 1, **seeds[1])), (run(0.9, 0, **seeds[0]),)]
    before = stored_table(tmp_path / "before", table(lca=lca[0], gap=(run(0.5, path="gap.json"),)))
    after = stored_table(tmp_path / "after", table(lca=lca[1], gap=()))
    assert compare([before, after]) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["LCA"], "only one has the other row"
    assert "55.0" in rows[0]
    assert "+40.0" in rows[0], "seeds that both have are paired"

    other = (run(0.9, path="lca-0.json", contents=["1"] * 20),)
    elsewhere = stored_table(tmp_path / "other", table(lca=other, gap=()))
    assert compare([before, elsewhere]) == 2
    assert "other photos" in caplog.text
    assert compare([before, str(tmp_path / "before" / "cells" / "data" / "gap.json")]) == 2
    assert "a table that run_all.py wrote" in caplog.text


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
    axes, column = Figure().subplots(), table().column(ONE_SHOT)
    draw_ladder(axes, column, [84.7, None, 90.4])
    spans = [collection.get_segments()[0][:, 0].tolist() for collection in axes.collections]
    assert spans == [pytest.approx(entry.interval) for entry in column[1:]]
    marks = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines}
    assert marks["o"] == [[60, 2]], "the last one's mean, at its place"
    assert marks["|"] == [[pytest.approx(x), 2] for x in (50, 60, 70)], "its seeds"
    assert marks["D"] == [[84.7, 0], [90.4, 2]], "the paper's"
    assert [text.get_text() for text in axes.texts] == ["not run"]


def test_the_ladder_is_a_picture_with_a_panel_for_each_data_set_with_results(tmp_path):
    made = table()
    save_ladder(made, tmp_path / "one.png")
    fill(made, "gap", "folder", run(0.8))
    save_ladder(made, tmp_path / "two.png")
    one, two = (Image.open(tmp_path / name) for name in ("one.png", "two.png"))
    assert one.width < two.width
    assert one.height == two.height


def test_without_results_there_is_no_picture(tmp_path):
    save_ladder(Table.empty(ROWS, DATASETS, {}, MISSING), tmp_path / "none.png")
    assert not list(tmp_path.iterdir())
