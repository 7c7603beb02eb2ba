"""The machinery of the benchmarks; nothing here asserts a time."""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks import measure, results
from benchmarks.accuracy import Oracle, WrongResultError, check, refuse
from benchmarks.cases import cases
from benchmarks.heads import Head
from benchmarks.machine import describe
from benchmarks.memory import highest_sum, peak_extra_bytes
from benchmarks.peers import FLOOR, PEERS, UnavailableError, lca
from benchmarks.problem import make_problem
from benchmarks.shapes import ACCEPTANCE_CPU, ACCEPTANCE_CUDA, SETS, parse_shapes, shape
from lca_fused import LCA

CPU = torch.device("cpu")
SMALL = shape(3, 4, 3, 64)


def problem(dtype=torch.float32, memory_format="contiguous", of=SMALL):
    return make_problem(of, CPU, dtype, memory_format)


class FakeStopwatch:
    def __init__(self, seconds):
        self.order, self.seconds = [], seconds

    def __call__(self, call):
        self.order.append(call())
        seconds = self.seconds[self.order[-1]]
        return lambda: seconds


def test_floor_and_peer_alternate():
    stopwatch = FakeStopwatch({"floor": 1.0, "peer": 2.0})
    timings = measure.interleave(
        lambda: "floor", lambda: "peer", stopwatch, seconds=12, least_rounds=1
    )
    assert stopwatch.order == ["floor", "peer"] * (len(stopwatch.order) // 2)
    assert len(timings.floor) == len(timings.peer) == 4, "12 s at 3 s a round"
    assert timings.summary()["ratio"] == 2


def test_a_slow_peer_still_gets_the_least_number_of_rounds():
    stopwatch = FakeStopwatch({"floor": 1.0, "peer": 200.0})
    timings = measure.interleave(
        lambda: "floor", lambda: "peer", stopwatch, seconds=1, least_rounds=3
    )
    assert len(timings.peer) == 3


def test_ratio_and_its_quartiles_are_those_of_the_rounds():
    summary = measure.Timings(floor=(1, 2, 1, 4, 1), peer=(2, 4, 3, 4, 100)).summary()
    assert summary["ratio"] == 2, "rounds: 2, 2, 3, 1, 100; the medians' ratio is 4"
    assert summary["ratio_quartiles"] == (2, 3)
    assert summary["seconds"] == (3, 4, 4)


def test_a_ratio_lies_between_its_quartiles_where_the_medians_ratio_does_not():
    summary = measure.Timings(floor=(1, 1, 2, 2, 2), peer=(1.1, 1.2, 2.1, 2.2, 2.3)).summary()
    low, high = summary["ratio_quartiles"]
    assert low <= summary["ratio"] <= high
    assert summary["seconds"][1] / summary["floor_seconds"][1] < low


def test_the_replayed_clock_shows_the_measured_times():
    replay = measure.Replay()
    replay.load((0.5, 0.25))
    shown = []
    for _ in range(2):
        start = replay.now()
        replay.advance()
        shown.append(replay.now() - start)
    assert shown == [0.5, 0.25]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "name", [name for name, peer in PEERS.items() if not peer.compiled and name != "lca-triton"]
)
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_every_peer_passes_its_check(name, training, memory_format):
    made = problem(memory_format=memory_format)
    try:
        head = PEERS[name].build(made)
    except UnavailableError as error:
        pytest.skip(str(error))
    errors = check(head, Oracle(made), made, training)
    assert "output" in errors
    assert ("x" in errors) == training
    head.training() if training else head.inference()


def test_16_bit_rows_are_held_against_the_reference_in_that_dtype():
    made = problem(torch.bfloat16)
    oracle = Oracle(made)
    check(PEERS["reference"].build(made), oracle, made, training=True)
    assert oracle.tolerance(training=False)["output"] > 1e-4


def test_16_bit_training_of_the_eager_backend_is_within_the_bound():
    made = problem(torch.bfloat16)
    check(PEERS["lca-eager"].build(made), Oracle(made), made, training=True)


class Wrong(LCA):
    def forward(self, x):
        return super().forward(x) * 1.0001


class WrongGradient(LCA):
    def forward(self, x):
        right = super().forward(x)
        return right.detach() + 1.0001 * (right - right.detach())


class Leaky(LCA):
    """Right outputs; some gradient reaches images it does not belong to."""

    def forward(self, x):
        right = super().forward(x)
        return right + 1e-3 * (x.sum() - x.sum().detach())


