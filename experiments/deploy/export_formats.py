"""The formats a classifier can be written in, and how each is read again to be tried."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lca_fused.classifier import Classifier
from lca_fused.description import described

Classify = Callable[[Tensor], Tensor]
"""Images (N, 3, S, S) -> logits (N, K), float32 on the CPU."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        file: name of the file in the folder of an export.
        write: function that writes a classifier to a path.
        read: function that makes a `Classify` of the classifier and the path it was written to.
        packages: packages that both functions need, beside torch.
    """

    file: str
    write: Callable[[Classifier, Path], None]
    read: Callable[[Classifier, Path], Classify]
    packages: tuple[str, ...] = ()


def _write_onnx(classifier: Classifier, path: Path) -> None:
    # Here, as nobody who wants another format needs onnx.
    from experiments.deploy.onnx_export import export_onnx

    export_onnx(classifier, _size(classifier), path)


def _read_onnx(_: Classifier, path: Path) -> Classify:
    from experiments.deploy.onnx_export import OnnxClassifier

    return OnnxClassifier(path)


def _write_torch_export(classifier: Classifier, path: Path) -> None:
    size = _size(classifier)
    program = torch.export.export(
        classifier,
        (torch.zeros(2, 3, size, size),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    torch.export.save(program, path)


def _read_torch_export(_: Classifier, path: Path) -> Classify:
    module = torch.export.load(path).module()

    def classify(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return module(images)

    return classify


def _write_safetensors(classifier: Classifier, path: Path) -> None:
    from safetensors.torch import save

    tensors = {key: value.contiguous() for key, value in classifier.state_dict().items()}
    # Not by save_file: its files are readable by their owner alone.
    path.write_bytes(save(tensors, metadata={"format": "pt"}))


def _read_safetensors(classifier: Classifier, path: Path) -> Classify:
    from safetensors.torch import load_file

    model = copy.deepcopy(classifier)
    model.load_state_dict(load_file(path))

    def classify(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images)

    return classify


def _size(classifier: Classifier) -> int:
    return described(classifier).preprocessing.image_size


FORMATS = {
    "onnx": Format("model.onnx", _write_onnx, _read_onnx, ("onnx", "onnxruntime", "onnxscript")),
    "torch-export": Format("model.pt2", _write_torch_export, _read_torch_export),
    "safetensors": Format(
        "model.safetensors", _write_safetensors, _read_safetensors, ("safetensors",)
    ),
}
"""Formats by the name `--formats` takes, that say what the model says."""

INT8 = "int8"
INT8_FILE = "model-int8.onnx"
"""The format that says nearly the same (`experiments.deploy.int8`), and its file."""

FILES = {name: file_format.file for name, file_format in FORMATS.items()} | {INT8: INT8_FILE}
"""Name of each format's file."""
