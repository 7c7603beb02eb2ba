"""Pictures of explanations: what they show, where they draw it, what they refuse."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from lca_fused import Explanation, attach_lca, explain, explanation_plots
from lca_fused.explanation_plots import draw_concepts, draw_heat_map

HEIGHT, WIDTH = 48, 64


@pytest.fixture
def explanation() -> Explanation:
    torch.manual_seed(0)
    model = attach_lca(nn.Conv2d(3, 8, kernel_size=8, stride=8), 4)
    nn.init.zeros_(model.classifier.bias)
    return explain(model, torch.randn(2, 3, HEIGHT, WIDTH), dtype=torch.float64)


@pytest.fixture
def photo() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def figure() -> Figure:
    figure = Figure(figsize=(6, 3), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def drawn(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def boxes_in(figure: Figure) -> list[tuple[float, float, float, float]]:
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in patches]


def test_heat_map_shows_the_contributions_around_zero(figure, photo, explanation):
    heat = draw_heat_map(ax := figure.subplots(), photo, explanation, 1)
    positions = explanation.positions[1].numpy()
    np.testing.assert_array_equal(heat.get_array(), positions)
    assert heat.norm.vmax == -heat.norm.vmin == pytest.approx(np.abs(positions).max())
    assert tuple(heat.get_extent()) == (-0.5, WIDTH - 0.5, HEIGHT - 0.5, -0.5)  # the photo's own
    assert tuple(heat.get_extent()) == tuple(ax.images[0].get_extent())


def test_positions_that_say_little_let_the_photo_through(figure, photo, explanation):
    heat = draw_heat_map(figure.subplots(), photo, explanation, 0, smooth=False)
    strength, alpha = explanation.positions[0].abs().flatten(), heat.get_alpha().flatten()
    assert (np.diff(alpha[strength.argsort()]) >= 0).all()
    assert alpha.min() < 0.5 < alpha.max() <= 1


def test_heat_map_has_a_title_and_a_colour_bar_in_units_of_the_logit(figure, photo, explanation):
    draw_heat_map(ax := figure.subplots(), photo, explanation, 0, class_name="lime")
    bar = figure.axes[1]
    assert ax.get_title() == f"lime\nlogit {explanation.target_logits[0]:.3g}"
    assert "logit" in bar.get_ylabel()
    low, high = bar.get_ylim()
    assert high == -low == pytest.approx(float(explanation.positions[0].abs().max()))


def test_heat_map_without_a_name_or_colour_bar(figure, photo, explanation):
    draw_heat_map(ax := figure.subplots(), photo, explanation, 0, colour_bar=False)
    assert figure.axes == [ax]
    assert ax.get_title().startswith(f"class {int(explanation.target[0])}\n")


def test_heat_map_of_contributions_that_are_all_zero(figure, photo):
    model = attach_lca(nn.Conv2d(3, 8, kernel_size=8, stride=8), 4)
    nn.init.zeros_(model.classifier.weight)
    explanation = explain(model, torch.randn(1, 3, HEIGHT, WIDTH))
    ax = figure.subplots()
    draw_heat_map(ax, photo, explanation, 0)
    assert drawn(figure).std() > 0  # the photo


@pytest.mark.parametrize("k", [1, 3, 4])
def test_concepts_are_boxes_on_the_photo_and_crops_beside_it(figure, photo, explanation, k):
    concepts = draw_concepts(figure, photo, explanation, 0, k=k, max_overlap=0.2)
    expected = explanation.top_rectangles(0, k, 0.2)
    assert concepts.contribution.tolist() == expected.contribution.tolist()
    boxes = [
        (left - 0.5, top - 0.5, right - left, bottom - top)
        for left, top, right, bottom in expected.pixel_boxes.tolist()
    ]
    assert boxes_in(figure) == boxes
    assert len(boxes) == k
    details = figure.axes[1:]
    for box, detail in zip(boxes, details, strict=True):
        left, right = detail.get_xlim()
        bottom, top = detail.get_ylim()
        assert (left, top, right - left, bottom - top) == box


def test_each_concept_is_told_by_number_colour_and_share(figure, photo, explanation):
    concepts = draw_concepts(figure, photo, explanation, 0, k=3, class_name="plum")
    whole, *details = figure.axes
    total = float(explanation.positions[0].sum())
    assert total > 0
    assert figure.get_suptitle().startswith("plum, logit ")
    colours = [patch.get_edgecolor() for patch in whole.patches]
    assert len(set(colours)) == 3
    for number, (detail, colour) in enumerate(zip(details, colours, strict=True)):
        value = float(concepts.contribution[number])
        assert detail.get_title() == f"{number + 1}:  {value:+.3g}\n({100 * value / total:.2g} %)"
        assert whole.texts[number].get_text() == str(number + 1)
        assert {spine.get_edgecolor() for spine in detail.spines.values()} == {colour}


SHAPES = {"square": (64, 64), "wide": (48, 96), "tall": (96, 48)}


@pytest.mark.parametrize("k", range(1, 9))
@pytest.mark.parametrize("shape", SHAPES)
def test_concepts_stand_in_an_even_grid_beside_the_photo(shape, k):
    height, width = SHAPES[shape]
    torch.manual_seed(0)
    model = attach_lca(nn.Conv2d(3, 8, kernel_size=8, stride=8), 4)
    explanation = explain(model, torch.randn(1, 3, height, width))
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    name = "a long name of a product of a brand"
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    draw_concepts(figure, pixels, explanation, 0, k=k, max_overlap=0.3, class_name=name)
    figure.canvas.draw()
    whole, *details = figure.axes
    assert len(details) == k

    texts = [figure.texts[0], *(detail.title for detail in details)]
    parts = [text.get_window_extent() for text in texts]
    parts += [ax.get_window_extent() for ax in figure.axes]
    for i, part in enumerate(parts):
        assert figure.bbox.x0 <= part.x0 < part.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= part.y0 < part.y1 <= figure.bbox.y1
        assert not any(part.overlaps(other) for other in parts[:i])
    photo = whole.get_window_extent()
    assert photo.height > 0.6 * figure.bbox.height or photo.width > 0.4 * figure.bbox.width
    for row in rows_of(details):
        tops = [detail.get_window_extent().y1 for detail in row]
        captions = [detail.title.get_window_extent().y0 for detail in row]
        assert np.ptp(tops) < 1
        assert np.ptp(captions) < 1


def rows_of(details: list[Axes]) -> list[list[Axes]]:
    rows: dict[int, list[Axes]] = {}
    for detail in details:
        rows.setdefault(detail.get_subplotspec().rowspan.start, []).append(detail)
    return list(rows.values())


def test_no_two_numbers_stand_on_each_other(figure, photo, explanation):
    draw_concepts(figure, photo, explanation, 0, k=12, max_overlap=0.6)
    figure.canvas.draw()
    centres = [text.get_window_extent().get_points().mean(axis=0) for text in figure.axes[0].texts]
    assert len(centres) == 12
    distances = [np.abs(a - b).max() for i, a in enumerate(centres) for b in centres[:i]]
    assert min(distances) > 1


def test_there_is_no_share_in_a_logit_that_is_not_positive(figure, photo, explanation):
    images = torch.randn(1, 3, HEIGHT, WIDTH)
    model = attach_lca(nn.Conv2d(3, 8, kernel_size=8, stride=8), 2)
    with torch.no_grad():
        model.classifier.weight[1] = -1.0
        model.classifier.weight[1, 0] = 0.5
    against = explain(model, images, 1)
    assert against.positions.sum() < 0
    draw_concepts(figure, photo, against, 0, k=2)
    assert all("%" not in detail.get_title() for detail in figure.axes[1:])


def test_a_class_without_concepts_is_drawn_as_the_photo(figure, photo):
    model = attach_lca(nn.Conv2d(3, 8, kernel_size=8, stride=8), 2)
    with torch.no_grad():
        model.classifier.weight.abs_().neg_()
    explanation = explain(model, torch.randn(1, 3, HEIGHT, WIDTH))
    assert len(draw_concepts(figure, photo, explanation, 0)) == 0
    assert len(figure.axes) == 1
    assert drawn(figure).std() > 0


def test_an_enlarged_photo_has_the_same_boxes_enlarged(figure, photo, explanation):
    large = photo.repeat(2, axis=0).repeat(2, axis=1)
    draw_concepts(figure, large, explanation, 0, k=2)
    expected = 2 * explanation.top_rectangles(0, 2).pixel_boxes
    assert [box[:2] for box in boxes_in(figure)] == [
        (left - 0.5, top - 0.5) for left, top, _, _ in expected.tolist()
    ]


def test_a_class_name_is_no_mathematics(figure, photo, explanation):
    name = r"5$ or less \than 9$"
    left, right = figure.subfigures(1, 2)
    draw_heat_map(left.subplots(), photo, explanation, 0, class_name=name)
    draw_concepts(right, photo, explanation, 0, class_name=name)
    figure.canvas.draw()  # fails where it is read as a formula
    assert name in left.axes[0].get_title()
    assert name in right.get_suptitle()


def test_both_pictures_can_be_drawn_from_a_tensor_and_without_global_state(photo, explanation):
    pictures = []
    loaded = set(sys.modules)
    for pixels in (photo, torch.from_numpy(photo)):
        figure = Figure(figsize=(8, 3), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subfigures(1, 2)
        draw_heat_map(left.subplots(), pixels, explanation, 0)
        draw_concepts(right, pixels, explanation, 0, k=2)
        pictures.append(drawn(figure).copy())
    np.testing.assert_array_equal(*pictures)
    assert "matplotlib.pyplot" not in set(sys.modules) - loaded


@pytest.mark.parametrize("draw", ["heat map", "concepts"])
def test_refuses_photos_that_the_network_cannot_have_seen(figure, photo, explanation, draw):
    def attempt(pixels, index=0):
        if draw == "heat map":
            draw_heat_map(figure.subplots(), pixels, explanation, index)
        else:
            draw_concepts(figure, pixels, explanation, index)

    with pytest.raises(ValueError, match="64x48 and the network's input 48x64"):
        attempt(photo.transpose(1, 0, 2))
    with pytest.raises(ValueError, match=r"\(3, 48, 64\); expected \(H, W, 3\)"):
        attempt(photo.transpose(2, 0, 1))
    with pytest.raises(TypeError, match="float64; expected uint8"):
        attempt(photo / 255)
    with pytest.raises(IndexError):
        attempt(photo, index=2)


def test_names_the_extra_where_matplotlib_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "lca-fused\[plots\]"'):
        importlib.reload(explanation_plots)


def test_a_class_name_that_no_font_can_show_is_told_by_its_number(
    figure, photo, explanation, monkeypatch
):
    monkeypatch.setattr("lca_fused.plot_text._family_with", lambda _character: None)
    draw_heat_map(ax := figure.subplots(), photo, explanation, 0, class_name="可乐 zero")
    assert ax.get_title().startswith(f"class {int(explanation.target[0])}: ?? zero\n")
