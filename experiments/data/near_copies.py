"""Photos that look the same though their files differ: one saved anew, or taken twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lca_fused.photos.reading import read_image

NEAR = 32
"""Bits, of the 256 of a hash, that photos may differ in and count as near-duplicates.

Saved anew, in JPEG of quality 20 to 75 and down to a quarter of its size, a photo of packaged goods
differs in 8 at most; of 1.5 million pairs of photos of two products the nearest differ in 44
(docs/experiment.md, "Before training").
"""

_SIDE = 16  # of the hash, in bits
_PLAIN = 2.0  # levels, of 255; below, a hash is of noise alone
_BLOCK = 512  # photos that are compared with all others at once


def perceptual_hash(photo: Image.Image) -> bytes | None:
    """Return the 256 bits of a photo's perceptual hash; None where it is of one colour.

    Of a discrete cosine transform of the grey photo, 64 x 64 pixels, the 16 x 16 lowest frequencies
    are compared with their median (imagehash's `phash`).

    Args:
        photo: upright; transparency is laid on white.
    """
    opaque = photo.mode != "RGBA" or photo.getchannel("A").getextrema()[0] == 255
    grey = (photo if opaque else read_image(photo)).convert("L")
    if np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX)).std() < _PLAIN:
        return None
    return np.packbits(imagehash.phash(grey, _SIDE).hash).tobytes()


def group_near(hashes: Sequence[bytes], most: int = NEAR) -> list[list[int]]:
    """Return the groups of photos that are linked by pairs which differ in `most` bits at most.

    All pairs are compared, by products of matrices: 50,000 photos take seconds a core, and memory
    for 512 rows of the table of distances.

    Args:
        hashes: of each photo, as `perceptual_hash` returns them.
        most: bits of a hash that a pair may differ in.

    Returns:
        Indices of the photos of each group of two or more, rising.
    """
    of_hash: dict[bytes, list[int]] = defaultdict(list)
    for index, value in enumerate(hashes):
        of_hash[value].append(index)
    groups: dict[int, list[int]] = defaultdict(list)
    for group, same in zip(_linked(list(of_hash), most), of_hash.values(), strict=True):
        groups[group] += same
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _linked(hashes: Sequence[bytes], most: int) -> list[int]:
    """Return the number of each hash's group."""
    if not hashes:
        return []
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1), axis=1)
    signs = 2 * bits.astype(np.float32) - 1  # their product is the bits that agree less the others
    least = signs.shape[1] - 2 * most
    groups = np.arange(len(hashes))
    for start in range(0, len(hashes), _BLOCK):
        rows, columns = np.nonzero(signs[start : start + _BLOCK] @ signs[start:].T >= least)
        groups = _joined(groups, start + rows, start + columns)
    return groups.tolist()


def _joined(
    groups: NDArray[np.intp], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the number of each hash's group once further pairs of them are linked."""
    count = len(groups)
    pairs = groups[rows], groups[columns]
    links = coo_array((np.ones(len(rows), np.bool_), pairs), shape=(count, count))
    return connected_components(links, directed=False)[1][groups]
