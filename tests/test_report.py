"""The report: what it reads, what it says, and that it is one safe file."""

import base64
import json
import math
import os
import re
import shlex
import shutil
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from scipy import stats

from experiments.checksum import content_digests
from experiments.data.embedded import SCENARIOS
from experiments.data.folder import load_folder
from experiments.report import explanations, html
from experiments.report.__main__ import main
from experiments.report.confusion import class_scores, confused_pairs, confusion_matrix
from experiments.report.explanations import NoExplanationError, explain_photos
from experiments.report.figures import ladder_chart, learning_curves
from experiments.report.html import render, write_report
from experiments.report.photos import PhotosNotFoundError, find_photos
from experiments.report.reproduce import commands
from experiments.report.results import results
from experiments.report.stored import RunError, read_run
from experiments.study.digests import dataset_digest
from experiments.study.options import parse_study
from experiments.training.recipe import Recipe
from tests.products import write_photos
from tests.stored_runs import (
    CLASSES,
    SIZE,
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
def study(tmp_path):
    return write_study(tmp_path / "run")


def words(html: str) -> str:
    return " ".join(Page(html).text.split())


# Reading a run


def test_seeds_of_one_method_are_one_row_in_the_order_of_the_ladder(study):
    rows = read_run(study).rows
    assert [row.method for row in rows] == ["gap", "gap-fc", "lca"]
    assert [[cell.seed for cell in row.cells] for row in rows] == [[0, 1], [0], [0, 1]]


def test_another_recipe_is_another_row_and_its_title_says_what_differs(study):
    labels = labels_of_folder()
    other = result(labels, labels, settings("lca", epochs=30))
    write_cell(study, other, "lca-longer")
    titles = [row.title for row in read_run(study).rows if row.method == "lca"]
    assert titles == ["LCA (epochs 30)", "LCA (epochs 12)"]


def test_results_stored_before_a_recipe_field_existed_are_in_the_same_row(study):
    stored = result(labels_of_folder(), labels_of_folder(), settings("gap", seed=2))
    del stored["settings"]["recipe"]["ema_decay"]
    write_cell(study, stored)
    (row,) = [row for row in read_run(study).rows if row.method == "gap"]
    assert [cell.seed for cell in row.cells] == [0, 1, 2]


def test_interval_is_students_over_seeds_and_wilsons_for_one(study):
    gap, gap_fc, _ = read_run(study).rows
    low, high = gap.interval
    expected = stats.ttest_1samp(gap.accuracies, 0).confidence_interval()
    assert low == pytest.approx(max(expected.low, 0))
    assert high == pytest.approx(min(expected.high, 100))
    right, total = gap_fc.cells[0].right, len(gap_fc.cells[0].labels)
    assert (right, total) == (9, 12)
    z, p = stats.norm.ppf(0.975), right / total  # Wilson's formula, written out
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    assert gap_fc.interval == pytest.approx((100 * (middle - half), 100 * (middle + half)))


def test_damaged_cells_are_named_and_the_others_are_shown(study):
    (study / "cells" / "folder" / "photos" / "lca-seed7.json").write_text('{"accuracy": 1')
    (study / "cells" / "folder" / "photos" / "lca-seed8.json").write_text('{"accuracy": 1}')
    page = words(render(read_run(study)))
    assert "lca-seed7.json could not be used" in page
    assert "lca-seed8.json could not be used: no finished cell" in page
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


def test_accuracy_is_that_of_the_stored_top_five(tmp_path):
    stored = result([0, 1], [0, 1], settings("gap")) | {"accuracy": 0.5}  # argmax's, which tied
    write_cell(tmp_path / "run", stored)
    (row,) = read_run(tmp_path / "run").rows
    assert row.accuracies == (100.0,)
    assert row.cells[0].right == 2


def test_peak_memory_is_that_of_the_rows_own_cells(tmp_path):
    run = tmp_path / "run"
    for dataset, peaks in (("embedded/store", (7, None)), ("grocery-store/one-shot", (300, 200))):
        for seed, peak in enumerate(peaks):
            mebibytes = None if peak is None else peak * 2**20
            stored = result([0, 1], [0, 1], settings("lca", seed, dataset), peak_bytes=mebibytes)
            write_cell(run, stored)
    write_cell(run, result([0, 1], [0, 1], settings("gap", 0, "embedded/store")))
    cost = [{"method": "lca", "dataset": "embedded/store", "peak_bytes": 7 * 2**20}]
    cost.append({"method": "gap", "dataset": "grocery-store/one-shot", "peak_bytes": 9 * 2**20})
    (run / "study.json").write_text(json.dumps({"entries": [], "cost": cost}))
    rows = {(row.dataset, row.method): row.peak_bytes for row in read_run(run).rows}
    assert rows == {
        ("embedded/store", "lca"): 7 * 2**20,
        ("embedded/store", "gap"): None,
        ("grocery-store/one-shot", "lca"): 300 * 2**20,
    }
    page = words(render(read_run(run)))
    assert "300 MiB" in page
    assert "9 MiB" not in page


@pytest.fixture
def two_folders(tmp_path):
    """A run with cells of folder/a and folder/b; returns what writes a table of one of them."""
    run = tmp_path / "run"
    for dataset in ("folder/a", "folder/b"):
        write_cell(run, result([0, 1], [0, 1], settings("lca", 0, dataset)))

    def write(**more):
        entry = {"method": "sift", "title": "SIFT", "dataset": "folder", "not_run": "none left"}
        gain = {"dataset": "folder", "in_words": "LCA helped on folder."}
        (run / "folder.json").write_text(
            json.dumps({"entries": [entry], "differences": [gain], **more})
        )
        return {table.dataset: table for table in results(read_run(run))}

    return write


def test_a_table_goes_to_the_folder_it_was_made_of(two_folders):
    tables = two_folders(stored_as={"folder": "folder/b"})
    assert set(tables) == {"folder/a", "folder/b"}
    assert (tables["folder/a"].sentences, tables["folder/a"].not_run) == ((), ())
    assert tables["folder/b"].sentences == ("LCA helped on folder.",)
    assert [row.title for row in tables["folder/b"].not_run] == ["SIFT"]


def test_a_table_that_does_not_say_its_folder_is_not_put_to_one_of_several(two_folders):
    tables = two_folders()
    assert set(tables) == {"folder/a", "folder/b", "folder"}
    assert tables["folder"].sentences == ("LCA helped on folder.",)
    assert not tables["folder/a"].sentences
    assert not tables["folder/b"].sentences


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


def test_photos_of_results_that_do_not_name_them_are_found_in_their_order(study, photos):
    run = read_run(study)
    found = find_photos(run.rows[0].cells[0], run, photos)
    assert found.classes == CLASSES
    assert [path.parent.name for path in found.test] == [CLASSES[i] for i in labels_of_folder()]


def test_photos_that_were_left_out_do_not_shift_the_others(tmp_path, photos):
    labels = labels_of_folder()[1:]
    images = [f"test/{CLASSES[label]}/{k}.png" for label in range(3) for k in range(4)][1:]
    stored = result(labels, labels, settings("gap"), images=images)
    write_cell(tmp_path / "run", stored)
    run = read_run(tmp_path / "run")
    found = find_photos(run.rows[0].cells[0], run, photos)
    assert [path.relative_to(photos).as_posix() for path in found.test] == images


def test_other_photos_than_were_tested_are_not_shown_as_if_they_were(study, photos):
    (photos / "test" / "plum" / "0.png").unlink()
    run = read_run(study)
    with pytest.raises(PhotosNotFoundError, match="added, moved or removed"):
        find_photos(run.rows[0].cells[0], run, photos)


def test_photos_that_were_changed_since_are_not_shown_as_if_they_had_been_tested(tmp_path, photos):
    labels = labels_of_folder()
    dataset = load_folder(photos)
    contents = content_digests(sample.path for sample in dataset.test)
    write_cell(tmp_path / "run", result(labels, labels, settings("gap"), contents=contents))
    run = read_run(tmp_path / "run")
    find_photos(run.rows[0].cells[0], run, photos)
    changed = dataset.test[0].path
    status = changed.stat()
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(PhotosNotFoundError, match="1 of the 12 test photos were changed since"):
        find_photos(run.rows[0].cells[0], run, photos)


def test_results_of_photos_that_were_changed_since_are_left_out_and_named(tmp_path, study):
    run = read_run(study)
    assert len(run.rows) == 3
    assert not run.problems
    old = run.rows[0].cells[0].path
    stored = json.loads(old.read_text())
    stored["settings"]["photos"] = "of before"
    old.write_text(json.dumps(stored))
    table = {"entries": [], "photos_used": {"folder/photos": "0123456789abcdef"}}
    (study / "folder.json").write_text(json.dumps(table))
    (problem,) = read_run(study).problems
    assert str(old) in problem
    assert [len(row.cells) for row in read_run(study).rows] == [1, 1, 2]


def test_photos_are_found_again_whether_accents_are_composed_or_not(tmp_path, photos):
    labels = labels_of_folder()
    images = [f"test/{CLASSES[label]}/{k}.png" for label in range(3) for k in range(4)]
    images[0] = unicodedata.normalize("NFC", "test/apple/é.png")
    stored = photos / unicodedata.normalize("NFD", images[0])
    (photos / "test" / "apple" / "0.png").rename(stored)
    write_cell(tmp_path / "run", result(labels, labels, settings("gap"), images=images))
    run = read_run(tmp_path / "run")
    assert find_photos(run.rows[0].cells[0], run, photos).test[0].samefile(stored)


@pytest.fixture
def generated(tmp_path, monkeypatch):
    """A run on generated photos of another size than the default, and its one SIFT cell."""
    monkeypatch.setattr(
        "experiments.data.embedded.scenarios.write_scenario",
        lambda *_args, **_options: pytest.fail("a report must not generate photos"),
    )
    run = tmp_path / "run"
    folder = write_photos(run / "embedded" / "store", side=48)
    repeats = SCENARIOS["store"].train_repeats
    stored = result(labels_of_folder(), labels_of_folder(), settings("sift", None))
    stored["settings"] = {
        "dataset": "embedded/store",
        "photos": dataset_digest(load_folder(folder, train_repeats=repeats)),
        "method": "sift",
        "detector": {"name": "sift"},
    }
    write_cell(run, stored)
    return run


def test_generated_photos_are_read_as_they_are_and_never_replaced(generated):
    before = {path: path.stat() for path in (generated / "embedded").rglob("*")}
    run = read_run(generated)
    found = find_photos(run.rows[0].cells[0], run, None)
    assert [path.parent.name for path in found.test] == [CLASSES[i] for i in labels_of_folder()]
    assert "No photos are shown" not in words(render(run))
    assert {path: path.stat() for path in (generated / "embedded").rglob("*")} == before


def test_generated_photos_of_another_size_are_not_shown_as_if_they_were_tested(generated):
    shutil.rmtree(generated / "embedded" / "store")
    write_photos(generated / "embedded" / "store", side=40)
    run = read_run(generated)
    with pytest.raises(PhotosNotFoundError, match=r"generated anew since.*run the study again"):
        find_photos(run.rows[0].cells[0], run, None)


def test_without_photos_the_report_says_how_to_give_them(study):
    page = words(render(read_run(study)))
    assert "No photos are shown: give their folder with --data-root" in page
    assert "No predictions are explained" in page
    assert "Most confused pairs" in page


# Explanations


def test_right_and_wrong_predictions_are_explained(study, photos):
    run = read_run(study)
    cell = run.rows[-1].cells[0]
    explained = explain_photos(cell, find_photos(cell, run, photos), each=2)
    assert [photo.right for photo in explained] == [False, False, True, True]
    wrong, right = explained[0], explained[-1]
    assert len(wrong.pictures) == 3, "heat maps of both classes, and the concepts"
    assert len(right.pictures) == 2
    assert wrong.predicted in wrong.pictures[0].alt
    assert wrong.label in wrong.pictures[1].alt
    assert wrong.pictures[0].uri.startswith("data:image/webp;base64,")


def test_a_photo_that_cannot_be_explained_is_named_and_the_others_are_shown(
    study, photos, monkeypatch, caplog
):
    draw, drawn = explanations.draw_concepts, []

    def fail_once(*arguments, **options):
        drawn.append(arguments)
        if len(drawn) == 1:
            raise RuntimeError("no such glyph")
        return draw(*arguments, **options)

    monkeypatch.setattr(explanations, "draw_concepts", fail_once)
    assert main([str(study), "--data-root", str(photos)]) == 1
    assert "no such glyph" in caplog.messages[-1]
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "It cannot be explained:" in page
    assert page.count('<figure class="explained">') == len(drawn)
    assert len(drawn) > 2


def test_a_data_set_that_cannot_be_shown_does_not_end_the_others(
    two_folders, tmp_path, monkeypatch, caplog
):
    details = html._details

    def fail_for_one(run, dataset, data_root):
        if dataset == run.datasets[0]:
            raise PermissionError(13, "Permission denied")
        return details(run, dataset, data_root)

    monkeypatch.setattr(html, "_details", fail_for_one)
    run = tmp_path / "run"
    assert main([str(run)]) == 1
    assert "Permission denied" in caplog.messages[-1]
    page = words((run / "report.html").read_text(encoding="utf-8"))
    assert "Permission denied" in page
    assert "Most confused pairs" in page


def test_a_report_that_cannot_be_written_is_refused_before_it_is_made(
    study, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(html, "read_run", pytest.fail)
    (tmp_path / "file").touch()
    assert main([str(study), "--output", str(tmp_path / "file" / "page.html")]) == 2
    (line,) = caplog.messages
    assert "file is a file" in line


def test_a_head_that_is_not_lca_and_a_model_that_is_gone_are_said_to_be(study, photos):
    run = read_run(study)
    gap, _, lca = run.rows
    found = find_photos(gap.cells[0], run, photos)
    with pytest.raises(NoExplanationError, match="no LCA"):
        explain_photos(gap.cells[0], found, each=1)
    shutil.rmtree(lca.cells[0].model)
    with pytest.raises(NoExplanationError, match="gone"):
        explain_photos(lca.cells[0], found, each=1)


# The page


def test_page_is_whole_and_stands_alone(study, photos):
    html = write_report(study, photos).read_text(encoding="utf-8")
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


def test_paper_figures_differences_and_reasons_come_from_the_studys_table(study):
    entry = {"dataset": "folder", "accuracies": [], "paper_percent": None, "not_run": None}
    table = {
        "entries": [
            entry | {"method": "lca", "paper_percent": 70.8},
            entry | {"method": "gap", "paper_percent": 58.66},
            entry | {"method": "sift", "title": "SIFT", "not_run": "the <detector> is missing"},
            entry
            | {"method": "lca", "dataset": "dm4vm", "not_run": "no photos", "paper_percent": 99},
            entry | {"method": "gap", "dataset": "dm4vm", "not_run": "no photos"},
        ],
        "differences": [{"dataset": "folder", "in_words": "LCA helped on folder: +2.0 points."}],
    }
    (study / "folder.json").write_text(json.dumps(table))
    html = render(read_run(study))
    page = words(html)
    assert re.search(r"LCA [\d.]+ [\d.]+ to [\d.]+ 2 70\.8", page)
    assert "LCA helped on folder: +2.0 points." in page
    assert "SIFT: the <detector> is missing" in page
    assert "lca not run 99 gap not run -" in page
    assert "all rows: no photos" in page
    assert "paper 70.8 %" in html, "the chart's text alternative has the paper's figure too"


def test_a_study_that_could_run_nothing_shows_the_papers_table(tmp_path):
    entry = {"dataset": "dm4vm", "accuracies": [], "not_run": "no photos"}
    table = {"entries": [entry | {"method": "lca", "title": "LCA", "paper_percent": 100.0}]}
    (tmp_path / "paper.json").write_text(json.dumps(table))
    page = words(render(read_run(tmp_path)))
    assert "LCA not run 100.0" in page
    assert "all rows: no photos" in page


def test_keypoint_matching_alone_makes_a_report(tmp_path):
    labels = labels_of_folder()
    stored = result(labels, labels, settings("sift"))
    for name in ("history", "best_epoch"):
        del stored[name]
    for name in ("seed", "backbone", "weights", "recipe", "precision"):
        del stored["settings"][name]
    write_cell(tmp_path / "run", stored)
    page = words(render(read_run(tmp_path / "run")))
    assert "keypoint matching (SIFT)" in page
    assert "No test photo was taken for another class." in page
    assert "Learning curves" not in page


def test_a_thousand_classes_stay_readable(tmp_path):
    labels = [label for label in range(1000) for _ in range(3)]
    predicted = [(label + 1) % 1000 if k % 7 == 0 else label for k, label in enumerate(labels)]
    names = [f"product number {label}" for label in range(1000)]
    write_cell(tmp_path / "run", result(labels, predicted, settings("gap")) | {"classes": names})
    html = render(read_run(tmp_path / "run"))
    assert len(html) < 5e6
    assert "Only the 20 most confused classes are shown" in words(html)
    assert "The other 988 classes" in words(html)


def test_early_stopping_is_said(tmp_path):
    labels = labels_of_folder()
    write_cell(tmp_path / "run", result(labels, labels, settings("lca", patience=2)))
    page = words(render(read_run(tmp_path / "run")))
    assert "Training stopped after epoch 3 of 12: 2 epochs in a row were no better" in page


# Charts


def svg_of(chart):
    return base64.b64decode(chart.uri.partition(",")[2]).decode()


def test_charts_are_svg_with_their_figures_in_the_text_alternative(study):
    rows = read_run(study).rows
    before = dict(matplotlib.rcParams)
    ladder = ladder_chart(rows, [58.66, None, 70.8])
    loss, accuracy = learning_curves(rows)
    assert dict(matplotlib.rcParams) == before
    for chart in (ladder, loss, accuracy):
        assert ElementTree.fromstring(svg_of(chart)).tag.endswith("svg")
        assert "prefers-color-scheme: dark" in svg_of(chart)
    assert f"LCA {rows[-1].mean:.1f} %" in ladder.alt
    assert "paper 58.7 %" in ladder.alt
    assert "epoch 2 of 3 kept" in accuracy.alt
    assert "global average" in svg_of(ladder)


def test_without_validation_there_is_no_chart_of_its_accuracy(tmp_path):
    stored = result([0, 1], [0, 1], settings("gap"))
    stored["history"] = [{"epoch": 1, "train_loss": 1.0}]
    write_cell(tmp_path / "run", stored)
    assert len(learning_curves(read_run(tmp_path / "run").rows)) == 1


# How to reproduce


@pytest.mark.parametrize(
    ("backbone", "weights"),
    [
        ("mobilenet-v2", "torchvision:mobilenet_v2.IMAGENET1K_V1"),
        ("mobilenet-v2", "torchvision"),  # as earlier versions had it
        ("timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite0.in1k"),
    ],
)
def test_commands_parse_back_to_the_settings_they_were_made_of(tmp_path, backbone, weights):
    augmentation = settings("lca")["recipe"]["augmentation"] | {"crop_scale": [0.5, 0.9]}
    changes = {"epochs": 7, "freeze_batch_norm": False, "augmentation": augmentation}
    for method, seed in (("gap", 3), ("lca", 3), ("lca", 1)):
        stored = result([0, 1], [0, 1], settings(method, seed, "grocery-store/one-shot", **changes))
        stored["settings"] |= {"backbone": backbone, "weights": weights}
        write_cell(tmp_path / "run", stored)
    (command,) = commands(read_run(tmp_path / "run"))
    python, script, *arguments = shlex.split(command)
    assert python == sys.executable
    assert Path(script).samefile(Path(__file__).parents[1] / "experiments" / "run_all.py")
    _, study = parse_study(arguments)
    assert study.datasets == ("grocery-store/one-shot",)
    assert study.methods == ("gap", "lca")
    assert study.seeds == (1, 3)
    assert study.backbone == backbone
    assert study.weights == ()
    assert study.precision == "float32"
    assert (study.recipe.epochs, study.recipe.image_size) == (7, SIZE)
    assert not study.recipe.freeze_batch_norm
    assert study.recipe.augmentation.crop_scale == (0.5, 0.9)
    assert study.recipe.head_lr == Recipe().head_lr


def test_weights_that_were_given_as_a_file_are_told_by_their_digest(tmp_path):
    stored = result([0, 1], [0, 1], settings("lca"))
    stored["settings"] |= {"backbone": "mobilenet-v2-tf"}
    write_cell(tmp_path / "run", stored)
    page = words(render(read_run(tmp_path / "run")))
    assert "--weights FILE" in page
    assert "whose sha256 begins with fedcba9876543210" in page


# The command line


def test_command_line_writes_where_it_is_told(study, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LCA_DATA_ROOT", raising=False)
    output = tmp_path / "elsewhere" / "page.html"
    assert main([str(study), "--data-root", str(photos), "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert "Most confused pairs" in output.read_text(encoding="utf-8")
    assert "No photos are shown" not in output.read_text(encoding="utf-8")


def test_models_of_another_shape_are_no_reason_to_fail(study, photos):
    path = read_run(study).rows[-1].cells[0].path
    described = (write_model(path) / "config.json").read_text()
    (write_model(path, head="gap") / "config.json").write_text(described)
    page = words(render(read_run(study), photos))
    assert "No predictions are explained" in page
    assert "2 missing (lca.weight, lca.bias)" in page


def test_a_model_of_another_head_is_no_reason_to_fail(study, photos):
    path = read_run(study).rows[-1].cells[0].path
    write_model(path, head="gap")
    page = words(render(read_run(study), photos))
    assert "It cannot be explained:" in page
    assert "Most confused pairs" in page
