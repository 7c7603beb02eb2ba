"""The report: what it reads, what it says, and that it is one safe file."""

import base64
import json
import os
import re
import shutil
import unicodedata
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

from experiments.methods import parse_rows
from experiments.report import explanations, page
from experiments.report.__main__ import main
from experiments.report.explanations import NoExplanationError, explain_photos
from experiments.report.figures import ladder_chart, learning_curves
from experiments.report.mistakes import class_scores, confused_pairs, confusion_matrix
from experiments.report.page import render, write_report
from experiments.report.run import RunError, read_run, results_by_dataset
from experiments.report.table import to_json
from experiments.results import NotRun, PhotosNotFoundError, Result, Table
from tests.products import write_photos
from tests.stored_runs import (
    CLASSES,
    labels_of_folder,
    result,
    settings,
    with_mistakes,
    write_cell,
    write_model,
    write_study,
)

EMPTY_ELEMENTS = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """What a test asks about a page; fails on an element that is closed in the wrong place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        self.titles += [attributes["title"]] if "title" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        if tag not in EMPTY_ELEMENTS:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data + " "


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


@pytest.fixture
def study(tmp_path, photos):
    return write_study(tmp_path / "run", photos)


def write_table(run: Path, methods: list[str], *not_run: str, dataset: str = "folder") -> Table:
    """Write a study's table of a data set, its results those that are stored in the run."""
    waiting = {dataset: NotRun("error", "the <detector> is missing")}
    table = Table.empty(parse_rows(methods, "embedded"), [dataset], {}, waiting)
    stored = [Result.read(path) for path in sorted((run / "cells").rglob("*-seed*.json"))]
    for row in table.rows:
        found = tuple(result for result in stored if result.method == row.method_name)
        if found and row.name not in not_run:
            empty = table.entries[row.name, dataset]
            table.entries[row.name, dataset] = replace(empty, results=found, not_run=None)
    (run / f"{dataset.replace('/', '-')}.json").write_text(json.dumps(to_json(table)))
    return table


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


def shown(run: Path) -> str:
    return words(render(read_run(run)))


# Reading a run


def test_seeds_of_one_method_are_one_row_in_the_order_of_the_ladder(study):
    entries = read_run(study).entries
    assert [entry.row.method_name for entry in entries] == ["gap", "gap-fc", "lca"]
    assert [[result.seed for result in entry.results] for entry in entries] == [[0, 1], [0], [0, 1]]


def test_another_recipe_is_another_row_and_its_title_says_what_differs(study):
    labels = labels_of_folder()
    other = result(labels, labels, settings("lca", epochs=30))
    write_cell(study, other, "lca-longer")
    titles = [entry.row.title for entry in read_run(study).entries]
    assert titles[2:] == ["LCA (epochs 30)", "LCA (epochs 12)"]


@pytest.mark.slow
def test_damaged_cells_are_named_and_the_others_are_shown(study):
    (study / "cells" / "folder" / "photos" / "lca-seed7.json").write_text('{"accuracy": 1')
    (study / "cells" / "folder" / "photos" / "lca-seed8.json").write_text('{"accuracy": 1}')
    page = shown(study)
    assert "lca-seed7.json is no stored result" in page
    assert "lca-seed8.json is no stored result" in page
    assert "global average pooling" in page


@pytest.mark.parametrize("prepare", ["nothing", "empty", "damaged"])
def test_a_folder_without_a_finished_cell_is_refused_with_the_reason(tmp_path, prepare, caplog):
    run = tmp_path / "run"
    if prepare != "nothing":
        (run / "cells").mkdir(parents=True)
    if prepare == "damaged":
        (run / "cells" / "lca-seed0.json").write_text("")
    with pytest.raises(RunError, match=r"run"):
        read_run(run)
    assert main([str(run)]) == 2
    assert "--output" in caplog.text
    assert not (run / "report.html").exists()


