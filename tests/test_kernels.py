"""The kernels against the reference: Numba's on the CPU, Triton's on a GPU or in its interpreter.

Without a GPU: TRITON_INTERPRET=1 pytest tests/test_kernels.py, as CI does.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lca_fused import LCA, backends, local_concepts_accumulation
from lca_fused.backends import triton_gpu
from lca_fused.backends.kernels import KERNELS
from lca_fused.backends.triton_gpu import dispatch, tables
from reference.lca import lca_reference
from tests.backends import (
    GPUS,
    IN_INTERPRETER,
    INTERPRETED,
    NUMBA,
    ON_GPU,
    PATHS,
    SIXTEEN_BIT,
    take,
)
from tests.parity import (
    GRADIENT_LAYOUTS,
    LAYOUTS,
    errors,
    random_gradient,
    random_inputs,
    relative_error,
    with_gradients,
)

LARGE_MAPS = [(10, 11), (13, 13), (14, 14), (16, 16), (5, 20), (35, 3)]

_BACKEND = {"name": "triton"}


def accumulate(*tensors: Tensor, **keywords: Any) -> Tensor:
    return local_concepts_accumulation(*tensors, **keywords, backend=_BACKEND["name"])


@pytest.fixture(params=[NUMBA, IN_INTERPRETER, ON_GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, backend = request.param
    monkeypatch.setitem(_BACKEND, "name", backend)
    return name


gpu = pytest.mark.parametrize("device", [ON_GPU], indirect=True)
triton = pytest.mark.parametrize("device", [IN_INTERPRETER, ON_GPU], indirect=True)


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    take(monkeypatch, request.param)
    return request.param


def _to(device: str, inputs: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if t is None else t.to(device) for name, t in inputs.items()}


def _assert_parity(device, shape, d, *, kernel_sizes=None, bias=True, seed=0, limit=2e-6):
    inputs = _to(device, random_inputs(shape, d, dtype=torch.float32, bias=bias, seed=seed))
    gradient = random_gradient((shape[0], d), torch.float32).to(device)
    function = partial(accumulate, kernel_sizes=kernel_sizes)
    found = errors(function, inputs, gradient, kernel_sizes)
    without_gate = function(**inputs)
    found["inference"] = relative_error(
        without_gate, lca_reference(*_double(inputs), kernel_sizes=kernel_sizes)
    )
    assert max(found.values()) <= limit, found


def _double(inputs: dict[str, Tensor | None]) -> list[Tensor | None]:
    return [None if t is None else t.double() for t in inputs.values()]


@pytest.mark.usefixtures("poisoned_memory", "path")
@pytest.mark.parametrize(
    "side", [(1, 2), (2, 1), (3, 3), (5, 9), (7, 7), (8, 8), (12, 5), (1, 64), (6, 6)]
)
def test_small_maps_stay_within_2e_6_of_the_float64_reference(device, side):
    _assert_parity(device, (3, 20, *side), 37)


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("side", LARGE_MAPS)
def test_large_maps_stay_within_2e_6_of_the_float64_reference(device, side):
    _assert_parity(device, (2, 9, *side), 11)


@pytest.mark.slow
@pytest.mark.usefixtures("poisoned_memory")
def test_28x28_maps_stay_within_2e_6_of_the_float64_reference(device):
    _assert_parity(device, (1, 6, 28, 28), 5)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("n", "c", "d"), [(1, 70, 130), (3, 1, 1), (5, 33, 64)])
def test_blocks_need_not_divide_sizes_and_bias_may_be_left_out(device, n, c, d, bias):
    _assert_parity(device, (n, c, 3, 4), d, bias=bias)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("sizes", [[(1, 1)], [(2, 3), (1, 1), (4, 1)], [(4, 5)]])
def test_kernel_sizes_of_small_maps_may_be_chosen(device, sizes):
    _assert_parity(device, (2, 6, 4, 5), 5, kernel_sizes=sizes)


@pytest.mark.parametrize("shape", [(1, 4, 6, 18), (1, 4, 18, 6)])
@pytest.mark.parametrize("sizes", [[(1, 1)], [(2, 6), (5, 1), (6, 6)]])
def test_kernel_sizes_of_large_maps_may_be_chosen(device, shape, sizes):
    _assert_parity(device, shape, 5, kernel_sizes=sizes)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides_of_x_are_right(device, layout):
    inputs = _to(device, random_inputs((3, 5, 3, 4), 6, dtype=torch.float32))
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    gradient = random_gradient((3, 6), torch.float32).to(device)
    assert max(errors(accumulate, inputs, gradient).values()) <= 2e-6


@triton
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_those_of_a_torch_copy(device, layout, dtype):
    from lca_fused.backends.triton_gpu.rows import to_rows

    for shape in ((2, 5, 3, 4), (3, 64, 8, 8), (2, 70, 9, 8), (1, 1, 1, 2), (2, 3, 67, 1)):
        x = LAYOUTS[layout](torch.randn(shape, device=device).to(dtype))
        rows = to_rows(x)
        assert torch.equal(rows, x.permute(0, 2, 3, 1))
        assert rows.is_contiguous()


@triton
@pytest.mark.parametrize("lines", [True, False])
def test_rows_of_a_map_that_spans_more_than_2_31_elements_a_tile(device, lines):
    from lca_fused.backends.triton_gpu.rows import to_rows

    x = torch.empty(2**26, dtype=torch.float16, device=device)  # most of it is never touched
    x = x.as_strided((1, 2, 3, 5), (0, 2**25, 8 if lines else 5, 1))
    x.copy_(torch.randn(x.shape))
    assert torch.equal(to_rows(x), x.permute(0, 2, 3, 1))


@triton
def test_rows_that_are_already_there_are_not_copied(device):
    from lca_fused.backends.triton_gpu.rows import to_rows

    x = torch.randn(2, 5, 3, 4, device=device).to(memory_format=torch.channels_last)
    assert to_rows(x).data_ptr() == x.data_ptr()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_forward_and_backward_read_the_same_rows(device, layout, monkeypatch):
    kernels = KERNELS[_BACKEND["name"]]
    copies, saved = [], []
    real = kernels.to_rows
    monkeypatch.setattr(kernels, "to_rows", lambda x: copies.append(real(x)) or copies[-1])
    inputs = _to(device, random_inputs((2, 5, 3, 4), 6, dtype=torch.float32))
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        output = accumulate(**leaves)
    output.sum().backward()
    places = [tensor.data_ptr() for tensor in saved]
    if layout == "contiguous":
        (copy,) = copies
        assert places.count(copy.data_ptr()) == 1
        assert leaves["x"].data_ptr() not in places
    else:
        assert not copies
        assert places.count(leaves["x"].data_ptr()) == 1
    assert leaves["x"].grad.shape == leaves["x"].shape


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("layout", GRADIENT_LAYOUTS)
def test_any_strides_of_the_output_gradient_are_right(device, layout):
    inputs = _to(device, random_inputs((3, 5, 3, 4), 6, dtype=torch.float32))
    gradient = GRADIENT_LAYOUTS[layout](random_gradient((3, 6), torch.float32)).to(device)
    assert max(errors(accumulate, inputs, gradient).values()) <= 2e-6


@pytest.mark.usefixtures("path")
def test_weight_and_bias_may_be_views(device):
    inputs = _to(device, random_inputs((3, 5, 3, 4), 6, dtype=torch.float32))
    inputs["weight"] = inputs["weight"].t().contiguous().t()
    inputs["bias"] = inputs["bias"].repeat_interleave(2)[::2]
    gradient = random_gradient((3, 6), torch.float32).to(device)
    assert max(errors(accumulate, inputs, gradient).values()) <= 2e-6


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("side", [(7, 7), (14, 14)])
def test_an_empty_batch_gives_an_empty_output_and_zero_gradients(device, side):
    inputs = _to(device, random_inputs((0, 3, *side), 6, dtype=torch.float32))
    results = with_gradients(accumulate, inputs, torch.zeros(0, 6, device=device))
    assert results["output"].shape == (0, 6)
    assert results["x"].shape == (0, 3, *side)
    assert not results["weight"].any()
    assert not results["bias"].any()


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", SIXTEEN_BIT)
@pytest.mark.parametrize("side", [(3, 4), (7, 7), (9, 9)])
def test_16_bit_errors_are_at_most_twice_those_of_the_reference_in_that_dtype(device, side, dtype):
    inputs = _to(device, random_inputs((2, 32, *side), 16, dtype=dtype))
    gradient = random_gradient((2, 16), dtype).to(device)
    ours = errors(accumulate, inputs, gradient)
    theirs = errors(lca_reference, inputs, gradient)
    assert all(ours[name] <= 2 * theirs[name] for name in ours), (ours, theirs)


@pytest.mark.parametrize("side", [(3, 4), (9, 9)])
def test_float64_is_pooled_in_float64(device, side):
    inputs = _to(device, random_inputs((2, 5, *side), 6))
    gradient = random_gradient((2, 6)).to(device)
    assert max(errors(accumulate, inputs, gradient).values()) <= 1e-12


@pytest.mark.usefixtures("path")
def test_calls_are_bitwise_repeatable(device):
    inputs = _to(device, random_inputs((3, 20, 5, 4), 37, dtype=torch.float32))
    gradient = random_gradient((3, 37), torch.float32).to(device)
    first = with_gradients(accumulate, inputs, gradient)
    second = with_gradients(accumulate, inputs, gradient)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_frozen_inputs_get_no_gradient_and_leave_the_others_right(device, frozen):
    inputs = _to(device, random_inputs((2, 3, 3, 4), 6, dtype=torch.float32))
    gradient = random_gradient((2, 6), torch.float32).to(device)
    expected = with_gradients(accumulate, inputs, gradient)
    for name, tensor in inputs.items():
        tensor.requires_grad_(name != frozen)
    accumulate(**inputs).backward(gradient)
    assert inputs[frozen].grad is None
    assert all(torch.equal(inputs[n].grad, expected[n]) for n in inputs if n != frozen)


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_second_derivatives_are_those_of_the_reference(device, layout, traced):
    function = torch.compile(accumulate, fullgraph=True, backend="eager") if traced else accumulate

    def penalty(function: Callable[..., Tensor], inputs: dict[str, Tensor]) -> list[Tensor]:
        leaves = [t.detach().clone().requires_grad_() for t in inputs.values()]
        first = torch.autograd.grad(function(*leaves).square().sum(), leaves, create_graph=True)
        return list(torch.autograd.grad(sum(g.square().sum() for g in first), leaves))

    inputs = _to(device, random_inputs((2, 3, 3, 4), 4, dtype=torch.float32))
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    ours = penalty(function, inputs)
    theirs = penalty(lca_reference, {name: t.double() for name, t in inputs.items()})
    assert max(relative_error(a, b) for a, b in zip(ours, theirs, strict=True)) <= 5e-6


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("dtype", SIXTEEN_BIT)
def test_autocast_computes_in_its_dtype_and_gives_float32_gradients(device, dtype):
    inputs = _to(device, random_inputs((2, 32, 3, 4), 16, dtype=torch.float32))
    leaves = {name: t.requires_grad_() for name, t in inputs.items()}
    with torch.autocast(device, dtype=dtype):
        output = accumulate(**leaves)
    output.float().sum().backward()
    assert output.dtype == dtype
    assert all(leaf.grad.dtype == torch.float32 for leaf in leaves.values())
    expected = lca_reference(*_double(inputs))
    assert relative_error(output, expected) <= (2e-2 if dtype == torch.bfloat16 else 3e-3)


@pytest.mark.parametrize("wants_gradient", [False, True])
def test_operators_pass_opcheck(device, wants_gradient):
    operators, kernels = torch.ops.lca_fused, _BACKEND["name"]
    inputs = _to(device, random_inputs((2, 5, 3, 4), 6, dtype=torch.float32))
    inputs["x"] = inputs["x"].permute(0, 2, 3, 1).contiguous()  # what they take is rows
    arguments = tuple(t.requires_grad_(wants_gradient) for t in inputs.values())
    opcheck = torch.library.opcheck
    opcheck(operators.accumulate_and_save.default, (*arguments, [1, 2, 3, 3], kernels))
    if not wants_gradient:
        opcheck(operators.accumulate.default, (*arguments, None, kernels))
        saved, gradient = torch.rand(2, 3, 4, 6, device=device), torch.rand(2, 6, device=device)
        opcheck(operators.projection_gradient.default, (saved, gradient, [1, 2, 3, 3], kernels))


def test_operators_take_rows_and_what_was_saved_with_any_strides(device):
    operators, kernels = torch.ops.lca_fused, _BACKEND["name"]
    inputs = _to(device, random_inputs((2, 5, 3, 4), 6, dtype=torch.float32))
    rows, parameters = inputs["x"].permute(0, 2, 3, 1), (inputs["weight"], inputs["bias"])
    assert not rows.is_contiguous()
    for operator in (operators.accumulate, operators.accumulate_and_save):
        found = operator(rows, *parameters, None, kernels)
        expected = operator(rows.contiguous(), *parameters, None, kernels)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    saved, gradient = expected[1], torch.rand(2, 6, device=device)
    strided = saved.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    torch.testing.assert_close(
        operators.projection_gradient(strided, gradient, None, kernels),
        operators.projection_gradient(saved, gradient, None, kernels),
        rtol=0,
        atol=0,
    )


@pytest.fixture
def compiled() -> Iterator[Callable[..., Tensor]]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch.compile(accumulate, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()


@pytest.mark.parametrize("kernel_sizes", [None, [(2, 2), (1, 3)]])
def test_compiles_to_one_graph_forward_and_backward(device, compiled, kernel_sizes):
    inputs = _to(device, random_inputs((2, 5, 3, 4), 6, dtype=torch.float32))
    gradient = random_gradient((2, 6), torch.float32).to(device)
    function = partial(compiled, kernel_sizes=kernel_sizes)
    assert max(errors(function, inputs, gradient, kernel_sizes).values()) <= 2e-6
    with torch.no_grad():
        expected = lca_reference(*_double(inputs), kernel_sizes=kernel_sizes)
        assert relative_error(function(**inputs), expected) <= 2e-6


def test_batches_of_other_sizes_do_not_compile_again(device, compiled):
    for n in (2, 3, 5, 7, 11):
        inputs = _to(device, random_inputs((n, 5, 3, 4), 6, dtype=torch.float32))
        gradient = random_gradient((n, 6), torch.float32).to(device)
        assert max(errors(compiled, inputs, gradient).values()) <= 2e-6
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


@pytest.mark.skipif(INTERPRETED or GPUS > 0, reason="where the backend cannot serve")
def test_a_cpu_tensor_is_refused_with_advice_and_auto_serves_it():
    inputs = random_inputs((2, 5, 3, 4), 6)
    with pytest.raises(ValueError, match=r'"triton" cannot .* x is on cpu, .* use backend="auto"'):
        accumulate(**inputs)
    output = local_concepts_accumulation(**inputs)
    assert relative_error(output, lca_reference(**inputs)) <= 1e-12


def test_a_machine_without_triton_says_so_and_auto_serves(monkeypatch):
    monkeypatch.setattr(triton_gpu, "_INSTALLED", False)
    inputs = random_inputs((2, 5, 3, 4), 6)
    with pytest.raises(ValueError, match="the package triton is not installed; use backend="):
        accumulate(**inputs)
    assert local_concepts_accumulation(**inputs).shape == (2, 6)


def test_a_dtype_the_kernels_do_not_take_is_named():
    reason = triton_gpu.unavailable(torch.zeros(1, dtype=torch.float8_e5m2))
    assert reason is not None
    assert "float8_e5m2" in reason


def test_without_a_c_compiler_the_kernels_say_so_once(monkeypatch):
    runtime = pytest.importorskip("triton.runtime")

    class Driver:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(triton_gpu, "_INTERPRETED", False)
    monkeypatch.setattr(triton_gpu, "no_compiler", lambda: None)
    monkeypatch.setattr(runtime, "driver", Driver())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (9, 0))
    _assert_said_once("Failed to find C compiler.*gcc")


def test_a_triton_older_than_the_kernels_language_says_so_once(monkeypatch):
    module = pytest.importorskip("triton")
    monkeypatch.delattr(module, "constexpr_function", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (9, 0))
    _assert_said_once(f"triton {module.__version__} is installed.*3.5.*newer torch")


def _assert_said_once(pattern: str) -> None:
    _forget_the_machine()
    try:
        with pytest.warns(RuntimeWarning, match=f"slower.*{pattern}"):
            reason = triton_gpu._unusable(0)
        assert re.search(pattern, reason)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert triton_gpu._unusable(0) == reason
    finally:
        _forget_the_machine()


def _forget_the_machine() -> None:
    triton_gpu._too_old.cache_clear()
    triton_gpu._toolchain_failure.cache_clear()


def test_a_gpu_that_is_too_old_is_refused(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(triton_gpu, "_INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (7, 5))
    _forget_the_machine()
    assert "7.5, the kernels need 8.0" in triton_gpu._unusable(0)
    _forget_the_machine()


def test_func_transforms_take_the_plain_operators_under_auto():
    inputs = random_inputs((2, 5, 3, 4), 6)

    def total(x: Tensor) -> Tensor:
        return local_concepts_accumulation(x, inputs["weight"], inputs["bias"]).sum()

    expected = with_gradients(lca_reference, inputs, torch.ones(2, 6).double())["x"]
    assert relative_error(torch.func.grad(total)(inputs["x"]), expected) <= 1e-12


@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("width", range(1, 100))
def test_chunks_are_about_equal_and_not_too_wide(width, gate):
    chunks = dispatch.chunks(width, gate)
    assert sum(chunks) == width
    assert max(chunks) - min(chunks) <= 1
    assert len(chunks) == 1 or max(chunks) == chunks[0] <= dispatch.WIDEST_CHUNK
    assert chunks[0] <= dispatch.WIDEST_WHOLE


@gpu
def test_auto_takes_the_kernels_on_a_gpu(device):
    x = torch.zeros(1, 3, 4, 5, device=device)
    assert backends.choose("auto", x) == "triton"


def test_torch_compile_finds_what_auto_takes_outside_it(device):
    graphs = []

    def keep(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    x = torch.randn(2, 5, 3, 4, device=device)
    torch.compile(LCA(5, 6, device=device), fullgraph=True, backend=keep)(x)
    targets = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert any("lca_fused.accumulate" in target for target in targets), targets


@gpu
@pytest.mark.parametrize("n", [1, 32, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_benchmark_shapes_in_16_bit(device, n, dtype, path):
    inputs = _to(device, random_inputs((n, 2048, 7, 7), 2048, dtype=torch.float32))
    inputs = {name: t.to(dtype) for name, t in inputs.items()}
    inputs["x"] = inputs["x"].to(memory_format=torch.channels_last)
    gradient = random_gradient((n, 2048), dtype).to(device)
    ours = errors(accumulate, inputs, gradient)
    theirs = errors(partial(local_concepts_accumulation, backend="eager"), inputs, gradient)
    assert all(ours[name] <= 2 * theirs[name] for name in ours), (path, ours, theirs)


@gpu
def test_float32_obeys_the_precision_setting_of_torch(device, monkeypatch):
    inputs = _to(device, random_inputs((2, 512, 7, 7), 64, dtype=torch.float32))
    expected = lca_reference(*_double(inputs))
    assert relative_error(accumulate(**inputs), expected) <= 2e-6
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
    error = relative_error(accumulate(**inputs), expected)
    assert 2e-6 < error <= 2e-3


@gpu
def test_tensors_of_more_than_2_31_elements_are_right(device):
    n, c, side, d = 22_000, 2048, 7, 32
    free, _ = torch.cuda.mem_get_info()
    if free < 3 * n * c * side * side * 2:
        pytest.skip("needs about 14 GB of GPU memory")
    x = torch.randn(n, c, side, side, device=device, dtype=torch.bfloat16)
    weight = torch.randn(d, c, device=device, dtype=torch.bfloat16) / c**0.5
    assert x.numel() > 2**31
    output = accumulate(x, weight)
    for rows in (slice(0, 2), slice(n - 2, n)):
        expected = lca_reference(x[rows].double(), weight.double())
        assert relative_error(output[rows], expected) <= 1e-2


@gpu
def test_projections_of_more_than_2_31_elements_are_right(device):
    n, c, side, d = 22_000, 16, 7, 2048
    free, _ = torch.cuda.mem_get_info()
    if free < 4 * n * d * side * side * 2:
        pytest.skip("needs about 18 GB of GPU memory")
    x = torch.randn(n, c, side, side, device=device, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(d, c, device=device, dtype=torch.bfloat16) / c**0.5
    output = accumulate(x, weight)
    output.backward(torch.ones_like(output))
    last = slice(n - 2, n)
    leaf = x[last].detach().double().requires_grad_()
    expected = lca_reference(leaf, weight.double())
    expected.backward(torch.ones_like(expected))
    assert relative_error(output[last], expected) <= 1e-2
    assert relative_error(x.grad[last], leaf.grad) <= 2e-2


@gpu
@pytest.mark.usefixtures("path")
def test_autotuned_tiles_give_the_same_results(device, monkeypatch, tmp_path):
    from lca_fused.backends.triton_gpu import fused

    few = dispatch.one_launch_candidates
    monkeypatch.setattr(fused, "one_launch_candidates", lambda tile: few(tile)[:4])
    monkeypatch.setenv("LCA_FUSED_AUTOTUNE", "1")
    monkeypatch.setenv("LCA_FUSED_CACHE", str(tmp_path))
    _assert_parity(device, (3, 70, 7, 7), 130)
    assert (tmp_path / "autotune.json").read_text()


@pytest.mark.gpu
@pytest.mark.skipif(GPUS < 2 or INTERPRETED, reason="needs two GPUs")
def test_the_second_gpu_is_used_for_its_tensors():
    inputs = _to("cuda:1", random_inputs((2, 20, 7, 7), 37, dtype=torch.float32))
    gradient = random_gradient((2, 37), torch.float32).to("cuda:1")
    assert torch.cuda.current_device() == 0
    assert max(errors(accumulate, inputs, gradient).values()) <= 2e-6


def _gradient_of(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(module(x).sum(), [x])
    return gradient


@gpu
def test_inductor_compiles_the_layer_forward_and_backward(device):
    layer = LCA(64, 48, device=device)
    x = torch.randn(4, 64, 7, 7, device=device, requires_grad=True)
    actual = _gradient_of(torch.compile(layer, fullgraph=True), x)
    assert relative_error(actual, _gradient_of(layer, x)) <= 2e-6


@gpu
@pytest.mark.parametrize("side", [7, 14], ids=lambda side: f"{side}x{side}")
def test_torch_compile_puts_the_layer_into_cuda_graphs(device, side):
    tables.weight_tables.cache_clear()  # so that the first call of the graph makes them
    torch._dynamo.utils.counters.clear()
    layer = LCA(64, 48, device=device)
    compiled = torch.compile(layer, fullgraph=True, mode="reduce-overhead")
    x = torch.randn(4, 64, side, side, device=device, requires_grad=True)
    for _ in range(4):  # warms up, captures, replays
        torch.compiler.cudagraph_mark_step_begin()
        actual = _gradient_of(compiled, x)
    assert torch._dynamo.utils.counters["inductor"]["cudagraph_skips"] == 0
    assert relative_error(actual, _gradient_of(layer, x)) <= 2e-6


@gpu
@pytest.mark.parametrize("side", [7, 14], ids=lambda side: f"{side}x{side}")
def test_calls_can_be_captured_in_a_cuda_graph(device, side):
    x = torch.randn(4, 64, side, side, device=device)
    layer = LCA(64, 48, device=device)
    with torch.no_grad():
        expected = layer(x)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = layer(x)
        graph.replay()
    assert torch.equal(output, expected)


def _losses(device: str, accumulate: Callable[..., Tensor], steps: int) -> list[float]:
    torch.manual_seed(0)
    network = nn.ModuleDict(
        {"conv": nn.Conv2d(3, 16, 3, 2), "lca": nn.Linear(16, 24), "out": nn.Linear(24, 5)}
    ).to(device)
    images = torch.randn(40, 3, 9, 9, device=device)
    labels = torch.arange(40, device=device) % 5
    images += labels[:, None, None, None] * 0.3
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(steps):
        lca = network["lca"]
        features = accumulate(network["conv"](images).relu(), lca.weight, lca.bias)
        loss = nn.functional.cross_entropy(network["out"](features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_network_trains_as_with_the_reference(device):
    steps = 30 if device == "cuda" else 5  # rounding alone tells any two runs apart after some 40
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        ours, theirs = _losses(device, accumulate, steps), _losses(device, lca_reference, steps)
    assert ours == pytest.approx(theirs, rel=1e-2)
    assert ours[:5] == pytest.approx(theirs[:5], rel=1e-4)
    assert ours[-1] < ours[0]
