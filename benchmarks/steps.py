"""What a call asks of a GPU, kernel by kernel, found without running any.

torch's operators are noted and not run, and so are the library's kernels: tensors are on the CPU,
and what is in them is whatever was in their memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks.compile_only import Launch, recorded_launches
from lca_fused import backends
from lca_fused.backends import triton_gpu

_PRODUCTS = ("mm", "addmm", "bmm")
_NO_WORK = ("empty", "new_empty", "empty_like", "empty_strided", "_unsafe_view")


@dataclass(frozen=True)
class Product:
    """A matrix product of the library's: operations, and bytes of operands and result."""

    flops: float
    bytes: int


@dataclass(frozen=True)
class Pass:
    """Any other operator of torch's, by the bytes it reads and writes, and whether it sums rows."""

    bytes: int
    sums: bool = False


Step = Product | Pass | Launch


def steps_of(call: Callable[[], object], target: str) -> list[Step]:
    """The kernels of a call on CPU tensors, the library's last, for one of the targets."""
    with (
        recorded_launches(target) as launches,
        mock.patch.object(triton_gpu, "unavailable", return_value=None),
        mock.patch.object(backends, "is_watched", return_value=False),  # by the notes
        _Notes() as notes,
    ):
        call()
    return [*notes.steps, *launches]


class _Notes(TorchDispatchMode):
    """Notes every operator that does work."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Product | Pass] = []

    def __torch_dispatch__(
        self,
        func: Any,
        _types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        alias = func._schema.returns[0].alias_info if func._schema.returns else None
        if name in _NO_WORK or (alias is not None and not alias.is_write):
            return func(*args, **(kwargs or {}))
        result = args[0] if alias is not None else _shaped(func, args, kwargs or {})
        size = sum(map(_bytes, tree_leaves((args, kwargs, result))))
        if name in _PRODUCTS:
            left = args[-2]  # behind the bias of addmm
            self.steps.append(Product(2.0 * left.shape[-1] * result.numel(), size))
        elif size > 0:  # and no question about dtypes
            self.steps.append(Pass(size, name == "sum"))
        return result


def _shaped(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What `func` returns, with whatever is in its memory."""
    without_numbers = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    result = func(*without_numbers[0], **without_numbers[1])
    return tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device="cpu"), result)


def _bytes(value: object) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
