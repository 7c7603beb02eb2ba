"""`evaluate.py`: calibration, thresholds that hold what they promise, and the command itself."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from experiments.calibration import expected_calibration_error, fit_temperature, reliability
from experiments.checksum import content_digests
from experiments.deploy.deciding import in_words
from experiments.deploy.halves import Half
from experiments.deploy.halves import in_words as in_words_of_draws
from experiments.evaluate import main
from experiments.predict import main as predict
from experiments.selective import auroc, fewest_photos, let_through, prove
from lca_fused import load_classifier
from lca_fused.decision import Decision
from lca_fused.pretrained import PretrainedError, save_decision
from tests.products import COLOURS, write_photos
from tests.stored_models import write_model
from tests.stored_runs import result, settings

FAST = ["--device", "cpu", "--workers", "0"]


@pytest.mark.parametrize(("precision", "photos", "power"), [(0.95, 300, 3), (0.99, 400, 9)])
def test_a_threshold_has_the_precision_it_was_asked_for_in_95_of_100_draws(
    precision, photos, power
):
    """The surer, the more often right: 1 - (1 - score)^power / 2."""
    rng, given, broken = np.random.default_rng(0), 0, 0
    for _ in range(300):
        scores = rng.random(photos)
        proof = prove(scores, rng.random(photos) < 1 - 0.5 * (1 - scores) ** power, precision)
        of_new_photos = 1 - 0.5 * (1 - (proof.threshold or 0)) ** power / (power + 1)
        given += proof.holds
        broken += proof.holds and of_new_photos < precision
    assert given > 60  # it does not hold by never giving one
    assert broken <= 28  # as many as 300 draws with 5 % have but once in a thousand times


def test_where_precision_is_on_the_edge_it_is_proven_in_5_of_100_draws_at_most():
    rng = np.random.default_rng(0)
    wrongly = sum(
        prove(rng.random(700), rng.random(700) < 0.95 - 1e-9, 0.95).holds for _ in range(300)
    )
    assert wrongly <= 28


@pytest.mark.parametrize(
    ("precision", "errors", "photos"), [(0.99, 0, 299), (0.99, 1, 473), (0.95, 0, 59)]
)
def test_it_is_known_how_many_photos_a_precision_takes(precision, errors, photos):
    assert fewest_photos(precision, errors) == photos
    scores, right = np.linspace(1, 0, photos), np.ones(photos, bool)
    proof = prove(scores, right, precision)
    assert (proof.holds, proof.threshold, proof.photos) == (True, None, photos), "all of them"
    few = fewest_photos(precision) - 1
    assert not prove(scores[:few], right[:few], precision).holds


def test_what_the_surest_photos_prove_the_others_do_not_take_away():
    scores = np.linspace(1, 0, 120)  # the sequence starts at 72 photos, and at all of them
    proof = prove(scores, np.arange(120) < 80, 0.95)
    assert (proof.threshold, proof.photos, proof.errors) == (scores[80], 80, 0)
    assert (proof.best.photos, proof.best.errors) == (72, 0)
    assert proof.best.precision == pytest.approx(0.025 ** (1 / 72))
    nothing = prove(scores, np.arange(120) % 10 > 0, 0.95)
    assert (nothing.threshold, nothing.photos, nothing.errors) == (None, 0, 0)
    assert prove(scores, np.zeros(120, bool), 0.95).best.precision == 0


@pytest.mark.parametrize("precision", [0.0, 1.0])
def test_a_precision_that_cannot_be_proven_is_refused(precision):
    with pytest.raises(ValueError, match=f"the precision is {precision}; expected a number"):
        prove(np.ones(9), np.ones(9, bool), precision)


def test_too_few_photos_are_said_to_be_too_few():
    proof = prove(np.linspace(1, 0, 100), np.ones(100, bool), 0.99)
    (line,) = in_words(proof, 100)
    assert "it takes 299 accepted without an error" in line
    assert "100 without an error prove 97 %" in line
    (line,) = in_words(prove(np.linspace(1, 0, 298), np.ones(298, bool), 0.99), 298)
    assert "298 without an error prove 98.9 %" in line  # 98.9998, which is not what was asked for
    nearly = prove(np.linspace(1, 0, 118), np.arange(118) < 71, 0.95)
    (line,) = in_words(nearly, 118)
    assert "it takes 72 accepted without an error" in line  # and not 59: it may choose of more
    assert prove(np.linspace(1, 0, 118), np.arange(118) < 72, 0.95).holds
    many = prove(np.linspace(1, 0, 300), np.arange(300) % 10 > 0, 0.99)
    (line,) = in_words(many, 300)
    assert "of the 299 surest of 300 validation photos 30 are wrong, which proves 86.6 %" in line


def test_photos_of_one_score_are_accepted_together_or_not_at_all():
    scores = np.repeat([2.0, 1.0], [100, 100])
    proof = prove(scores, np.arange(200) < 100, 0.95)
    assert (proof.threshold, proof.photos, proof.errors) == (1.0, 100, 0)


def test_temperature_lowers_the_calibration_error_of_other_photos():
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((2000, 10))
    labels = np.array([rng.choice(10, p=p) for p in softmax(logits, axis=1)])
    overconfident = 3 * logits
    temperature = fit_temperature(overconfident[:1000], labels[:1000])
    assert temperature == pytest.approx(3, rel=0.1)
    held_out = overconfident[1000:], labels[1000:]
    before, after = (
        expected_calibration_error(reliability(held_out[0] / t, held_out[1]))
        for t in (1, temperature)
    )
    assert after < before / 2


def test_photos_that_are_all_recognised_tell_of_no_temperature():
    assert fit_temperature(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 1])) == 1


def test_rejection_is_measured_from_the_ranks():
    known, unknown = np.arange(1, 23.0), np.array([0.0, 1.5, 2.0, 30.0])
    assert auroc(known, unknown) == pytest.approx((22 + 21 + 20.5 + 0) / 88)
    assert let_through(known, unknown) == 0.5  # 21 of 22 are from 2 on


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "lca-seed0.model")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Photos of known products, and of one that the classifier does not know."""
    root = write_photos(tmp_path / "photos", train=0, test=8)
    shutil.copytree(root / "test" / "plum", root / "test" / "cherry")
    return root


