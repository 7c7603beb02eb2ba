"""Explanations against a literal enumeration in float64, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.data.grocery_store import load_grocery_store
from experiments.data.torch_dataset import PhotoDataset
from lca_fused import LCA, Explanation, RectangleContributions, attach_lca, explain
from lca_fused.backbones import small_resnet
from lca_fused.preprocessing import Preprocessing
from lca_fused.rectangles import num_rectangles, resolve_kernel_sizes

SHAPES = [(1, 2), (5, 3), (7, 7)]
Rectangle = tuple[int, int, int, int]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def head(
    channels: int = 3,
    features: int = 8,
    classes: int = 4,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float64,
    **arguments: object,
) -> nn.Sequential:
    """LCA, dropout and a linear classifier; the images are the map."""
    return nn.Sequential(
        LCA(channels, features, bias, **arguments),
        nn.Dropout(0.5),
        nn.Linear(features, classes, bias=bias),
    ).to(dtype)


def images(height: int = 5, width: int = 3, n: int = 2, dtype: torch.dtype = torch.float64):
    return torch.randn(n, 3, height, width, dtype=dtype)


def enumerated(
    model: nn.Sequential, image: Tensor, target: int
) -> Iterator[tuple[Rectangle, Tensor, float]]:
    """Yield top, left, kh and kw of each rectangle, its share in every position, and their sum.

    Literally the paper: average-pool the map (C, H, W), then linear, ReLU, mean, classifier.
    """
    lca, _, classifier = model
    height, width = image.shape[1:]
    sizes = resolve_kernel_sizes(height, width, lca.kernel_sizes)
    count = num_rectangles(height, width, sizes)
    for kh, kw in sizes:
        pooled = F.avg_pool2d(image[None], (kh, kw), stride=1)[0]  # (C, rows, columns)
        for top in range(height - kh + 1):
            for left in range(width - kw + 1):
                z = F.linear(pooled[:, top, left], lca.weight, lca.bias)
                contribution = z.relu() @ classifier.weight[target] / count
                rows, columns = slice(top, top + kh), slice(left, left + kw)
                positions = F.linear(image[:, rows, columns].permute(1, 2, 0), lca.weight, lca.bias)
                share = torch.zeros(height, width, dtype=image.dtype)
                share[rows, columns] = (positions * (z > 0)) @ classifier.weight[target]
                yield (top, left, kh, kw), share / (kh * kw * count), contribution.item()


def places(rectangles: RectangleContributions) -> list[Rectangle]:
    parts = (rectangles.top, rectangles.left, rectangles.kh, rectangles.kw)
    return [tuple(place) for place in torch.stack(parts, dim=1).tolist()]


# What the numbers are.


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_agrees_with_a_literal_enumeration(shape, bias):
    model, x, target = head(bias=bias), images(*shape), torch.tensor([1, 3])
    explanation = explain(model, x, target, dtype=torch.float64)
    for index in range(2):
        rectangles = explanation.rectangles(index)
        expected = {
            place: (share, contribution)
            for place, share, contribution in enumerated(model, x[index], int(target[index]))
        }
        assert sorted(places(rectangles)) == sorted(expected)
        contributions = torch.tensor(
            [expected[place][1] for place in places(rectangles)], dtype=torch.float64
        )
        torch.testing.assert_close(rectangles.contribution, contributions)
        positions = torch.stack([share for share, _ in expected.values()]).sum(dim=0)
        torch.testing.assert_close(explanation.positions[index], positions)


@pytest.mark.parametrize("kernel_sizes", [[(1, 1)], [(2, 2), (5, 3)], [(3, 1), (1, 2), (3, 3)]])
@torch.no_grad()
def test_explains_the_kernel_sizes_of_the_layer(kernel_sizes):
    model, x = head(kernel_sizes=kernel_sizes), images()
    explanation = explain(model, x, 2, dtype=torch.float64)
    expected = {place: part for place, _, part in enumerated(model, x[0], 2)}
    rectangles = explanation.rectangles(0)
    assert explanation.num_rectangles == len(rectangles) == len(expected)
    actual = dict(zip(places(rectangles), rectangles.contribution.tolist(), strict=True))
    assert actual == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize("shape", [(7, 7), (14, 9)])
def test_both_sums_are_the_logit_less_its_bias_for_every_backend(backend, shape):
    if backend == "numba":
        pytest.importorskip("numba")
    model = head(3, 64, 10, dtype=torch.float32, backend=backend).eval()
    x = images(*shape, n=3, dtype=torch.float32)
    explanation = explain(model, x)
    with torch.no_grad():
        logits = model(x)
    assert_sums_to(explanation, logits, 1e-5)


def assert_sums_to(explanation: Explanation, logits: Tensor, tolerance: float) -> None:
    expected = logits.gather(1, explanation.target[:, None])[:, 0] - explanation.bias
    close = {"rtol": tolerance, "atol": 0.0}
    torch.testing.assert_close(explanation.positions.sum(dim=(1, 2)), expected, **close)
    sums = [explanation.rectangles(i).contribution.sum() for i in range(len(explanation))]
    torch.testing.assert_close(torch.stack(sums), expected, **close)


@pytest.mark.data
def test_both_sums_are_the_logit_less_its_bias_on_real_photos(data_root):
    photos = load_grocery_store(data_root, "many-shot").test[::40][:20]
    half = (0.5, 0.5, 0.5)
    transform = Preprocessing(image_size=112, mean=half, std=half).transform()
    batch = torch.stack([photo for photo, _ in PhotoDataset(photos, transform)])
    assert len(batch) == 20
    model = attach_lca(small_resnet(), 31).eval()
    with torch.no_grad():
        logits = model(batch)
    assert_sums_to(explain(model, batch), logits, 1e-5)


def test_logits_bias_and_target_are_the_models():
    model, x = head().eval(), images()
    explanation = explain(model, x, dtype=torch.float64)
    logits = model(x).detach()
    torch.testing.assert_close(explanation.logits, logits)
    assert torch.equal(explanation.target, logits.argmax(dim=1))
    torch.testing.assert_close(explanation.target_logits, logits.max(dim=1).values)
    assert torch.equal(explanation.bias, model[2].bias.detach()[explanation.target])
    assert (explanation.map_size, explanation.input_size) == ((5, 3), (5, 3))


@pytest.mark.parametrize("target", [3, torch.tensor([3, 0]), torch.tensor([3, 0]).int()])
def test_target_is_one_class_or_one_an_image(target):
    expected = [3, 3] if isinstance(target, int) else [3, 0]
    assert explain(head(), images(), target, dtype=torch.float64).target.tolist() == expected


def test_without_a_bias_the_sums_are_the_logit():
    explanation = explain(head(bias=False), images(), dtype=torch.float64)
    assert explanation.bias.tolist() == [0, 0]
    torch.testing.assert_close(explanation.positions.sum(dim=(1, 2)), explanation.target_logits)


def test_no_images_give_no_explanations():
    explanation = explain(head(), images(n=0), dtype=torch.float64)
    assert len(explanation) == 0
    assert explanation.positions.shape == (0, 5, 3)


def test_a_large_map_is_explained_in_memory_that_its_rectangles_alone_would_not_fit():
    side, features = 56, 24
    model = head(3, features, dtype=torch.float32)
    with LargestOutput() as largest:
        explanation = explain(model, images(side, side, n=1, dtype=torch.float32))
        rectangles = explanation.rectangles(0)
    assert len(rectangles) == explanation.num_rectangles == 2_544_080
    assert largest.numel <= len(rectangles)  # not times the features
    torch.testing.assert_close(
        rectangles.contribution.double().sum().float(),
        (explanation.target_logits - explanation.bias)[0],
        rtol=1e-5,
        atol=0.0,
    )


class LargestOutput(TorchDispatchMode):
    """Notes the most elements that any operator returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return output


