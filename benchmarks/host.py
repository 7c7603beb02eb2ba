"""What a call costs in Python before a GPU has work: `python -m benchmarks.overhead --host`.

The GPU path is forced on CPU tensors, and Triton gets a driver that launches nothing, so that only
the host's part is left: argument checks, the choice of a kernel, Triton's launcher up to its C
code, autograd. Kernels are compiled as for an H100. torch's own operators do run, on the CPU: their
work on small tensors is in the figures, F.linear's above all.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from tabulate import tabulate

from lca_fused import LCA
from lca_fused.backends import triton_gpu

_SIDE, _FEATURES = 7, 64
_IN_A_ROW = 10
_TESTED = "3.6 and 3.8"


class _Missing:
    """Base class: Triton's question for a method it lacks is an error that names it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} has no {name}")


class _Utils(_Missing):
    """What a driver offers to load kernels."""

    def load_binary(self, *_arguments: Any) -> tuple[int, int, int, int, int]:
        """Return a module, a function, its registers, its spills and the most threads."""
        return 1, 1, 128, 0, 1024

    def unload_module(self, _module: int) -> None:
        """Do nothing, as nothing was loaded."""

    def get_device_properties(self, _device: int) -> dict[str, int]:
        """Return an H100's properties."""
        return {"max_shared_mem": 227 << 10, "multiprocessor_count": 132, "warpSize": 32}


class _Launcher:
    """A launcher that does nothing."""

    def __init__(self, *_arguments: Any) -> None:
        pass

    def __call__(self, *_arguments: Any) -> None:
        pass


class DriverThatDoesNothing(_Missing):
    """A Triton driver for a GPU that is not there."""

    utils = _Utils()
    launcher_cls = _Launcher

    def get_current_device(self) -> int:
        """Return the only device."""
        return 0

    def set_current_device(self, _device: int) -> None:
        """Do nothing, as there is only one device."""

    def get_current_stream(self, _device: int) -> int:
        """Return the default stream."""
        return 0

    def get_current_target(self) -> Any:
        """Return an H100 as the target."""
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_active_torch_device(self) -> torch.device:
        """Return the device of the tensors."""
        return torch.device("cpu")


def main(rounds: int) -> int:
    """Print the table; return the process's exit status. Leaves Triton with the driver above."""
    if (reason := _unable()) is not None:
        print(f"benchmarks.overhead --host: {reason}", file=sys.stderr)
        return 1
    import triton

    torch.set_num_threads(1)  # or the helpers of torch's CPU operators would share in the time
    triton.runtime.driver.set_active(DriverThatDoesNothing())
    setattr(triton_gpu, "unavailable", lambda _x: None)  # noqa: B010, as mypy forbids the other way
    try:
        calls = host_calls()
        seconds_of(calls, rounds=5)  # not counted
    except (AttributeError, TypeError) as error:
        print(
            f"triton {triton.__version__} asks for more than a driver that does nothing has to "
            f"offer, which is enough for {_TESTED}: {error}",
            file=sys.stderr,
        )
        return 1
    lines = [
        [name, f"{1e6 * statistics.median(times):.1f}", f"{1e6 * _first_tenth(times):.1f}"]
        for name, times in seconds_of(calls, rounds).items()
    ]
    headers = ["N = 1, bfloat16", "median, microseconds", "10th percentile"]
    print(tabulate(lines, headers, tablefmt="github", disable_numparse=True))
    return 0


def host_calls() -> dict[str, Callable[[], object]]:
    """Calls of the layer, and of F.linear on the rows that it projects, for a channels_last map."""
    layer = LCA(_FEATURES, backend="triton", dtype=torch.bfloat16)
    x = torch.randn(1, _FEATURES, _SIDE, _SIDE, dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    rows = x.detach().permute(0, 2, 3, 1).reshape(-1, _FEATURES).requires_grad_()
    weight, bias = layer.weight, layer.bias

    def linear() -> torch.Tensor:
        return F.linear(rows, weight, bias)

    def without_gradient(call: Callable[[], torch.Tensor]) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                call()

        return run

    def with_backward(call: Callable[[], torch.Tensor], of: torch.Tensor) -> Callable[[], object]:
        gradient = torch.ones_like(call())
        return lambda: torch.autograd.grad(call(), (of, weight, bias), gradient)

    def lca() -> torch.Tensor:
        return layer(x)

    return {
        "the layer, no_grad": without_gradient(lca),
        "the layer, forward in training": lca,
        "the layer, forward and backward": with_backward(lca, x),
        "F.linear, no_grad": without_gradient(linear),
        "F.linear, forward in training": linear,
        "F.linear, forward and backward": with_backward(linear, rows),
    }


def seconds_of(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time the calls in turn, a few of each in a row; return the seconds of each, by name."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, call in calls.items():
            call()  # brings its code back to the caches
            for _ in range(_IN_A_ROW):
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
    gc.enable()
    return seconds


def _first_tenth(times: list[float]) -> float:
    return sorted(times)[len(times) // 10]


def _unable() -> str | None:
    if (reason := triton_gpu.no_compiler()) is not None:
        return reason
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        return "TRITON_INTERPRET=1 replaces Triton's launcher by an interpreter; unset it"
    import triton

    if not hasattr(triton.runtime.driver, "set_active"):
        return (
            f"triton {triton.__version__} has no triton.runtime.driver.set_active to give it a "
            f"driver that does nothing; install one of {_TESTED}"
        )
    return None
