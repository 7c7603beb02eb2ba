"""SuperPoint against its equations written out here, and every way its weights may come."""

from __future__ import annotations

import importlib
import logging
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from experiments.data.dataset import ProductDataset
from experiments.matching import superpoint, superpoint_network, superpoint_weights
from experiments.matching.cache import cache_key
from experiments.matching.classifier import KeypointClassifier
from experiments.matching.detectors import DETECTORS, make_detector
from experiments.matching.evaluate import evaluate_matching
from experiments.matching.keypoints import Keypoints
from experiments.matching.matcher import count_inliers, match
from experiments.matching.sift import SiftDetector
from experiments.matching.superpoint import SuperPointDetector
from experiments.matching.superpoint_network import LAYOUTS, load_network
from experiments.networks.weights import WeightsError, WeightsNotGivenError
from tests.test_matching import drawn, product

ALL = 100_000  # keypoints: no cap
BORDER = 4
# (in, out, kernel) of the paper's layers: the encoder's eight, then two a decoder.
SHAPES = [(1, 64, 3), (64, 64, 3), (64, 64, 3), (64, 64, 3), (64, 128, 3), (128, 128, 3)]
SHAPES += [(128, 128, 3), (128, 128, 3), (128, 256, 3), (256, 65, 1), (128, 256, 3), (256, 256, 1)]
MAGIC_LEAP = [f"conv{block}{half}" for block in "1234PD" for half in "ab"]
RETRAINED = [f"backbone.{block}.{half}" for block in range(4) for half in range(2)]
RETRAINED += ["detector.0", "detector.1", "descriptor.0", "descriptor.1"]
NAMES = {"Magic Leap": MAGIC_LEAP, "retrained": RETRAINED}


@pytest.fixture(autouse=True)
def _transformers() -> None:
    pytest.importorskip("transformers")


def random_state(layout: str, seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep the size of activations from layer to layer."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    state = {}
    for name, (channels, out, kernel) in zip(NAMES[layout], SHAPES, strict=True):
        convolution = f"{name}.conv" if layout == "retrained" else name
        gain = (2 / (channels * kernel**2)) ** 0.5
        state[f"{convolution}.weight"] = normal(out, channels, kernel, kernel) * gain
        state[f"{convolution}.bias"] = normal(out) * 0.1
        if layout == "retrained":
            state[f"{name}.bn.weight"] = 1 + 0.5 * normal(out)
            state[f"{name}.bn.bias"] = 0.1 * normal(out)
            state[f"{name}.bn.running_mean"] = 0.1 * normal(out)
            state[f"{name}.bn.running_var"] = 0.5 + normal(out) ** 2
    return state


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., Path]:
    """Write a state dict, of a layout or the given one, and return the file."""

    def write(layout: str = "Magic Leap", seed: int = 0, state: object = None) -> Path:
        file = tmp_path / f"{layout}-{seed}.pth"
        torch.save(random_state(layout, seed) if state is None else state, file)
        return file

    return write


def grey(image: np.ndarray) -> np.ndarray:
    """Luma of ITU-R BT.601 in whole numbers, as (H, W) float64 in 0..1."""
    return np.floor(image.astype(np.float64) @ (0.299, 0.587, 0.114) + 0.5) / 255


# The paper's equations


def paper_layer(state: dict[str, Tensor], name: str, x: Tensor, activation: bool = True) -> Tensor:
    if f"{name}.weight" in state:
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding="same")
        return x.relu() if activation else x
    x = F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"], padding="same")
    x = x.relu() if activation else x
    scale, shift = state[f"{name}.bn.weight"], state[f"{name}.bn.bias"]
    mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
    per_channel = (1, -1, 1, 1)
    x = (x - mean.view(per_channel)) / (variance.view(per_channel) + 1e-3).sqrt()
    return x * scale.view(per_channel) + shift.view(per_channel)


