"""An exported classifier in the runtimes that shops have: onnxruntime, OpenCV and OpenVINO."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lca_fused import attach_lca

export = pytest.importorskip("experiments.deploy.onnx_export")

SIDE = 64


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the file, images and the logits of the model itself."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    model = attach_lca(backbone, 5).eval()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export.export_onnx(model, SIDE, path)
    images = torch.rand(1, 3, SIDE, SIDE)
    return path, images, model(images).detach().numpy()


@pytest.mark.slow
def test_onnxruntime(exported):
    path, images, logits = exported
    np.testing.assert_allclose(export.OnnxClassifier(path)(images).numpy(), logits, atol=1e-5)


def test_opencvs_classic_engine(exported):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2.dnn, "ENGINE_CLASSIC"):
        pytest.skip("this OpenCV has one engine alone")
    path, images, logits = exported
    network = cv2.dnn.readNetFromONNX(str(path), cv2.dnn.ENGINE_CLASSIC)
    network.setInput(images.numpy())
    np.testing.assert_allclose(network.forward(), logits, atol=1e-4)


def test_openvino(exported):
    openvino = pytest.importorskip("openvino")
    path, images, logits = exported
    compiled = openvino.Core().compile_model(str(path), "CPU")
    np.testing.assert_allclose(compiled(images.numpy())[0], logits, atol=1e-4)
