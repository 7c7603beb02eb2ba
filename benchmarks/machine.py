"""Where and with what a row was measured."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from experiments.training.device import device_name

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
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
