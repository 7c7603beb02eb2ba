"""The study of a trick's gain against the rate at which the backbone learns."""

import json

import pytest

from experiments.study import backbone_rates
from tests.products import write_photos, write_weights


@pytest.mark.slow
def test_gains_at_each_rate_are_written_and_drawn(tmp_path):
    study = [
        *("folder", "--data-root", str(write_photos(tmp_path / "photos", train=4, test=2))),
        *("--backbone", "embedded", "--weights", str(write_weights(tmp_path / "weights.pt"))),
        *("--output", str(tmp_path / "runs"), "--methods", "gap", "lca", "--seeds", "0"),
        *("--recipe.epochs", "1", "--recipe.image-size", "32", "--workers", "0", "--jobs", "1"),
    ]
    assert backbone_rates.main(["--rates", "0", "0.01", "--", *study]) == 0
    measured = json.loads((tmp_path / "runs" / "folder-rates.json").read_text())
    told = [(g["rate"], g["trick"], g["against"]) for g in measured]
    assert told == [(rate, "LCA", "global average pooling") for rate in (0, 0.01)]
    assert all(gain["low"] <= gain["points"] <= gain["high"] for gain in measured)
    assert (tmp_path / "runs" / "folder-rates.png").stat().st_size > 10_000
    recipes = [
        json.loads(file.read_text())["settings"]["recipe"]
        for file in (tmp_path / "runs" / "cells").rglob("gap-*.json")
    ]
    assert sorted((recipe["freeze"], recipe["backbone_lr"]) for recipe in recipes) == [
        (0, 0.01),
        (5, 0.005),
    ]


def test_a_trick_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match="no gain of 'GeM' was measured"):
        backbone_rates.draw([], "GeM")
