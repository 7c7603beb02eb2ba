"""Search among more vectors than are looked through one by one, by faiss."""

from __future__ import annotations

import importlib.util
import math
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

EXACT = 100_000
"""Vectors that are searched exactly, faiss or not; so are any number on a GPU."""
CANDIDATES = 100
"""Vectors that faiss finds for a photo; their cosines are then computed exactly."""

_PROBED = 8  # one list in so many is looked through
_indices: WeakKeyDictionary[nn.Module, tuple[Tensor, Any]] = WeakKeyDictionary()


def candidates(gallery: nn.Module, vectors: Tensor, queries: Tensor) -> Tensor | None:
    """Return the vectors that are most like each query, nearly always; made ready at first use.

    Args:
        gallery: owner of the vectors: while it lives, its index is kept.
        vectors: (P, D) of unit length.
        queries: (N, D) of unit length.

    Returns:
        Indices of vectors, (N, `CANDIDATES`) int64; None where all are to be looked at: there are
        few, they are on a GPU, the network is being exported, or faiss is not installed.
    """
    if len(vectors) <= EXACT or vectors.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    if importlib.util.find_spec("faiss") is None:
        return None
    known = _indices.get(gallery)
    if known is None or known[0] is not vectors:
        known = _indices[gallery] = vectors, _index(vectors)
    _, found = known[1].search(queries.detach().float().contiguous().numpy(), CANDIDATES)
    rows = torch.from_numpy(found)
    return torch.where(rows < 0, rows[:, :1], rows)  # where fewer were looked through


def _index(vectors: Tensor) -> Any:
    """Return an inverted file of numbers of 8 bits, a quarter of the vectors' own memory."""
    import faiss

    count, dimensions = vectors.shape
    lists = round(math.sqrt(count))
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimensions),
        dimensions,
        lists,
        faiss.ScalarQuantizer.QT_8bit,
        faiss.METRIC_INNER_PRODUCT,
    )
    values = vectors.detach().float().contiguous().numpy()
    index.train(values)
    index.add(values)
    index.nprobe = max(1, lists // _PROBED)
    return index
