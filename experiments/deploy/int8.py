"""A classifier's ONNX file in 8-bit integers: calibrated on photos, and judged on others."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import (  # type: ignore[import-untyped]
    quant_pre_process,
)
from torch import Tensor

from experiments.deploy.onnx_export import INPUT, OnnxClassifier

_BATCH = 16
_ROUNDS = 30
_HEADS = ("lca.", "pool.", "classifier.")  # parameters of all that comes behind the backbone
_PROJECTIONS = ("lca.", "pool.")


@dataclass(frozen=True)
class Judged:
    """What 8-bit integers cost, and what they save.

    Attributes:
        photos: number of photos that both files were tried on.
        same_class: number of those for which both name the same class.
        labelled: number of photos whose class is known.
        right: number of those that the 8-bit file recognises.
        right_in_float32: number of those that the float32 file recognises.
        bytes: size of the 8-bit file.
        bytes_in_float32: size of the float32 file.
        milliseconds: median time of a photo alone, on this machine's CPU; the two took turns.
        milliseconds_in_float32: that of the float32 file.
    """

    photos: int
    same_class: int
    labelled: int
    right: int
    right_in_float32: int
    bytes: int
    bytes_in_float32: int
    milliseconds: float
    milliseconds_in_float32: float

    @property
    def lost(self) -> float:
        """Points of accuracy lost; of agreement, where the class of no photo is known."""
        if self.labelled:
            return 100 * (self.right_in_float32 - self.right) / self.labelled
        return 100 * (self.photos - self.same_class) / self.photos

    def __str__(self) -> str:
        same = f"the class of float32 for {100 * self.same_class / self.photos:.1f} % of "
        parts = [f"{same}{self.photos} photos"]
        if self.labelled:
            right, before = (
                100 * count / self.labelled for count in (self.right, self.right_in_float32)
            )
            parts.append(f"{right:.1f} % of {self.labelled} right (float32 {before:.1f} %)")
        parts.append(f"{self.bytes / 1e6:.1f} MB (float32 {self.bytes_in_float32 / 1e6:.1f})")
        parts.append(f"{self.milliseconds:.1f} ms (float32 {self.milliseconds_in_float32:.1f})")
        return ", ".join(parts)


def quantise(float32: Path, images: Tensor, path: Path, *, reduce_range: bool = False) -> None:
    """Write an ONNX file of `export_onnx` with its weights and activations in 8-bit integers.

    Weights are signed, with a scale for each channel, and activations unsigned: what onnxruntime
    runs fastest on x86. LCA's rectangles and the last linear layer stay in float32, as few
    operations and all that tells products apart are in them; LCA's projection does not.

    Args:
        float32: the file.
        images: photos whose activations set the scales, (n, 3, S, S) float32, normalised.
        path: where to write.
        reduce_range: whether weights have 7 bits, as CPUs without VNNI add up pairs of products in
            16 bits.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(str(float32), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(path),
            _Photos(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept_in_float(onnx.load(prepared).graph),
        )


def judge(
    float32: Path, int8: Path, images: Tensor, labels: Sequence[int | None], rounds: int = _ROUNDS
) -> Judged:
    """Hold the 8-bit file against the float32 one.

    Args:
        float32: the float32 file.
        int8: the 8-bit file.
        images: photos that it was not calibrated on, (n, 3, S, S) float32, normalised.
        labels: n indices of their classes, None where they are not known.
        rounds: number of times that each file is timed.
    """
    files = [OnnxClassifier(int8), OnnxClassifier(float32)]
    ours, theirs = (
        torch.cat([classify(batch).argmax(dim=1) for batch in images.split(_BATCH)])
        for classify in files
    )
    known = torch.tensor([label is not None for label in labels])
    truth = torch.tensor([-1 if label is None else label for label in labels])
    times = _in_turns(files, images[:1], rounds)
    return Judged(
        photos=len(images),
        same_class=int((ours == theirs).sum()),
        labelled=int(known.sum()),
        right=int((ours == truth).sum()),
        right_in_float32=int((theirs == truth).sum()),
        bytes=int8.stat().st_size,
        bytes_in_float32=float32.stat().st_size,
        milliseconds=times[0],
        milliseconds_in_float32=times[1],
    )


class _Photos(CalibrationDataReader):
    def __init__(self, images: Tensor) -> None:
        self._images: Iterator[Tensor] = iter(images.split(1))

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image.numpy()}


def _kept_in_float(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the nodes from the head on, but for its projection."""
    nodes = list(graph.node)
    first = next(n for n, node in enumerate(nodes) if _reads(node, _HEADS))
    return [node.name for node in nodes[first:] if not _is_projection(node)]


def _is_projection(node: onnx.NodeProto) -> bool:
    return any(n.startswith(_PROJECTIONS) and n.endswith(".weight") for n in node.input)


def _reads(node: onnx.NodeProto, parameters: tuple[str, ...]) -> bool:
    return any(name.startswith(parameters) for name in node.input)


def _in_turns(files: Sequence[OnnxClassifier], image: Tensor, rounds: int) -> list[float]:
    """Return the median milliseconds of each."""
    seconds: list[list[float]] = [[] for _ in files]
    for _ in range(rounds):
        for classify, its in zip(files, seconds, strict=True):
            start = time.perf_counter()
            classify(image)
            its.append(time.perf_counter() - start)
    return [1000 * statistics.median(its) for its in seconds]