def wrong_head(made, layer):
    module = layer(made.shape.c, backend="eager")
    module.weight, module.bias = nn.Parameter(made.weight), nn.Parameter(made.bias)
    return Head(module, made.x, is_lca=True)


@pytest.mark.parametrize("layer", [Wrong, WrongGradient, Leaky])
def test_the_gate_refuses_a_wrong_peer(layer):
    made = problem()
    with pytest.raises(WrongResultError, match="x: "):
        check(wrong_head(made, layer), Oracle(made), made, training=True)


def test_the_gate_refuses_wrong_outputs_and_nan():
    made = problem()
    with pytest.raises(WrongResultError, match="output: "):
        check(wrong_head(made, Wrong), Oracle(made), made, training=False)
    with pytest.raises(WrongResultError, match="nan"):
        refuse({"output": float("nan")}, {"output": 1.0})
    with pytest.raises(WrongResultError) as refused:
        refuse({"output": 2.0, "x": 0.5}, {"output": 1.0, "x": 1.0})
    assert refused.value.errors == {"output": 2.0, "x": 0.5}


def test_a_peer_whose_package_is_missing_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UnavailableError, match="package timm is not installed"):
        PEERS["timm-attention"].build(problem())


def test_a_backend_that_is_unknown_or_cannot_serve_says_why():
    with pytest.raises(UnavailableError, match="no-such"):
        lca("no-such")(problem())


def test_the_reference_is_not_run_where_its_memory_does_not_fit(monkeypatch):
    monkeypatch.setattr("benchmarks.peers.available_bytes", lambda _device: 1000)
    with pytest.raises(UnavailableError, match="GB"):
        PEERS["reference"].build(problem())


def test_compiled_peers_are_bounded():
    with pytest.raises(UnavailableError, match="196 positions"):
        PEERS["reference-compiled"].build(problem(of=shape(14, 14, 1, 2)))


def test_peak_memory_of_a_cpu_call_is_exact():
    def call():
        a = torch.empty(1000)
        del a
        return torch.empty(500) + torch.empty(500)

    assert peak_extra_bytes(call, CPU) == 6000


def test_highest_sum_is_taken_in_the_order_of_time():
    events = [
        {"name": "[memory]", "ts": ts, "args": {"Bytes": size}}
        for ts, size in [(3, 7), (1, 5), (2, -5)]
    ]
    assert highest_sum([{"name": "aten::empty", "ts": 0}, *events]) == 7


def test_shapes_have_names_that_are_read_back():
    for device, sets in SETS.items():
        for name, members in sets.items():
            assert parse_shapes(name, device) == list(members)
            assert parse_shapes(",".join(map(str, members)), device) == list(members)
    with pytest.raises(ValueError, match="7x7-N16-C2048"):
        parse_shapes("7by7", "cpu")


def test_the_suite_has_both_devices_each_in_its_own_dtype_and_format():
    found = cases("7x7-N1-C512", None, None)
    assert {(case.device, case.dtype, case.memory_format) for case in found} == {
        ("cpu", "float32", "contiguous"),
        ("cuda", "bfloat16", "channels_last"),
    }
    asked = cases("7x7-N1-C512", "float16", "contiguous")
    assert {(case.dtype, case.memory_format) for case in asked} == {("float16", "contiguous")}


def modes(shapes, device="cuda"):
    return {case.mode for case in cases(shapes, None, None) if case.device == device}


@pytest.mark.parametrize("shapes", ["7x7-N1-C2048", "7x7-N32-C2048", "28x28-N16-C2048"])
def test_graphs_are_replayed_on_a_gpu_where_python_would_be_timed(shapes):
    assert modes(shapes) == {"inference", "inference-graph", "training", "training-graph"}
    assert modes(shapes, "cpu") == {"inference", "training"}


@pytest.mark.parametrize("shapes", ["7x7-N1024-C2048", "14x14-N256-C2048", "28x28-N64-C2048"])
def test_a_gpu_busy_for_longer_than_python_is_timed_without_graphs(shapes):
    assert modes(shapes) == {"inference", "training"}


def test_acceptance_shapes_are_measured_in_both_formats_on_a_gpu():
    found = [case for case in cases(None, None, None) if case.device == "cuda"]
    contiguous = {case.shape for case in found if case.memory_format == "contiguous"}
    assert contiguous == set(ACCEPTANCE_CUDA)
    assert contiguous < {case.shape for case in found if case.memory_format == "channels_last"}
    assert len({str(case) for case in found}) == len(found), "names tell the rows apart"


