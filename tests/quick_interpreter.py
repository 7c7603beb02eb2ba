"""Triton's interpreter without most of what it costs, which is in no number it gives.

It patches triton.language anew in every call of a function within a kernel, which takes several
times as long as what the function does. These patches are never undone, and the launch of a kernel
patches what our modules use, so once for every module is enough. It then spends more on comparing
the shapes of operands number by number, and on naming numpy's dtype, than on what is computed.

Packed halves take some thirty operations of the interpreter each. `halves_in_numpy` takes one of
numpy instead; tests/test_arithmetic.py sees that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Halves = Any  # an array of float16


def install() -> None:
    """Have the interpreter do once what it does over and over."""
    _patch_the_language_once_a_module()
    _compare_shapes_at_once()
    _name_dtypes_once()


def _patch_the_language_once_a_module() -> None:
    from triton.runtime import interpreter

    patched: set[str] = set()

    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        module = self.fn.__module__
        if module not in patched:
            interpreter._patch_lang(self.fn)
            patched.add(module)
        return self.rewrite()(*arguments, **keywords)

    interpreter.InterpretedFunction.__call__ = call


def _compare_shapes_at_once() -> None:
    from triton.language.semantic import TritonSemantic

    broadcast = TritonSemantic.broadcast_impl_value

    def call(self: Any, lhs: Any, rhs: Any) -> Any:
        alike = lhs.type.is_block() and rhs.type.is_block()
        if alike and lhs.handle.data.shape == rhs.handle.data.shape:
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    TritonSemantic.broadcast_impl_value = call


def _name_dtypes_once() -> None:
    from triton.runtime import interpreter

    find, known = interpreter._get_np_dtype, dict[str, np.dtype[Any]]()

    def call(dtype: Any) -> np.dtype[Any]:
        name = dtype.scalar.name
        if name not in known:
            known[name] = find(dtype)
        return known[name]

    interpreter._get_np_dtype = call


def _relu(x: Halves) -> Halves:
    return np.where(x < 0, np.float16(0), x)


def _fma(x: Halves, y: Halves, z: Halves) -> Halves:
    """Rounded once: float64 holds the product and the sum."""
    product = x.astype(np.float64) * y.astype(np.float64)
    return (product + z.astype(np.float64)).astype(np.float16)


# The functions of arithmetic.py on packed halves that large maps call for every rectangle.
IN_NUMPY: dict[str, Callable[..., Halves]] = {
    "add_halves": lambda x, y: x + y,
    "subtract_halves": lambda x, y: x - y,
    "fma_halves": _fma,
    "subtract_product_of_halves": lambda z, x, y: _fma(-x, y, z),
    "greater_halves": lambda x, y: (x > y).astype(np.float16),
    "_relu_of_difference_of_halves": lambda b, a: _relu(b - a),
    "_relu_of_sum_of_halves": lambda b, a: _relu(b + a),
}


def halves_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have numpy do the arithmetic of packed halves for the rest of a test."""
    from lca_fused.backends.triton_gpu import arithmetic

    for name, function in IN_NUMPY.items():
        monkeypatch.setattr(arithmetic, name, _on_tensors(function))


def fma_rounds_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tl.fma of float32 round as on a GPU, where the interpreter rounds the product, too."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def fma(_builder: Any, x: Any, y: Any, z: Any) -> Any:
        product = x.data.astype(np.float64) * y.data.astype(np.float64)
        return TensorHandle((product + z.data).astype(z.data.dtype), z.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_fma", fma)


def _on_tensors(function: Callable[..., Halves]) -> Callable[..., Any]:
    """`function` for tensors of the interpreter, each of which holds an array of int32."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle

    def call(*tensors: Any) -> Any:
        halves = [np.ascontiguousarray(t.handle.data).view(np.float16) for t in tensors]
        bits = np.ascontiguousarray(function(*halves)).view(np.int32)
        return tl.tensor(TensorHandle(bits, tl.int32), tensors[0].type)

    return call
