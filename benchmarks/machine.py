"""Where and with what a row was measured."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

_PACKAGES = ("torch", "triton", "numba", "timm")


def describe(device: torch.device) -> dict[str, object]:
    """Return the device, threads, versions (None: not installed) and the date, for JSON."""
    return {
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {package: _version(package) for package in _PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
    }


@cache
def device_name(device: torch.device) -> str:
    """Return the model of the CPU or of the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        import cpuinfo  # type: ignore[import-untyped]

        return str(cpuinfo.get_cpu_info()["brand_raw"])
    except (ImportError, KeyError):
        return platform.processor() or platform.machine()


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
