"""How often the instructions of a kernel run, and what that comes to."""

from __future__ import annotations

import pytest

from benchmarks.cost import Cost, thread_cost
from benchmarks.disassembly import parse_sass
from benchmarks.executions import UnmatchedLoopsError, executions
from benchmarks.ir import UnknownError, loops_of, parse
from benchmarks.trip_counts import follow


def sass_of(lines):
    return parse_sass("\n".join(f"/*{i * 16:04x}*/ {line} ;" for i, line in enumerate(lines)))


# Bands of rows, top to bottom, in a loop over two chunks that the compiler may unroll.
BANDS = """
module {
  tt.func public @kernel(%x: !tt.ptr<bf16> {tt.divisibility = 16 : i32} loc("x"(#loc)), %H: i32 loc("H"(#loc))) attributes {noinline = false} {
    %c0_i32 = arith.constant 0 : i32 loc(#loc1)
    %c1_i32 = arith.constant 1 : i32 loc(#loc1)
    %c14_i32 = arith.constant 14 : i32 loc(#loc1)
    %c28_i32 = arith.constant 28 : i32 loc(#loc1)
    scf.for %first = %c0_i32 to %c28_i32 step %c14_i32  : i32 {
      %0 = arith.addi %first, %c14_i32 : i32 loc(#loc2)
      scf.for %last = %0 to %c28_i32 step %c14_i32  : i32 {
        %a:2 = scf.for %top = %c0_i32 to %H step %c1_i32 iter_args(%b = %cst) -> (i32)  : i32 {
          %c = scf.for %bottom = %top to %H step %c1_i32 iter_args(%d = %b) -> (i32)  : i32 {
            %row = tt.load %ptr, %mask, %cst : tensor<128x!tt.ptr<bf16>, #blocked> loc(#loc3)
            %weight = tt.load %weights : !tt.ptr<f32> loc(#loc3)
            scf.yield %e : i32 loc(#loc3)
          } loc(#loc3)
          scf.yield %c : i32 loc(#loc4)
        } loc(#loc4)
      } loc(#loc5)
    } loc(#loc5)
    tt.store %out, %sum, %mask : tensor<128x!tt.ptr<f32>, #blocked> loc(#loc6)
    tt.return loc(#loc7)
  } loc(#loc)
} loc(#loc)
#loc = loc("kernel.py":1:0)
"""  # noqa: E501
# Seven instructions and a loop of three in a loop of two more.
NEST = ["S2R R0, SR_TID.X", "MOV R7, RZ"]
NEST += ["FADD R1, R1, R2", "LDG.E R3, [R4.64]", "@P0 BRA 0x20", "@P1 BRA 0x10"]
NEST += ["STG.E [R4.64], R1", "EXIT"]


def followed(text, grid=(1,), **arguments):
    ir = parse(text)
    moved = follow(ir, arguments, grid)
    return loops_of(ir.body), moved


def test_loops_run_as_their_bounds_say():
    (first,), moved = followed(BANDS, H=4)
    (last,) = first.inner
    (top,) = last.inner
    (bottom,) = top.inner
    assert [sum(loop.runs.values()) for loop in (first, last, top, bottom)] == [2, 1, 4, 10]
    assert [loop.constant for loop in (first, last, top, bottom)] == [True, True, False, False]
    assert moved == 10 * 128 * 2 + 128 * 4, "loads that all threads share are left out"


def test_loops_that_were_unrolled_leave_those_inside_them():
    loops, _ = followed(BANDS, H=4)
    times = executions(sass_of(NEST), loops)
    assert times == [1, 4, 10, 10, 10, 4, 1, 1]


def test_loops_that_were_kept_are_matched_one_by_one():
    loops, _ = followed(BANDS, H=4)
    kept = [*NEST[:4], "@P0 BRA 0x20", "@P1 BRA 0x10", "@P2 BRA 0x10", "@P3 BRA 0x0", *NEST[6:]]
    with pytest.raises(UnmatchedLoopsError, match="those of Triton's program"):
        executions(sass_of([*NEST[:2], *NEST[6:]]), loops)
    times = executions(sass_of(kept), loops)
    assert times[:8] == [2, 4, 10, 10, 10, 4, 4, 2], "one of the two loops over chunks is left"


SPLIT = """
    %c0 = arith.constant 0 : i32
    %c1 = arith.constant 1 : i32
    %c3 = arith.constant 3 : i32
    %program = tt.get_program_id x : i32
    %top = arith.remsi %program, %c3 : i32
    %even = arith.cmpi eq, %top, %c0 : i32
    scf.for %bottom = %top to %H step %c1  : i32 {
      scf.if %even {
        scf.for %j = %c0 to %H step %c1  : i32 {
        }
      } else {
        scf.for %k = %c0 to %c3 step %c1  : i32 {
        }
      }
    }
"""