def paper_maps(state: dict[str, Tensor], names: list[str], image: np.ndarray) -> tuple[Tensor, ...]:
    """Return the (8h, 8w) probabilities of a keypoint and the (256, h, w) descriptors."""
    state = {key: value.double() for key, value in state.items()}
    x = torch.from_numpy(grey(image))[None, None]
    for i in range(8):
        x = paper_layer(state, names[i], x)
        if i in (1, 3, 5):
            x = F.max_pool2d(x, 2)
    logits = paper_layer(state, names[9], paper_layer(state, names[8], x), activation=False)
    dense = paper_layer(state, names[11], paper_layer(state, names[10], x), activation=False)
    without_dustbin = logits.softmax(dim=1)[:, :64]
    return F.pixel_shuffle(without_dustbin, 8)[0, 0], F.normalize(dense, dim=1)[0]


def suppressed(heat: np.ndarray, radius: int) -> np.ndarray:
    """Maxima of their window; twice more, maxima of what lies in no window of one found."""

    def window_maximum(values: np.ndarray) -> np.ndarray:
        return ndimage.maximum_filter(values, 2 * radius + 1, mode="constant", cval=-np.inf)

    maxima = heat == window_maximum(heat)
    for _ in range(2):
        covered = window_maximum(maxima.astype(float)) > 0
        rest = np.where(covered, 0, heat)
        maxima |= (rest == window_maximum(rest)) & ~covered
    return maxima