def test_peak_memory_is_the_highest_of_the_seeds(tmp_path):
    run = tmp_path / "run"
    for seed, peak in enumerate((300 * 2**20, 200 * 2**20, None)):
        write_cell(run, result([0, 1], [0, 1], settings("lca", seed), peak_bytes=peak))
    assert "300 MiB" in shown(run)


@pytest.fixture
def two_folders(tmp_path):
    """A run with cells of folder/a and folder/b."""
    for dataset in ("folder/a", "folder/b"):
        for method in ("gap", "lca"):
            stored = result([0, 1], [0, 1], settings(method, 0, dataset))
            write_cell(tmp_path / "run", stored)
    return tmp_path / "run"


def test_a_table_goes_to_the_folder_it_was_made_of(two_folders):
    shutil.move(two_folders / "cells" / "folder" / "a", two_folders / "a")
    write_table(two_folders, ["sift", "gap", "lca"])
    shutil.move(two_folders / "a", two_folders / "cells" / "folder" / "a")
    tables = {table.dataset: table for table in results_by_dataset(read_run(two_folders))}
    assert set(tables) == {"folder/a", "folder/b"}
    assert (tables["folder/a"].sentences, tables["folder/a"].not_run) == ((), ())
    (sentence,) = tables["folder/b"].sentences
    assert sentence.startswith("LCA made no difference that can be told from chance on folder")
    assert [entry.row.name for entry in tables["folder/b"].not_run] == ["sift"]


# Mistakes


LABELS = [0, 0, 0, 0, 1, 1, 2, 2, 3]
PREDICTED = [0, 1, 1, 2, 1, 0, 2, 2, 0]


def test_class_scores_begin_with_the_least_recognised():
    scores = class_scores(LABELS, PREDICTED)
    assert [(s.label, s.right, s.total) for s in scores] == [
        (3, 0, 1),
        (0, 1, 4),
        (1, 1, 2),
        (2, 2, 2),
    ]
    assert scores[1].mistaken_for == ((1, 2), (2, 1))
    assert scores[2].accuracy == 50
    assert scores[2].interval[0] < 50 < scores[2].interval[1]


def test_pairs_count_both_directions_and_name_the_photos():
    first, second, third = confused_pairs(LABELS, PREDICTED, most=9)
    assert first.labels == (0, 1)
    assert first.mistakes == ((1, 2), (5,))
    assert first.count == 3
    assert {second.labels, third.labels} == {(0, 2), (3, 0)}
    assert len(confused_pairs(LABELS, PREDICTED, most=1)) == 1


def test_matrix_of_all_classes_counts_every_photo():
    matrix = confusion_matrix(LABELS, PREDICTED, most=9)
    assert matrix.complete
    assert matrix.counts == ((1, 2, 1, 0), (1, 1, 0, 0), (0, 0, 2, 0), (1, 0, 0, 0))
    assert matrix.others == (0, 0, 0, 0)


def test_matrix_of_the_most_confused_classes_counts_the_rest_as_others():
    matrix = confusion_matrix(LABELS, PREDICTED, most=2)
    assert not matrix.complete
    assert matrix.labels == (0, 1)
    assert matrix.counts == ((1, 2), (1, 1))
    assert matrix.others == (1, 0)


# The photos


def first(run: Path) -> Result:
    return read_run(run).entries[0].results[0]


def test_photos_are_found_where_they_were_and_where_they_were_moved(study, photos, tmp_path):
    found = first(study).find_photos()
    assert [path.parent.name for path in found] == [CLASSES[i] for i in labels_of_folder()]
    elsewhere = tmp_path / "disk" / "photos"
    shutil.copytree(photos, elsewhere)
    shutil.rmtree(photos)
    with pytest.raises(PhotosNotFoundError, match="--data-root"):
        first(study).find_photos()
    for folder in (elsewhere, elsewhere.parent):
        moved = first(study).find_photos([folder])
        assert moved == [elsewhere / path.relative_to(photos) for path in found]


