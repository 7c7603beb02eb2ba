"""Which device trains, and in which precision."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from experiments.training.distributed import in_step, number_here, on_first, processes_here

Precision = Literal["auto", "float32", "bfloat16", "float16"]
BatchSize = Literal["auto"] | int

_EXPECTED = "expected auto, cpu, cuda, cuda:N or mps"


class DeviceError(ValueError):
    """The device asked for is not there; the message says which are."""


@dataclass(frozen=True)
class Compute:
    """A device and the dtype its matrix products run in.

    Attributes:
        device: device that the model is on.
        precision: dtype of autocast; float32 turns autocast off.
        photos_at_once: the most photos that are computed at a time; None for all of a batch. Half
            as many are where memory runs out (`experiments.training.memory`).
    """

    device: torch.device
    precision: torch.dtype
    photos_at_once: int | None = None

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context forward passes run in."""
        return torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        )


def resolve_compute(
    device: str = "auto", precision: Precision = "auto", batch_size: BatchSize = "auto"
) -> Compute:
    """Return the device and precision asked for, or the best there are.

    Args:
        device: name of the device: "auto", "cpu", "cuda", "cuda:1", "mps"... Auto takes a GPU where
            there is one.
        precision: name of the precision. "auto" takes bfloat16 where the device multiplies it in
            hardware, float16 on GPUs that only have that, and float32 elsewhere. "float32" turns
            autocast off; whether a GPU's convolutions then use TF32 is `torch.backends.cudnn`'s to
            say, by default yes.
        batch_size: the most photos that are computed at a time, or "auto".

    Raises:
        DeviceError: the device does not exist on this machine or is of another kind, or torchrun
            started more processes than there are GPUs, or several where it names one GPU.
    """
    if batch_size != "auto" and batch_size < 1:
        raise DeviceError(f"--batch-size is {batch_size}; expected auto, or 1 or more")
    chosen = _resolve_device(device)
    if chosen.type == "cuda" and processes_here() > 1:
        with in_step():
            _check_processes(chosen)
        chosen = torch.device("cuda", number_here())
        torch.cuda.set_device(chosen)  # or each process takes memory of the first GPU too
    dtype = on_first(_best_precision)(chosen) if precision == "auto" else getattr(torch, precision)
    return Compute(chosen, dtype, None if batch_size == "auto" else batch_size)


def cores() -> int:
    """Return how many cores this process may use, all jobs and torchrun's processes together."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_cores(
    compute: Compute, workers: int | None = None, *, training: bool = False, jobs: int = 1
) -> int:
    """Leave cores to the processes that load photos; return how many of those there are.

    On the CPU torch's threads wait for each other at every operator, so a core that one of them
    shares with a loading process slows them all.

    Args:
        compute: device that the model runs on; a GPU leaves all cores to the workers.
        workers: number of processes that load photos; None for half the cores, 8 at most. Where a
            CPU trains on four cores or more they are a quarter: augmenting a photo takes a tenth
            (MobileNetV2, 224 px) to two fifths (the embedded network, 112 px) of the time that one
            core trains on it. Of two cores one stays theirs: two threads are at best 4 % (the
            embedded network) faster, and three times slower where anything else wants a core.
        training: whether photos are trained on, which are decoded already.
        jobs: number of processes like this one. They and those that torchrun started here have
            equal shares.
    """
    mine = max(1, cores() // (processes_here() * jobs))
    on_cpu = compute.device.type == "cpu"
    default = mine // 4 if training and on_cpu and mine >= 4 else mine // 2
    if not training:
        default = max(1, default)
    chosen = min(8, default) if workers is None else workers
    if on_cpu and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, mine - chosen))
    return chosen


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


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device is {name!r}, which torch does not know; {_EXPECTED}") from error
    if device.type not in ("cpu", "cuda", "mps"):  # "meta" computes nothing
        raise DeviceError(f"device is {name!r}, which this pipeline cannot use; {_EXPECTED}")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"device is {name!r}, but torch {torch.__version__} sees {count} CUDA device(s) "
                "here; use --device cpu (or auto), or install a CUDA build of torch and its driver"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            f"device is {name!r}, but torch {torch.__version__} sees no Apple GPU here; use "
            "--device cpu (or auto)"
        )
    return device


def _check_processes(device: torch.device) -> None:
    processes, gpus = processes_here(), torch.cuda.device_count()
    if device.index and processes > 1:
        raise DeviceError(
            f"device is {str(device)!r}, but torchrun started {processes} processes here and "
            "each takes the GPU of its own number; use --device cuda, and choose GPUs with the "
            "environment variable CUDA_VISIBLE_DEVICES"
        )
    if processes > gpus:
        raise DeviceError(
            f"torchrun started {processes} processes here, but torch sees {gpus} GPU(s) and each "
            f"process takes one; use --nproc-per-node {gpus}, or --device cpu"
        )


def _best_precision(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if _gpu_multiplies_bfloat16(device) else torch.float16
    if device.type == "cpu" and _cpu_multiplies_bfloat16():
        return torch.bfloat16
    return torch.float32


def _gpu_multiplies_bfloat16(device: torch.device) -> bool:
    # torch.cuda.is_bf16_supported() also says yes where bfloat16 is emulated, without tensor cores.
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_multiplies_bfloat16() -> bool:
    # torch has no public name for this yet; where the private ones are missing float32 is safe.
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
