"""Photographing a pack: where it stands before the camera, and what then is where in the image."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.embedded.design import Design
from experiments.data.embedded.pack import Face, FlatPack, TurnedPack, pack_of
from experiments.data.embedded.pen import Image, Points

# Textures have about as many pixels as the pack covers, so that one resampling neither blurs them
# nor makes them flicker.
_TEXTURE_SHARE = 1.05

_TOWARDS_LIGHT = np.float32(-0.42), np.float32(0.91)  # sideways and towards the camera

Matrix = NDArray[np.float64]
Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Pose:
    """How a pack stands before the camera.

    Attributes:
        yaw: turn about the pack's axis in radians; positive shows its left side.
        pitch: how far the camera looks down, in radians.
        roll: turn in the image plane, in radians.
        x: centre of the pack as a share of the image's width.
        y: centre of the pack as a share of the image's height.
        extent: the pack's longer side as a share of the image's side.
        distance: of the camera in pack heights; a closer one foreshortens more.
    """

    yaw: float = 0.0
    pitch: float = 0.1
    roll: float = 0.0
    x: float = 0.5
    y: float = 0.5
    extent: float = 0.9
    distance: float = 5.0


@dataclass(frozen=True, eq=False)
class Sprite:
    """A pack cut out of its photo.

    Attributes:
        colour: RGB uint8 [S, S, 3].
        mask: uint8 [S, S], 255 where the pack is and 0 elsewhere.
    """

    colour: Image
    mask: Image

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the pack in pixels, right and bottom not included."""
        x, y, width, height = cv2.boundingRect(self.mask)
        return x, y, x + width, y + height


def render(design: Design, pose: Pose, side: int) -> Sprite:
    """Draws a product's pack into a square of `side` x `side` pixels."""
    pack = pack_of(design, round(_TEXTURE_SHARE * side))
    if isinstance(pack, FlatPack):
        return _render_flat(pack, pose, side)
    return _render_turned(pack, pose, side)


def _render_flat(pack: FlatPack, pose: Pose, side: int) -> Sprite:
    seen = [_projected(face.corners, pose) for face in pack.faces]
    place = _placing(np.vstack(seen), pose, side)
    sprite = _empty_sprite(side)
    for face, corners in zip(pack.faces, seen, strict=True):
        if _faces_camera(corners):
            _draw_face(sprite, face, _moved(corners, place))
    return sprite


def _empty_sprite(side: int) -> Sprite:
    return Sprite(np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8))


def _projected(points: Points, pose: Pose) -> Points:
    """Points [N, 2] of points [N, 3] seen through a camera level with the pack's middle."""
    cos, sin = np.cos(pose.yaw), np.sin(pose.yaw)
    x = cos * points[:, 0] + sin * points[:, 2]
    z = cos * points[:, 2] - sin * points[:, 0]
    cos, sin = np.cos(pose.pitch), np.sin(pose.pitch)
    y = cos * (points[:, 1] - 0.5) + sin * z
    z = cos * z - sin * (points[:, 1] - 0.5)
    nearness = pose.distance / (pose.distance - z)
    return np.stack([x * nearness, y * nearness], axis=1)


def _faces_camera(corners: Points) -> bool:
    (ax, ay), (bx, by), (cx, cy) = corners[:3]
    return bool((bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0)


def _draw_face(sprite: Sprite, face: Face, corners: Points) -> None:
    side = len(sprite.mask)
    low = np.clip(np.floor(corners.min(axis=0)), 0, side - 1).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, low + 1, side).astype(int)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    corners = corners - low
    colour, mask = sprite.colour[window], sprite.mask[window]
    shape = np.zeros_like(mask)
    cv2.fillConvexPoly(shape, np.round(corners * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    if isinstance(face.texture, tuple):
        cv2.fillConvexPoly(colour, np.round(corners * 16).astype(np.int32), face.texture, 8, 4)
    else:
        matrix = _spreading(face.texture, corners)
        if face.cutout is not None:
            shape &= np.where(_warped(face.cutout, matrix, mask) > 127, 255, 0).astype(np.uint8)
        cv2.copyTo(_warped(face.texture, matrix, mask), shape, colour)
    mask |= shape


def _spreading(texture: Image, corners: Points) -> Matrix:
    """The 3 x 3 matrix that spreads a texture over four corners in pixels."""
    height, width = texture.shape[:2]
    flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) - 0.5
    return np.asarray(cv2.getPerspectiveTransform(flat, (corners - 0.5).astype(np.float32)))


def _warped(image: Image, matrix: Matrix, like: Image) -> Image:
    size = (like.shape[1], like.shape[0])
    return np.asarray(
        cv2.warpPerspective(
            image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )


def _placing(points: Points, pose: Pose, side: int) -> Matrix:
    """The 3 x 3 matrix that rolls the seen points [N, 2] and fits them where `pose` says."""
    cos, sin = np.cos(pose.roll), np.sin(pose.roll)
    rolled = points @ np.array([[cos, sin], [-sin, cos]])
    low, high = rolled.min(axis=0), rolled.max(axis=0)
    scale = pose.extent * side / float((high - low).max())
    shift = np.array([pose.x, pose.y]) * side - scale * (low + high) / 2
    return np.array(
        [[scale * cos, -scale * sin, shift[0]], [scale * sin, scale * cos, shift[1]], [0, 0, 1]]
    )


def _moved(points: Points, matrix: Matrix) -> Points:
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    return homogeneous[:, :2] / homogeneous[:, 2:]


def _render_turned(pack: TurnedPack, pose: Pose, side: int) -> Sprite:
    keystone = np.eye(3)
    keystone[2, 1] = np.sin(pose.pitch) / pose.distance
    outline = _outline(pack, pose.pitch)
    matrix = _placing(_moved(outline, keystone), pose, side) @ keystone
    placed = _moved(outline, matrix)
    left, top = np.clip(np.floor(placed.min(axis=0)), 0, side - 1).astype(int)
    right, bottom = np.clip(np.ceil(placed.max(axis=0)), 1, side).astype(int)
    window = (slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1)))
    x, y = _unmoved(window, matrix)
    sprite = _empty_sprite(side)
    sprite.colour[window], sprite.mask[window] = _look_at(pack, pose, x, y)
    return sprite


