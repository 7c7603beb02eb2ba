"""`Classifier.predict`: photos of any kind in, names and probabilities out."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from lca_fused import LCA, attach_lca
from lca_fused.photos.reading import ImageError
from lca_fused.prediction import Prediction, PredictionError, Prepared

CLASSES = ["cola", "tea", "water"]


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    classifier = attach_lca(timm.create_model("test_resnet"), 3)
    classifier.describe(CLASSES)
    return classifier


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_every_kind_of_photo_gives_the_same(classifier, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    array = np.array(photo)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    kinds = [tmp_path / "photo.png", str(tmp_path / "photo.png"), photo, array, array / 255]
    kinds += [tensor, tensor / 255, (tensor / 255).double()]
    first, *others = [classifier.predict(kind) for kind in kinds]
    assert isinstance(first, Prediction)
    assert all(other == first for other in others)


def test_a_prediction_is_the_softmax_of_the_logits(classifier, photo):
    classifier.eval()
    with torch.no_grad():
        logits = classifier(Prepared(classifier.description.preprocessing)(photo)[None])[0]
    expected = logits.double().softmax(0)
    prediction = classifier.predict(photo)
    assert prediction.indices == tuple(expected.argsort(descending=True).tolist())
    assert [name for name, _ in prediction.top] == [CLASSES[i] for i in prediction.indices]
    assert [p for _, p in prediction.top] == pytest.approx(expected.sort(descending=True)[0])
    assert (prediction.name, prediction.probability) == prediction.top[0]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_many_photos_give_a_list_in_their_order(classifier, photo, batch_size):
    others = [photo.rotate(90 * turns, expand=True) for turns in range(5)]
    predictions = classifier.predict(others, batch_size=batch_size)
    for given, prediction in zip(others, predictions, strict=True):
        alone = classifier.predict(given)
        assert prediction.indices == alone.indices
        assert prediction.probability == pytest.approx(alone.probability, rel=1e-5)
    assert classifier.predict([]) == []


def test_a_batch_of_arrays_or_tensors_is_many(classifier, photo):
    array = np.stack([np.array(photo)] * 2)
    assert len(classifier.predict(array)) == 2
    assert len(classifier.predict(torch.from_numpy(array).permute(0, 3, 1, 2))) == 2


def test_top_k_is_no_more_than_the_classes(classifier, photo):
    assert len(classifier.predict(photo, top_k=2).top) == 2
    assert len(classifier.predict(photo, top_k=9).top) == 3


def test_grey_photos_and_transparency_are_read_as_files_are(classifier, photo):
    grey = photo.convert("L")
    array = np.array(grey)
    tensor = torch.from_numpy(array)[None]
    for kind in (array, array[..., None], tensor, tensor / 255):
        assert classifier.predict(kind) == classifier.predict(grey)
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    white = Image.new("RGB", photo.size, "white")
    assert classifier.predict(clear) == classifier.predict(white)
    ones = torch.ones(3, *photo.size[::-1], dtype=torch.bfloat16, requires_grad=True)
    assert classifier.predict(ones) == classifier.predict(white)


def test_the_mode_and_the_gradients_of_the_classifier_stay(classifier, photo):
    classifier.train()
    statistics = [buffer.clone() for buffer in classifier.buffers()]
    classifier.predict(photo)
    assert classifier.training
    assert all(map(torch.equal, statistics, classifier.buffers()))
    assert all(parameter.grad is None for parameter in classifier.parameters())


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "photos are a int; expected a path"),
        ([3], TypeError, "a photo is a int; expected a path"),
        (np.zeros((4, 4, 2), np.uint8), ValueError, r"shape \(4, 4, 2\)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), ValueError, r"\(3, H, W\) of a tensor"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"shape \(0, 4, 3\)"),
        (
            np.full((4, 4, 3), -1.0),
            ValueError,
            r"lies in -1\.\.-1; expected 0\.\.1",
        ),
        (np.full((4, 4, 3), 2.0), ValueError, r"lies in 2\.\.2; expected 0\.\.1, not normalised"),
        (np.zeros((4, 4, 3), np.int32), ValueError, "dtype int32; expected uint8"),
        (np.full((4, 4, 3), np.nan), ValueError, "expected 0..1"),
        ("missing.jpg", ImageError, "missing.jpg: no such file"),
        (Image.new("RGB", (1000, 10)), ImageError, "too narrow"),
    ],
)
def test_what_is_no_photo_is_refused(classifier, given, error, message):
    with pytest.raises(error, match=message):
        classifier.predict(given)


@pytest.mark.parametrize("option", ["top_k", "batch_size"])
def test_options_below_one_are_refused(classifier, photo, option):
    with pytest.raises(ValueError, match=f"{option} is 0; expected at least 1"):
        classifier.predict(photo, **{option: 0})


def test_a_classifier_without_a_description_says_what_it_lacks(photo):
    classifier = attach_lca(timm.create_model("test_resnet"), 3)
    with pytest.raises(ValueError, match=r"call classifier.describe\(CLASSES"):
        classifier.predict(photo)


def test_an_output_that_is_not_finite_is_no_prediction(classifier, photo):
    nn.init.constant_(classifier.classifier.bias, float("inf"))
    with pytest.raises(PredictionError, match="not finite"):
        classifier.predict(photo)


def test_a_new_classifier_layer_needs_its_own_names(classifier, photo):
    classifier.reset_classifier(2)
    with pytest.raises(ValueError, match="describe"):
        classifier.predict(photo)


def test_lca_follows_a_timm_model_without_its_pooling():
    backbone = timm.create_model("test_resnet", num_classes=0, global_pool="")

    head = LCA(backbone.num_features)
    network = nn.Sequential(backbone, head, nn.Linear(backbone.num_features, 3))
    assert network(torch.randn(2, 3, 96, 96)).shape == (2, 3)
