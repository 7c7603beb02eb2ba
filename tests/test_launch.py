"""Plans of launches, with kernels and a driver that are made up."""

from __future__ import annotations

import pytest
import torch

from lca_fused.backends.triton_gpu import launch


class Compiled:
    def __init__(self, calls: list[object]) -> None:
        self.calls = calls

    def __getitem__(self, grid):
        return lambda *arguments: self.calls.append(("driver", grid, arguments))


class Kernel:
    """Takes notes; compiles unless it is interpreted."""

    arg_names = ("x_ptr", "bias_ptr", "N", "BLOCK")

    def __init__(self, *, interpreted: bool = False) -> None:
        self.calls: list[object] = []
        self.interpreted = interpreted

    def __getitem__(self, grid):
        def run(*arguments, **options):
            self.calls.append(("triton", grid, arguments, options))
            return None if self.interpreted else Compiled(self.calls)

        return run


@pytest.fixture(autouse=True)
def no_plans(monkeypatch) -> None:
    monkeypatch.setattr(launch, "_plans", {})


def test_a_plan_is_compiled_once_and_then_handed_to_the_driver():
    kernel = Kernel()
    plan = launch.Plan(kernel, (3,), {"BLOCK": 64, "N": 5, "unused": 1}, {"num_warps": 2})
    plan("x", None)
    plan("y", None)
    assert kernel.calls == [
        ("triton", (3, 1, 1), ("x", None, 5, 64), {"num_warps": 2}),
        ("driver", (3, 1, 1), ("y", None, 5, 64)),
    ]


def test_an_interpreted_kernel_is_run_each_time():
    kernel = Kernel(interpreted=True)
    plan = launch.Plan(kernel, (1,), {"BLOCK": 64, "N": 5}, {})
    plan("x", None)
    plan("y", None)
    assert [call[0] for call in kernel.calls] == ["triton", "triton"]


def test_an_argument_that_is_missing_is_named():
    with pytest.raises(KeyError, match="BLOCK"):
        launch.Plan(Kernel(), (1,), {"N": 5}, {})


def test_plans_are_kept_by_their_keys_and_not_without_end(monkeypatch):
    made = []

    def make() -> launch.Plan:
        made.append(None)
        return launch.Plan(Kernel(), (1,), {"BLOCK": 64, "N": 5}, {})

    first = launch.planned(("pool", 1), make)
    assert launch.planned(("pool", 1), make) is first
    assert launch.planned(("pool", 2), make) is not first
    assert len(made) == 2
    monkeypatch.setattr(launch, "_MOST_PLANS", 2)
    launch.planned(("pool", 3), make)
    assert len(launch._plans) == 1


def test_alignment_is_that_of_the_first_number():
    numbers = torch.zeros(64)
    assert launch.aligned(numbers)
    assert launch.aligned(numbers[4:])
    assert not launch.aligned(numbers[1:])