def _outline(pack: TurnedPack, pitch: float) -> Points:
    """Points [N, 2] around a turned pack as seen without perspective."""
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    rings = []
    for level in np.linspace(0, 1, 9):
        radius = pack.radius[round(level * (len(pack.radius) - 1))]
        drop = (level - 0.5) * np.cos(pitch) + radius * np.sin(pitch) * np.cos(turn)
        rings.append(np.stack([radius * np.sin(turn), drop], axis=1))
    return np.vstack(rings)


def _unmoved(window: tuple[slice, slice], matrix: Matrix) -> tuple[Plane, Plane]:
    """Where the pixels of a window of the image are before `matrix` moves them: x and y."""
    inverse = np.linalg.inv(matrix).astype(np.float32)
    down = np.arange(window[0].start, window[0].stop, dtype=np.float32)[:, None] + 0.5
    across = np.arange(window[1].start, window[1].stop, dtype=np.float32)[None, :] + 0.5
    x, y, scale = (row[0] * across + row[1] * down + row[2] for row in inverse)
    return x / scale, y / scale


def _look_at(pack: TurnedPack, pose: Pose, x: Plane, y: Plane) -> tuple[Image, Image]:
    """Colour [h, w, 3] and mask [h, w] of a turned pack at the points (x, y) of its image.

    A point at height v and angle t from the camera is seen at x = r(v) sin t and
    y = (v - 1/2) cos pitch + r(v) cos t sin pitch, which is solved for v by iteration.
    """
    radii = pack.radius.astype(np.float32)
    cos, sin = np.float32(np.cos(pose.pitch)), np.float32(np.sin(pose.pitch))
    level = y / cos + np.float32(0.5)
    for _ in range(3):
        steps = np.clip(level * len(radii), 0, len(radii) - 1).astype(np.int32)
        radius = radii[steps]
        sideways = x / radius
        towards = np.sqrt(np.maximum(1 - sideways * sideways, 0))
        level = (y - radius * towards * sin) / cos + np.float32(0.5)
    hit = (np.abs(sideways) <= 1) & (level >= 0) & (level < 1)
    on_lid = (x / radii[0]) ** 2 + ((y + 0.5 * cos) / (radii[0] * max(sin, 1e-3))) ** 2 <= 1
    height, around = pack.texture.shape[:2]
    angle = np.arcsin(np.clip(sideways, -1, 1)) - np.float32(pose.yaw)
    columns = (angle / np.float32(2 * np.pi) + np.float32(0.5)) * np.float32(around) - 0.5
    rows = level * np.float32(height) - np.float32(0.5)
    seen = cv2.remap(pack.texture, columns, rows, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
    facing = np.maximum(_TOWARDS_LIGHT[1] * towards + _TOWARDS_LIGHT[0] * sideways, 0)
    shine = np.float32(150 * pack.gloss) * np.exp(-(((sideways + 0.5) / 0.1) ** 2))
    lit = seen * (0.56 + 0.5 * facing)[..., None] + shine[..., None]
    lit[on_lid & ~hit] = pack.lid
    mask = np.where(hit | on_lid, 255, 0).astype(np.uint8)
    return np.clip(lit, 0, 255).astype(np.uint8), mask
