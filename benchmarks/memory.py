"""Peak memory of a call, in bytes beyond what was allocated before it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_extra_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Run `call` and return the most bytes of tensors it held at a time.

    On a CPU torch's own allocations are counted, one by one; what is allocated past torch (the
    scratch of a thread, in a library) is not. Gradients that `call` returns are counted.
    """
    if device.type == "cuda":
        return _cuda_peak(call, device)
    # torch reads this at the first profile; without it a missing GPU is reported as an error.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        return highest_sum(json.loads(trace.read_text())["traceEvents"])


def highest_sum(events: list[dict[str, Any]]) -> int:
    """Return the highest running sum of the allocations in a trace, frees being negative."""
    changes = [event for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


def available_bytes(device: torch.device) -> int:
    """Return the memory that is free on the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps of freed tensors is as good as free
        return torch.cuda.mem_get_info(device)[0]
    if not hasattr(os, "sysconf"):
        return 8 << 30
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _cuda_peak(call: Callable[[], object], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
