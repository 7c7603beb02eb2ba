"""What the compiler makes of the kernels, for every target, on a machine without a GPU."""

from __future__ import annotations

import json
import os
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from benchmarks import sass
from benchmarks.disassembly import (
    CLASSES,
    Resources,
    amd_resources,
    count_classes,
    parse_amd,
    parse_sass,
    sass_resources,
)
from benchmarks.loops import find_loops, reachable
from benchmarks.rectangle_cost import Band, band_cost, behind_matrix_product, rectangle_cost, total
from lca_fused.backends import triton_gpu

needs_compiler = pytest.mark.skipif(
    triton_gpu.no_compiler() is not None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs triton's compiler",
)
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")

# Key: entry point, height, width, with the gate map, float32; sm_90 compiles all of them.
EVERYWHERE = (
    ("fused", 7, 7, False),
    ("fused", 7, 7, True),
    ("pool", 7, 7, False),
    ("pool", 7, 7, True),
    ("pool", 14, 14, False),
    ("pool", 14, 14, True),
    ("pool", 28, 28, True),
    ("gradient", 7, 7, True),
)


def every_call():
    for call in EVERYWHERE:
        for target in TARGETS:
            yield pytest.param(call, target, id=f"{call_id(call)}-{target}")


def call_id(call):
    entry, height, width, gate = call
    return f"{entry}-{height}x{width}" + ("-gate" if gate else "")


def other_cases():
    """Of the benchmark shapes, those that are not compiled for every target."""
    if triton_gpu.no_compiler() is not None:
        return
    from benchmarks.kernel_table import Case, benchmark_cases

    covered = {Case(*call) for call in EVERYWHERE}
    for case in benchmark_cases():
        if case not in covered:
            call = (case.entry, case.height, case.width, case.gate)
            yield pytest.param(case, id=f"{call_id(call)}-{case.dtype}")


@cache
def launches(case, target):
    from benchmarks.kernel_table import launches_of

    return launches_of(case, target)


@cache
def rows_of_case(case, target):
    from benchmarks.kernel_table import compiled_row

    return [compiled_row(case, name, launch) for name, launch in launches(case, target)]


def rows(call, target):
    from benchmarks.kernel_table import Case

    return rows_of_case(Case(*call), target)


def assert_compiles_in_time(case, target):
    """Under 10 s cold; a second try if another process got in the way of the first."""
    from benchmarks.compile_only import compile_launch

    for (name, launch), row in zip(launches(case, target), rows_of_case(case, target), strict=True):
        seconds = row.compile_seconds
        if seconds >= 10:
            seconds = min(seconds, compile_launch(launch).seconds)
        assert seconds < 10, f"{name} at {row.map} for {target}"


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("call", "target"), list(every_call()))
def test_every_kernel_compiles_for_every_target_in_time(call, target):
    from benchmarks.kernel_table import Case

    compiled = rows(call, target)
    kept_in_registers = ("fused", 7, 7, True)  # only where that spills nothing
    assert compiled or (call == kept_in_registers and target in ("sm_100", "gfx942"))
    for row in compiled:
        assert set(row.instructions) == set(CLASSES)
        assert row.registers > 0
        assert sum(row.instructions.values()) > 100
    assert_compiles_in_time(Case(*call), target)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("case", list(other_cases()))
def test_other_benchmark_shapes_compile_for_sm_90_in_time(case):
    assert_compiles_in_time(case, "sm_90")


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("call", EVERYWHERE, ids=call_id)
def test_nothing_is_spilled(call, target):
    for row in rows(call, target):
        assert row.spilled_bytes == 0
        assert row.instructions["local"] == 0


@needs_compiler
@pytest.mark.slow
def test_one_launch_forward_is_close_to_two_additions_a_rectangle():
    (row,) = rows(("fused", 7, 7, False), "sm_90")
    assert row.spilled_bytes == 0
    assert row.registers <= 128
    assert row.fp32_per_rectangle <= 2.4


