"""Choose among configurations by timing them: off unless LCA_FUSED_AUTOTUNE=1.

What was chosen is kept for the process and in a file, one line of JSON per key, so that the
next process times nothing. The file is `autotune.json` in LCA_FUSED_CACHE or ~/.cache/lca_fused.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from lca_fused.backends.triton_gpu.launch import Plan, planned

T = TypeVar("T", bound=Hashable)

_chosen: dict[str, str] = {}


def enabled() -> bool:
    """Whether configurations are timed."""
    return os.environ.get("LCA_FUSED_AUTOTUNE", "0") == "1"


def launch(
    key: tuple[object, ...],
    tensors: Sequence[Tensor | None],
    plan: Callable[[T], Plan],
    choose: Callable[[Callable[[T], None]], T],
    given: T | None,
) -> None:
    """Launch a kernel in the configuration that is given, or else in the one that is chosen.

    Args:
        key: as `planned` takes it, for the plan of what is chosen.
        tensors: the kernel's tensor arguments.
        plan: a function that makes the plan of a configuration.
        choose: a function called once per key, with one that launches a given configuration.
        given: a configuration, or None.
    """
    plan = cache(plan)  # or what is timed of a small kernel would be the making of its plan

    def run(configuration: T) -> None:
        plan(configuration)(*tensors)

    if given is not None:
        run(given)
    else:
        planned((*key, enabled()), lambda: plan(choose(run)))(*tensors)


def best(
    key: tuple[object, ...],
    default: T,
    candidates: Callable[[T], Sequence[T]],
    run: Callable[[T], None],
    device: torch.device,
) -> T:
    """Return the candidate that runs fastest, or `default` where autotuning is off.

    Args:
        key: what the choice depends on; the GPU and triton's version are added.
        default: returned when autotuning is off, and while a CUDA graph is being captured.
        candidates: a function from the default to what else to try; candidates are told apart
            by their repr, which is stored.
        run: a function that launches the kernel with a candidate, and may raise where the GPU
            cannot run that.
        device: the GPU the kernel runs on.
    """
    if not enabled():
        return default
    full_key = repr((*_machine(device), *key))
    by_name = {repr(candidate): candidate for candidate in (default, *candidates(default))}
    if not _chosen:
        _chosen.update(_load())
    if _chosen.get(full_key) not in by_name:
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return default
        _chosen[full_key] = min(by_name, key=lambda name: _seconds(run, by_name[name]))
        _store(full_key, _chosen[full_key])
    return by_name[_chosen[full_key]]


def _machine(device: torch.device) -> tuple[str, str]:
    import triton

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name, triton.__version__


def _seconds(run: Callable[[T], None], candidate: T) -> float:
    from triton.testing import do_bench

    try:
        return float(do_bench(lambda: run(candidate), return_mode="median"))
    except Exception:  # Out of shared memory or registers: whatever fails is no choice.
        return float("inf")


def _file() -> Path:
    folder = os.environ.get("LCA_FUSED_CACHE")
    return Path(folder or Path.home() / ".cache" / "lca_fused") / "autotune.json"


def _load() -> dict[str, str]:
    try:
        lines = _file().read_text().splitlines()
    except (OSError, ValueError):
        return {}
    return dict(entry for entry in map(_parsed, lines) if entry is not None)


def _parsed(line: str) -> tuple[str, str] | None:
    """A key and its choice, or None for a line that is neither: one that was cut off, perhaps."""
    with contextlib.suppress(ValueError):
        match json.loads(line):
            case [str(key), str(name)]:
                return key, name
    return None


def _store(key: str, name: str) -> None:
    with contextlib.suppress(OSError):  # A read-only home: tune again next time.
        _file().parent.mkdir(parents=True, exist_ok=True)
        with _file().open("a") as file:
            file.write(json.dumps([key, name]) + "\n")
