"""ArcFace: the loss by hand, and what is learnt by it as a gallery that products join."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F

from experiments.enroll import main as enroll
from experiments.finetune import main as finetune
from experiments.training.arcface import ArcFaceLoss, Directions
from lca_fused.gallery import Gallery
from lca_fused.pretrained import gallery_of, load_classifier
from tests.products import write_photos, write_weights


def by_hand(cosines, labels, margin, scale):
    """Equation 3 of arXiv 1801.07698, photo by photo."""
    losses = []
    for row, label in zip(cosines, labels, strict=True):
        angle = math.acos(row[label])
        own = math.cos(angle + margin)
        if angle > math.pi - margin:
            own = row[label] - margin * math.sin(margin)
        others = sum(math.exp(scale * c) for j, c in enumerate(row) if j != label)
        losses.append(-math.log(math.exp(scale * own) / (math.exp(scale * own) + others)))
    return sum(losses) / len(losses)


def test_the_loss_is_the_papers_by_hand():
    pytest.importorskip("pytorch_metric_learning")
    cosines = [[0.9, 0.2, -0.3], [0.1, 0.6, 0.7], [0.5, 0.0, -0.99]]  # the last beyond π - margin
    labels = [0, 1, 2]
    logits = 8 * torch.tensor(cosines)
    for margin in (0.0, 0.2, 0.5):
        loss = ArcFaceLoss(margin, scale=8.0)(logits, torch.tensor(labels))
        assert float(loss) == pytest.approx(by_hand(cosines, labels, margin, 8.0), rel=1e-5)
    without = F.cross_entropy(logits, torch.tensor(labels))
    assert float(loss) > float(without)


def test_a_photo_that_lies_on_its_direction_has_a_gradient():
    pytest.importorskip("pytorch_metric_learning")
    directions = Directions(3, 3)
    directions.start_from(Gallery(torch.eye(3), torch.arange(3), "abc"))
    features = (5 * torch.eye(3)).requires_grad_()
    ArcFaceLoss()(directions(features), torch.arange(3)).backward()
    assert features.grad.isfinite().all()
    assert directions.weight.grad.isfinite().all()


def test_directions_have_cosines_in_float32_under_autocast():
    torch.manual_seed(0)
    directions, features = Directions(6, 4), torch.randn(5, 6)
    expected = 30 * F.cosine_similarity(features[:, None], directions.weight[None], dim=2)
    with torch.autocast("cpu", torch.bfloat16):
        logits = directions(features)
    torch.testing.assert_close(logits, expected)


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Of a training on two of three products; plum waits in joining/."""
    monkeypatch.setattr("experiments.finetune.attempt_report", lambda _: False)
    photos, weights = write_photos(tmp_path / "photos"), write_weights(tmp_path / "weights.pt")
    for split in ("train", "test"):
        shutil.move(photos / split / "plum", tmp_path / "joining" / split / "plum")
    return [
        *(str(photos), "--backbone", "embedded", "--weights", str(weights), "--workers", "0"),
        *("--recipe.image-size", "32", "--recipe.batch-size", "6", "--recipe.epochs", "2"),
        # At the usual rates two products become two points, and there is no room for a third.
        *("--recipe.backbone-lr", "0.0005", "--recipe.head-lr", "0.002"),
        *("--precision", "float32", "--device", "cpu", "--output", str(tmp_path / "runs")),
    ]


@pytest.mark.parametrize("method", ["lca-arcface", "gap-arcface"])
def test_what_is_learnt_is_a_gallery_and_a_product_joins_it(arguments, tmp_path, method):
    pytest.importorskip("pytorch_metric_learning")
    assert finetune([*arguments, "--method", method]) == 0
    (file,) = (tmp_path / "runs").glob("cells/folder/photos/*.json")
    found = json.loads(file.read_text())
    losses = [record["train_loss"] for record in found["history"]]
    assert losses[-1] < losses[0]

    (model,) = (tmp_path / "runs").glob("cells/folder/photos/*.model")
    classifier = load_classifier(model)
    gallery = gallery_of(classifier)
    assert gallery.counts() == {"apple": 1, "lime": 1}
    photo = torch.randn(2, 3, 32, 32)
    features = classifier.forward_head(classifier.forward_features(photo), pre_logits=True)
    cosines = F.cosine_similarity(features[:, None], gallery.embeddings[None], dim=2)
    torch.testing.assert_close(classifier(photo), gallery.scale * cosines)
    tested = sorted((tmp_path / "photos" / "test").rglob("*.png"))
    named = [prediction.name for prediction in classifier.predict(tested)]
    assert named == [found["classes"][top5[0]] for top5 in found["top5"]]

    assert enroll([str(model), str(tmp_path / "joining" / "train"), "--device", "cpu"]) == 0
    tested += sorted((tmp_path / "joining" / "test").rglob("*.png"))
    named = [prediction.name for prediction in load_classifier(model).predict(tested)]
    right = [name == path.parent.name for name, path in zip(named, tested, strict=True)]
    assert len(right) == 12
    assert sum(right) >= 11


def test_without_the_package_training_is_refused_in_a_sentence(
    arguments, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr("experiments.training.arcface.missing_packages", lambda names: names)
    monkeypatch.setattr("experiments.training.photos.Photos.load", pytest.fail)
    assert finetune([*arguments, "--method", "lca-arcface"]) == 1
    assert 'pip install "lca-fused[metric]"' in caplog.text