def evaluate(*arguments: object, status: int) -> None:
    assert main([*map(str, arguments), *FAST]) == status


def test_what_is_stored_is_what_predict_goes_by_and_nothing_else_changes(
    model, photos, tmp_path, caplog
):
    own = shutil.copytree(model, tmp_path / "own.model")
    output = tmp_path / "evaluation"
    arguments = (own, photos, "--output", output, "--validation", photos / "test")
    # An untrained network is right of one photo in three: what six photos prove is less.
    evaluate(*arguments, "--precision", 0.05, "--store", status=0)
    decision = load_classifier(own).description.decision
    assert decision.temperature != 1
    assert decision.precision == 0.05
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (model, own))
    assert before | {"decision": decision.to_dict()} == after
    assert (own / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert {path.name for path in own.iterdir()} == {path.name for path in model.iterdir()}

    kept = replace(decision, threshold=0.4)
    save_decision(kept, after["classes"], own)
    evaluate(*arguments, "--precision", 0.99, "--store", status=1)
    assert "keeps the threshold that it has" in caplog.text
    assert load_classifier(own).description.decision == kept

    evaluate(own, photos, "--output", output, "--stored", status=0)
    values = json.loads((output / "evaluation.json").read_text())
    assert values["accuracy"]["of"] == 8 * len(COLOURS)
    assert values["unknown_products"] == ["cherry"]
    assert predict([str(own), str(photos), "--output", str(tmp_path / "rows.csv"), *FAST]) == 0
    with (tmp_path / "rows.csv").open() as file:
        accepted = [row["accepted"] == "true" for row in csv.DictReader(file)]
    said = values["accepted"]
    assert sum(accepted) == said["coverage"]["count"] + said["unknown_let_through"]["count"]
    page = (output / "evaluation.html").read_text()
    assert "Unknown products" in page
    assert "data:image/svg" in page


def test_half_of_the_photos_is_kept_for_the_report_and_nothing_stored_unasked(
    model, photos, tmp_path, caplog
):
    caplog.set_level("INFO")
    config = (model / "config.json").read_bytes()
    evaluate(model, photos / "test", "--output", tmp_path / "out", status=1)
    assert "there are no validation photos" in caplog.text
    assert "of 16 of these photos, drawn by seed 0" in caplog.text
    assert "1 folders are no product of the classifier" in caplog.text
    assert "precision of 99 % cannot be proven with 16 validation photos" in caplog.text
    assert (model / "config.json").read_bytes() == config


def test_validation_photos_are_those_in_the_folder_of_that_name(model, photos, tmp_path, caplog):
    caplog.set_level("INFO")
    shutil.copytree(photos / "test" / "lime", photos / "validation" / "lime")
    evaluate(model, photos, "--output", tmp_path / "out", status=1)
    assert f"of the 8 photos in {photos / 'validation'}" in caplog.text


def test_photos_that_were_trained_on_or_set_the_threshold_are_told(model, photos, tmp_path, caplog):
    caplog.set_level("INFO")
    own = shutil.copytree(model, tmp_path / "own.model")
    limes = sorted((photos / "test" / "lime").iterdir())
    trained = {"trained_contents": content_digests(limes[:3])}
    stored = result([0], [0], settings("lca")) | trained
    own.with_suffix(".json").write_text(json.dumps(stored))
    output = ("--output", tmp_path / "out")
    evaluate(own, photos, *output, "--validation", photos / "test", status=1)
    assert f"trained on 3 of the 32 photos in {photos / 'test'}, which are left out" in caplog.text
    assert "of the 29 in" in caplog.text
    assert "29 of them are among the validation photos too" in caplog.text
    for path in limes[3:]:
        path.unlink()
    for name in ("apple", "plum", "cherry"):
        shutil.rmtree(photos / "test" / name)
    evaluate(own, photos, *output, status=2)
    assert "was trained on all 3 photos" in caplog.text


@pytest.mark.slow
def test_photos_as_large_as_training_reads_are_read(model, tmp_path):
    folder = tmp_path / "photos" / "lime"
    folder.mkdir(parents=True)
    for number, side in enumerate((10_100, 48)):  # 102 megapixels
        Image.new("1", (side, side), 1).save(folder / f"{number}.png")
    evaluate(model, tmp_path / "photos", "--output", tmp_path / "out", status=1)  # not proven
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["accuracy"]["of"] == 1


def test_what_cannot_be_done_is_one_sentence(model, photos, tmp_path, caplog):
    evaluate(model, photos, "--output", tmp_path, "--validation", tmp_path / "gone", status=2)
    assert "gone is not there; expected a folder with a folder of photos" in caplog.text
    evaluate(model, photos, "--output", tmp_path, "--stored", status=2)
    assert f"{model} has no temperature and threshold stored" in caplog.text
    for arguments in (
        ["--precision", "99"],
        ["--store", "--stored"],
        ["--stored", "--precision", "0.9"],  # which judges what is stored, whatever is asked
        ["--workers", "-1"],
    ):
        with pytest.raises(SystemExit):  # by the parser of the command line
            main([str(model), str(photos), *arguments])


def test_halves_are_drawn_as_often_as_asked(model, photos, tmp_path, caplog):
    caplog.set_level("INFO")
    evaluate(model, photos, "--output", tmp_path / "out", "--draws", 20, status=1)
    assert "halves drawn 20 times: the temperature of one lowered" in caplog.text
    assert (
        "a precision of 99 % was proven on one half in 0 of 20, and the other half had it, or "
        "no threshold or photo to judge, in 20" in caplog.text
    )
    (tmp_path / "few" / "lime").mkdir(parents=True)
    shutil.copy(next((photos / "test" / "lime").iterdir()), tmp_path / "few" / "lime")
    few = (model, tmp_path / "few", "--output", tmp_path / "out", "--draws", 1)
    evaluate(*few, "--validation", photos / "test", status=2)
    assert "of 1 photos a half drawn by seed 0 has none of a known product" in caplog.text


def test_the_sentences_of_many_draws_count_what_held():
    half = Half(error_before=0.2, error_after=0.1, proven=True, precision=0.9, coverage=0.5)
    drawn = [half, replace(half, precision=0.8), replace(half, error_after=0.3, proven=False)]
    assert in_words_of_draws(drawn, 0.9) == [
        "halves drawn 3 times: the temperature of one lowered the calibration error of the other "
        "in 2, on average from 0.2000 to 0.1667",
        "a precision of 90 % was proven on one half in 2 of 3, and the other half had it, or "
        "no threshold or photo to judge, in 2; where proven, 50 % of known products' photos were "
        "accepted, and 85.0 % of all accepted were right, on average",
    ]


def test_folders_of_other_names_are_refused(model, photos, tmp_path, caplog):
    for name in COLOURS:
        shutil.rmtree(photos / "test" / name)
    evaluate(model, photos, "--output", tmp_path / "out", status=2)
    assert "is a product of the classifier (apple, lime, plum, ...), but cherry" in caplog.text


def test_a_classifier_that_cannot_be_written_stays_as_it_was(model, tmp_path, monkeypatch):
    def cut_short(*_):
        raise OSError("killed")

    own = shutil.copytree(model, tmp_path / "own.model")
    monkeypatch.setattr(os, "replace", cut_short)
    with pytest.raises(OSError, match="killed"):
        save_decision(Decision(2.0), sorted(COLOURS), own)
    monkeypatch.undo()
    assert {path.name for path in own.iterdir()} == {path.name for path in model.iterdir()}
    assert load_classifier(own).description.decision == Decision()
    with pytest.raises(PretrainedError, match="has other classes than the threshold is of"):
        save_decision(Decision(2.0), ["apple"], own)
