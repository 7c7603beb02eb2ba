"""Galleries: cosine classifiers that products join and leave, in memory and as folders."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from lca_fused import Gallery, explain, load_classifier
from lca_fused.decision import Decision
from lca_fused.gallery import Enrolled, GalleryError, lookalikes
from lca_fused.pretrained import PretrainedError, save_description
from tests.stored_models import SIDE, build

D = 8


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def gallery() -> Gallery:
    """Cola with three vectors, tea with one, water with two; not in order."""
    products = torch.tensor([0, 2, 0, 1, 2, 0])
    return Gallery(torch.randn(6, D), products, ["cola", "tea", "water"], "abcdef", scale=20)


def same(one: Gallery, other: Gallery) -> bool:
    """Whether both say the same of every photo, whatever the order of their vectors."""
    x = torch.randn(5, D)
    rows = [dict(zip(g.names, g(x).T.tolist(), strict=True)) for g in (one, other)]
    return rows[0] == rows[1] and sorted(one.photos) == sorted(other.photos)


def test_prints_its_sizes():
    assert repr(gallery()) == "Gallery(in_features=8, out_features=3, vectors=6, scale=20)"


def test_a_logit_is_the_scaled_cosine_of_the_most_alike_vector():
    three, x = gallery(), torch.randn(4, D)
    logits = three(x)
    for product in range(3):
        own = three.embeddings[three.products == product]
        cosines = F.cosine_similarity(x[:, None], own[None], dim=2)
        torch.testing.assert_close(logits[:, product], 20 * cosines.amax(1))
    at = three.nearest(x, torch.tensor([0, 1, 2, 0]))
    assert three.products[at].tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(20 * three.cosines(x)[range(4), at], logits[range(4), [0, 1, 2, 0]])


def test_autocast_does_not_round_cosines():
    three, x = gallery(), torch.randn(4, D)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(three(x), three(x.clone()))
        logits = three(x)
    assert torch.equal(logits, three(x))


def test_what_is_added_and_taken_away_again_leaves_what_was_there():
    three = gallery()
    more = three.with_products({"juice": Enrolled(torch.randn(2, D), "gh")})
    assert more.counts() == {"cola": 3, "tea": 1, "water": 2, "juice": 2}
    assert same(more.without(["juice"]), three)
    x = more.embeddings[-1:]
    assert more(x).argmax() == 3
    torch.testing.assert_close(more(x).amax(), torch.tensor(20.0))


def test_enrolling_again_replaces_a_products_vectors_and_no_others():
    three = gallery()
    vectors = three.embeddings[three.products == 2]
    changed = three.with_products({"water": Enrolled(torch.randn(1, D), "x")})
    assert changed.names == three.names
    assert changed.counts() == {"cola": 3, "tea": 1, "water": 1}
    assert not same(changed, three)
    assert same(changed.with_products({"water": Enrolled(vectors, "be")}), three)


def test_removing_renumbers_the_others():
    left = gallery().without(["cola"])
    assert left.names == ("tea", "water")
    assert left.products.tolist() == [1, 0, 1]
    assert left.photos == ("b", "d", "e")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.without(["milk"]), "has no 'milk'; it has 'cola', 'tea'"),
        (lambda g: g.without(g.names), "nothing would be left"),
        (
            lambda g: g.with_products({"milk": Enrolled(torch.ones(1, 3))}),
            r"shape \(1, 3\); expected \(n, 8\)",
        ),
        (lambda g: g.with_products({"milk": Enrolled(torch.zeros(1, D))}), "zero or not finite"),
        (
            lambda g: g.with_products({"milk": Enrolled(torch.full((1, D), math.nan))}),
            "zero or not finite",
        ),
        (
            lambda g: g.with_products({"milk": Enrolled(torch.empty(0, D))}),
            "at least one of each of the 1",
        ),
        (lambda g: Gallery(g.embeddings, g.products, ["a", "a", "b"]), "names come twice"),
        (lambda g: Gallery(g.embeddings, g.products, g.names, scale=0), "scale is 0"),
        (lambda g: Gallery(g.embeddings, g.products, g.names, "ab"), "2 photos are named for 6"),
        (lambda g: Gallery(g.embeddings, g.products[:2], g.names), r"expected \(P, D\)"),
    ],
)
def test_what_makes_no_gallery_is_refused(change, message):
    with pytest.raises(GalleryError, match=message):
        change(gallery())


def test_vectors_are_float32_of_unit_length_whatever_they_are_made_of():
    for dtype in (torch.float64, torch.bfloat16):
        made = Gallery(torch.eye(3, dtype=dtype) * 7, torch.arange(3), "abc", scale=0.5)
        torch.testing.assert_close(made.embeddings, torch.eye(3), rtol=0, atol=0)


@pytest.mark.parametrize("at_once", [1, 256])
def test_a_photo_that_is_like_another_product_is_found(monkeypatch, at_once):
    monkeypatch.setattr("lca_fused.gallery._AT_ONCE", at_once)
    axes = torch.eye(D)
    near = axes[0] + 0.1 * axes[1]  # cosine 0.995
    three = Gallery(axes[:3], torch.arange(3), ["a", "b", "c"])
    assert lookalikes(three, axes[:3], ["a", "b", "c"]) == []
    more = three.with_products({"d": Enrolled(torch.stack([near, axes[5]]))})
    first, found = lookalikes(more, torch.stack([near, axes[2], near]), ["d", "c", "d"])
    assert first == replace(found, photo=0)
    assert (found.photo, found.other) == (2, "a")
    assert found.cosine == pytest.approx(0.995, abs=1e-3)
    assert found.own == pytest.approx(0, abs=1e-6), "d's other vector, not the photo itself"


def test_a_photo_is_like_another_product_where_that_is_more_than_half_as_likely():
    two = Gallery(torch.eye(2), torch.arange(2), ["a", "b"])
    photos = torch.tensor([[1.03, 1.0], [1.035, 1.0]])
    share = two(photos).softmax(1)
    assert (share[:, 1] > share[:, 0] / 2).tolist() == [True, False]
    assert [found.photo for found in lookalikes(two, photos, ["a", "a"])] == [0]


def enrolled(method: str = "lca"):
    """A classifier whose products are noise, and that noise."""
    classifier = build(method)
    images = torch.randn(4, 3, SIDE, SIDE)
    with torch.no_grad():
        vectors = classifier.forward_head(classifier.forward_features(images), pre_logits=True)
    products = torch.tensor([0, 1, 1, 2])
    classifier.set_gallery(Gallery(vectors, products, ["x", "y", "z"], ["1", "2", "3", "4"]))
    return classifier, images


@pytest.mark.parametrize("method", ["lca", "rmac", "gap"])
def test_a_classifier_with_a_gallery_comes_back_from_its_folder(tmp_path, method):
    classifier, images = enrolled(method)
    classifier.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert torch.equal(loaded(images), classifier(images))
    assert loaded.description.classes == ("x", "y", "z")
    assert loaded.classifier.photos == ("1", "2", "3", "4")
    assert loaded.num_classes == 3
    assert loaded(images).argmax(1).tolist() == [0, 1, 1, 2]
    assert loaded.predict(loaded.description.preprocessing.photos_of(images)[0].numpy()).name == "x"


@pytest.mark.parametrize(
    ("scale", "decision"), [(30, Decision(2.0, threshold=0.5)), (20, Decision())]
)
def test_another_gallery_decides_as_the_one_before_where_it_has_its_scale(scale, decision):
    classifier, _ = enrolled()
    proven = Decision(2.0, threshold=0.5, precision=0.9, photos=9, errors=1)
    told = replace(classifier.description, accuracy={"test": 0.9}, decision=proven)
    classifier.description, before = told, classifier.classifier
    classifier.set_gallery(Gallery(before.embeddings, before.products, "abc", scale=scale))
    expected = replace(told, classes=("a", "b", "c"), accuracy={}, decision=decision)
    assert classifier.description == expected


def test_a_changed_gallery_leaves_one_file_of_vectors(tmp_path):
    classifier, _ = enrolled()
    classifier.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").stat().st_mtime_ns
    classifier.set_gallery(classifier.classifier.without(["x"]))
    save_description(classifier, tmp_path)
    (vectors,) = tmp_path.glob("vectors-*")
    assert len(load_file(vectors)["products"]) == 3
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == weights
    assert load_classifier(tmp_path).description.classes == ("y", "z")
    build().save_pretrained(tmp_path)
    assert not list(tmp_path.glob("vectors-*")), "a classifier without a gallery was put there"


def rewrite(change):
    def spoil(folder):
        config = folder / "config.json"
        config.write_text(change(config.read_text()))

    return spoil


def vectors_of(folder):
    (file,) = folder.glob("vectors-*")
    return file


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: vectors_of(folder).unlink(), "there is no .*vectors-.*fetch it too"),
        (lambda folder: vectors_of(folder).write_bytes(b"x"), "damaged"),
        (rewrite(lambda text: text.replace('"vectors-', '"../vectors-')), "names the file"),
        (rewrite(lambda text: text.replace('"x",', "")), "at least one of each of the 2"),
        (rewrite(lambda text: text.replace('"scale": 30.0', '"scale": null')), "scale None"),
    ],
)
def test_a_gallery_that_cannot_be_used_is_refused_in_one_line(tmp_path, spoil, message):
    enrolled()[0].save_pretrained(tmp_path)
    spoil(tmp_path)
    with pytest.raises(PretrainedError, match=message) as error:
        load_classifier(tmp_path)
    assert "\n" not in str(error.value)


def test_vectors_of_another_model_do_not_fit():
    with pytest.raises(ValueError, match="have 8 numbers; expected 128"):
        build().set_gallery(gallery())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_explanation_adds_up_to_the_cosine(dtype):
    classifier, _ = enrolled()
    images = torch.randn(3, 3, SIDE, SIDE)
    explanation = explain(classifier, images, [0, 1, 2], dtype=dtype)
    with torch.no_grad():
        logits = classifier(images)
    torch.testing.assert_close(explanation.logits.float(), logits)
    assert (explanation.bias == 0).all()
    scaled = logits[range(3), [0, 1, 2]]
    torch.testing.assert_close(explanation.positions.sum((1, 2)).float(), scaled)
    for index in range(3):
        total = explanation.rectangles(index).contribution.sum()
        torch.testing.assert_close(total.float(), scaled[index])


def test_an_embedding_of_zeros_is_explained_by_nothing():
    classifier, _ = enrolled()
    with torch.no_grad():
        classifier.pool.bias.fill_(-1e3)  # closes every rectangle
    explanation = explain(classifier, torch.randn(2, 3, SIDE, SIDE), 0)
    assert (explanation.logits == 0).all()
    assert (explanation.positions == 0).all()
    assert (explanation.rectangles(1).contribution == 0).all()


def test_a_gallery_without_data_gives_its_shape():
    assert gallery().to("meta")(torch.randn(2, D, device="meta")).shape == (2, 3)


def test_faiss_finds_what_an_exact_search_finds(monkeypatch):
    pytest.importorskip("faiss")
    middles = F.normalize(torch.randn(300, 32), dim=1)
    products = torch.arange(300).repeat(10)
    vectors = middles[products] + 0.05 * torch.randn(3000, 32)
    many = Gallery(vectors, products, [f"product {i}" for i in range(300)])
    queries = middles[torch.randint(300, (200,))] + 0.05 * torch.randn(200, 32)
    exact = many(queries)
    monkeypatch.setattr("lca_fused.gallery_index.EXACT", 1000)
    found = many(queries)
    assert torch.equal(found.argmax(1), exact.argmax(1))
    some = found > -many.scale
    assert 0 < some.float().mean() < 0.5, "not all were looked at"
    torch.testing.assert_close(found.amax(1), exact.amax(1))
    assert (found < exact + 1e-4).all(), "of a product far off a nearer vector may be missed"
    again = many.without(["product 0"])
    assert again(queries).shape == (200, 299), "its own index, not that of the other"


def test_other_vectors_that_are_loaded_are_counted_anew():
    one_each = Gallery(torch.eye(3), torch.arange(3), "abc")
    x = torch.randn(2, 3)
    before = one_each(x)
    one_each.load_state_dict(
        {"embeddings": torch.eye(3)[[2, 0, 1]], "products": torch.tensor([2, 0, 1])}
    )
    torch.testing.assert_close(one_each(x), before)
    with pytest.raises(GalleryError, match="not of unit length"):
        one_each.load_state_dict({"embeddings": 2 * torch.eye(3), "products": torch.arange(3)})
    with pytest.raises(GalleryError, match="numbered from 0"):
        one_each.load_state_dict({"embeddings": torch.eye(3), "products": torch.tensor([0, 0, 1])})