def test_cases_that_share_tensors_stand_together():
    tensors = [
        (case.device, case.dtype, case.memory_format, case.shape)
        for case in cases(None, None, None)
    ]
    assert [key for key, _ in itertools.groupby(tensors)] == list(dict.fromkeys(tensors))


class FakeHead:
    @staticmethod
    def inference():
        return "inference"

    @staticmethod
    def training():
        return "training"


def test_a_graph_holds_what_its_mode_runs_without_one():
    from benchmarks.test_heads import call_of

    for case in cases("7x7-N1-C2048", None, None):
        assert call_of(FakeHead, case)() == case.mode.removesuffix("-graph")
        assert case.replays_graph == case.mode.endswith("-graph")


def row(peer="lca", of=ACCEPTANCE_CPU[0], mode="inference", seconds=0.002):
    height, width, n, c, d = of.height, of.width, of.n, of.c, of.d
    return {
        "peer": peer,
        "mode": mode,
        "shape": {"height": height, "width": width, "n": n, "c": c, "d": d},
        "dtype": "float32",
        "memory_format": "contiguous",
        "backend": None,
        "errors": {"output": 1e-7},
        "extra_bytes": 1_500_000,
        **describe(CPU),
        **measure.Timings(floor=(0.001,) * 3, peer=(seconds,) * 3).summary(),
    }


def refused_row(peer="four-corners"):
    timed = {"rounds", "seconds", "floor_seconds", "ratio", "ratio_quartiles", "extra_bytes"}
    kept = {key: value for key, value in row(peer).items() if key not in timed}
    return kept | {"errors": {"output": 3e-6, "x": 1e-7}, "refused": "output: 3.00e-06 > 2.00e-06"}


@pytest.fixture
def report():
    pytest.importorskip("tabulate")
    return importlib.import_module("benchmarks.report")


def written(path: Path, rows) -> Path:
    path.write_text(json.dumps({"benchmarks": [{"extra_info": row} for row in rows]}))
    return path


def test_the_page_is_filled_once_and_says_what_was_not_measured(report, tmp_path):
    file = written(tmp_path / "run.json", [row(), row(FLOOR, seconds=0.001)])
    page = tmp_path / "COSTS.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.main([str(file), "--page", str(page)])
    first = page.read_text()
    report.main([str(file), "--page", str(page)])
    assert page.read_text() == first
    assert first.startswith("before\n")
    assert first.endswith("after\n")
    assert "old" not in first
    details = first.partition(report._DETAILS)[2].splitlines()
    line = next(line for line in details if line.startswith("| **LCA**"))
    assert "2.00 (2.00-2.00)" in line
    assert line.count("not measured") == len(ACCEPTANCE_CPU) - 1
    assert "**GPU**: not measured" in first
    (others,) = {line for line in details if line.startswith("Not measured: ")}
    assert "; R-MAC;" in others, "a peer that was not measured is named all the same"


def test_a_row_that_failed_its_check_shows_its_error_and_no_time(report):
    lines = report.tables([row(), refused_row()], headline=True).splitlines()
    (line,) = (line for line in lines if "four corners" in line)
    assert "wrong, error 3.0e-06" in line
    lines = report.tables([{**refused_row("lca"), "mode": "training"}], headline=True).splitlines()
    (times,) = (line for line in lines if line.startswith("| **LCA**"))
    assert "wrong, error 3.0e-06" in times
    without_time, without_memory = (line for line in lines if line.startswith("Not measured: "))
    assert "**LCA**" not in without_time
    assert "**LCA**" in without_memory
    assert "wrong, error" in report.summary([row("gap"), refused_row("lca")])


