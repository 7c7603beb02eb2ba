"""Several threads on one model: every result as if alone, and the model left as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lca_fused import LCA, Classifier, explain, packed_halves
from lca_fused.backends.triton_gpu.packed_halves import allowed

THREADS = 3
TIMEOUT = 60.0


class Meeting(nn.Module):
    """Where threads that run a model wait for each other, so that all of them are inside."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier: threading.Barrier | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.barrier is not None:
            self.barrier.wait(TIMEOUT)
        return x

    def __deepcopy__(self, _memo: object) -> Meeting:
        return Meeting()


def meeting_classifier() -> tuple[Classifier, list[Meeting]]:
    """A model in training mode, with dropout and BatchNorm, that threads meet in twice."""
    torch.manual_seed(0)
    meetings = [Meeting(), Meeting()]
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), meetings[0], nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU()
    )
    model = Classifier(backbone, LCA(8), 5, dropout=0.5)
    model.dropout = nn.Sequential(model.dropout, meetings[1])
    return model.train(), meetings


def at_once(meetings: list[Meeting], calls: list[Callable[[], Any]]) -> list[Any]:
    """Run the calls in a thread each, all inside the model at the same time."""
    for meeting in meetings:
        meeting.barrier = threading.Barrier(len(calls))
    try:
        with ThreadPoolExecutor(len(calls)) as threads:
            return [future.result(TIMEOUT) for future in [threads.submit(call) for call in calls]]
    finally:
        for meeting in meetings:
            meeting.barrier = None


def images(seed: int) -> Tensor:
    return torch.randn(2, 3, 16, 20, generator=torch.Generator().manual_seed(seed))


def test_explanations_made_at_once_are_those_made_alone_and_modes_stay():
    model, meetings = meeting_classifier()
    frozen = model.backbone[2].eval()
    modes = {module: module.training for module in model.modules()}
    alone = [explain(model, images(seed)) for seed in range(THREADS)]
    together = at_once(
        meetings, [lambda seed=seed: explain(model, images(seed)) for seed in range(THREADS)]
    )
    for actual, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(actual.positions, expected.positions)
        torch.testing.assert_close(actual.logits, expected.logits)
    assert {module: module.training for module in model.modules()} == modes
    assert not frozen.training
    assert not any(module._forward_hooks for module in model.modules())


def test_predictions_beside_an_explanation_are_not_taken_for_its_own():
    model, meetings = meeting_classifier()
    model.eval()
    expected = model(images(0))
    alone = explain(model, images(1))
    explanation, *logits = at_once(
        meetings, [lambda: explain(model, images(1)), *[lambda: model(images(0))] * 2]
    )
    torch.testing.assert_close(explanation.positions, alone.positions)
    for actual in logits:
        torch.testing.assert_close(actual, expected)


def test_a_failed_explanation_leaves_the_others_and_the_modes_alone():
    model, meetings = meeting_classifier()

    def failing() -> str:
        with pytest.raises(ValueError, match="target holds class indices"):
            explain(model, images(0), target=99)
        return "refused"

    alone = explain(model, images(1))
    refused, explanation = at_once(meetings, [failing, lambda: explain(model, images(1))])
    assert refused == "refused"
    torch.testing.assert_close(explanation.positions, alone.positions)
    assert all(module.training for module in model.modules())


def test_explaining_calls_no_eval_that_a_model_overloads():
    class Merging(nn.Linear):
        merged = False

        def train(self, mode: bool = True) -> Merging:
            self.merged |= not mode
            return super().train(mode)

    model = nn.Sequential(LCA(3, 4), Merging(4, 2))
    explain(model, images(0))
    assert not model[1].merged


def test_compiled_models_explained_at_once_are_compiled_afterwards():
    model, meetings = meeting_classifier()
    compiled = torch.compile(model.eval(), backend="eager")
    before = torch._dynamo.eval_frame._stance.stance
    at_once(meetings, [lambda: explain(compiled, images(0))] * 2)
    explained = explain(compiled, images(0))
    assert torch._dynamo.eval_frame._stance.stance == before
    torch.testing.assert_close(explained.logits, model(images(0)).detach())


def test_packed_halves_are_as_before_once_contexts_left_in_any_order():
    first, second = packed_halves(False), packed_halves(True)
    first.__enter__()
    second.__enter__()
    assert allowed()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert allowed()
    with packed_halves(False):
        assert not allowed()
    assert allowed()


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_the_layer_computes_in_threads_what_it_computes_alone(backend):
    layer = LCA(8, 16, backend=backend)
    maps = [torch.randn(4, 8, 5, side) for side in (3, 4, 5, 6)]

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        output = layer(x)
        return output.detach(), torch.autograd.grad(output.square().sum(), x)[0]

    alone = [run(x) for x in maps]
    with ThreadPoolExecutor(len(maps)) as threads:
        for _ in range(5):
            for actual, expected in zip(threads.map(run, maps), alone, strict=True):
                assert all(map(torch.equal, actual, expected))
