"""LCA and its peers against the floor: `pytest benchmarks --benchmark-only [-m gpu]`.

Every test is one row: build the peer, check its result, time it alternating with the floor
and measure its memory. A row that fails its check is written with its errors and without a time.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import measure
from benchmarks.accuracy import Oracle, WrongResultError, check
from benchmarks.cases import Case
from benchmarks.heads import Head
from benchmarks.machine import describe
from benchmarks.memory import peak_extra_bytes
from benchmarks.peers import FLOOR, PEERS, UnavailableError
from benchmarks.problem import Problem, make_problem
from benchmarks.results import append
from benchmarks.shapes import Shape

_replay = measure.Replay()


@pytest.mark.benchmark(timer=_replay.now)
def test_head(benchmark: Any, case: Case, pytestconfig: pytest.Config) -> None:
    """Check, time and weigh one row."""
    problem, oracle = _problem(case.shape, case.device, case.dtype, case.memory_format)
    head = _build(case.peer, problem)
    device = problem.x.device
    benchmark.group = f"{case.device} {case.memory_format} {case.shape} {case.mode}"
    benchmark.extra_info.update(asdict(case), backend=head.backend, **describe(device))
    path = pytestconfig.getoption("rows")
    try:
        errors = check(head, oracle, problem, training=case.trains)
    except WrongResultError as error:
        benchmark.extra_info.update(errors=error.errors, refused=str(error))
        _store(benchmark.extra_info, path)
        raise
    benchmark.extra_info.update(errors=errors)

    floor_call, peer_call = (call_of(h, case) for h in (_build(FLOOR, problem), head))
    if case.replays_graph:
        floor_call, peer_call = (_captured(call, device) for call in (floor_call, peer_call))
    timings = measure.interleave(
        floor_call,
        peer_call,
        measure.make_stopwatch(device),
        seconds=float(pytestconfig.getoption("benchmark_max_time")),
        least_rounds=int(pytestconfig.getoption("benchmark_min_rounds")),
    )

    memory = peak_extra_bytes(call_of(head, case), device)
    benchmark.extra_info.update(extra_bytes=memory, **timings.summary())
    _store(benchmark.extra_info, path)
    _replay.load(timings.peer)
    benchmark.pedantic(_replay.advance, rounds=len(timings.peer))


@lru_cache(maxsize=1)
def _problem(shape: Shape, device: str, dtype: str, memory_format: str) -> tuple[Problem, Oracle]:
    made = make_problem(shape, torch.device(device), getattr(torch, dtype), memory_format)
    return made, Oracle(made)


def _build(peer: str, problem: Problem) -> Head:
    try:
        return PEERS[peer].build(problem)
    except UnavailableError as error:
        pytest.skip(f"{peer}: {error}")


def call_of(head: Head, case: Case) -> measure.Call:
    """What a row times: forward, or forward and backward."""
    return head.training if case.trains else head.inference


def _store(row: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        append(json.loads(json.dumps(row)), path)


def _captured(call: measure.Call, device: torch.device) -> measure.Call:
    try:
        return measure.captured(call, device)
    except RuntimeError as error:
        pytest.skip(f"cannot be captured in a CUDA graph: {error}")
