"""A classifier as one ONNX file, for any number of photos at a time."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from experiments.deploy.onnx_lca import FixedSizeLCA
from lca_fused import LCA, Classifier

INPUT, OUTPUT = "images", "logits"
OPSET = 18
_STANDARD_DOMAINS = {"", "ai.onnx"}


class OnnxError(ValueError):
    """The ONNX file would not run everywhere; the message says why."""


def export_onnx(model: Classifier, image_size: int, path: Path) -> None:
    """Write `model` to `path`: images (N, 3, S, S) float32 -> logits (N, K) float32, N free.

    LCA is written as `FixedSizeLCA`, and the operators are ONNX's own: any runtime has them.

    Raises:
        OnnxError: the exporter had to make up an operator.
    """
    network = with_fixed_size_lca(model, image_size)
    images = torch.zeros(2, 3, image_size, image_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            network,
            (images,),
            str(path),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _check_operators(path)


def with_fixed_size_lca(model: Classifier, image_size: int) -> nn.Module:
    """Return `model` with its LCA, if it has one, made for the maps of photos of this size."""
    if not isinstance(model.pool, LCA):
        return model
    with torch.inference_mode():
        feature_map = model.backbone(torch.zeros(1, 3, image_size, image_size))
    network = copy.deepcopy(model)
    height, width = feature_map.shape[2:]
    network.pool = FixedSizeLCA(model.pool, (height, width))
    return network.eval()


class OnnxClassifier:
    """An ONNX file on the CPU, by onnxruntime.

    Args:
        path: file that `export_onnx` wrote.
        threads: number of threads that share an operator; 0 for one per core.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads wait for work by spinning; between two runs others may want the cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (N, K) of images (N, 3, S, S), float32 on the CPU."""
        (logits,) = self._session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)


def _check_operators(path: Path) -> None:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    foreign = {
        f"{node.domain}.{node.op_type}"
        for nodes in (model.graph.node, *(function.node for function in model.functions))
        for node in nodes
        if node.domain not in _STANDARD_DOMAINS
    }
    if foreign or model.functions:
        raise OnnxError(
            f"the ONNX graph holds {', '.join(sorted(foreign)) or 'local functions'}, which are no "
            "standard ONNX operators; expected standard ones alone: use another version of torch "
            "or onnxscript"
        )