# The models it takes.


class NamedArguments(nn.Module):
    """A model of the user's own, which returns more than logits and calls LCA by keyword."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.pool, _, self.fc = model

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.fc(input=self.pool(x=x))}


def test_explains_the_models_that_attach_lca_makes():
    model = attach_lca(small_resnet(), 5, dropout=0.5).eval()
    x = torch.randn(2, 3, 64, 96)
    explanation = explain(model, x)
    with torch.no_grad():
        assert_sums_to(explanation, model(x), 1e-5)
    assert explanation.map_size == (4, 6)
    assert explanation.input_size == (64, 96)


def test_explains_the_classifier_that_is_named_in_a_model_that_returns_something_else():
    inner = head()
    expected = explain(inner, x := images(), 1, dtype=torch.float64)
    for model in (NamedArguments(inner), nn.Sequential(*inner, nn.Softmax(dim=1))):
        actual = explain(model, x, 1, classifier=inner[2], dtype=torch.float64)
        assert torch.equal(actual.positions, expected.positions)


def test_explains_the_map_and_the_logits_as_they_were_before_the_model_changed_them():
    inner, x = head(), images()

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            x = x + 0
            logits = self.inner(x)
            return logits.mul_(2) + x.relu_().mean((1, 2, 3))[:, None]

    actual = explain(Branching(), x, 1, classifier=inner[2], dtype=torch.float64)
    expected = explain(inner, x, 1, dtype=torch.float64)
    assert torch.equal(actual.positions, expected.positions)


def test_explains_the_layer_that_is_named_where_there_are_two():
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = head(), head()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.first(x), self.second(x)

    model, x = TwoHeads().double(), images()
    for part in (model.first, model.second):
        actual = explain(model, x, 1, lca=part[0], classifier=part[2], dtype=torch.float64)
        expected = explain(part, x, 1, dtype=torch.float64)
        assert torch.equal(actual.positions, expected.positions)


@pytest.mark.parametrize("compile_", ["whole", "in place", "part"])
def test_compiled_models_are_explained_by_what_they_wrap(compile_):
    plain, x = head(), images()
    expected = explain(plain, x, 1, dtype=torch.float64).positions
    if compile_ == "whole":
        model = torch.compile(plain, backend="eager")
    elif compile_ == "in place":
        plain.compile(backend="eager")
        model = plain
    else:
        model = nn.Sequential(torch.compile(plain[0], backend="eager"), *plain[1:])
    with torch.no_grad():
        model.eval()(x)  # compiled before there are hooks
    assert torch.equal(explain(model, x, 1, dtype=torch.float64).positions, expected)


def test_data_parallel_models_are_explained_by_what_they_wrap():
    model, x = head(), images()
    expected = explain(model, x, 1, dtype=torch.float64)
    actual = explain(nn.DataParallel(model), x, 1, dtype=torch.float64)
    assert torch.equal(actual.positions, expected.positions)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_model_is_explained_in_float32(dtype):
    model, x = head(3, 64, dtype=dtype), images(7, 7, dtype=dtype)
    explanation = explain(model, x)
    assert explanation.positions.dtype == torch.float32
    expected = explanation.target_logits - explanation.bias
    torch.testing.assert_close(explanation.positions.sum(dim=(1, 2)), expected, rtol=1e-5, atol=0)
    with torch.no_grad():
        logits = model.eval()(x).float()
    torch.testing.assert_close(explanation.logits, logits, rtol=0.05, atol=0.02)


def test_autocast_inference_mode_and_memory_format_change_nothing():
    model, x = head(3, 64, dtype=torch.float32), images(7, 7, dtype=torch.float32)
    expected = explain(model, x, 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        within = explain(model, x.clone(memory_format=torch.channels_last), 1)
        rectangles = within.rectangles(0)
    torch.testing.assert_close(within.positions, expected.positions)
    torch.testing.assert_close(rectangles.contribution, expected.rectangles(0).contribution)
    assert not within.positions.is_inference()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_sums_are_the_logit_less_its_bias():
    model = head(3, 64, 10, dtype=torch.float32).cuda().eval()
    x = images(7, 7, n=3, dtype=torch.float32).cuda()
    explanation = explain(model, x)
    with torch.no_grad():
        assert_sums_to(explanation, model(x), 1e-5)
    chosen = explanation.top_rectangles(0, k=3)
    assert chosen.pixel_boxes.is_cuda


def test_the_model_is_left_as_it_was():
    model, x = head().train(), images().requires_grad_()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    calls = []
    handle = model[0].register_forward_hook(lambda *_: calls.append(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}

    explanation = explain(model, x, dtype=torch.float64)
    explanation.rectangles(1)

    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert x.grad is None
    assert calls == [1]  # a user's hook stays and sees the one run
    assert list(model[0]._forward_hooks) == [handle.id]
    assert not model[2]._forward_hooks
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)
    assert not explanation.positions.requires_grad


def test_parameters_that_are_computed_are_those_of_the_run_and_left_as_they_were():
    model, x = head().train(), images()
    for layer in (model[0], model[2]):
        torch.nn.utils.parametrizations.spectral_norm(layer)  # changes when read in training
    state = {name: value.clone() for name, value in model.state_dict().items()}
    logits = explain(model, x, dtype=torch.float64).logits
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)
    assert model[0].training
    torch.testing.assert_close(logits, model.eval()(x).detach())


def test_the_model_is_left_as_it_was_by_a_run_that_fails():
    class Broken(nn.Module):
        def forward(self, _x: Tensor) -> Tensor:
            raise RuntimeError("broken on purpose")

    model = nn.Sequential(*head()[:2], Broken(), nn.Linear(8, 4)).train()
    with pytest.raises(RuntimeError, match="broken on purpose"):
        explain(model, images())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


# What it refuses.


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lca, self.fc = LCA(3, 8).double(), nn.Linear(8, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lca(x) + self.lca(-x))


class Unused(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.new_zeros(len(x), 8))


def test_refuses_models_without_a_linear_classifier_directly_behind_one_lca_layer():
    lca, _, fc = parts = head()
    sigmoid, batch_norm = nn.Sigmoid(), nn.BatchNorm1d(8).double()
    with torch.no_grad():
        batch_norm.running_mean.fill_(0.1)
    refused = {
        "has no LCA layer": nn.Sequential(nn.Flatten(), nn.Linear(45, 4)).double(),
        r"2 LCA layers \('0', '3'\)": nn.Sequential(*parts, head()[0]),
        "was not called": Unused(),
        "called 2 times in one run": Twice(),
        "no nn.Linear was called behind": nn.Sequential(lca),
        r"\('1', '3'\).*classifier=": nn.Sequential(
            lca, nn.Linear(8, 8), sigmoid, nn.Linear(8, 4)
        ).double(),
        "something between or behind": nn.Sequential(lca, sigmoid, fc),
        "a normalisation": nn.Sequential(lca, batch_norm, fc),
        "a softmax": nn.Sequential(*parts, nn.Softmax(dim=1)),
    }
    for message, model in refused.items():
        with pytest.raises(ValueError, match=message):
            explain(model, images(), dtype=torch.float64)


def test_refuses_a_classifier_with_something_between_even_if_it_is_named():
    model = nn.Sequential(head()[0], nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    with pytest.raises(ValueError, match="something between or behind"):
        explain(model, images(), classifier=model[3], dtype=torch.float64)


def test_refuses_a_hook_that_changes_the_logits():
    model = head()
    model[0].register_forward_hook(lambda _module, _args, output: 2 * output)
    with pytest.raises(ValueError, match="a hook"):
        explain(model, images(), dtype=torch.float64)


def test_refuses_models_that_return_no_logits():
    for model in (NamedArguments(head()), nn.Sequential(*head(), nn.Linear(4, 4).double())):
        with pytest.raises((TypeError, ValueError), match="classifier="):
            explain(model, images(), dtype=torch.float64)


def test_refuses_layers_that_are_no_part_of_the_model_or_no_layers():
    model, other = head(), head()
    with pytest.raises(ValueError, match="lca is no part of model"):
        explain(model, images(), lca=other[0])
    with pytest.raises(ValueError, match="classifier is no part of model"):
        explain(model, images(), classifier=other[2])
    with pytest.raises(TypeError, match=r"lca is a Linear; expected the lca_fused\.LCA"):
        explain(model, images(), lca=model[2])
    with pytest.raises(TypeError, match="classifier is a Dropout"):
        explain(model, images(), classifier=model[1])
    with pytest.raises(TypeError, match="model is a function"):
        explain(test_refuses_layers_that_are_no_part_of_the_model_or_no_layers, images())


def test_refuses_a_classifier_that_is_not_called():
    unused = Unused()
    unused.spare = nn.Linear(8, 4)
    unused.forward = lambda x: unused.fc(unused.lca(x))
    with pytest.raises(ValueError, match="the classifier given was not called"):
        explain(unused, images(), classifier=unused.spare)


def test_refuses_targets_out_of_range_or_of_another_kind():
    for target, range_ in ((4, "4..4"), (-1, "-1..-1"), (torch.tensor([0, 9]), "0..9")):
        with pytest.raises(ValueError, match=rf"{range_}; expected 0\.\.3 for 4 logits"):
            explain(head(), images(), target, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"shape \(1,\); expected \(2,\)"):
        explain(head(), images(), torch.tensor([1]), dtype=torch.float64)
    for wrong in (1.0, True, "lime", torch.tensor([0.0, 1.0]), torch.tensor([True, False])):
        with pytest.raises(TypeError, match="target"):
            explain(head(), images(), wrong, dtype=torch.float64)


def test_refuses_images_of_another_kind():
    with pytest.raises(TypeError, match="images is a list"):
        explain(head(), [images()])
    with pytest.raises(TypeError, match=r"torch\.uint8; expected floating-point"):
        explain(head(), torch.zeros(2, 3, 5, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"\(3, 5, 3\); expected \(N, 3, H, W\)"):
        explain(head(), images()[0])
    with pytest.raises(ValueError, match="images is on meta and the model on cpu"):
        explain(head(), images().to("meta"))
    with pytest.raises(ValueError, match="1x1 feature map"):
        explain(head(), images(1, 1))


def test_refuses_numbers_that_are_not_finite_and_names_the_images():
    x = images(n=3)
    x[1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"images of the batch's items \[1\] are not finite"):
        explain(head(), x)
    model = head()
    with torch.no_grad():
        model[2].weight[0] = torch.inf
    with pytest.raises(ValueError, match=r"logits of the batch's items \[0, 1, 2\]"):
        explain(model, images(n=3))


def test_refuses_other_dtypes_and_images_that_are_not_there():
    with pytest.raises(ValueError, match=r"torch\.float16; expected torch\.float32"):
        explain(head(), images(), dtype=torch.float16)
    explanation = explain(head(), images(), dtype=torch.float64)
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"index is {index}; .* 2 images"):
            explanation.rectangles(index)


# The top local concepts.


def test_boxes_are_in_positions_and_in_pixels():
    model = attach_lca(nn.Conv2d(3, 4, kernel_size=(8, 4), stride=(8, 4)), 5)
    explanation = explain(model, torch.randn(1, 3, 40, 24))
    rectangles = explanation.rectangles(0)
    place = places(rectangles).index((1, 0, 4, 2))
    assert rectangles.boxes[place].tolist() == [0, 1, 2, 5]
    assert rectangles.pixel_boxes[place].tolist() == [0, 8, 8, 40]


def overlap(a: list[int], b: list[int]) -> float:
    def area(left: int, top: int, right: int, bottom: int) -> int:
        return max(0, right - left) * max(0, bottom - top)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return shared / (area(*a) + area(*b) - shared)


@given(
    height=st.integers(1, 5),
    width=st.integers(2, 5),
    k=st.integers(1, 12),
    max_overlap=st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]) | st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_top_rectangles_fall_and_overlap_no_more_than_allowed(height, width, k, max_overlap, seed):
    torch.manual_seed(seed)
    explanation = explain(head(), images(height, width, n=1), dtype=torch.float64)
    everything = explanation.rectangles(0)
    chosen = explanation.top_rectangles(0, k, max_overlap)
    contributions = chosen.contribution.tolist()
    boxes = chosen.boxes.tolist()
    assert len(chosen) <= k
    assert contributions == sorted(contributions, reverse=True)
    assert all(contribution > 0 for contribution in contributions)
    assert set(places(chosen)) <= set(places(everything))
    for first in range(len(boxes)):
        for second in range(first):
            assert overlap(boxes[first], boxes[second]) <= max_overlap + 1e-6
    if len(chosen) < k:  # then nothing that adds to the logit was left to choose
        for box, contribution in zip(
            everything.boxes.tolist(), everything.contribution, strict=True
        ):
            covered = any(overlap(box, other) > max_overlap - 1e-6 for other in boxes)
            assert contribution <= 0 or covered or box in boxes


def test_the_first_concept_is_the_largest_contribution():
    explanation = explain(head(), images(7, 7), dtype=torch.float64)
    first = explanation.top_rectangles(1, k=1)
    assert first.contribution.tolist() == [explanation.rectangles(1).contribution.max()]


def test_with_any_overlap_allowed_the_concepts_are_the_largest_contributions():
    explanation = explain(head(), images(7, 7), dtype=torch.float64)
    largest = explanation.rectangles(0).contribution.topk(8).values
    assert torch.equal(explanation.top_rectangles(0, 8, max_overlap=1.0).contribution, largest)


def test_a_class_that_nothing_speaks_for_has_no_concepts():
    model = head()
    with torch.no_grad():
        model[2].weight.abs_().neg_()
    chosen = explain(model, images(), 0, dtype=torch.float64).top_rectangles(0, 5)
    assert len(chosen) == 0
    assert chosen.pixel_boxes.shape == (0, 4)


def test_refuses_impossible_choices_of_rectangles():
    explanation = explain(head(), images(), dtype=torch.float64)
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"k is {k}; expected at least 1"):
            explanation.top_rectangles(0, k)
    for k in (2.0, True):
        with pytest.raises(TypeError, match="expected an integer"):
            explanation.top_rectangles(0, k)
    for max_overlap in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="expected 0 to 1"):
            explanation.top_rectangles(0, 1, max_overlap)