@needs_compiler
@pytest.mark.slow
def test_one_launch_forward_has_128_threads():
    from benchmarks.kernel_table import Case

    ((_, launch),) = launches(Case("fused", 7, 7, gate=False), "sm_90")
    assert launch.threads == 128


@needs_compiler
@pytest.mark.slow
def test_issue_slots_a_rectangle_with_the_gate_map():
    (row,) = rows(("fused", 7, 7, True), "sm_90")
    assert row.slots_per_rectangle <= 6.5


@needs_compiler
@pytest.mark.slow
def test_large_maps_cost_about_the_same_a_rectangle():
    (forward,) = rows(("pool", 14, 14, False), "sm_90")
    (gate,) = rows(("pool", 14, 14, True), "sm_90")
    assert 2 <= forward.fp32_per_rectangle <= 3
    assert 3 <= gate.slots_per_rectangle <= 8
    for row in rows(("pool", 28, 28, True), "sm_90")[:2]:
        assert 3 <= row.slots_per_rectangle <= 8, row.kernel


@needs_compiler
def test_launches_are_recorded_and_not_run():
    from benchmarks.kernel_table import Case

    names = [name for name, _ in launches(Case("pool", 28, 28, gate=True), "sm_90")]
    assert names == ["large_map gate within", "large_map gate across", "large_map gate finish"]


@needs_compiler
def test_arguments_are_specialised_as_the_launcher_does():
    from benchmarks.compile_only import TARGETS as GPUS
    from benchmarks.compile_only import Launch, _source

    def parameter(num, name):
        return SimpleNamespace(
            num=num,
            name=name,
            is_constexpr=name.isupper(),
            do_not_specialize=name.startswith("any"),
        )

    values = {
        "aligned": torch.empty(64, dtype=torch.bfloat16),
        "shifted": torch.empty(64)[1:],
        "missing": None,
        "one": 1,
        "sixteen": 16,
        "odd": 7,
        "wide": 2**31,
        "factor": 0.5,
        "BLOCK": 128,
        "any": 1,
        "any_sixteen": 16,
    }
    names = list(values)
    kernel = SimpleNamespace(
        params=[parameter(num, name) for num, name in enumerate(names)],
        arg_names=names,
        __name__="kernel",
    )
    source = _source(Launch(kernel, values, {}, "sm_90"), GPUS["sm_90"])
    kinds = ["*bf16", "*fp32", "constexpr", "constexpr", "i32", "i32", "i64", "fp32", "constexpr"]
    kinds += ["i32", "i32"]
    assert list(source.signature.values()) == kinds
    assert source.constants == {(2,): None, (3,): 1, (8,): 128}
    aligned = [place for (place,), attributes in source.attrs.items() if attributes]
    assert [names[place] for place in aligned] == ["aligned", "sixteen", "wide"]


