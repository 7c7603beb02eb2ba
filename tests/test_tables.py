"""Tables of weights: made once, whatever the caller's modes, and never inside a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lca_fused.backends.triton_gpu import tables
from lca_fused.rectangles import num_rectangles, resolve_kernel_sizes

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_tables_yet() -> Iterator[None]:
    tables.weight_tables.cache_clear()
    yield
    tables.weight_tables.cache_clear()


def test_weights_of_widths_and_heights_are_those_of_the_rectangles():
    widths, heights, count = tables.weight_tables(3, 4, None, CPU, torch.float64)
    areas = torch.zeros(3, 4, dtype=torch.float64)
    for kh, kw in resolve_kernel_sizes(3, 4):
        areas[kh - 1, kw - 1] = 1 / (kh * kw)
    torch.testing.assert_close(heights[:, None] * widths, areas)
    assert count == num_rectangles(3, 4, resolve_kernel_sizes(3, 4))


def test_weights_of_halves_are_two_of_a_kind():
    widths, _, _ = tables.weight_tables(3, 4, ((2, 3), (1, 4)), CPU, torch.float32, halves=True)
    pairs = widths.unsqueeze(-1).view(torch.float16)
    expected = torch.tensor([[0, 0, 0, 1 / 4], [0, 0, 1 / 3, 0], [0, 0, 0, 0]]).half()
    assert torch.equal(pairs, torch.stack([expected, expected], dim=-1))


@pytest.mark.parametrize(
    "mode", [torch.device("meta"), FakeTensorMode(), torch.inference_mode()], ids=type
)
def test_tables_made_under_a_mode_serve_calls_outside_it(mode: AbstractContextManager[object]):
    with mode:
        made = tables.weight_tables(3, 4, None, CPU, torch.float32)[:2]
    for table in made:
        assert type(table) is torch.Tensor
        assert table.device == CPU
        assert not table.is_inference()
        assert torch.isfinite(table).all()


def test_tables_of_a_captured_graph_are_never_freed():
    first = tables.weight_tables(2, 3, None, CPU, torch.float32)[0]
    for width in range(4, 604):
        tables.weight_tables(2, width, ((1, 2),), CPU, torch.float32)
    assert tables.weight_tables(2, 3, None, CPU, torch.float32)[0] is first


def test_a_first_call_while_a_graph_is_captured_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match=r"sides 14 and 20.*cuda:0.*call it once before"):
        tables.weight_tables(14, 20, None, torch.device("cuda:0"), torch.float32)
