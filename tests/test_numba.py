"""The Numba backend against the float64 reference, and its manners: threads, forks, no numba."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from lca_fused import local_concepts_accumulation
from lca_fused.rectangles import KernelSizes, num_rectangles, resolve_kernel_sizes
from reference.lca import lca_reference
from tests.parity import relative_error

pytest.importorskip("numba")

from lca_fused.backends import numba_cpu

MAPS = [(1, 2), (2, 1), (3, 3), (5, 9), (7, 7), (8, 8), (12, 5), (13, 13), (14, 14), (28, 28)]
SETS = [((1, 1),), ((2, 3),), ((1, 5), (4, 1)), ((1, 1), (2, 2), (5, 5), (6, 7)), ((6, 7),)]


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def random_projection(
    n: int, height: int, width: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, height, width, d, generator=generator, dtype=torch.float64).to(dtype)


def reference(
    projection: Tensor, kernel_sizes: KernelSizes, grad_output: Tensor
) -> tuple[Tensor, Tensor]:
    """What the reference pools `projection` to, and the gradient with respect to it."""
    leaf = projection.detach().clone().requires_grad_()
    identity = torch.eye(projection.shape[3], dtype=projection.dtype)
    output = lca_reference(leaf.permute(0, 3, 1, 2), identity, kernel_sizes=kernel_sizes)
    return output.detach(), torch.autograd.grad(output, leaf, grad_output)[0]


def reference64(
    projection: Tensor, kernel_sizes: KernelSizes, grad_output: Tensor
) -> tuple[Tensor, Tensor]:
    return reference(projection.double(), kernel_sizes, grad_output.double())


def ours(
    projection: Tensor, kernel_sizes: KernelSizes, grad_output: Tensor
) -> tuple[Tensor, Tensor]:
    output, gate = numba_cpu.pooled_with_gate(projection, kernel_sizes)
    gradient, _ = numba_cpu.projection_gradient(gate, grad_output, kernel_sizes)
    return output, gradient


def check(projection: Tensor, kernel_sizes: KernelSizes, bound: float) -> None:
    n, _, _, d = projection.shape
    grad_output = random_projection(n, 1, 1, d, projection.dtype, seed=1).view(n, d)
    expected, expected_gradient = reference64(projection, kernel_sizes, grad_output)
    output, gate = numba_cpu.pooled_with_gate(projection, kernel_sizes)
    gradient, sums = numba_cpu.projection_gradient(gate, grad_output, kernel_sizes)
    plain = numba_cpu.pooled(projection, kernel_sizes)
    assert plain.dtype == output.dtype == gradient.dtype == projection.dtype
    assert relative_error(plain, expected) <= bound
    assert relative_error(output, expected) <= bound
    assert relative_error(gradient, expected_gradient) <= bound
    assert relative_error(sums, expected_gradient.sum((1, 2))) <= bound


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("size", MAPS)
@pytest.mark.usefixtures("poisoned_memory")
def test_outputs_and_gradients_agree_with_the_float64_reference(size, dtype, bound):
    n, d = (1, 17) if size == (28, 28) else (2, 24)  # the reference pools 164,052 rectangles
    check(random_projection(n, *size, d, dtype), resolve_kernel_sizes(*size), bound)


@pytest.mark.parametrize("kernel_sizes", SETS)
@pytest.mark.usefixtures("poisoned_memory")
def test_any_set_of_kernel_sizes(kernel_sizes):
    check(random_projection(3, 6, 7, 20, torch.float64), kernel_sizes, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [1, 7, 8, 9, 15, 16, 17, 33])
@pytest.mark.usefixtures("poisoned_memory")
def test_any_number_of_columns(d, dtype):
    bound = {torch.float64: 1e-12, torch.float32: 2e-6}.get(dtype, 0.01)
    check(random_projection(2, 4, 3, d, dtype), resolve_kernel_sizes(4, 3), bound)


def test_numbers_far_from_zero():
    projection = random_projection(2, 14, 14, 16) + torch.linspace(-30, 30, 16)
    check(projection, resolve_kernel_sizes(14, 14), 2e-6)


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 4, 0)])
def test_no_images_or_no_columns(shape):
    n, _, _, d = shape
    projection, kernel_sizes = torch.zeros(shape), resolve_kernel_sizes(3, 4)
    assert numba_cpu.pooled(projection, kernel_sizes).shape == (n, d)
    output, gate = numba_cpu.pooled_with_gate(projection, kernel_sizes)
    assert output.shape == (n, d)
    assert gate.shape == shape
    gradient, sums = numba_cpu.projection_gradient(gate, output, kernel_sizes)
    assert gradient.shape == gate.shape
    assert sums.shape == output.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(7, 7), (12, 5), (14, 14)])
def test_16_bit_errors_are_at_most_twice_those_of_torch_in_that_dtype(size, dtype):
    projection, kernel_sizes = random_projection(2, *size, 24, dtype), resolve_kernel_sizes(*size)
    grad_output = random_projection(2, 1, 1, 24, dtype, seed=1).view(2, 24)
    expected = reference64(projection, kernel_sizes, grad_output)
    theirs = reference(projection, kernel_sizes, grad_output)
    for actual, torch_ops, oracle in zip(
        ours(projection, kernel_sizes, grad_output), theirs, expected, strict=True
    ):
        assert relative_error(actual, oracle) <= 2 * relative_error(torch_ops, oracle)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_is_float32_rounded_once(dtype):
    projection, kernel_sizes = random_projection(2, 9, 8, 19, dtype), resolve_kernel_sizes(9, 8)
    wide_output, wide_gate = numba_cpu.pooled_with_gate(projection.float(), kernel_sizes)
    output, gate = numba_cpu.pooled_with_gate(projection, kernel_sizes)
    assert torch.equal(output, wide_output.to(dtype))
    assert torch.equal(gate, wide_gate.to(dtype))


def test_gates_of_a_large_map_do_not_underflow_in_float16():
    projection = torch.ones(1, 28, 28, 16, dtype=torch.float16)
    _, gate = numba_cpu.pooled_with_gate(projection, resolve_kernel_sizes(28, 28))
    assert gate.min() > torch.finfo(torch.float16).tiny
    assert gate.double().mean().item() == pytest.approx(1, rel=1e-3)  # all gates are open


def test_nan_and_infinities_stay_in_their_column_and_show():
    projection, kernel_sizes = random_projection(1, 4, 5, 16), resolve_kernel_sizes(4, 5)
    projection[0, 2, 3, 4:7] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    for output in (
        numba_cpu.pooled(projection, kernel_sizes),
        numba_cpu.pooled_with_gate(projection, kernel_sizes)[0],
    ):
        assert output.isfinite().sum() == 13
        assert not output[0, 4:7].isfinite().any()


def test_the_default_device_and_dtype_do_not_matter():
    projection, kernel_sizes = random_projection(1, 4, 6, 5), resolve_kernel_sizes(4, 6)
    expected = numba_cpu.pooled_with_gate(projection, kernel_sizes)
    numba_cpu._weights.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            actual = numba_cpu.pooled_with_gate(projection, kernel_sizes)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize(
    "strided",
    [
        lambda t: t.permute(0, 2, 1, 3),
        lambda t: t.permute(3, 1, 2, 0),
        lambda t: t[..., ::2],
        lambda t: t[:, :1].expand(-1, 6, -1, -1),
        lambda t: t.movedim(3, 1).contiguous().movedim(1, 3),
    ],
)
def test_strided_projections_are_left_as_they_are(strided):
    projection = strided(random_projection(17, 6, 5, 18, torch.float64))
    before = projection.clone()
    check(projection, resolve_kernel_sizes(*projection.shape[1:3]), 1e-12)
    assert torch.equal(projection, before)


def test_overwriting_gives_the_same_numbers_in_the_memory_of_the_projection():
    projection, kernel_sizes = random_projection(3, 6, 7, 37), resolve_kernel_sizes(6, 7)
    output, gate = numba_cpu.pooled_with_gate(projection.clone(), kernel_sizes)
    spent = projection.clone()
    same_output, same_gate = numba_cpu.pooled_with_gate(spent, kernel_sizes, overwrite=True)
    assert same_gate.data_ptr() == spent.data_ptr()
    assert torch.equal(same_output, output)
    assert torch.equal(same_gate, gate)


@pytest.fixture(params=["openmp", "thread pool"])
def either_kind_of_threads(request, monkeypatch):
    if request.param == "thread pool":
        monkeypatch.setattr(numba_cpu, "_openmp", lambda: None)
    elif numba_cpu._openmp() is None:
        pytest.skip("torch is not linked to an OpenMP that can be called")


def large_enough_for_two_threads() -> tuple[Tensor, KernelSizes]:
    projection, kernel_sizes = random_projection(5, 14, 14, 100), resolve_kernel_sizes(14, 14)
    rectangles = num_rectangles(14, 14, kernel_sizes) * 500
    assert rectangles > 2 * numba_cpu._RECTANGLES_PER_THREAD
    return projection, kernel_sizes


@pytest.mark.usefixtures("either_kind_of_threads")
def test_any_number_of_threads_gives_the_same_bits(threads):
    projection, kernel_sizes = large_enough_for_two_threads()
    grad_output = random_projection(5, 1, 1, 100).view(5, 100)
    results = []
    for count in (1, 2, 3):
        threads(count)
        plain = numba_cpu.pooled(projection, kernel_sizes)
        results.append((plain, *ours(projection, kernel_sizes, grad_output)))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_a_column_does_not_depend_on_its_neighbours():
    projection, kernel_sizes = random_projection(2, 5, 6, 37), resolve_kernel_sizes(5, 6)
    whole = ours(projection, kernel_sizes, torch.ones(2, 37))
    part = ours(projection[1:, ..., 3:24], kernel_sizes, torch.ones(1, 21))
    assert torch.equal(part[0], whole[0][1:, 3:24])
    assert torch.equal(part[1], whole[1][1:, ..., 3:24])


@pytest.mark.usefixtures("either_kind_of_threads")
def test_python_threads_may_call_at_a_time(threads):
    threads(2)
    projection, kernel_sizes = large_enough_for_two_threads()
    expected = numba_cpu.pooled_with_gate(projection, kernel_sizes)
    with ThreadPoolExecutor(3) as callers:
        calls = [
            callers.submit(numba_cpu.pooled_with_gate, projection, kernel_sizes) for _ in range(9)
        ]
        for call in calls:
            assert all(map(torch.equal, call.result(), expected))


@pytest.mark.usefixtures("either_kind_of_threads")
def test_an_error_in_a_thread_reaches_the_caller():
    def fail(ranges: Iterable[tuple[int, int]]) -> None:
        raise RuntimeError(f"at {next(iter(ranges))}")

    with pytest.raises(RuntimeError, match="at"):
        numba_cpu._share(fail, 100, 2)


@pytest.mark.usefixtures("either_kind_of_threads")
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("blocks", [0, 1, 5, 8, 100])
def test_every_block_is_pooled_once(blocks, threads):
    done = []

    def pool_ranges(ranges: Iterable[tuple[int, int]]) -> None:
        for first, last in ranges:
            done.extend(range(first, last))

    numba_cpu._share(pool_ranges, blocks, threads)
    assert sorted(done) == list(range(blocks))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_pools_with_threads_of_its_own(threads):
    threads(2)  # no torch operator may use them in the child: GNU OpenMP would hang
    projection, kernel_sizes = large_enough_for_two_threads()
    expected = numba_cpu.pooled(projection, kernel_sizes)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(
        target=lambda: queue.put(numba_cpu.pooled(projection, kernel_sizes).tolist())
    )
    child.start()
    try:
        child.join(timeout=60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert queue.get() == expected.tolist()


def test_what_cannot_be_served_is_said():
    assert numba_cpu.unavailable(torch.zeros(1)) is None
    assert numba_cpu.unavailable(torch.zeros(1, dtype=torch.bfloat16)) is None
    assert "meta" in numba_cpu.unavailable(torch.zeros(1, device="meta"))
    assert "complex64" in numba_cpu.unavailable(torch.zeros(1, dtype=torch.complex64))
    assert "sparse" in numba_cpu.unavailable(torch.zeros(1, 1).to_sparse())
    with FakeTensorMode():
        assert "FakeTensor" in numba_cpu.unavailable(torch.zeros(1))


def test_a_tangent_is_refused_rather_than_lost():
    x, weight = torch.zeros(1, 2, 3, 3), torch.zeros(4, 2)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(NotImplementedError, match="forward mode"):
            local_concepts_accumulation(dual, weight, backend="numba")


@pytest.mark.parametrize(
    "transform",
    [
        lambda function, x: torch.vmap(function)(x),
        lambda function, x: torch.func.jacrev(function)(x[0]),
        lambda function, x: torch.func.functionalize(function)(x[0]),
    ],
    ids=["vmap", "jacrev", "functionalize"],
)
def test_torch_func_is_refused_rather_than_misled(transform):
    weight = torch.randn(4, 2, requires_grad=True)
    with pytest.raises(ValueError, match=r'torch\.func transforms .* use backend="auto"'):
        transform(
            lambda x: local_concepts_accumulation(x, weight, backend="numba"),
            torch.randn(3, 1, 2, 3, 3),
        )


def test_numba_that_may_not_compile_cannot_serve(monkeypatch):
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    numba_cpu._import_failure.cache_clear()
    assert "NUMBA_DISABLE_JIT" in numba_cpu.unavailable(torch.zeros(1))
    choose = torch.compile(lambda x: x + len(numba_cpu.unavailable(x)), backend="eager")
    assert choose(torch.zeros(1)) > 0
    numba_cpu._import_failure.cache_clear()
    torch.compiler.reset()


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    numba_cpu._import_failure.cache_clear()
    yield
    numba_cpu._import_failure.cache_clear()


@pytest.mark.usefixtures("without_numba")
def test_without_numba_the_backend_says_how_to_get_it():
    reason = numba_cpu.unavailable(torch.zeros(1))
    assert "numba" in reason
    assert "pip install lca-fused[cpu]" in reason


def test_importing_the_backend_does_not_import_numba():
    program = "import sys, lca_fused.backends.numba_cpu; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_compilation_is_announced_once_and_cached(tmp_path):
    program = (
        "import torch; from lca_fused.backends import numba_cpu\n"
        "for dtype in (torch.float32, torch.float64):\n"
        "    for _ in range(2):\n"
        "        numba_cpu.pooled(torch.ones(1, 2, 2, 3, dtype=dtype), ((2, 2),))\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for _ in range(2)
    )
    assert first.count("compiling") == 1
    assert second == ""


def test_compilation_without_a_place_for_the_cache(monkeypatch):
    import numba

    from lca_fused.backends import numba_kernels

    real = numba.njit

    def njit_without_cache(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba_kernels, "njit", njit_without_cache)
    assert numba_kernels._jit(lambda x: x + 1)(1) == 2
