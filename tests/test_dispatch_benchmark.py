"""Timing of paths and tiles, with kernels that torch operators stand in for."""

from __future__ import annotations

import gc
import json
from dataclasses import replace

import pytest
import torch

from benchmarks import dispatch as benchmark
from benchmarks.shapes import shape
from lca_fused.backends.triton_gpu import no_compiler

if (reason := no_compiler()) is not None:
    pytest.skip(reason, allow_module_level=True)

from lca_fused.backends.triton_gpu import fused, pooling, small_map

CPU = torch.device("cpu")
SHAPE = shape(7, 7, 2, 8)


@pytest.fixture(autouse=True)
def kernels(monkeypatch) -> None:
    """Two launches that work; one launch is wrong where a program has 64 features, fails at 128."""

    def pool(projection, _sizes, training):
        return projection.mean((1, 2)), projection if training else None

    def pool_small_map(projection, pooled, _sizes, _columns):
        pooled.copy_(projection.mean((1, 2)))

    def gradient(saved, grad, *_):
        return grad[:, None, None].expand_as(saved), grad

    def one_launch(rows, weight, bias, _sizes, training, tile):
        if tile.block_d == 128:
            raise RuntimeError("out of registers")
        projection = torch.nn.functional.linear(rows, weight, bias)
        result = projection.mean((1, 2))
        pooled = 2 * result if tile.block_d == 64 else result
        return pooled, projection if training else None

    monkeypatch.setattr(pooling, "pool", pool)
    monkeypatch.setattr(pooling, "projection_gradient", gradient)
    monkeypatch.setattr(small_map, "pool_small_map", pool_small_map)
    monkeypatch.setattr(small_map, "small_map_gradient", gradient)
    monkeypatch.setattr(fused, "accumulate", one_launch)
    monkeypatch.setattr(benchmark, "unavailable", lambda _: None)
    # Before each variant all that the tests have made would be walked through.
    monkeypatch.setattr(gc, "collect", lambda: 0)


def _variants(of=SHAPE, modes=("inference",), dtype="bfloat16") -> list[benchmark.Variant]:
    return list(benchmark.variants(of, dtype, modes, CPU))


@pytest.mark.parametrize("modes", [("inference",), ("inference", "training")])
@pytest.mark.parametrize("n", [1, 256])
def test_each_mode_has_one_choice_of_the_library_and_no_variant_twice(n, modes):
    found = _variants(shape(7, 7, n, 2048), modes)
    assert len(set(found)) == len(found)
    assert [v.training for v in found if v.chosen] == [mode == "training" for mode in modes]
    assert {v.path for v in found} == {benchmark.ONE_LAUNCH, benchmark.TWO_LAUNCHES}
    assert {v.path for v in found if v.chosen} == {
        benchmark.ONE_LAUNCH if n == 1 else benchmark.TWO_LAUNCHES
    }


def test_maps_whose_columns_do_not_fit_in_registers_have_one_path():
    (variant,) = _variants(shape(14, 14, 2, 8))
    assert variant.path == benchmark.TWO_LAUNCHES
    assert variant.chosen


@pytest.mark.slow
def test_variants_that_fail_or_are_wrong_are_not_timed():
    errors = {}
    for variant in _variants():
        row = benchmark.time_variant(variant, CPU, seconds=0.0)
        assert ("seconds" in row) == (row["error"] is None)
        if variant.path == benchmark.ONE_LAUNCH:
            errors[variant.tile.block_d] = row["error"]
    assert errors[32] is None
    assert errors[64].startswith("wrong result: relative error 1.0e+00")
    assert errors[128] == "RuntimeError: out of registers"


@pytest.mark.slow
def test_the_table_has_the_fastest_and_the_librarys_choice(tmp_path, capsys):
    path = tmp_path / "variants.json"
    arguments = ["--shapes", "7x7-N2-C8", "--seconds", "0", "--best", "1", "--json", str(path)]
    assert benchmark.main(arguments) == 0
    rows = json.loads(path.read_text())["variants"]
    printed = capsys.readouterr().out.splitlines()
    for training, mode in ((False, "inference"), (True, "training")):
        timed = [row for row in rows if row["training"] == training and row["error"] is None]
        lines = [line for line in printed if f"| {mode}" in line]
        assert f"{min(row['ratio'] for row in timed):.3f}" in lines[0]
        assert sum("yes" in line for line in lines) == 1
        assert len(lines) <= 2


@pytest.mark.parametrize("shows", [False, True])
def test_what_python_takes_is_left_out_where_it_would_show(shows, monkeypatch):
    replays = []

    def captured(call, device):
        assert device == CPU
        return lambda: replays.append(call)

    monkeypatch.setattr(benchmark, "python_shows", lambda device, _: device == "cpu" and shows)
    monkeypatch.setattr(benchmark.measure, "captured", captured)
    (chosen,) = (v for v in _variants() if v.chosen and v.path == benchmark.ONE_LAUNCH)
    row = benchmark.time_variant(replace(chosen, tile=replace(chosen.tile, block_d=32)), CPU, 0.0)
    assert row["ratio"] > 0
    floors, variants = replays[::2], replays[1::2]
    assert bool(replays) == shows
    assert {call.func for call in floors} <= {torch.nn.functional.linear}
    assert all(isinstance(call.func, benchmark.Variant) for call in variants)


def test_a_choice_of_the_library_that_fails_is_shown_with_its_error():
    (chosen,) = (v for v in _variants() if v.chosen)
    row = benchmark.time_variant(chosen, CPU, seconds=0.0)
    row |= {"error": "OutOfResources: shared memory", "ratio": None}
    assert "OutOfResources: shared memory" in benchmark.table([row], best=3)


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "unavailable", lambda _: "x is on cpu")
    assert benchmark.main([]) == 1
    assert "x is on cpu" in capsys.readouterr().err


def test_a_shape_that_is_none_is_refused_with_what_is_expected(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--shapes", "7x7"])
    assert "'7x7' is no shape; expected" in capsys.readouterr().err
