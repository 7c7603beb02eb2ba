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
from benchmarks.executions import behind_matrix_product
from benchmarks.loops import find_loops, reachable
from lca_fused import packed_halves
from lca_fused.backends import triton_gpu

needs_compiler = pytest.mark.skipif(
    triton_gpu.no_compiler() is not None or os.environ.get("TRITON_INTERPRET") == "1",
    reason="needs triton's compiler",
)

# Entry point, height, width, for training. Of the other benchmark shapes sm_90 compiles all.
CALLS = (
    ("fused", 7, 7, False),
    ("fused", 7, 7, True),
    ("pool", 7, 7, False),
    ("gradient", 7, 7, True),
    ("pool", 14, 14, False),
    ("pool", 14, 14, True),
    ("gradient", 14, 14, True),
    ("pool", 28, 28, False),
    ("pool", 28, 28, True),
)


def every_call():
    for call in CALLS:
        for target in sass.TARGETS:
            yield pytest.param(call, target, id=f"{call_id(call)}-{target}")


def call_id(call):
    entry, height, width, training = call
    return f"{entry}-{height}x{width}" + ("-training" if training else "")


def other_cases():
    """Of the benchmark shapes, those that no other test compiles."""
    if triton_gpu.no_compiler() is not None:
        return
    from benchmarks.kernel_table import Case, benchmark_cases

    covered = {Case(*call) for call in CALLS}
    for case in benchmark_cases():
        if case not in covered:
            call = (case.entry, case.height, case.width, case.training)
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


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("call", "target"), list(every_call()))
def test_every_kernel_compiles_and_nothing_is_spilled(call, target):
    compiled = rows(call, target)
    stores_the_gate_map = target == "gfx942" and call == ("fused", 7, 7, True)
    assert compiled or stores_the_gate_map, "no launch"
    for row in compiled:
        assert set(row.instructions) == set(CLASSES)
        assert row.registers > 0
        assert sum(row.instructions.values()) > 100
        assert row.spilled_bytes == 0
        assert row.instructions["local"] == 0
        if target == "gfx942":
            assert row.cycles_per_column is None, "AMD's code has no stall counts"
        else:
            assert row.cycles_per_column > row.slots_per_column > 0


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("case", list(other_cases()))
def test_other_benchmark_shapes_are_counted_for_sm_90(case):
    for row in rows_of_case(case, "sm_90"):
        assert row.cycles_per_column > row.slots_per_column > 0


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_one_launch_leaves_room_for_four_programs_of_128_threads(training):
    from benchmarks.kernel_table import Case

    case = Case("fused", 7, 7, training=training)
    ((_, launch),) = launches(case, "sm_90")
    (row,) = rows_of_case(case, "sm_90")
    assert launch.threads == 128
    assert row.registers <= 128
    assert row.arithmetic_per_rectangle <= 2


# Issue slots of a column on sm_90. Float16 takes one column a thread in float32 and fixed point,
# as bfloat16 does where packed halves are off, and bfloat16 otherwise two in packed halves.
MOST_SLOTS = [
    ("pool", 7, False, torch.float16, 1_700),
    ("pool", 7, False, torch.bfloat16, 1_100),
    ("gradient", 7, True, torch.float16, 2_800),
    ("gradient", 7, True, torch.bfloat16, 1_600),
    # Six tenths of what the kernels took that walked one top row at a time in float32.
    ("pool", 14, True, torch.bfloat16, 0.6 * 54_869),
    ("pool", 28, False, torch.bfloat16, 0.6 * 435_882),
]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(("entry", "side", "training", "dtype", "most"), MOST_SLOTS)
def test_a_column_takes_few_issue_slots(entry, side, training, dtype, most):
    from benchmarks.kernel_table import Case

    compiled = rows_of_case(Case(entry, side, side, training, dtype), "sm_90")
    assert 0 < sum(row.slots_per_column for row in compiled) <= most


@needs_compiler
@pytest.mark.slow
def test_without_packed_halves_bfloat16_is_pooled_as_float16_is():
    from benchmarks.kernel_table import Case, compiled_row, launches_of

    case = Case("pool", 7, 7, training=False)
    with packed_halves(False):
        ((name, launch),) = launches_of(case, "sm_90")
    assert name == "pool"
    assert compiled_row(case, name, launch).slots_per_column <= 1_700


@needs_compiler
def test_launches_are_recorded_and_not_run():
    from benchmarks.kernel_table import Case

    noted = launches(Case("pool", 28, 28, training=True), "sm_90")
    assert all(launch.programs > 100 for _, launch in noted)
    within, across = ["gate_within", "gate_within"], ["gate_across"]
    assert [name for name, _ in noted] == [*within, *across, "gate_finish", "add_parts"]


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