def test_a_row_that_failed_its_check_is_not_plotted(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.plots import plot_all

    assert plot_all([refused_row()], tmp_path) == []


def test_the_page_begins_with_a_summary(report, tmp_path):
    rows = [row(), row(mode="training", seconds=0.0015), row("gap")]
    page = tmp_path / "costs.md"
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    report.main([str(written(tmp_path / "run.json", rows)), "--page", str(page)])
    lines = page.read_text().partition(report._DETAILS)[0].splitlines()
    (lca,) = (line for line in lines if line.startswith("| **LCA**"))
    (gap,) = (line for line in lines if line.startswith("| global average pooling "))
    assert "| 2.00 / 1.50 " in lca
    assert "| 2.00 / not measured" in gap
    assert "**GPU**: not measured." in lines


def test_a_page_without_markers_is_refused(report):
    with pytest.raises(ValueError, match="benchmarks: begin"):
        report.replace_block("no markers", "tables")


def test_saved_results_are_small_and_replace_what_was_measured_before(report, tmp_path):
    saved = tmp_path / "machine.json"
    report.main([str(written(tmp_path / "a.json", [row(), row("gap")])), "--save", str(saved)])
    again = written(tmp_path / "b.json", [row(seconds=0.003)])
    report.main([str(saved), str(again), "--save", str(saved)])
    rows = report.load([saved])
    assert [(each["peer"], each["ratio"]) for each in rows] == [("lca", 3.0), ("gap", 2.0)]


def test_plots_are_written_for_what_was_measured(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.plots import plot_all

    shapes = parse_shapes("curves,rectangles", "cpu")
    written_files = plot_all([row(of=each) for each in shapes], tmp_path)
    assert {path.name for path in written_files} == {
        f"cpu-float32-contiguous-inference-{name}.png"
        for name in (
            "time-by-side",
            "time-by-batch",
            "memory-by-batch",
            "rectangle-by-side",
        )
    }
    assert all(path.stat().st_size > 1000 for path in written_files)


def test_plots_put_all_peers_beside_one_floor():
    pytest.importorskip("matplotlib")
    from benchmarks.plots import milliseconds_beside_one_floor

    calm, disturbed = row(), row("gap")
    disturbed["floor_seconds"] = [3 * seconds for seconds in calm["floor_seconds"]]
    milliseconds = milliseconds_beside_one_floor([calm, disturbed])
    floor = 2e3 * calm["floor_seconds"][1]  # the median of 1 and 3
    assert milliseconds(calm) == pytest.approx(calm["ratio"] * floor)
    assert milliseconds(disturbed) == pytest.approx(disturbed["ratio"] * floor)


def test_overhead_of_one_image_is_taken_apart(capsys):
    pytest.importorskip("numba")
    from benchmarks import overhead

    assert overhead.main(["--side", "3", "--features", "8", "--rounds", "2"]) == 0
    printed = capsys.readouterr().out
    assert all(part in printed for part in ("the floor", "pooling, right after", "the layer"))


def test_four_corners_lose_digits_that_bands_keep():
    from benchmarks.rounding import errors

    corners, eager, _ = errors(14, bias=-2.0)
    assert eager < 2e-6 < corners, "the bound of the accuracy check"


def test_rounding_is_a_table_of_maps_and_biases(capsys):
    from benchmarks import rounding

    assert rounding.main(["--sides", "3", "4", "--biases", "0", "-1"]) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4:2] for line in lines] == [
        ["3x3", "0"],
        ["3x3", "-1"],
        ["4x4", "0"],
        ["4x4", "-1"],
    ]


def test_rows_reach_the_file_one_by_one_and_replace_earlier_ones(tmp_path):
    path = tmp_path / "results" / "rows.json"
    for each in (row(), row("gap"), row(seconds=0.003)):
        results.append(each, path)
    rows = results.load([path])
    assert [(each["peer"], each["ratio"]) for each in rows] == [("lca", 3.0), ("gap", 2.0)]
    assert list(path.parent.iterdir()) == [path]


def test_a_row_that_fails_its_check_is_stored_with_its_errors(tmp_path, monkeypatch):
    from benchmarks import test_heads

    def always_wrong(*_arguments, **_options):
        refuse({"output": 1.0}, {"output": 1e-6})

    monkeypatch.setattr(test_heads, "check", always_wrong)
    path = tmp_path / "rows.json"
    config = SimpleNamespace(getoption={"rows": path}.get)
    (case,) = (
        case
        for case in cases("3x3-N1-C4", None, None)
        if (case.device, case.mode, case.peer) == ("cpu", "inference", "gap")
    )
    with pytest.raises(WrongResultError):
        test_heads.test_head(SimpleNamespace(extra_info={}), case, config)
    (stored,) = results.load([path])
    assert (stored["peer"], stored["errors"]) == ("gap", {"output": 1.0})
    assert "output: 1.00e+00 > 1.00e-06" in stored["refused"]
    assert "seconds" not in stored


def test_rows_that_take_minutes_are_marked_slow():
    slow = {(str(case.shape), case.peer) for case in cases("acceptance", None, None) if case.slow}
    assert ("28x28-N1-C2048", "reference") in slow
    assert ("7x7-N16-C2048", "reference") not in slow
    assert ("7x7-N1-C2048", "reference-compiled") in slow
