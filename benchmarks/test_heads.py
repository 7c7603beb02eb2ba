"""LCA and its peers against the floor: `pytest benchmarks --benchmark-only [-m gpu]`.

Every test is one row: build the peer, check its result, time it alternating with the floor
and measure its memory. A row that fails its check is not written.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import pytest
import torch

from benchmarks import measure
from benchmarks.accuracy import Oracle, check
from benchmarks.cases import GRAPH, TRAINING, Case
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
    errors = check(head, oracle, problem, training=case.mode == TRAINING)

    device = problem.x.device
    floor_call, peer_call = (_call(h, case.mode) for h in (_build(FLOOR, problem), head))
    if case.mode == GRAPH:
        floor_call, peer_call = (_captured(call, device) for call in (floor_call, peer_call))
    timings = measure.interleave(
        floor_call,
        peer_call,
        measure.make_stopwatch(device),
        seconds=float(pytestconfig.getoption("benchmark_max_time")),
        least_rounds=int(pytestconfig.getoption("benchmark_min_rounds")),
    )

    memory = peak_extra_bytes(_call(head, case.mode), device)
    benchmark.group = f"{case.device} {case.shape} {case.mode}"
    benchmark.extra_info.update(asdict(case), backend=head.backend, errors=errors)
    benchmark.extra_info.update(describe(device), extra_bytes=memory, **timings.summary())
    if (path := pytestconfig.getoption("rows")) is not None:
        append(json.loads(json.dumps(benchmark.extra_info)), path)
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


def _call(head: Head, mode: str) -> measure.Call:
    return head.training if mode == TRAINING else head.inference


def _captured(call: measure.Call, device: torch.device) -> measure.Call:
    try:
        return measure.captured(call, device)
    except RuntimeError as error:
        pytest.skip(f"cannot be captured in a CUDA graph: {error}")