def test_loops_that_differ_from_program_to_program_are_averaged():
    (bottom,), _ = followed(SPLIT, grid=(6,), H=3)
    j, k = bottom.inner
    runs = [sum(loop.runs.values()) for loop in (bottom, j, k)]
    assert runs == pytest.approx([(3 + 2 + 1) / 3, 9 / 3, (6 + 3) / 3])


def test_of_many_programs_some_are_drawn():
    (bottom,), _ = followed(SPLIT, grid=(3, 1000), H=3)
    assert sum(bottom.runs.values()) == pytest.approx(2, rel=0.1)


DATA = """
    %c0 = arith.constant 0 : i32
    %c1 = arith.constant 1 : i32
    %found = "tt.reduce"(%x) <{axis = 0 : i32}> ({
    ^bb0(%a: i32, %b: i32):
      %or = arith.ori %a, %b : i32
      tt.reduce.return %or : i32
    }) : (tensor<128xi32>) -> i32
    %rare = arith.cmpi ne, %found, %c0 : i32
    %y = scf.if %rare -> (f32) {
      scf.for %i = %c0 to %H step %c1  : i32 {
      }
      scf.yield %slow : f32
    } else {
      scf.yield %fast : f32
    }
    %z = scf.while (%pending = %y) : (f32) -> (f32) {
      scf.condition(%go) %pending : f32
    } do {
    ^bb0(%p: f32):
      tt.store %out, %p, %mask : tensor<64x32x!tt.ptr<f16>, #blocked>
      scf.yield %p : f32
    }
"""


def test_what_depends_on_data_is_rare_and_a_while_runs_once():
    (rare, pending), moved = followed(DATA, H=5)
    assert sum(rare.runs.values()) == 0
    assert sum(pending.runs.values()) == 1
    assert moved == 64 * 32 * 2


def test_bounds_that_depend_on_data_are_refused():
    text = "    scf.for %i = %c0 to %loaded step %c1  : i32 {\n    }\n"
    with pytest.raises(UnknownError, match="%c0"):
        followed(text)


def test_of_two_branches_the_short_one_is_usual():
    rare = ["FADD R1, R1, R2"] * 5
    #  a branch over the rare part, and another to a part behind the end
    program = sass_of(
        [
            "S2R R0, SR_TID.X",
            "@!P0 BRA 0x70",
            *rare,
            "@P1 BRA 0xb0",
            "FADD R1, R1, R2",
            "STG.E [R4.64], R1",
            "EXIT",
            *rare,
            "BRA 0x90",
        ]
    )
    times = executions(program, [])
    assert [place for place, count in enumerate(times) if count] == [0, 1, 7, 8, 9, 10]
    assert set(times) == {0, 1}


def test_a_short_way_that_writes_less_is_not_the_usual_one():
    program = sass_of(
        ["@P0 EXIT", "@P1 BRA 0x30", "STG.E [R4.64], R1", "STG.E [R4.64], R2", "EXIT"]
    )
    assert executions(program, []) == [1, 1, 1, 1, 1]


def test_waiting_is_no_loop_of_the_program():
    wait = ["SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [R1], R2", "@!P0 BRA 0x0"]
    assert executions(sass_of([*wait, "STG.E [R4.64], R1", "EXIT"]), []) == [1, 1, 1, 1]


def encoded(opcode, stall):
    high = stall << 41
    return f"{opcode} ; /* 0x{0:016x} */ /* 0x{high:016x} */"


def test_cost_of_a_thread():
    lines = [("FADD R1, R1, R2", 4), ("FADD2 R1, R1, R2", 0), ("EXIT", 5)]
    program = parse_sass(
        "\n".join(f"/*{i * 16:04x}*/ {encoded(*line)}" for i, line in enumerate(lines))
    )
    expected = Cost(slots=13, busy=13, loads=0, arithmetic=14, cycles=47)
    assert thread_cost(program, [10, 2, 1]) == expected
    assert thread_cost(program, [10, 2, 1], {1}) / 2 == Cost(1, 1, 0, 2, 1)
    assert thread_cost(sass_of(["EXIT"]), [1]).cycles is None


def test_pairs_of_halves_keep_their_unit_busy_for_longer_than_a_slot():
    lines = ["HSET2.BF.GT.AND R1, R2, R3, PT", "HFMA2.RELU R1, R2, R3, R4", "HADD2 R1, R2, R3"]
    cost = thread_cost(sass_of([*lines, "HADD2.F32 R1, -RZ, R2.H0_H0", "EXIT"]), [10] * 5)
    assert cost.slots == 50
    assert cost.busy == pytest.approx(10 / 0.520 + 10 / 0.679 + 10 / 0.836 + 20), "a move is none"


def test_loads_that_a_warp_waits_for_are_counted():
    lines = ["LDG.E R1, [R2]", "LDGSTS.E [R1], [R2]", "LDS R1, [R2]", "STG.E [R2], R1", "EXIT"]
    assert thread_cost(sass_of(lines), [3, 5, 7, 9, 1]).loads == 3
