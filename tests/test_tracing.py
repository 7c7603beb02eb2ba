"""What tracers make of LCA: a graph that is right for other batches than the traced one."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from lca_fused import LCA, attach_lca
from lca_fused.backends import eager, numba_cpu, operator
from reference.lca import lca_reference
from tests.parity import relative_error

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


def traced(module: nn.Module, x: Tensor) -> nn.Module:
    """`module` after torch.jit.trace and a file."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        torch.jit.save(torch.jit.trace(module, x), file)
    file.seek(0)
    return torch.jit.load(file)


def taken_down(module: nn.Module, x: Tensor, *, mode: str, pre_dispatch: bool) -> nn.Module:
    trace = make_fx(
        module, tracing_mode=mode, pre_dispatch=pre_dispatch, _allow_non_fake_inputs=True
    )
    return trace(x)


TRACERS: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "jit": traced,
    "export": lambda module, x: torch.export.export(
        module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    ).module(),
    "fx": lambda module, _: torch.fx.symbolic_trace(module),
} | {
    f"make_fx-{mode}{'-pre_dispatch' * pre_dispatch}": partial(
        taken_down, mode=mode, pre_dispatch=pre_dispatch
    )
    for mode in ("real", "fake", "symbolic")
    for pre_dispatch in (False, True)
}


@pytest.fixture(autouse=True)
def _chunks_of_two_images(monkeypatch):
    """A tracer that takes chunks down takes down as many as the traced batch has."""
    torch.manual_seed(0)
    monkeypatch.setattr(eager, "_CHUNK_BYTES", {"cpu": 2 * 8 * 12 * 4})
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("gradients", [True, False], ids=["grad", "no_grad"])
@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("tracer", TRACERS)
def test_a_graph_is_right_for_other_batches_than_the_traced_one(tracer, backend, gradients):
    layer = LCA(4, 8, backend=backend)
    with torch.set_grad_enabled(gradients):
        graph = TRACERS[tracer](layer, torch.randn(2, 4, 3, 4))
    for n in (1, 9):
        x = torch.randn(n, 4, 3, 4, requires_grad=True)
        expected = lca_reference(x.double(), layer.weight.double(), layer.bias.double())
        actual = graph(x)
        assert relative_error(actual, expected) <= 2e-6
        (gradient,) = torch.autograd.grad(actual.square().sum(), x)
        (exact,) = torch.autograd.grad(expected.square().sum(), x)
        assert relative_error(gradient, exact) <= 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("tracer", sorted(set(TRACERS) - {"fx"}))
def test_a_graph_refuses_maps_of_another_size(tracer):
    graph = TRACERS[tracer](LCA(4, 6), torch.randn(2, 4, 3, 4))
    for size in [(4, 3), (3, 3), (6, 2), (1, 12), (1, 1), (1, 4), (3, 1), (6, 8)]:
        with pytest.raises((RuntimeError, AssertionError)):
            graph(torch.randn(2, 4, *size))


