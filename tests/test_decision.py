"""When a classifier says "unknown": from config.json to rows, pictures and manifests."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch

from experiments.deploy.export_manifest import describe
from experiments.predict import main
from lca_fused import Gallery, load_classifier
from lca_fused.decision import SCORES, Decision
from lca_fused.prediction import predictions_of
from lca_fused.pretrained import PretrainedError
from tests.products import COLOURS, write_photos
from tests.stored_models import build

LOGITS = torch.tensor([[4.0, 1.0, 0.0], [2.0, 1.5, 1.0]])  # sure, and hardly


def decided(decision: Decision, **options):
    classifier = build(**options)
    classifier.description = replace(classifier.description, decision=decision)
    return classifier


@pytest.mark.parametrize("score", SCORES)
def test_what_is_not_above_the_threshold_is_unknown_and_keeps_its_probabilities(score):
    threshold = float(SCORES[score](LOGITS.double())[1])  # of the second photo itself
    decision = Decision(temperature=2.0, score=score, threshold=threshold)
    description = decided(decision).description
    sure, unsure = predictions_of(LOGITS, description, 3)
    assert (sure.accepted, sure.name) == (True, description.classes[0])
    assert (unsure.accepted, unsure.name) == (False, "unknown")
    assert unsure.top[0][0] == description.classes[0]
    assert unsure.probability == pytest.approx(float((LOGITS[1] / 2).softmax(0)[0]))


def test_the_decision_comes_back_from_the_folder_and_its_absence_accepts_all(tmp_path):
    decision = Decision(1.7, "energy", -2.5, precision=0.99, photos=473, errors=1)
    decided(decision).save_pretrained(tmp_path)
    assert load_classifier(tmp_path).description.decision == decision
    config = json.loads((tmp_path / "config.json").read_text())
    del config["decision"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_classifier(tmp_path).description.decision == Decision()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0}, "temperature is 0; expected a number above 0"),
        ({"threshold": "high"}, "threshold is 'high'; expected a number or None"),
        ({"precision": 99}, "precision is 99; expected a number from 0 to 1"),
        ({"score": "odin"}, "score is 'odin'; expected one of max-softmax, energy, max-logit"),
        ({"cutoff": 1}, "expected temperature, score"),
        ([], "expected temperature, score"),
    ],
)
def test_a_decision_that_cannot_be_used_is_refused_in_one_line(tmp_path, values, message):
    build().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"decision": values}))
    with pytest.raises(PretrainedError, match=message):
        load_classifier(tmp_path)


def test_products_that_join_a_gallery_leave_its_threshold_without_the_proof():
    classifier = build()
    first = Gallery(torch.eye(2, classifier.head_hidden_size), torch.arange(2), ["a", "b"])
    proven = Decision(2.0, "max-logit", 21.0, precision=0.95, photos=59)
    classifier.description = replace(classifier.description, decision=proven)
    classifier.set_gallery(first)  # the threshold was of another kind of logits
    assert classifier.description.decision == Decision()
    classifier.description = replace(classifier.description, decision=proven)
    classifier.set_gallery(first.without(["b"]))
    assert classifier.description.decision == Decision(2.0, "max-logit", 21.0)


def test_rows_pictures_and_manifest_carry_it(tmp_path, monkeypatch):
    Figure = pytest.importorskip("matplotlib.figure").Figure
    from experiments.deploy import explanation_images

    titles = []
    monkeypatch.setattr(
        explanation_images, "draw", lambda seen, _: titles.append(seen[0].title) or Figure()
    )
    classifier = decided(Decision(threshold=1.0))  # no probability is above it
    classifier.save_pretrained(tmp_path / "model")
    photos = write_photos(tmp_path / "photos", train=0, test=1) / "test"
    common = [str(tmp_path / "model"), str(photos), "--device", "cpu", "--workers", "0"]
    rows = tmp_path / "rows"
    assert main([*common, "--output", f"{rows}.csv", "--explain", str(tmp_path / "seen")]) == 0
    assert main([*common, "--output", f"{rows}.jsonl", "--format", "jsonl"]) == 0
    with open(f"{rows}.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert (row["name"], row["accepted"]) == ("unknown", "false")
            assert row["class_1"] in COLOURS
    with open(f"{rows}.jsonl") as file:
        for row in map(json.loads, file):
            assert (row["name"], row["accepted"]) == ("unknown", False)
    assert len(titles) == len(COLOURS)
    assert all(title.startswith("unknown, most like ") for title in titles)
    said = describe(classifier, {}, {})["decision"]
    assert said["threshold"] == 1.0
    assert said["accepted"].startswith("max(softmax(logits)) > threshold")
