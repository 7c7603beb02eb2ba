"""Local-Concepts-Accumulation as a function: check the arguments, project once, pool."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from lca_fused import backends
from lca_fused.backends.tracing import autocast_dtype, not_traced
from lca_fused.rectangles import KernelSizes, check_kernel_sizes, normalize_kernel_sizes


def local_concepts_accumulation(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    kernel_sizes: Iterable[tuple[int, int]] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Local-Concepts-Accumulation, arXiv 2001.03992 section 3.2.

    Every rectangle of the feature map is average-pooled to one C-vector (a local concept), sent
    through one shared linear layer and a ReLU, and all the results are averaged. As the linear
    layer commutes with average pooling, the map is projected once, H*W rows, and the rectangles
    are taken from the projection.

    Non-finite numbers: where the projection of an image to a feature holds NaN or an infinity, the
    output is NaN. (Rectangle by rectangle, plus infinity would give infinity, and minus infinity
    close the rectangles that hold it.)

    Under tracers (torch.jit.trace and the exporters that call it, make_fx, torch.export) and modes
    that see every operator the call is made of plain torch operators. The graph is right for
    batches of any size, and refuses maps of another H or W than the traced ones. torch.fx keeps
    the call whole.

    Args:
        x: (N, C, H, W) feature map, floating point, any strides; N may be 0.
        weight: (D, C), shared by all rectangles.
        bias: (D,) or None.
        kernel_sizes: (kh, kw) pairs in positions; None means every size that fits but 1x1, as in
            the paper.
        backend: "triton" (kernels for CUDA and ROCm GPUs), "numba" (kernels for CPUs), "eager"
            (torch operators, any device), or "auto" for the fastest that can serve the input.

    Returns:
        (N, D), in the dtype F.linear would return: that of the inputs, or autocast's. Sums over
        rectangles are taken in float32 (float64 for float64).

    Raises:
        ValueError: a shape does not fit, the map is 1x1, the kernel sizes do not fit the map, or
            the backend is unknown or cannot serve the input, kernels are asked for by name under a
            tracer, or the arguments are on different devices.
        TypeError: an argument is not a floating-point tensor, dtypes differ outside autocast, or
            kernel sizes are not pairs.
    """
    sizes = None if kernel_sizes is None else normalize_kernel_sizes(kernel_sizes)
    if not isinstance(x, Tensor) and has_torch_function((x, weight, bias)):  # a proxy of torch.fx
        options = {"kernel_sizes": sizes, "backend": backend}
        return handle_torch_function(
            local_concepts_accumulation, (x, weight, bias), x, weight, bias, **options
        )
    if not torch.compiler.is_compiling() and torch._C._is_tracing():
        with not_traced():  # its warnings about comparisons of sizes say nothing here
            _check(x, weight, bias, sizes, backend)
    else:
        _check(x, weight, bias, sizes, backend)
    return backends.local_concepts_accumulation(x, weight, bias, sizes, backend)


def _check(
    x: Tensor, weight: Tensor, bias: Tensor | None, sizes: KernelSizes | None, backend: str
) -> None:
    _check_tensors(x, weight, bias)
    backends.check_backend(backend)
    check_kernel_sizes(x.shape[2], x.shape[3], sizes)


def _check_tensors(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    _check_kind("x", x)
    _check_kind("weight", weight)
    _check_alike(x, "weight", weight)
    shape, weight_shape = x.shape, weight.shape
    if bias is not None:
        _check_kind("bias", bias)
        _check_alike(x, "bias", bias)
    if len(shape) != 4:
        raise ValueError(
            f"x has shape {tuple(shape)}; expected a feature map (N, C, H, W), "
            "taken before the backbone's global pooling"
        )
    _, channels, height, width = shape
    if channels == 0 or height == 0 or width == 0:
        raise ValueError(f"x has shape {tuple(shape)}; C, H and W must be at least 1")
    if len(weight_shape) != 2 or weight_shape[1] != channels:
        raise ValueError(
            f"weight has shape {tuple(weight_shape)}; expected (D, {channels}) "
            f"to project the {channels} channels of x"
        )
    if bias is not None and bias.shape != weight_shape[:1]:
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}; expected ({weight_shape[0]},), one number per "
            "row of weight"
        )


def _check_kind(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}; expected a torch.Tensor")
    if not tensor.is_floating_point():
        raise TypeError(
            f"{name} has dtype {tensor.dtype}; expected a floating-point dtype, "
            f"convert it first, e.g. {name}.float()"
        )


def _check_alike(x: Tensor, name: str, tensor: Tensor) -> None:
    if tensor.device != x.device:
        raise ValueError(
            f"x is on {x.device} and {name} on {tensor.device}; move them to one device, "
            f"e.g. x.to({str(tensor.device)!r})"
        )
    if tensor.dtype != x.dtype and autocast_dtype(x) is None:
        raise TypeError(
            f"x has dtype {x.dtype} and {name} {tensor.dtype}; convert one of them, e.g. "
            f"x.to({tensor.dtype}), or run under torch.autocast"
        )
