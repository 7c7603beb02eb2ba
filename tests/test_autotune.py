"""Choosing a configuration by timing, with the timing itself made up."""

from __future__ import annotations

import pytest
import torch

from lca_fused.backends.triton_gpu import autotune, dispatch, launch

pytest.importorskip("triton")

CPU = torch.device("cpu")
GPU = launch.Gpu(warp_size=32, capability=90)
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


def test_batches_of_all_sizes_share_two_tiles_and_their_keys():
    shapes = [(n, 2048, 7, 7) for n in range(1, 300)]
    assert len({dispatch.tile(*shape, 2, False, GPU) for shape in shapes}) == 2
    keys = {dispatch.tile_key(n, 2048, d, h, w, torch.bfloat16, False) for n, d, h, w in shapes}
    assert len(keys) == 2


def test_candidates_differ_and_cover_the_same_map():
    chosen = dispatch.tile(32, 2048, 7, 7, 2, False, GPU)
    candidates = dispatch.tile_candidates(chosen)
    assert len(set(candidates)) == len(candidates)
    assert all(candidate.positions == chosen.positions for candidate in candidates)
