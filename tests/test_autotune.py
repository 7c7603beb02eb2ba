"""Choosing a configuration by timing, with the timing itself made up."""

from __future__ import annotations

import pytest
import torch

from lca_fused.backends.triton_gpu import autotune, dispatch, launch

pytest.importorskip("triton")

CPU = torch.device("cpu")
CONSUMER = launch.Gpu(warp_size=32, capability=89, shared_memory=99 << 10)
SECONDS = {"slow": 3.0, "quick": 1.0, "middling": 2.0}


@pytest.fixture(autouse=True)
def timed(monkeypatch, tmp_path) -> list[str]:
    """Autotuning on, with a folder and a memory of its own; the list of what was timed."""
    calls: list[str] = []

    def seconds(run, candidate):
        calls.append(candidate)
        run(candidate)
        return SECONDS[candidate]

    monkeypatch.setenv("LCA_FUSED_AUTOTUNE", "1")
    monkeypatch.setenv("LCA_FUSED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(autotune, "_chosen", {})
    monkeypatch.setattr(autotune, "_seconds", seconds)
    return calls


def _best(key=("7x7",), run=lambda _: None) -> str:
    return autotune.best(key, "slow", lambda _: ["quick", "middling"], run, CPU)


def test_the_default_is_taken_untimed_unless_it_is_asked_for(monkeypatch, timed):
    monkeypatch.delenv("LCA_FUSED_AUTOTUNE")
    assert _best() == "slow"
    assert not timed


def test_the_fastest_is_chosen_and_timed_once_for_each_key(timed):
    assert [_best(), _best(), _best(("8x8",))] == ["quick"] * 3
    assert timed == ["slow", "quick", "middling"] * 2


def test_the_choice_outlives_the_process(monkeypatch, timed):
    _best()
    monkeypatch.setattr(autotune, "_chosen", {})
    assert _best() == "quick"
    assert len(timed) == 3


@pytest.mark.parametrize("content", ["not json", '["key"]', '["a", "b"]\n{'])
def test_a_file_that_cannot_be_read_is_tuned_anew(tmp_path, content):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "autotune.json").write_text(content)
    assert _best() == "quick"


def test_a_folder_that_cannot_be_written_does_not_stop_the_call(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LCA_FUSED_CACHE", str(tmp_path / "file"))
    assert _best() == "quick"


def _tile(n: int, gpu: launch.Gpu = launch.HOPPER) -> dispatch.Tile:
    return dispatch.one_launch_tile(n, 2048, 7, 7, 2, gpu)


def _columns(n: int) -> dispatch.Columns:
    return dispatch.columns_of(n, 2048, torch.bfloat16, launch.HOPPER)


def test_batches_of_all_sizes_share_three_tiles_and_their_keys():
    sizes = range(1, 300)
    assert len({_tile(n) for n in sizes}) == 3
    assert len({_columns(n) for n in sizes}) == 3
    assert len({dispatch.tile_key(n, 2048, 2048, 7, 7, torch.bfloat16) for n in sizes}) == 3


def test_few_images_are_spread_over_the_multiprocessors():
    assert [_tile(n).block_d for n in (1, 2, 4, 5, 256)] == [32, 32, 64, 128, 128]


@pytest.mark.parametrize("gpu", [launch.HOPPER, CONSUMER], ids=["227 KB", "99 KB"])
@pytest.mark.parametrize("n", [1, 4, 256])
def test_operands_of_the_one_launch_kernel_fit_shared_memory(n, gpu):
    tile = _tile(n, gpu)
    rows = tile.images * tile.positions + tile.block_d
    buffers = tile.stages if gpu.capability >= 90 else tile.stages - 1
    assert tile.stages >= 2
    assert buffers * rows * tile.block_c * 2 <= gpu.shared_memory


@pytest.mark.parametrize(
    ("chosen", "candidates", "kept"),
    [
        (_tile(32), dispatch.one_launch_candidates, "positions"),
        (_columns(32), dispatch.columns_candidates, "arithmetic"),
    ],
)
def test_candidates_differ_and_pool_the_same_map_the_same_way(chosen, candidates, kept):
    found = candidates(chosen)
    assert len(set(found)) == len(found)
    assert chosen in found
    assert {getattr(candidate, kept) for candidate in found} == {getattr(chosen, kept)}


@pytest.mark.parametrize("line", ["5", '["torn', '["key", 3]', "[[], 1]"])
def test_a_line_that_is_no_choice_costs_that_choice_alone(monkeypatch, timed, tmp_path, line):
    _best()
    with (tmp_path / "cache" / "autotune.json").open("a") as file:
        file.write(line + "\n")
    monkeypatch.setattr(autotune, "_chosen", {})
    assert _best() == "quick"
    assert len(timed) == 3


def test_what_is_timed_is_a_launch_and_not_the_making_of_its_plan(monkeypatch):
    made, launched = [], []

    def plan(name):
        made.append(name)
        return lambda *_tensors: launched.append(name)

    def seconds(run, candidate):
        for _ in range(3):
            run(candidate)
        return SECONDS[candidate]

    def choose(run):
        return _best(run=run)

    monkeypatch.setattr(autotune, "_seconds", seconds)
    monkeypatch.setattr(launch, "_plans", {})
    for _ in range(2):
        autotune.launch(("pool",), (), plan, choose, given=None)
    assert made == ["slow", "quick", "middling"]
    assert launched == [*["slow"] * 3, *["quick"] * 3, *["middling"] * 3, "quick", "quick"]