@pytest.mark.slow
@needs_compiler
def test_command_prints_a_table_and_writes_json(tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = ["--target", "sm_90", "--kernel", "gradient", "--json", str(path)]
    assert sass.main(arguments) == 0
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("| kernel")
    assert set(rule) == set("|-:")
    assert [line.split()[1::2][:3] for line in lines] == [
        ["gradient_pairs", "sm_90", "7x7"],
        ["gradient", "sm_90", "7x7"],
        ["gradient", "sm_90", "14x14"],
    ]
    written = json.loads(path.read_text())
    assert [row["map"] for row in written["kernels"]] == ["7x7", "7x7", "14x14"]
    assert [row["dtype"] for row in written["kernels"]] == ["bfloat16", "float16", "bfloat16"]
    assert written["kernels"][2]["arithmetic_per_rectangle"] is None, "it multiplies a gate map"


def test_command_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(triton_gpu, "_INSTALLED", False)
    assert sass.main([]) == 1
    assert "pip install triton" in capsys.readouterr().err


@needs_compiler
def test_command_refuses_an_unknown_kernel(capsys):
    assert sass.main(["--kernel", "no such kernel"]) == 1
    assert "no such kernel" in capsys.readouterr().err


def sass_of(lines):
    return parse_sass("\n".join(f"/*{i * 16:04x}*/ {line} ;" for i, line in enumerate(lines)))


def arithmetic(program):
    return sum(instruction.arithmetic for instruction in program)


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
    assert count_classes(program) == {"fp16": 0, "matrix": 0, "control": 5, **expected}
    assert arithmetic(program) == 4, "FADD2 adds two pairs"


def test_packed_halves_are_told_from_moves_that_use_their_units():
    program = sass_of(
        [
            "HADD2 R1, R2.H0_H0, -R3.H1_H1",
            "HFMA2.RELU R1, R2, R3, R4",
            "HSET2.BF.GT.AND R1, R2, R3, PT",
            "HADD2.F32 R1, -RZ, R2.H0_H0",
            "HFMA2.MMA R1, -RZ, RZ, 0, 0",
            "HFMA2 R1, -RZ, RZ, 1.875, 0",
        ]
    )
    assert [instruction.kind for instruction in program] == ["fp16"] * 3 + ["move"] * 3
    assert arithmetic(program) == 6, "two results each"


# In the layouts of CUDA 13, and, for Blackwell, of CUDA 12.8.
ENCODED = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;            /* 0x00000a00ff017b82 */
                                                                     /* 0x000e300000000800 */
        /*0010*/                   VIADD R2, R0, 0x7f ;              /* 0x0000007f00027836 */
                                                                     /* 0x002fca0000000000 */
        /*0020*/              @!P1 BRA 0x0         &req={1}  ?trans6; /* 0x0000003400549947 */
                                                                     /* 0x002fec0000000000 */
        /*0030*/                   EXIT              ?trans5;         /* 0x000000000000794d */
                                                                     /* 0x000fea0003800000 */
"""


def test_stall_counts_are_read_from_the_encoding():
    program = parse_sass(ENCODED)
    assert [instruction.stall for instruction in program] == [8, 5, 6, 5]
    assert program[2].successors == (3, 0)
    assert [instruction.opcode for instruction in program] == ["LDC", "VIADD", "BRA", "EXIT"]


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
    assert count_classes(program) == {"fp16": 0, "move": 1, "control": 5, **counts}
    assert arithmetic(program) == 5, "v_pk_add_f32 adds two pairs"
    assert len(program) == 16, "s_nop is not counted"
    assert {instruction.stall for instruction in program} == {None}


def test_amd_loop_whose_blocks_are_out_of_order():
    program = parse_amd(AMD)
    (loop,) = find_loops(program)
    assert loop.members == tuple(range(3, 14))
    assert behind_matrix_product(program) == {14, 15}


def test_amd_halves():
    text = "\tv_pk_add_f16 v1, v2, v3\n\tv_cvt_f32_f16_e32 v1, v2\n\tv_fma_f16 v1, v2, v3, v4\n"
    program = parse_amd(text)
    assert [instruction.kind for instruction in program] == ["fp16", "move", "fp16"]
    assert arithmetic(program) == 3


def test_amd_resources():
    assert amd_resources(AMD, shared=16384) == Resources(134, 20, 16384)
