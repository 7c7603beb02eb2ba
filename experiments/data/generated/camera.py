"""What light and a phone's camera do to a scene: casts, glare, blur, noise and JPEG."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Photo = NDArray[np.floating[Any]]
Rng = np.random.Generator

_REFERENCE_SIDE = 112  # blur lengths below are in pixels of an image this large


def take_studio_photo(scene: Pixels, rng: Rng) -> Pixels:
    """Return a clean photo of a scene, RGB uint8 [S, S, 3], in only slightly uneven light."""
    photo = _light(scene, rng, rng.uniform(0.96, 1.04), 0.02, 0.006)
    return _pixels(photo + rng.standard_normal(photo.shape, dtype=np.float32))


def take_phone_photo(scene: Pixels, rng: Rng) -> Pixels:
    """Return a hurried photo of a scene, RGB uint8 [S, S, 3]."""
    photo = _light(scene, rng, rng.uniform(0.8, 1.28), rng.uniform(0.02, 0.2), 0.06)
    photo = 118 + rng.uniform(0.84, 1.14) * (photo - 118)
    if rng.random() < 0.4:
        photo += _glare(len(photo), rng)[..., None]
    photo = _blur(photo, rng)
    noise = rng.standard_normal(photo.shape, dtype=np.float32)
    photo += rng.uniform(1, 7) * (0.5 * noise + 0.4 * noise[..., :1])  # partly alike in all colours
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(38, 93))]
    _, stream = cv2.imencode(".jpg", _pixels(photo), quality)
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_COLOR))


def _light(scene: Pixels, rng: Rng, exposure: float, unevenness: float, cast: float) -> Photo:
    """Expose to light of some colour, whose strength differs from place to place."""
    places = exposure * (1 + rng.normal(0, unevenness, (3, 3)))
    gain = cv2.resize(places.astype(np.float32), scene.shape[:2], interpolation=cv2.INTER_CUBIC)
    warmth, tint = rng.normal(0, (cast, cast / 2))
    colour = np.array([1 + warmth, 1 + tint, 1 - warmth], np.float32)
    return np.asarray(scene * (gain[..., None] * colour))


def _glare(side: int, rng: Rng) -> Photo:
    """Return the reflection of a lamp: a long soft spot."""
    spot = np.zeros((side, side), np.float32)
    middle = rng.uniform(0.2, 0.8, 2) * side
    axes = rng.uniform((0.3, 0.03), (1.0, 0.2)) * side
    cv2.ellipse(
        spot, (middle.tolist(), axes.tolist(), rng.uniform(0, 180)), rng.uniform(60, 170), -1
    )
    return np.asarray(cv2.GaussianBlur(spot, (0, 0), 0.05 * side))


def _blur(photo: Photo, rng: Rng) -> Photo:
    """Defocus, shake the hand and leave out pixels."""
    side = len(photo)
    scale = side / _REFERENCE_SIDE
    defocus = 0.2 + min(abs(rng.normal(0, 0.45)), 1.0)
    photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), defocus * scale))
    if rng.random() < 0.25:
        way = rng.normal(0, 0.9 * scale, 2)
        middle = 1 + int(np.abs(way).max())
        kernel = np.zeros((2 * middle + 1, 2 * middle + 1), np.float32)
        start, end = (16 * (middle + np.stack([-way, way]))).astype(np.int32)
        cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, 4)
        photo = np.asarray(cv2.filter2D(photo, -1, kernel / kernel.sum()))
    if rng.random() < 0.2:
        few = round(side * rng.uniform(0.55, 0.85))
        small = cv2.resize(photo, (few, few), interpolation=cv2.INTER_AREA)
        photo = np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC))
    return photo


def _pixels(photo: Photo) -> Pixels:
    return np.clip(photo, 0, 255).astype(np.uint8)