def test_a_graph_of_torch_fx_takes_maps_of_any_size():
    layer = LCA(4, 6, kernel_sizes=[(2, 2), (1, 2)])
    graph = torch.fx.symbolic_trace(nn.Sequential(layer, nn.ReLU()))
    for size in [(3, 4), (5, 5)]:
        x = torch.randn(3, 4, *size)
        torch.testing.assert_close(graph(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_trace_under_autocast_returns_autocasts_dtype(dtype):
    layer, x = LCA(4, 8), torch.randn(9, 4, 3, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, cache_enabled=False):
        graph = traced(layer, x[:2])
    output = graph(x)
    assert output.dtype == dtype
    assert relative_error(output, lca_reference(x, layer.weight, layer.bias)) <= 0.02


@pytest.mark.parametrize("tracer", sorted(set(TRACERS) - {"fx"}))
@pytest.mark.parametrize("backend", ["numba", "triton"])
def test_kernels_asked_for_by_name_are_refused(tracer, backend):
    with pytest.raises(ValueError, match=r"records torch operators and sees no kernels; use back"):
        TRACERS[tracer](LCA(4, 6, backend=backend), torch.randn(2, 4, 3, 4))


def test_a_classifier_is_traced_whole():
    pytest.importorskip("torchvision")
    from torchvision.models import shufflenet_v2_x0_5

    model = attach_lca(shufflenet_v2_x0_5(), 5).eval()
    with torch.no_grad():
        graph = traced(model, torch.randn(2, 3, 64, 64))
        x = torch.randn(9, 3, 64, 64)
        torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradients", [True, False], ids=["grad", "no_grad"])
def test_torchscripts_onnx_exporter_writes_plain_operators_for_any_batch(gradients, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    layer, path = LCA(4, 8), tmp_path / "lca.onnx"
    with torch.set_grad_enabled(gradients), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            layer,
            (torch.randn(1, 4, 3, 4),),
            path,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )
    operators = {(node.domain, node.op_type) for node in onnx.load(path).graph.node}
    assert ("", "Conv") in operators
    assert {domain for domain, _ in operators} == {""}
    x = torch.randn(9, 4, 3, 4)
    (output,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), layer(x).detach())


def test_openvino_converts_the_layer():
    openvino = pytest.importorskip("openvino")
    layer, x = LCA(4, 8), torch.randn(9, 4, 3, 4)
    converted = openvino.convert_model(layer, example_input=x[:1], input=[-1, 4, 3, 4])
    (output,) = openvino.compile_model(converted, "CPU")([x.numpy()]).values()
    torch.testing.assert_close(torch.from_numpy(output), layer(x).detach(), rtol=1e-3, atol=1e-4)


def test_torchvision_extracts_the_features_of_the_layer():
    pytest.importorskip("torchvision")
    from torchvision.models import squeezenet1_1
    from torchvision.models.feature_extraction import create_feature_extractor

    model = attach_lca(squeezenet1_1(), 5).eval()
    x = torch.randn(2, 3, 96, 96)
    features = create_feature_extractor(model, ["lca"])(x)["lca"]
    torch.testing.assert_close(features, model.forward_head(model.forward_features(x), True))


class Notes:
    """Notes the names of what a mode sees."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def note(self, function, _types, args=(), kwargs=None):
        self.names.append(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


class SeenOperators(Notes, TorchDispatchMode):
    __torch_dispatch__ = Notes.note


class SeenFunctions(Notes, TorchFunctionMode):
    __torch_function__ = Notes.note


@pytest.mark.parametrize("mode", [SeenOperators, SeenFunctions])
@pytest.mark.parametrize("gradients", [True, False], ids=["grad", "no_grad"])
def test_modes_that_may_record_see_every_operator_of_a_whole_batch(mode, gradients):
    layer = LCA(4, 8)
    seen = []
    for n in (1, 9):
        with mode() as notes, torch.set_grad_enabled(gradients):
            layer(torch.randn(n, 4, 3, 4))
        seen.append([name for name in notes.names if "randn" not in name])
    assert seen[0] == seen[1]
    assert sum("relu" in name for name in seen[0]) == 11  # one a kernel size


def test_default_devices_and_checkpoints_keep_the_kernels(monkeypatch):
    if numba_cpu.unavailable(torch.zeros(1)) is not None:
        pytest.skip("no kernels here")
    calls = []

    accumulate = operator.accumulate

    def counted(*arguments):
        calls.append(arguments)
        return accumulate(*arguments)

    monkeypatch.setattr(operator, "accumulate", counted)
    layer, x = LCA(4, 6), torch.randn(2, 4, 3, 4, requires_grad=True)
    with torch.device("cpu"):
        layer(x)
    assert len(calls) == 1
    contexts = partial(
        create_selective_checkpoint_contexts, lambda *_, **__: CheckpointPolicy.PREFER_RECOMPUTE
    )
    checkpoint(layer, x, use_reentrant=False, context_fn=contexts).sum().backward()
    assert len(calls) == 3
