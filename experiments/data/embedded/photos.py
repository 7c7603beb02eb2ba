"""The two kinds of photos: the packshot a shop's catalogue has, and the one taken in the store."""

from __future__ import annotations

import cv2
import numpy as np

from experiments.data.embedded import scene as around
from experiments.data.embedded.camera import take_photo, take_studio_photo
from experiments.data.embedded.design import Design
from experiments.data.embedded.pen import Image, blank
from experiments.data.embedded.render import Pose, Sprite, render

_STUDIO_SUPERSAMPLING = 3
_STORE_SUPERSAMPLING = 2


def packshot(design: Design, rng: np.random.Generator, size: int) -> Image:
    """A clean photo of a product on a light ground, seen a little from one side.

    Args:
        design: the product.
        rng: where angle and light come from.
        size: side of the photo in pixels.

    Returns:
        RGB uint8 [size, size, 3].
    """
    side = _STUDIO_SUPERSAMPLING * size
    pose = Pose(
        yaw=rng.uniform(-0.42, 0.42),
        pitch=rng.uniform(0.02, 0.2),
        roll=rng.normal(0, 0.012),
        x=rng.uniform(0.48, 0.52),
        y=rng.uniform(0.48, 0.51),
        extent=rng.uniform(0.84, 0.92),
        distance=rng.uniform(4.0, 7.0),
    )
    paper = int(rng.integers(243, 256))
    scene = blank(side, side, (paper, paper, paper))
    product = render(design, pose, side)
    around.ground_shadow(scene, product.box(), 0.3)
    around.paste(scene, product)
    return take_studio_photo(_shrunk(scene, size), rng)


def store_photo(design: Design, rng: np.random.Generator, size: int) -> Image:
    """A hurried phone photo of a product in the store, cropped around the product.

    Args:
        design: the product.
        rng: where pose, surroundings, occlusion, light and camera faults come from.
        size: side of the photo in pixels.

    Returns:
        RGB uint8 [size, size, 3].
    """
    side = _STORE_SUPERSAMPLING * size
    place = ("shelf", "hand", "basket")[int(rng.choice(3, p=(0.66, 0.2, 0.14)))]
    product = render(design, _hurried_pose(rng, upright=place == "shelf"), side)
    scene = _surroundings(place, rng, side, product)
    around.paste(scene, product)
    _occlude(scene, place, rng, product)
    return take_photo(_shrunk(_tilted(scene, rng), size), rng)


def _hurried_pose(rng: np.random.Generator, *, upright: bool) -> Pose:
    return Pose(
        yaw=float(np.clip(rng.normal(0, 0.27), -0.6, 0.6)),
        pitch=rng.uniform(-0.1, 0.3),
        roll=rng.normal(0, 0.03 if upright else 0.17),
        x=0.5 + rng.normal(0, 0.03),
        y=0.5 + rng.normal(0, 0.025),
        extent=rng.uniform(0.84, 1.1),
        distance=rng.uniform(2.6, 6.0),
    )


def _surroundings(place: str, rng: np.random.Generator, side: int, product: Sprite) -> Image:
    if place == "shelf":
        scene = around.shelf(rng, side, product.box())
        around.ground_shadow(scene, product.box(), rng.uniform(0.3, 0.6))
        return scene
    if place == "basket":
        scene = around.basket(rng, side)
        around.ground_shadow(scene, product.box(), rng.uniform(0.3, 0.6))
        return scene
    return around.aisle(rng, side)


def _occlude(scene: Image, place: str, rng: np.random.Generator, product: Sprite) -> None:
    """Puts what happens to be in the way before the product, in place."""
    box = product.box()
    if place == "hand" or rng.random() < 0.04:
        around.hold(scene, rng, box)
    if place == "shelf":
        if rng.random() < 0.3:
            around.crowd(scene, rng, box)
        if rng.random() < 0.12:
            around.tray(scene, rng, box)
        if rng.random() < 0.3:
            around.tag(scene, rng, box)
    if rng.random() < 0.12:
        around.offer(scene, rng, box)


def _tilted(scene: Image, rng: np.random.Generator) -> Image:
    """The scene in a camera that is not held quite level."""
    side = len(scene)
    degrees = float(np.clip(rng.normal(0, 4.0), -12, 12))
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1.0)
    tilted = cv2.warpAffine(
        scene, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(tilted, np.uint8)


def _shrunk(scene: Image, size: int) -> Image:
    return np.asarray(cv2.resize(scene, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
