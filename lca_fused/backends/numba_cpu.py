"""Rectangle pooling on a CPU, compiled by Numba: blocks of columns that live in L1.

The columns (n, d) of the projection are independent and every column's operations come in one
fixed order, so the result is the same bit by bit however the blocks are shared among threads.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from lca_fused.backends.projection import project_rows
from lca_fused.backends.tracing import constant, subclass_of_tensor
from lca_fused.rectangles import KernelSizes, num_rectangles, resolve_kernel_sizes

_LOGGER = logging.getLogger("lca_fused")
_COMPILING = threading.Lock()
_COMPILED: set[tuple[str, torch.dtype]] = set()

PoolRanges = Callable[[Iterable[tuple[int, int]]], None]

_IMPORTED_IN = os.getpid()

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
# NumPy has no bfloat16 and Numba no float16, so the kernels see integers; see `numba_kernels`.
_SEEN_AS = {torch.bfloat16: torch.uint16, torch.float16: torch.int16}

# A second thread costs a tenth of a millisecond and should save more. There are more tasks than
# threads, for a core may be slowed down by something else.
_RECTANGLES_PER_THREAD = 1 << 20
_TASKS_PER_THREAD = 4


def unavailable(x: Tensor) -> str | None:
    """Return why this backend cannot serve `x`, or None when it can."""
    if x.device.type != "cpu":
        return f"it serves CPU tensors, and this one is on {x.device}"
    if x.layout != torch.strided:
        return f"it serves strided tensors, and this one is {x.layout}"
    if x.dtype not in _DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in _DTYPES)
        return f"it serves {names}, and this tensor is {x.dtype}"
    if not torch.compiler.is_compiling() and (kind := subclass_of_tensor(x)) is not None:
        return f"it serves plain tensors, and this one is a {kind}"
    return _cannot_run()


def to_rows(x: Tensor) -> Tensor:
    """(N, C, H, W), any strides -> (N, H, W, C), contiguous; a view where x is laid out so."""
    return x.permute(0, 2, 3, 1).contiguous()


def project_and_pool(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kernel_sizes: KernelSizes | None,
    training: bool,
) -> tuple[Tensor, Tensor | None]:
    """(N, H, W, C) -> (N, D) and, for training, the gate map as `pooled_with_gate` returns it."""
    projection = project_rows(rows, weight, bias)
    if not training:
        return pooled(projection, kernel_sizes), None
    return pooled_with_gate(projection, kernel_sizes, overwrite=True)


def pooled(projection: Tensor, kernel_sizes: KernelSizes | None) -> Tensor:
    """(N, H, W, D) -> (N, D): mean over the rectangles of relu(mean over the rectangle)."""
    return _run("pool", projection.detach().contiguous(), kernel_sizes)


def pooled_with_gate(
    projection: Tensor, kernel_sizes: KernelSizes | None, *, overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """Return `pooled` and H*W times the gate map, (N, H, W, D) in the dtype of `projection`.

    With M[n, p, d] = (1/R) * sum over rectangles r holding position p of 1[z_r > 0] / area(r),
    the gradient with respect to the projection is M. The factor H*W keeps M from underflowing in
    16 bits; `projection_gradient` takes it off.

    Args:
        projection: (N, H, W, D), any strides.
        kernel_sizes: (kh, kw) pairs that fit the map; None means all but 1x1.
        overwrite: let the gate map take the memory of `projection`, for a caller that needs the
            projection no more. Touching as much new memory costs a third of the time at 7x7.
    """
    source = projection.detach().contiguous()
    owned = overwrite or source.data_ptr() != projection.data_ptr()
    gate = source if owned else torch.empty_like(source)
    return _run("pool_with_gate", source, kernel_sizes, gate), gate


def projection_gradient(
    gate_map: Tensor,
    grad_pooled: Tensor,
    kernel_sizes: KernelSizes | None,  # noqa: ARG001, the gate map holds what they say
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the projection, and its sum over the positions of each image.

    Args:
        gate_map: (N, H, W, D), as `pooled_with_gate` scales it.
        grad_pooled: (N, D), any strides.
        kernel_sizes: not needed here.

    Returns:
        (N, H, W, D) in the dtype of the gate map, and (N, D) in that of accumulation.
    """
    n, height, width, d = gate_map.shape
    summed_in = _summed_in(gate_map.dtype)
    scaled = grad_pooled.to(summed_in) / (height * width)
    if gate_map.dtype == summed_in:
        gradient = gate_map * scaled[:, None, None]
        return gradient, gradient.sum((1, 2))
    gradient = torch.empty_like(gate_map)
    sums = torch.empty(n, d, dtype=summed_in, device="cpu")
    images = zip(gradient, gate_map, scaled, sums, strict=True)
    for target, image_gate, image_scaled, image_sums in images:  # widened one image at a time
        product = image_gate * image_scaled
        target.copy_(product)
        torch.sum(product, (0, 1), out=image_sums)
    return gradient, sums