@needs_compiler
def test_command_prints_a_table_and_writes_json(tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = ["--target", "sm_90", "--kernel", "gradient", "--json", str(path)]
    assert sass.main(arguments) == 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("| kernel")
    assert set(rule) == set("|-:")
    assert [line.split()[1::2][:3] for line in lines] == [
        ["gradient", "sm_90", "7x7"],
        ["gradient", "sm_90", "28x28"],
    ]
    written = json.loads(path.read_text())
    assert [row["map"] for row in written["kernels"]] == ["7x7", "28x28"]
    assert written["kernels"][0]["fp32_per_rectangle"] is None


def test_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(triton_gpu, "_INSTALLED", False)
    assert sass.main([]) == 1
    assert "pip install triton" in capsys.readouterr().err


@needs_compiler
def test_command_refuses_an_unknown_kernel(capsys):
    assert sass.main(["--kernel", "no such kernel"]) == 1
    assert "no such kernel" in capsys.readouterr().err


SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;                 /* 0x00000a00ff017b82 */
                                                                          /* 0x000e220000000800 */
        /*0010*/                   S2R R0, SR_TID.X ;                     /* 0x0000000000007919 */
        /*0020*/              @!P0 BRA 0xb0 ;                             /* 0x0000000000148947 */
        /*0030*/                   IMAD.MOV.U32 R2, RZ, RZ, R0 ;          /* 0x0000000000148947 */
        /*0040*/                   LDG.E.U16 R3, desc[UR4][R2.64] ;       /* 0x0000000000148947 */
        /*0050*/                   FADD R4, R3, |R5| ;                    /* 0x0000000000148947 */
        /*0060*/                   FADD2 R8, R8.F32x2.HI_LO, R6.F32x2.HI_LO ; /* 0x00000000014 */
        /*0070*/                   FSET.BF.GT.AND R9, R4, R8, PT ;        /* 0x0000000000148947 */
        /*0080*/                   ISETP.NE.AND P1, PT, R0, RZ, PT ;      /* 0x0000000000148947 */
        /*0090*/               @P1 BRA 0x50 ;                             /* 0x0000000000148947 */
        /*00a0*/                   BRA.U UP0, 0x40 ;                      /* 0x0000000000148947 */
        /*00b0*/                   STL [R1], R4 ;                         /* 0x0000000000148947 */
        /*00c0*/                   EXIT ;                                 /* 0x0000000000148947 */
        /*00d0*/                   BRA 0xd0;                              /* 0xfffffffc00fc7947 */
        /*00e0*/                   NOP;                                   /* 0x0000000000007918 */
"""


def test_sass_instructions_and_classes():
    program = parse_sass(SASS)
    assert len(program) == 14, "NOP is not counted"
    assert program[2].opcode == "BRA"
    expected = {"fp32": 3, "global": 1, "shared": 0, "local": 1, "move": 3, "integer": 1}
    assert count_classes(program) == {"matrix": 0, "control": 5, **expected}
    assert total(program).fp32 == 4, "FADD2 adds two pairs"
    assert sum(instruction.compares for instruction in program) == 1, "ISETP compares integers"


def test_sass_branches_and_loops():
    program = parse_sass(SASS)
    assert set(program[2].successors) == {3, 11}
    assert 13 not in reachable(program, [0]), "behind EXIT there is only padding"
    (outer,) = find_loops(program)
    assert outer.members == tuple(range(4, 11))
    (inner,) = outer.inner
    assert inner.members == tuple(range(5, 10))
    assert inner.inner == ()
    assert outer.own == (4, 10)


def test_sass_resources():
    usage = "Function kernel:\n  REG:125 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:608"
    assert sass_resources(usage, shared=73728) == Resources(125, 16, 73728)
    with pytest.raises(ValueError, match="REG"):
        sass_resources("nothing", shared=0)


AMD = """
kernel:                                 ; @kernel
.Lfunc_begin0:
; %bb.0:
\ts_load_dwordx2 s[0:1], s[4:5], 0x0    ; a comment: v_add_f32_e32
\tv_mov_b32_e32 v1, 0
\ts_branch .LBB0_2
.LBB0_1:                                ;   in Loop: Header=BB0_2 Depth=1
\tv_fmac_f32_e32 v1, v2, v3
\ts_cbranch_scc0 .LBB0_4
.LBB0_2:                                ; =>This Loop Header: Depth=1
.Ltmp1:
\tbuffer_load_ushort v2, v0, s[4:7], 0 offen
\ts_waitcnt vmcnt(0)
\tv_pk_add_f32 v[4:5], v[4:5], v[6:7]
\tv_cmp_gt_f32_e32 vcc, v4, v5
\tv_cndmask_b32_e64 v6, 0, 1.0, vcc
\ts_nop 1
\tv_mfma_f32_32x32x8_bf16_1k a[0:15], v[0:1], v[2:3], a[0:15]
\tds_write_b128 v0, v[0:3]
\tscratch_store_dword off, v0, s0
\ts_branch .LBB0_1
.LBB0_4:
\tv_add_u32_e32 v0, v0, v1
\ts_endpgm
    .group_segment_fixed_size: 0
    .sgpr_spill_count: 2
    .vgpr_count:     134
    .vgpr_spill_count: 3
"""


def test_amd_instructions_and_classes():
    program = parse_amd(AMD)
    counts = {"fp32": 4, "matrix": 1, "global": 2, "shared": 1, "local": 1, "integer": 1}
    assert count_classes(program) == {"move": 1, "control": 5, **counts}
    assert total(program).fp32 == 5, "v_pk_add_f32 adds two pairs"
    assert total(program).slots == 16, "s_nop is not counted"


def test_amd_loop_whose_blocks_are_out_of_order():
    program = parse_amd(AMD)
    (loop,) = find_loops(program)
    assert loop.members == tuple(range(3, 14))
    assert behind_matrix_product(program) == {14, 15}


def test_amd_resources():
    assert amd_resources(AMD, shared=16384) == Resources(134, 20, 16384)


def sass_of(lines):
    return parse_sass("\n".join(f"/*{i * 16:04x}*/ {line} ;" for i, line in enumerate(lines)))


def nested_loops(body):
    """A loop of `body` inside a loop of one more instruction and a branch."""
    head = ["S2R R0, SR_TID.X", "MOV R7, RZ"]
    return sass_of([*head, *body, "@P0 BRA 0x20", "@P1 BRA 0x10", "EXIT"])


def test_cost_of_a_band_shares_out_the_loop_around_it():
    program = nested_loops(["FADD R1, R1, R2"] * 6 + ["LDG.E R3, [R4.64]"])
    cost = band_cost(program, [Band(rectangles=3, passes=1)], height=3, gate=False)
    assert cost.fp32 == pytest.approx(6 / 3)
    # 8 instructions a band, and 2 around it that 2 bands share.
    assert cost.slots == pytest.approx((8 + 2 / 2) / 3)


def test_an_unrolled_band_loop_counts_for_the_bands_it_handles():
    program = nested_loops(["FSET.BF.GT.AND R1, R2, R3, PT", "FFMA R4, R1, R5, R4"] * 6)
    cost = band_cost(program, [Band(rectangles=3, passes=1)], height=10**6, gate=True)
    assert cost.fp32 == pytest.approx(2, rel=1e-4)


def test_a_program_without_the_expected_loops_is_refused():
    with pytest.raises(ValueError, match="expected 1"):
        band_cost(sass_of(["EXIT"]), [Band(3, 1)], height=3, gate=False)
    program = nested_loops(["FADD R1, R1, R2"])
    with pytest.raises(ValueError, match="too few"):
        band_cost(program, [Band(3, 1)], height=3, gate=False)


def test_straight_line_code_is_counted_behind_the_matrix_product():
    product = "HGMMA.64x128x16.F32.BF16 R0, gdesc[UR4], R0"
    program = sass_of(
        ["FADD R1, R1, R2", product, "FADD R1, R1, R2", "FFMA R1, R1, R2, R3", "EXIT"]
    )
    arguments = {"RECTANGLES": 2, "IMAGES": 1, "BLOCK_D": 128}
    cost = rectangle_cost(SimpleNamespace(arguments=arguments, threads=128), program)
    assert (cost.fp32, cost.slots) == (1, 1.5)


def test_columns_between_two_chunks_count_one_load_each():
    between = ["LDG.E R3, [R4.64]", "FADD R8, R8, R3", "@P2 BRA 0x30"]
    band = ["MOV R3, RZ", *between, *["FADD R1, R1, R2"] * 6, "@P0 BRA 0x20"]
    program = sass_of(["S2R R0, SR_TID.X", "MOV R7, RZ", *band, "@P1 BRA 0x10", "EXIT"])
    cost = band_cost(program, [Band(3, passes=1, between=4)], height=3, gate=False)
    assert cost.fp32 == pytest.approx((6 + 4) / 3)
    assert cost.slots == pytest.approx((8 + 4 * 3 + 2 / 2) / 3)
