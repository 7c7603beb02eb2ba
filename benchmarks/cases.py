"""Every combination of device, shape, mode and peer that the suite measures."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers import PEERS
from benchmarks.shapes import (
    ACCEPTANCE_CUDA,
    DEFAULT_SETS,
    Shape,
    is_rectangle_shape,
    parse_shapes,
)

INFERENCE, TRAINING = "inference", "training"
INFERENCE_GRAPH, TRAINING_GRAPH = "inference-graph", "training-graph"
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
FORMATS = {"cpu": "contiguous", "cuda": "channels_last"}
# A GPU multiplies faster than Python can ask for it below so many multiplications and additions of
# the projection: 400 us at 750 TFLOP/s, where a training step costs a slow host as much.
_PYTHON_SHOWS = 3e11


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        device: the device type, cpu or cuda.
        mode: inference or training (forward and backward), or one of these with "-graph": replay
            of a CUDA graph.
        peer: what is measured, a key of `PEERS`.
    """

    device: str
    dtype: str
    memory_format: str
    shape: Shape
    mode: str
    peer: str

    def __str__(self) -> str:
        return f"{self.device}-{self.memory_format}-{self.shape}-{self.mode}-{self.peer}"

    @property
    def trains(self) -> bool:
        """Whether gradients are computed, too."""
        return self.mode in (TRAINING, TRAINING_GRAPH)

    @property
    def replays_graph(self) -> bool:
        """Whether what is timed is the replay of a CUDA graph."""
        return self.mode in (INFERENCE_GRAPH, TRAINING_GRAPH)

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
        Case(device, dtype or DTYPES[device], layout, shape, mode, peer)
        for device in ("cpu", "cuda")
        for shape in parse_shapes(shapes or DEFAULT_SETS[device], device)
        for layout in ([memory_format] if memory_format else _formats(device, shape))
        for mode in _modes(device, shape)
        for peer in PEERS
        if _is_measured(shape, peer)
    ]


def python_shows(device: str, shape: Shape) -> bool:
    """Whether a call takes a GPU less time than it takes Python, so that graphs are timed too."""
    rows = shape.n * shape.height * shape.width
    return device == "cuda" and 2 * rows * shape.c * shape.d < _PYTHON_SHOWS


def _formats(device: str, shape: Shape) -> list[str]:
    """On a GPU the acceptance shapes are measured as most networks give them, too."""
    contiguous = ["contiguous"] if device == "cuda" and shape in ACCEPTANCE_CUDA else []
    return [FORMATS[device], *contiguous]


def _modes(device: str, shape: Shape) -> tuple[str, ...]:
    if python_shows(device, shape):
        return INFERENCE, INFERENCE_GRAPH, TRAINING, TRAINING_GRAPH
    return INFERENCE, TRAINING


def _is_measured(shape: Shape, peer: str) -> bool:
    if not is_rectangle_shape(shape):
        return True
    return PEERS[peer].is_lca and not PEERS[peer].compiled