def paper_keypoints(
    state: dict[str, Tensor], layout: str, image: np.ndarray, threshold: float, radius: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (K, 2) points (x, y), (K,) probabilities and (K, 256) descriptors."""
    heat, dense = (m.numpy() for m in paper_maps(state, NAMES[layout], image))
    kept = suppressed(heat, radius) & (heat > threshold)
    inside = np.zeros_like(kept)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    y, x = np.nonzero(kept & inside)
    points = np.stack([x, y], axis=1)
    cells = np.array(dense.shape[:0:-1])
    if layout == "retrained":  # centres of pixels on centres of cells
        at = (points + 0.5) / 8 - 0.5
    else:  # Magic Leap's: corner cells on the outermost points it considers
        at = (points - 3.5) / (8 * cells - 4.5) * (cells - 1)
    sampled = np.array([ndimage.map_coordinates(m, at.T[::-1], order=1) for m in dense])
    return points, heat[y, x], (sampled / np.linalg.norm(sampled, axis=0)).T


@pytest.mark.slow
@pytest.mark.parametrize("layout", NAMES)
@pytest.mark.parametrize("radius", [2, 4])
def test_keypoints_are_those_of_the_papers_equations(weights, layout, radius):
    image = product(1)[:173, :204]  # neither side a multiple of 8
    state = random_state(layout)
    points, scores, descriptors = paper_keypoints(state, layout, image, 0.02, radius)
    detector = SuperPointDetector(
        weights(layout), max_keypoints=ALL, threshold=0.02, nms_radius=radius
    )
    found = detector.detect(image)
    assert len(points) > 100
    assert found.size == (204, 173)

    expected = {tuple(point): i for i, point in enumerate(points.tolist())}
    pairs = [
        (i, expected[tuple(point)])
        for i, point in enumerate(found.points.astype(int).tolist())
        if tuple(point) in expected
    ]
    # Rounding may decide which of two equal maxima survives, or what is above the threshold.
    assert len(pairs) >= 0.995 * max(len(points), len(found))
    ours, theirs = np.array(pairs).T
    np.testing.assert_allclose(found.descriptors[ours], descriptors[theirs], atol=2e-4)
    assert (np.diff(scores[theirs]) < 1e-5).all()  # the strongest first


def test_transformers_names_are_the_papers_in_order(weights):
    network = load_network(weights(), threshold=0.005, nms_radius=4)
    names = dict.fromkeys(key.rsplit(".", 1)[0] for key in network.state_dict())
    assert list(names) == list(LAYOUTS["transformers"].layers)
    assert list(LAYOUTS["Magic Leap"].layers) == MAGIC_LEAP
    assert list(LAYOUTS["retrained"].layers) == RETRAINED


# Detection


@pytest.fixture
def detector(weights) -> SuperPointDetector:
    return SuperPointDetector(weights("retrained"))


def test_the_cap_keeps_the_strongest(weights):
    few, many = (
        SuperPointDetector(weights(), max_keypoints=n).detect(product(0)) for n in (40, ALL)
    )
    assert len(few) == 40 < len(many)
    np.testing.assert_array_equal(few.points, many.points[:40])
    np.testing.assert_array_equal(few.descriptors, many.descriptors[:40])


def assert_close(found: Keypoints, expected: Keypoints) -> None:
    """Equal up to rounding, which may swap two keypoints of all but equal strength."""
    assert found.size == expected.size
    common = set(map(tuple, found.points)) & set(map(tuple, expected.points))
    assert len(common) >= 0.99 * max(len(found), len(expected))
    by_place = dict(zip(map(tuple, expected.points), expected.descriptors, strict=True))
    for point, descriptor in zip(map(tuple, found.points), found.descriptors, strict=True):
        if point in common:
            np.testing.assert_allclose(descriptor, by_place[point], atol=1e-4)


def test_a_batch_of_any_sizes_is_as_its_photos_one_by_one(weights):
    photos = [product(0), product(1)[:100], product(2), product(3)[:, :96], product(4)[:100]]
    detector = SuperPointDetector(weights(), batch_size=2)
    for found, photo in zip(detector.detect_batch(photos), photos, strict=True):
        assert_close(found, detector.detect(photo))
    assert detector.detect_batch([]) == []


def test_the_same_photo_has_the_same_keypoints(weights):
    first, second = (SuperPointDetector(weights()).detect(product(0)) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.descriptors, second.descriptors)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (8, 8), (9, 300)])
def test_a_photo_too_small_for_a_keypoint_has_none(detector, shape):
    found = detector.detect(np.zeros((*shape, 3), np.uint8))
    assert found.points.shape == (0, 2)
    assert found.descriptors.shape == (0, 256)
    assert found.size == shape[::-1]


def test_a_photo_without_keypoints_in_a_batch_with_others(weights):
    detector = SuperPointDetector(weights(), threshold=0.2)
    flat = np.full_like(product(0), 128)
    none, some = detector.detect_batch([flat, product(0)])
    assert len(none) == 0 < len(some)
    assert len(detector.detect(flat)) == 0


def test_keypoints_without_a_descriptor_are_dropped(weights):
    state = {
        key: value * (not key.endswith("bias")) for key, value in random_state("Magic Leap").items()
    }
    black = np.zeros((64, 64, 3), np.uint8)  # and no bias: every activation is zero
    assert len(SuperPointDetector(weights(state=state)).detect(black)) == 0


@pytest.mark.parametrize("unit", ["pixels", "fractions"])
def test_positions_are_pixels_whatever_transformers_gives(weights, monkeypatch, unit):
    points = np.float32([[[4, 5], [37, 195], [203, 8]], [[100, 101], [0, 0], [0, 0]]])
    given = points / np.float32([213, 207]) if unit == "fractions" else points
    answer = SimpleNamespace(
        keypoints=torch.from_numpy(given),
        scores=torch.tensor([[0.1, 0.3, 0.2], [0.5, 0.0, 0.0]]),
        descriptors=F.normalize(torch.ones(2, 3, 256), dim=2),
        mask=torch.tensor([[1, 1, 1], [1, 0, 0]], dtype=torch.int32),
    )
    detector = SuperPointDetector(weights())
    detector.__dict__["_network"] = lambda _: answer
    first, second = detector.detect_batch([np.zeros((207, 213, 3), np.uint8)] * 2)
    assert first.points.tolist() == [[37, 195], [203, 8], [4, 5]]
    assert second.points.tolist() == [[100, 101]]


def test_arguments_that_make_no_sense_are_refused(weights, detector):
    file = weights()
    for wrong in ({"max_keypoints": 0}, {"batch_size": 0}, {"threshold": 1.0}, {"nms_radius": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SuperPointDetector(file, **wrong)
    with pytest.raises(ValueError, match="uint8 RGB"):
        detector.detect(np.zeros((20, 20), np.uint8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_what_the_cpu_finds(weights):
    photos = [product(seed) for seed in range(3)]
    on_cpu = SuperPointDetector(weights("retrained")).detect_batch(photos)
    on_gpu = SuperPointDetector(weights("retrained"), device="cuda")
    for expected, found, again in zip(
        on_cpu, on_gpu.detect_batch(photos), on_gpu.detect_batch(photos), strict=True
    ):
        assert_close(found, expected)
        np.testing.assert_array_equal(found.descriptors, again.descriptors)


# Matching: random weights know nothing, but they see a shifted photo as they see the photo


def crop(seed: int, x: int, y: int, side: int = 240) -> np.ndarray:
    return product(seed, 320)[y : y + side, x : x + side]


def test_a_photo_matches_itself(detector):
    found = detector.detect(product(0))
    pairs = match(found, found, ratio=1.0, max_distance=0.7)
    assert pairs.tolist() == [[i, i] for i in range(len(found))]
    assert count_inliers(found, found, pairs) == len(found) == 300


@pytest.mark.parametrize(("dx", "dy"), [(16, 24), (0, 40), (8, 8)])
def test_matches_of_a_shifted_photo_follow_the_shift(weights, dx, dy):
    detector = SuperPointDetector(weights("retrained"), max_keypoints=ALL)
    here, there = detector.detect_batch([crop(3, 0, 0), crop(3, dx, dy)])
    # Away from the borders, further than the network sees, nothing but the place differs.
    inner = ((here.points >= (48 + dx, 48 + dy)) & (here.points < 240 - 48)).all(axis=1)
    pairs = match(here, there, ratio=1.0, max_distance=0.1)
    pairs = pairs[inner[pairs[:, 0]]]
    moved = here.points[pairs[:, 0]] - there.points[pairs[:, 1]]
    assert len(pairs) >= 0.98 * inner.sum() > 100
    assert (moved == (dx, dy)).all(axis=1).mean() >= 0.98
    assert count_inliers(here, there, pairs) >= 0.98 * len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("layout", NAMES)
def test_the_right_product_among_four_is_found_after_a_shift(weights, layout):
    detector = SuperPointDetector(weights(layout))
    classifier = KeypointClassifier(detector, image_side=240, ratio=1.0, max_distance=0.7)
    classifier.fit([crop(seed, 0, 0) for seed in range(4)], range(4))
    for label in range(4):
        scores = classifier.scores(crop(label, 16, 8))
        assert scores.argmax() == label
        assert scores[label] > 2 * np.delete(scores, label).max()


# Weights


def test_every_file_of_the_same_weights_gives_the_same_keypoints(weights, tmp_path):
    file = weights()
    network = load_network(file, threshold=0.005, nms_radius=4)
    network.save_pretrained(tmp_path / "folder")
    plain = tmp_path / "transformers.pth"
    torch.save(OrderedDict(network.state_dict()), plain)
    expected = SuperPointDetector(file).detect(product(0))
    for other in (tmp_path / "folder", tmp_path / "folder" / "model.safetensors", plain):
        found = SuperPointDetector(other).detect(product(0))
        np.testing.assert_array_equal(found.points, expected.points)
        np.testing.assert_array_equal(found.descriptors, expected.descriptors)


def test_wrapped_weights_are_those_in_it(weights):
    plain = random_state("Magic Leap")
    wrapped = {"model_state_dict": {f"module.{key}": value for key, value in plain.items()}}
    found = [
        SuperPointDetector(weights(state=state)).detect(product(0)) for state in (plain, wrapped)
    ]
    np.testing.assert_array_equal(found[0].descriptors, found[1].descriptors)


def test_weights_in_the_hubs_cache_are_taken_from_there(weights, tmp_path, monkeypatch):
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    stored = tmp_path / "hub" / "models--someone--superpoint"
    load_network(weights(), threshold=0.005, nms_radius=4).save_pretrained(
        stored / "snapshots" / ("0" * 40)
    )
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0" * 40)
    found = SuperPointDetector(Path("someone/superpoint")).detect(product(0))
    np.testing.assert_array_equal(
        found.points, SuperPointDetector(weights()).detect(product(0)).points
    )


def test_training_counters_in_the_file_do_not_matter(weights):
    state = random_state("retrained")
    expected = SuperPointDetector(weights("retrained")).detect(product(0))
    state["backbone.0.0.bn.num_batches_tracked"] = torch.tensor(7)
    found = SuperPointDetector(weights("retrained", state=state)).detect(product(0))
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)


def test_without_weights_the_message_says_what_to_fetch_and_how_to_give_it():
    with pytest.raises(WeightsNotGivenError) as caught:
        make_detector("superpoint")
    for part in ("superpoint_v6_from_tf.pth", "MIT", "superpoint_v1.pth", "--weights superpoint="):
        assert part in str(caught.value)


def without(state: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "convDb.bias"), r"missing: convDb\.bias[;)]"),
        (lambda s: s | {"extra.weight": torch.zeros(1)}, r"unexpected: extra\.weight"),
        (
            lambda s: s | {"conv1a.weight": torch.zeros(64, 3, 3, 3)},
            r"of another shape: conv1a\.weight \(64, 3, 3, 3\) instead of \(64, 1, 3, 3\)",
        ),
        (lambda _: {"features.0.weight": torch.zeros(1)}, r"features\.0\.weight.*conv1a\.weight"),
        (lambda s: {"model": [s]}, "model are no tensors"),
        (lambda _: [1, 2], "state dict"),
        (lambda _: {}, "none"),
    ],
    ids=["missing", "unexpected", "shape", "other-network", "nested", "list", "empty"],
)
def test_what_is_not_superpoint_is_refused_with_the_keys_of_the_file(weights, change, message):
    file = weights(state=change(random_state("Magic Leap")))
    with pytest.raises(WeightsError, match=message) as caught:
        SuperPointDetector(file).detect(product(0))
    assert str(file) in str(caught.value)


def test_loading_draws_no_random_numbers_from_the_program(weights):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_network(weights(), threshold=0.005, nms_radius=4)
    assert torch.equal(torch.rand(3), expected)


def test_a_key_of_the_retrained_network_is_named_as_in_its_file(weights):
    state = without(random_state("retrained"), "descriptor.1.bn.running_var")
    with pytest.raises(WeightsError, match=r"missing: descriptor\.1\.bn\.running_var[;)]"):
        SuperPointDetector(weights("retrained", state=state)).detect(product(0))


class Payload:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return Path.touch, (Path("payload-was-run"),)


def test_code_in_a_file_is_not_run(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = weights(state={"conv1a.weight": Payload()})
    with pytest.raises(WeightsError, match="cannot be read"):
        SuperPointDetector(file).detect(product(0))
    assert not Path("payload-was-run").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(tmp_path, suffix):
    file = tmp_path / f"damaged{suffix}"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match="cannot be read"):
        SuperPointDetector(file).detect(product(0))


def test_weights_that_are_not_there_are_named(tmp_path):
    for missing in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(WeightsError, match="neither a file nor a folder") as caught:
            SuperPointDetector(missing)
        assert str(missing) in str(caught.value)
        assert not isinstance(caught.value, WeightsNotGivenError)


def test_a_hub_that_cannot_be_reached_is_explained_and_asked_once(monkeypatch, tmp_path):
    tries: list[object] = []

    def unreachable(*asked: object) -> None:
        tries.append(asked)
        raise OSError("no route to host")

    monkeypatch.setattr(superpoint_weights, "_unfetched", {})
    monkeypatch.setattr(importlib.import_module("huggingface_hub"), "hf_hub_download", unreachable)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"someone/superpoint .*no route to host"):
            SuperPointDetector(Path("someone/superpoint"))
    assert len(tries) == 1


def test_a_missing_package_is_named_with_the_line_that_installs_it(weights, monkeypatch):
    detector = SuperPointDetector(weights())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match="pip install 'transformers"):
        detector.detect(product(0))


def test_the_licence_is_logged_once(weights, caplog):
    superpoint_network._log_licence.cache_clear()
    with caplog.at_level(logging.INFO, superpoint_network.__name__):
        for layout in ("Magic Leap", "retrained", "Magic Leap", "retrained"):
            SuperPointDetector(weights(layout)).detect(product(0)[:64, :64])
    first, second = caplog.messages
    assert "non-commercial" in first
    assert "MIT" in second


# The pipeline


def test_detectors_by_name(weights):
    assert make_detector("sift") == SiftDetector()
    detector = make_detector("superpoint", weights=weights(), device="cpu")
    assert isinstance(detector, SuperPointDetector)
    assert {name: make_detector(name, weights()).name for name in DETECTORS} == {
        name: name for name in DETECTORS
    }
    with pytest.raises(ValueError, match="'orb'; expected one of sift, superpoint"):
        make_detector("orb")


def test_keypoints_are_known_by_the_weights_and_every_setting(weights):
    def key(seed: int = 0, **settings: float) -> str:
        return cache_key(SuperPointDetector(weights(seed=seed), **settings), 320, [])

    assert key() == key(batch_size=3)
    settings = [{"max_keypoints": 9}, {"threshold": 0.1}, {"nms_radius": 2}]
    assert len({key(), key(seed=1), *(key(**changed) for changed in settings)}) == 5


@pytest.fixture
def data_set(tmp_path: Path) -> ProductDataset:
    train = {seed: crop(seed, 0, 0, 160) for seed in range(3)}
    return drawn(tmp_path, train, {seed: crop(seed, 8, 8, 160) for seed in (2, 0)})


def test_a_data_set_is_evaluated_and_its_keypoints_kept(weights, data_set, tmp_path, monkeypatch):
    photos: list[int] = []
    forward = SuperPointDetector._forward

    def counted(self: SuperPointDetector, images: list[np.ndarray]) -> list[Keypoints]:
        photos.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(SuperPointDetector, "_forward", counted)
    for _ in range(2):
        detector = make_detector("superpoint", weights())
        predictions = evaluate_matching(
            data_set, detector, cache_dir=tmp_path / "cache", image_side=160, progress=False
        )
        assert predictions[:, 0].tolist() == [2, 0]
    assert photos == [3, 2, 2]  # training and test photos, each in a batch; then test photos alone


def test_evaluation_matches_by_distance(weights, data_set, monkeypatch):
    asked: list[tuple[float, float]] = []

    def fit(self: KeypointClassifier, *_: object, **__: object) -> None:
        asked.append((self.ratio, self.max_distance))
        raise StopIteration

    monkeypatch.setattr(KeypointClassifier, "fit", fit)
    for detector in (make_detector("sift"), make_detector("superpoint", weights())):
        with pytest.raises(StopIteration):
            evaluate_matching(data_set, detector, progress=False)
    assert asked == [(0.8, float("inf")), (1.0, 0.7)]


def test_nothing_is_loaded_before_the_first_photo(weights, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the network was loaded")

    monkeypatch.setattr(superpoint, "load_network", load)
    detector = make_detector("superpoint", weights())
    assert detector.params["weights"]
    with pytest.raises(AssertionError, match="was loaded"):
        detector.detect(product(0))