def test_photos_that_are_gone_are_counted(study, photos):
    (photos / "test" / "plum" / "0.png").unlink()
    with pytest.raises(PhotosNotFoundError, match=r"1 of the 12 .* are gone .*plum/0\.png"):
        first(study).find_photos()


def test_photos_that_were_changed_since_are_not_shown_as_if_they_had_been_tested(study, photos):
    changed = photos / "test" / "plum" / "0.png"
    status = changed.stat()
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(PhotosNotFoundError, match="1 of the 12 test photos were changed since"):
        first(study).find_photos()
    assert "No photos are shown: 1 of the 12 test photos" in shown(study)


def test_results_of_photos_that_were_changed_since_are_left_out_and_named(study):
    assert not read_run(study).problems
    old = first(study).path
    stored = json.loads(old.read_text())
    stored["settings"]["photos"] = "of before"
    old.unlink()
    write_table(study, ["gap", "lca"])
    old.write_text(json.dumps(stored))
    run = read_run(study)
    (problem,) = run.problems
    assert str(old) in problem
    assert [len(entry.results) for entry in run.entries] == [1, 1, 2]


def test_photos_are_found_again_whether_accents_are_composed_or_not(study, photos):
    stored = photos / unicodedata.normalize("NFD", "test/apple/é.png")
    (photos / "test" / "apple" / "0.png").rename(stored)
    composed = unicodedata.normalize("NFC", "test/apple/é.png")
    named = replace(first(study), images=[composed, *first(study).images[1:]])
    assert named.find_photos()[0].samefile(stored)


def test_generated_photos_are_found_in_a_run_that_was_moved(tmp_path):
    photos = write_photos(tmp_path / "run" / "embedded" / "store")
    labels = labels_of_folder()
    stored = result(labels, labels, settings("gap", 0, "embedded/store"), photos)
    write_cell(tmp_path / "run", stored)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert "No photos are shown" not in shown(moved)


def test_without_photos_the_report_says_how_to_give_them(study, photos):
    shutil.rmtree(photos)
    page = shown(study)
    assert "give the folder it was moved to with --data-root" in page
    assert "No predictions are explained" in page
    assert "Most confused pairs" in page


# Explanations


@pytest.mark.slow
def test_right_and_wrong_predictions_are_explained(study):
    result = read_run(study).entries[-1].results[0]
    explained = explain_photos(result, result.find_photos(), each=2)
    assert [photo.right for photo in explained] == [False, False, True, True]
    wrong, right = explained[0], explained[-1]
    assert len(wrong.pictures) == 3, "heat maps of both classes, and the concepts"
    assert len(right.pictures) == 2
    assert wrong.predicted in wrong.pictures[0].alt
    assert wrong.label in wrong.pictures[1].alt
    assert wrong.pictures[0].uri.startswith("data:image/webp;base64,")


def test_a_photo_that_cannot_be_explained_is_named_and_the_others_are_shown(
    study, monkeypatch, caplog
):
    draw, drawn = explanations.draw_concepts, []

    def fail_once(*arguments, **options):
        drawn.append(arguments)
        if len(drawn) == 1:
            raise RuntimeError("no such glyph")
        return draw(*arguments, **options)

    monkeypatch.setattr(explanations, "draw_concepts", fail_once)
    assert main([str(study)]) == 1
    assert "no such glyph" in caplog.messages[-1]
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "It cannot be explained:" in page
    assert page.count('<figure class="explained">') == len(drawn)
    assert len(drawn) > 2


def test_a_data_set_that_cannot_be_shown_does_not_end_the_others(two_folders, monkeypatch, caplog):
    details = page._details

    def fail_for_one(run, dataset, data_root):
        if dataset == run.datasets[0]:
            raise PermissionError(13, "Permission denied")
        return details(run, dataset, data_root)

    monkeypatch.setattr(page, "_details", fail_for_one)
    assert main([str(two_folders)]) == 1
    assert "Permission denied" in caplog.messages[-1]
    text = words((two_folders / "report.html").read_text(encoding="utf-8"))
    assert "Permission denied" in text
    assert "Most confused pairs" in text


