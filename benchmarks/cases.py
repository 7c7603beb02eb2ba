"""Every combination of device, shape, mode and peer that the suite measures."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers import PEERS
from benchmarks.shapes import DEFAULT_SETS, Shape, is_rectangle_shape, parse_shapes

INFERENCE, TRAINING, GRAPH = "inference", "training", "inference-graph"
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
FORMATS = {"cpu": "contiguous", "cuda": "channels_last"}


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        device: cpu or cuda.
        mode: inference, training (forward and backward), or inference-graph (replay of a CUDA
            graph).
        peer: a key of `PEERS`.
    """

    device: str
    dtype: str
    memory_format: str
    shape: Shape
    mode: str
    peer: str

    def __str__(self) -> str:
        return f"{self.device}-{self.shape}-{self.mode}-{self.peer}"

    @property
    def slow(self) -> bool:
        """Whether the row takes minutes rather than seconds."""
        shape = self.shape
        literal = 2 * shape.n * shape.rectangles * shape.c * shape.d  # operations of a forward
        by_count = self.peer == "reference" and self.device == "cpu" and literal > 2e11
        return PEERS[self.peer].compiled or by_count


def cases(shapes: str | None, dtype: str | None, memory_format: str | None) -> list[Case]:
    """Return the rows of both devices, those that share tensors next to each other.

    Raises:
        ValueError: `shapes` names something unknown.
    """
    return [
        Case(device, dtype or DTYPES[device], memory_format or FORMATS[device], shape, mode, peer)
        for device in ("cpu", "cuda")
        for shape in parse_shapes(shapes or DEFAULT_SETS[device], device)
        for mode in _modes(device, shape)
        for peer in PEERS
        if _is_measured(shape, peer)
    ]


def _modes(device: str, shape: Shape) -> tuple[str, ...]:
    graph = (GRAPH,) if device == "cuda" and shape.n == 1 else ()
    return (INFERENCE, *graph, TRAINING)


def _is_measured(shape: Shape, peer: str) -> bool:
    if not is_rectangle_shape(shape):
        return True
    return PEERS[peer].is_lca and not PEERS[peer].compiled