def _run(
    name: str, projection: Tensor, kernel_sizes: KernelSizes | None, *outputs: Tensor
) -> Tensor:
    """Run the kernel `name` over all blocks of columns and return what it pooled, (N, D).

    All tensors are contiguous; `outputs` are those the kernel writes besides.
    """
    n, height, width, d = projection.shape
    summed_in = _summed_in(projection.dtype)
    lanes = _kernels().BLOCK_BYTES // summed_in.itemsize
    blocks_an_image = -(-d // lanes)
    blocks = n * blocks_an_image
    means = torch.empty(n, blocks_an_image * lanes, dtype=summed_in, device="cpu")

    kernel = getattr(_kernels(), name)
    source = _array(projection)
    weights, reach, rectangles = _weights(height, width, kernel_sizes, summed_in)
    targets = [_array(target) for target in (means, *outputs)]
    scratch_size = getattr(_kernels(), name + "_scratch")(height, width) * lanes

    def pool_ranges(ranges: Iterable[tuple[int, int]]) -> None:
        scratch = _array(torch.empty(scratch_size, dtype=summed_in, device="cpu"))
        tail = _array(torch.zeros(lanes, dtype=projection.dtype, device="cpu"))
        size = (height, width, d)
        for first, last in ranges:
            kernel(source, size, weights, reach, scratch, tail, *targets, first, last)

    _compile_once(name, projection.dtype, lambda: pool_ranges([(0, 0)]))
    work = rectangles * blocks * lanes
    threads = min(torch.get_num_threads(), max(1, work // _RECTANGLES_PER_THREAD))
    _share(pool_ranges, blocks, threads)
    if means.shape[1] != d:  # a copy even of one image: autograd lets no view be changed in place
        means = means[:, :d].clone(memory_format=torch.contiguous_format)
    return means.to(projection.dtype)


def _share(pool_ranges: PoolRanges, blocks: int, threads: int) -> None:
    """Have `threads` threads, this one among them, take ranges of blocks until all are done."""
    tasks = min(blocks, threads * _TASKS_PER_THREAD)
    ranges = iter([(blocks * i // tasks, blocks * (i + 1) // tasks) for i in range(tasks)])

    def work() -> None:
        pool_ranges(ranges)

    if threads == 1:
        work()
        return
    forked = os.getpid() != _IMPORTED_IN  # GNU OpenMP hangs in a child of a process that used it
    run_in_parallel = None if forked else _openmp()
    if run_in_parallel is None:
        _run_in_thread_pool(work, threads)
    else:
        run_in_parallel(work, threads)


@functools.cache
def _openmp() -> Callable[[Callable[[], None], int], None] | None:
    """Return what runs a function on torch's own OpenMP threads, or None where there are none.

    Those threads spin for milliseconds after the matrix product that made the projection, and any
    others would have to share the cores with them.
    """
    library = os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_cpu.so")
    try:
        parallel = ctypes.CDLL(library).GOMP_parallel  # of the OpenMP that torch is linked to
    except (OSError, AttributeError):
        return None
    callback_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    parallel.argtypes = [callback_type, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None

    def run(work: Callable[[], None], threads: int) -> None:
        errors = []

        def guarded(_data: int | None) -> None:
            try:
                work()
            except BaseException as error:  # nothing may be raised through OpenMP
                errors.append(error)

        parallel(callback_type(guarded), None, threads, 0)
        if errors:
            raise errors[0]

    return run


def _run_in_thread_pool(work: Callable[[], None], threads: int) -> None:
    helpers = [_thread_pool(os.getpid(), threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():  # one that has not even begun is not waited for
                helper.result()


@functools.lru_cache(maxsize=1)
def _thread_pool(_process: int, threads: int) -> ThreadPoolExecutor:
    """Return threads for the places where torch's own cannot be used, new ones in every process.

    Numba's own threads do not survive a fork: its OpenMP layer ends the child, and its workqueue
    layer ends the process when two threads use it at a time.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="lca_fused")


@functools.lru_cache(maxsize=64)
def _weights(
    height: int, width: int, kernel_sizes: KernelSizes | None, dtype: torch.dtype
) -> tuple[Any, Any, int]:
    """Return each kernel size's weight, H*W / (kh * kw * R), each height's widest width, and R."""
    sizes = resolve_kernel_sizes(height, width, kernel_sizes)
    rectangles = num_rectangles(height, width, sizes)
    padding = _kernels().PADDING
    weights = torch.zeros(height, width + 1 + padding, dtype=torch.float64, device="cpu")
    reach = torch.zeros(height, dtype=torch.int64, device="cpu")
    scale = height * width / rectangles
    for kh, kw in sizes:
        weights[kh - 1, kw] = scale / (kh * kw)
        reach[kh - 1] = max(kw, int(reach[kh - 1]))
    return weights.to(dtype).numpy(), reach.numpy(), rectangles


def _array(tensor: Tensor) -> Any:
    """View a contiguous tensor as the flat NumPy array that the kernels take."""
    return tensor.view(_SEEN_AS.get(tensor.dtype, tensor.dtype)).view(-1).numpy()


def _summed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _compile_once(name: str, dtype: torch.dtype, call: Callable[[], None]) -> None:
    """Make `call`, the first of a kernel and dtype, and say so if it has to be compiled for it."""
    if (name, dtype) in _COMPILED:
        return
    from numba.core import event

    class Announcer(event.Listener):
        def on_start(self, _event: Any) -> None:
            _announce_compilation()

        def on_end(self, _event: Any) -> None:
            pass

    with _COMPILING, event.install_listener("numba:compile", Announcer()):
        call()
    _COMPILED.add((name, dtype))


@functools.cache
def _announce_compilation() -> None:
    _LOGGER.warning(
        "compiling rectangle pooling for this CPU; it takes a second or two for each dtype and "
        "mode (inference, training) and is kept in Numba's cache for later runs"
    )


@functools.cache
def _kernels() -> Any:
    from lca_fused.backends import numba_kernels

    return numba_kernels


@constant
def _cannot_run() -> str | None:
    return _import_failure()


@functools.cache
def _import_failure() -> str | None:
    try:
        from numba import config
    except ImportError as error:
        return f"numba cannot be imported ({error}); install it with: pip install lca-fused[cpu]"
    if config.DISABLE_JIT:
        return "the kernels must be compiled, and NUMBA_DISABLE_JIT forbids it; unset it"
    return None