def test_a_report_that_cannot_be_written_is_refused_before_it_is_made(
    study, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(page, "read_run", pytest.fail)
    (tmp_path / "file").touch()
    assert main([str(study), "--output", str(tmp_path / "file" / "page.html")]) == 2
    (line,) = caplog.messages
    assert "file is a file" in line


def test_a_head_that_is_not_lca_and_a_model_that_is_gone_are_said_to_be(study):
    gap, _, lca = (entry.results[0] for entry in read_run(study).entries)
    with pytest.raises(NoExplanationError, match="no LCA"):
        explain_photos(gap, gap.find_photos(), each=1)
    shutil.rmtree(lca.model)
    with pytest.raises(NoExplanationError, match="gone"):
        explain_photos(lca, lca.find_photos(), each=1)


# The page


def test_page_is_whole_and_stands_alone(study):
    html = write_report(study).read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    anchors = {link[1:] for link in page.links if link.startswith("#")}
    assert anchors
    assert anchors <= set(page.ids)
    assert {link for link in page.links if not link.startswith("#")} == {"data:,"}
    assert len(page.images) > 10
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in page.images)
    assert not {"script", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"url\(|@import|http-equiv", html)


def test_class_names_are_shown_and_never_run(tmp_path):
    names = ("<script>alert(1)</script>", "5$ & \"more\" '$'", "昆布茶")
    labels = labels_of_folder()
    stored = result(labels, with_mistakes(labels, (0, 1), (5, 2)), settings("lca"))
    write_cell(tmp_path / "run", stored | {"classes": list(names)})
    html = render(read_run(tmp_path / "run"))
    page = Page(html)
    assert "script" not in page.tags
    assert all(name in page.text for name in names)
    assert set(names) <= set(page.titles), "a quotation mark must not end an attribute"


def test_papers_figures_differences_and_reasons_are_shown(tmp_path):
    run = tmp_path / "run"
    for method in ("gap", "lca"):
        for seed in (0, 1):
            made_of = settings(method, seed, "embedded/one-shot")
            write_cell(run, result([0, 1] * 9, [0, int(method == "lca")] * 9, made_of))
    write_table(run, ["sift", "gap", "lca"], dataset="embedded/one-shot")
    html = render(read_run(run))
    page = words(html)
    assert "beside the paper's CAPG-GP" in page
    assert "LCA 100.0 82.4 to 100.0 2 90.4" in page, "photos are a sample where seeds agree"
    assert "LCA helped on embedded/one-shot: +50.0 points against global average" in page
    assert "keypoint matching (SIFT) not run 84.7" in page
    assert "keypoint matching (SIFT): the <detector> is missing" in page
    assert "paper 90.4 %" in html, "the chart's text alternative has the paper's figure too"


def test_a_study_that_could_run_nothing_shows_the_papers_table(tmp_path):
    write_table(tmp_path, ["sift", "lca"], dataset="dm4vm")
    page = shown(tmp_path)
    assert "LCA not run 100.0" in page
    assert "all rows: the <detector> is missing" in page


def test_keypoint_matching_alone_makes_a_report(tmp_path):
    labels = labels_of_folder()
    stored = result(labels, labels, settings("sift"))
    stored |= {"history": [], "best_epoch": None}
    for name in ("seed", "backbone", "weights", "recipe", "precision"):
        del stored["settings"][name]
    write_cell(tmp_path / "run", stored)
    page = shown(tmp_path / "run")
    assert "keypoint matching (SIFT)" in page
    assert "No test photo was taken for another class." in page
    assert "Learning curves" not in page


