"""Peak memory of a call, in bytes of tensors."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_extra_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Run `call` and return the most bytes of tensors it held, beyond those from before it.

    On a CPU torch's own allocations are counted, one by one; what a library takes past torch (the
    scratch memory of its threads) is not.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # Read when the first profile starts; else a machine without a GPU is reported as an error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    return highest_sum(_allocations(profiler))


def _allocations(profiler: Any) -> list[int]:
    """Return torch's allocations in bytes in the order of time, frees being negative."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = [event for event in events if event.get("name") == "[memory]"]
    return [event["args"]["Bytes"] for event in sorted(memory, key=lambda event: event["ts"])]


def highest_sum(changes: Sequence[int]) -> int:
    """Return the highest running sum of `changes`, 0 at least."""
    held = peak = 0
    for change in changes:
        held += change
        peak = max(peak, held)
    return peak
