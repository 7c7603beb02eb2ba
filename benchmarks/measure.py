"""Time of two calls that alternate, so that whatever slows the machine slows both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

Call = Callable[[], object]
Reading = Callable[[], float]
"""A time in seconds, to be read when everything was measured."""

_MOST_ROUNDS = 500


class Stopwatch(Protocol):
    """Times one call."""

    def __call__(self, call: Call) -> Reading:
        """Run `call` and return its time."""


def cpu_stopwatch(call: Call) -> Reading:
    """Wall-clock time."""
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    return lambda: seconds


class CudaStopwatch:
    """Time between two CUDA events, the L2 cache flushed before; the host does not wait."""

    def __init__(self, device: torch.device) -> None:
        l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
        self._flush = torch.empty(4 * l2_bytes, dtype=torch.int8, device=device)

    def __call__(self, call: Call) -> Reading:
        """Queue `call` and return its time."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        start.record()
        call()
        end.record()

        def read() -> float:
            end.synchronize()
            return float(start.elapsed_time(end)) / 1e3

        return read


def make_stopwatch(device: torch.device) -> Stopwatch:
    """Return the stopwatch of a device."""
    return CudaStopwatch(device) if device.type == "cuda" else cpu_stopwatch


@dataclass(frozen=True)
class Timings:
    """Seconds of every round; floor and peer of a round ran one after the other."""

    floor: tuple[float, ...]
    peer: tuple[float, ...]

    def summary(self) -> dict[str, object]:
        """Medians and quartiles: seconds, and the rounds' own ratios, peer / floor.

        What slows the machine for a while slows both calls of a round, and leaves its ratio.
        """
        rounds = zip(self.peer, self.floor, strict=True)
        low, ratio, high = quartiles([mine / alone for mine, alone in rounds])
        return {
            "rounds": len(self.peer),
            "seconds": quartiles(self.peer),
            "floor_seconds": quartiles(self.floor),
            "ratio": ratio,
            "ratio_quartiles": (low, high),
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the first quartile, the median and the third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def interleave(
    floor: Call, peer: Call, stopwatch: Stopwatch, *, seconds: float, least_rounds: int
) -> Timings:
    """Time floor, peer, floor, peer, ... after two rounds that are not counted.

    Args:
        floor: the call that is run first in every round.
        peer: the call that is compared with it.
        stopwatch: times one call.
        seconds: how long to go on.
        least_rounds: rounds that are made even if they take longer.
    """
    with _no_garbage_collection():
        for _ in range(2):  # the second time is an estimate
            warm = [stopwatch(call) for call in (floor, peer)]
        rounds = int(seconds / sum(read() for read in warm))
        rounds = min(_MOST_ROUNDS, max(least_rounds, rounds))
        readings = [(stopwatch(floor), stopwatch(peer)) for _ in range(rounds)]
        return Timings(tuple(read() for read, _ in readings), tuple(read() for _, read in readings))


def captured(call: Call, device: torch.device) -> Call:
    """Return the replay of `call` as a CUDA graph: its kernels without the host's part."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


class Replay:
    """A clock that shows pytest-benchmark the times that were measured, one per round."""

    def __init__(self) -> None:
        self._now = 0.0
        self._left: Iterator[float] = iter(())

    def load(self, seconds: Sequence[float]) -> None:
        """Set the times of the next rounds."""
        self._now, self._left = 0.0, iter(seconds)

    def now(self) -> float:
        """Return the time; only `advance` moves it."""
        return self._now

    def advance(self) -> None:
        """Let the next of the times pass."""
        self._now += next(self._left, 0.0)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