def test_a_thousand_classes_stay_readable(tmp_path):
    labels = [label for label in range(1000) for _ in range(3)]
    predicted = [(label + 1) % 1000 if k % 7 == 0 else label for k, label in enumerate(labels)]
    names = [f"product number {label}" for label in range(1000)]
    write_cell(
        tmp_path / "run",
        result(labels, predicted, settings("gap")) | {"classes": names, "trained_on": [1] * 1000},
    )
    html = render(read_run(tmp_path / "run"))
    assert len(html) < 5e6
    assert "Only the 20 most confused classes are shown" in words(html)
    assert "The other 988 classes" in words(html)


def test_early_stopping_is_said(tmp_path):
    labels = labels_of_folder()
    write_cell(tmp_path / "run", result(labels, labels, settings("lca", patience=2)))
    page = shown(tmp_path / "run")
    assert "Training stopped after epoch 3 of 12: 2 epochs in a row were no better" in page


@pytest.mark.parametrize(
    ("options", "planned"),
    [({"finetune": "head", "head_epochs": 3}, 3), ({"epochs": 4, "head_epochs": 3}, 7)],
)
def test_epochs_of_the_head_alone_count_as_planned(tmp_path, options, planned):
    labels = labels_of_folder()
    write_cell(tmp_path / "run", result(labels, labels, settings("lca", patience=2, **options)))
    page = shown(tmp_path / "run")
    assert ("Training stopped" in page) == (planned > 3)
    assert (f"Training stopped after epoch 3 of {planned}" in page) == (planned > 3)


# Charts


def svg_of(chart):
    return base64.b64decode(chart.uri.partition(",")[2]).decode()


def test_charts_are_svg_with_their_figures_in_the_text_alternative(study):
    entries = read_run(study).entries
    before = dict(matplotlib.rcParams)
    ladder = ladder_chart(entries, [58.66, None, 70.8])
    loss, accuracy = learning_curves(entries)
    assert dict(matplotlib.rcParams) == before
    for chart in (ladder, loss, accuracy):
        assert ElementTree.fromstring(svg_of(chart)).tag.endswith("svg")
        assert "prefers-color-scheme: dark" in svg_of(chart)
    assert f"LCA {entries[-1].mean:.1f} %" in ladder.alt
    assert "paper 58.7 %" in ladder.alt
    assert "epoch 2 of 3 kept" in accuracy.alt
    assert "global average" in svg_of(ladder)


def test_without_validation_there_is_no_chart_of_its_accuracy(tmp_path):
    stored = result([0, 1], [0, 1], settings("gap"))
    stored["history"] = [{"epoch": 1, "train_loss": 1.0}]
    write_cell(tmp_path / "run", stored)
    assert len(learning_curves(read_run(tmp_path / "run").entries)) == 1


# How to reproduce


def test_the_commands_that_computed_the_results_are_shown_once_each(study):
    labels = labels_of_folder()
    other = result(labels, labels, settings("sift"), command="run_all.py --methods sift")
    write_cell(study, other)
    page = shown(study)
    assert page.count("run_all.py folder") == 1
    assert page.count("run_all.py --methods sift") == 1


# The command line


def test_command_line_writes_where_it_is_told(study, photos, tmp_path, capsys):
    photos.rename(tmp_path / "moved")
    output = tmp_path / "elsewhere" / "page.html"
    arguments = [str(study), "--data-root", str(tmp_path / "moved"), "--output", str(output)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert "Most confused pairs" in output.read_text(encoding="utf-8")
    assert "No photos are shown" not in output.read_text(encoding="utf-8")


def test_a_model_that_cannot_be_used_is_no_reason_to_fail(study):
    path = read_run(study).entries[-1].results[0].path
    described = (write_model(path) / "config.json").read_text()
    folder = write_model(path, head="gap")
    assert "It cannot be explained:" in shown(study), "of another head"
    (folder / "config.json").write_text(described)
    page = shown(study)
    assert "No predictions are explained" in page, "of another shape"
    assert "2 missing (lca.weight, lca.bias)" in page
    assert "Most confused pairs" in page
