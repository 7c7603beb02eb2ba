"""What light and a phone's camera do to a scene: casts, shadows, glare, blur, noise and JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.embedded.pen import Image

_REFERENCE_SIDE = 112  # blur lengths below are in pixels of an image this large

Photo = NDArray[np.float32]


def take_photo(scene: Image, rng: np.random.Generator) -> Image:
    """A hurried phone photo of a scene.

    Args:
        scene: RGB uint8 [S, S, 3].
        rng: where the accidents of this photo come from.

    Returns:
        RGB uint8 [S, S, 3].
    """
    photo = _light(scene.astype(np.float32), rng)
    photo = _blur(photo, rng)
    photo = _sense(photo, rng)
    return _compress(np.clip(photo, 0, 255).astype(np.uint8), rng)


def take_studio_photo(scene: Image, rng: np.random.Generator) -> Image:
    """A clean photo of a scene: RGB uint8 [S, S, 3], with only slightly uneven light."""
    across, down = _grid(len(scene))
    gain = rng.uniform(0.95, 1.03) + rng.uniform(-0.05, 0.05) * across + 0.02 * down
    cast = rng.normal(1.0, 0.006, 3).astype(np.float32)
    photo = scene * (gain[..., None] * cast)
    photo += rng.normal(0, 1.0, photo.shape)
    return np.clip(photo, 0, 255).astype(np.uint8)


def _light(photo: Photo, rng: np.random.Generator) -> Photo:
    """Exposure, colour cast, uneven light, a cast shadow and glare."""
    across, down = _grid(len(photo))
    warmth = rng.normal(0, 0.06)
    cast = np.array([1 + warmth, 1 + rng.normal(0, 0.025), 1 - warmth])
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.32)
    gain = rng.uniform(0.8, 1.28) * (
        1 + slope * (np.cos(angle) * across + np.sin(angle) * down) - 0.1 * (across**2 + down**2)
    )
    if rng.random() < 0.4:
        gain = gain * _shadow(across, down, rng)
    contrast = rng.uniform(0.84, 1.14)
    lit = photo * (gain[..., None] * cast.astype(np.float32))
    lit = 118 + contrast * (lit - 118)
    if rng.random() < 0.4:
        lit += _glare(across, down, rng)[..., None]
    return np.asarray(lit, np.float32)


def _grid(side: int) -> tuple[Photo, Photo]:
    """Coordinates across [1, side] and down [side, 1], each from -1 to 1."""
    line = np.linspace(-1, 1, side, dtype=np.float32)
    return line[None, :], line[:, None]


def _shadow(across: Photo, down: Photo, rng: np.random.Generator) -> Photo:
    """Darkening on one side of a soft straight edge."""
    angle = rng.uniform(0, 2 * np.pi)
    edge = np.cos(angle) * across + np.sin(angle) * down - rng.uniform(-0.5, 0.5)
    softness = rng.uniform(0.04, 0.3)
    darkness = rng.uniform(0.2, 0.5)
    return np.asarray(1 - darkness / (1 + np.exp(-edge / softness)), np.float32)


def _glare(across: Photo, down: Photo, rng: np.random.Generator) -> Photo:
    """The reflection of a lamp: a long soft spot."""
    x, y = rng.uniform(-0.6, 0.6, 2)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * (across - x) + np.sin(angle) * (down - y)
    beside = np.cos(angle) * (down - y) - np.sin(angle) * (across - x)
    length, width = rng.uniform(0.3, 1.0), rng.uniform(0.06, 0.2)
    spot = np.exp(-((along / length) ** 2) - (beside / width) ** 2)
    return np.asarray(rng.uniform(40, 150) * spot, np.float32)


def _blur(photo: Photo, rng: np.random.Generator) -> Photo:
    """Defocus, a shaken hand and too few pixels."""
    side = len(photo)
    scale = side / _REFERENCE_SIDE
    defocus = min(abs(rng.normal(0, 0.48)), 1.2) * scale
    if defocus > 0.2:
        photo = np.asarray(cv2.GaussianBlur(photo, (0, 0), defocus), np.float32)
    if rng.random() < 0.25:
        kernel = _motion_kernel(rng.uniform(1.5, 3.8) * scale, rng.uniform(0, np.pi))
        photo = np.asarray(cv2.filter2D(photo, -1, kernel), np.float32)
    if rng.random() < 0.2:
        few = max(8, round(side * rng.uniform(0.55, 0.85)))
        small = cv2.resize(photo, (few, few), interpolation=cv2.INTER_AREA)
        photo = np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC))
    return photo


def _motion_kernel(length: float, angle: float) -> Photo:
    """A line of `length` pixels through the middle of a kernel that sums to 1."""
    radius = max(1, int(np.ceil(length / 2)))
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    way = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    ends = np.round((np.stack([-way, way]) + radius) * 16).astype(np.int32)
    cv2.polylines(kernel, [ends], False, 1.0, 1, cv2.LINE_8, 4)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _sense(photo: Photo, rng: np.random.Generator) -> Photo:
    """Sensor noise, stronger where it is darker, partly alike in all three colours."""
    strength = rng.uniform(1, 7)
    grain = rng.standard_normal(photo.shape, dtype=np.float32)
    grey = grain.mean(axis=2, keepdims=True)
    return photo + strength * (0.5 * grain + 0.8 * grey) * (1.25 - photo / 510)


def _compress(photo: Image, rng: np.random.Generator) -> Image:
    quality = int(rng.integers(38, 93))
    _, stream = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_COLOR), np.uint8)
