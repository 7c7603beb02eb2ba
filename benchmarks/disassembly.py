"""Read a compiled kernel: its instructions and their classes, its registers and memory."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The classes are in the order of a table. "fp16" is arithmetic on pairs of 16-bit numbers; "matrix"
# includes moving numbers to and from the tensor memory that sm_100's matrix instructions work in;
# "integer" is integer arithmetic, addresses, predicates and bit operations, and holds whatever no
# other class names.
CLASSES = ("fp32", "fp16", "matrix", "global", "shared", "local", "integer", "move", "control")

_SASS_OPCODES = {
    "fp32": "FADD FADD2 FADD32I FFMA FFMA2 FFMA32I FMUL FMUL2 FMUL32I FHADD FHFMA FSET FSETP FSEL "
    "FMNMX FMNMX3 FCHK FSWZADD MUFU",
    "fp16": "HADD2 HFMA2 HMUL2 HSET2 HSETP2 HMNMX2",
    "matrix": "HGMMA QGMMA IGMMA HMMA IMMA DMMA QMMA OMMA UTCHMMA UTCQMMA UTCIMMA UTCOMMA LDTM "
    "STTM",
    "global": "LDG STG LD ST LDGSTS ATOMG ATOM RED REDG UBLKCP UTMALDG UTMASTG",
    "shared": "LDS STS LDSM STSM ATOMS",
    "local": "LDL STL",
    "move": "MOV MOV32I UMOV PRMT UPRMT SEL USEL SHFL S2R S2UR CS2R R2UR R2P P2R F2F F2I I2F F2FP "
    "I2FP FRND LDC LDCU ULDC",
    "control": "BRA BRX JMP CALL RET EXIT BSSY BSYNC BREAK BMOV BAR B2R R2B BPT WARPSYNC NANOSLEEP "
    "YIELD MEMBAR FENCE ERRBAR DEPBAR LDGDEPBAR SYNCS WARPGROUP WARPGROUPDEPBAR UTCBAR UTCATOMSWS "
    "ELECT ACQBULK CCTL KILL",
}
# Compilers also widen a number to FP32 with the first of these and load constants with the second.
_MOVES = re.compile(r"HADD2\.F32\b|HFMA2\S* R\d+, -?RZ, -?RZ,|IMAD\.MOV")
_SASS_CLASS = {opcode: kind for kind, names in _SASS_OPCODES.items() for opcode in names.split()}

# The first pattern that matches wins.
_AMD_PATTERNS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("matrix", r"v_(mfma|smfmac|wmma)"),
        ("fp16", r"v_(?!cvt|mov|cmp)\w+_b?f16(_|$)|v_cmpx?_\w+_f16"),
        ("fp32", r"v_(?!cvt|mov|cmp)\w+_f32(_|$)|v_cmpx?_\w+_f32|v_cndmask"),
        ("global", r"global_|buffer_|flat_|s_load|s_buffer_load"),
        ("move", r"v_(pk_)?mov|s_c?mov|v_cvt|v_perm|v_swap|v_read|v_write|v_accvgpr|ds_\w*permute"),
        ("shared", r"ds_"),
        ("local", r"scratch_"),
        ("control", r"s_(c?branch|endpgm|barrier|waitcnt|sleep|setpc|swappc|sethalt|trap|setprio)"),
    )
)
# These work on two numbers at once: one issue slot, two results.
_PACKED = re.compile(r"(FADD2|FMUL2|FFMA2|HADD2|HFMA2|HMUL2|HSETP?2|HMNMX2)$|v_pk_\w+_b?f(32|16)")
_STORE = re.compile(r"(ST|STG|RED|REDG|ATOM|ATOMG|UTMASTG)$|(global|buffer|flat)_(store|atomic)")
_LOAD = re.compile(r"(LD|LDG)$|(global|buffer|flat)_load")
_MATRIX_PRODUCT = re.compile(r"\w*MMA(\.|$)|v_(mfma|smfmac|wmma)")
_NOP = frozenset(("NOP", "s_nop", "v_nop"))

# Between operands and semicolon CUDA 12.8 puts what the scheduler is told, for Blackwell: ?trans1.
_SASS_LINE = re.compile(
    r"/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@(?P<guard>!?U?P\w+)\s+)?(?P<opcode>[A-Z][A-Z0-9_.]*)"
    r"(?P<operands>[^;&?]*)[^;]*;(?:\s*/\* 0x[0-9a-f]{16} \*/\s*/\* 0x(?P<high>[0-9a-f]{16}) \*/)?"
)
_SASS_BRANCH_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
_AMD_LABEL = re.compile(r"(?P<label>[.\w$]+):")
_AMD_LINE = re.compile(r"\s+(?P<opcode>(?:v|s|ds|global|buffer|flat|scratch)_\w+)(?P<operands>.*)")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        opcode: its name and modifiers.
        kind: one of CLASSES.
        successors: indices of those that may run next.
        stall: cycles until its warp may issue the next one, as the compiler has set them; None
            where the code does not say (AMD).
    """

    opcode: str
    kind: str
    successors: tuple[int, ...]
    stall: int | None = None

    @property
    def arithmetic(self) -> int:
        """Floating-point results per thread: two if it handles a pair of numbers."""
        if self.kind not in ("fp32", "fp16"):
            return 0
        return 2 if _PACKED.match(self.opcode.split(".")[0]) else 1

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices."""
        return bool(_MATRIX_PRODUCT.match(self.opcode))

    @property
    def stores(self) -> bool:
        """Whether it writes to global memory."""
        return bool(_STORE.match(self.opcode.split(".")[0]))

    @property
    def loads(self) -> bool:
        """Whether it reads global memory into a register."""
        return bool(_LOAD.match(self.opcode.split(".")[0]))


@dataclass(frozen=True)
class Resources:
    """What one thread (registers, bytes spilled) and one program (bytes shared) occupy."""

    registers: int
    spilled: int
    shared: int


def disassemble(binary: Any) -> tuple[list[Instruction], Resources]:
    """Return the instructions and the resources of what `triton.compile` returned."""
    if "amdgcn" in binary.asm:
        text = binary.asm["amdgcn"]
        return parse_amd(text), amd_resources(text, binary.metadata.shared)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary.asm["cubin"])
        usage = sass_resources(_cuobjdump("-res-usage", path), binary.metadata.shared)
        return parse_sass(_cuobjdump("-sass", path)), usage


def count_classes(instructions: Iterable[Instruction]) -> dict[str, int]:
    """Instructions of each class."""
    counts = Counter(instruction.kind for instruction in instructions)
    return {kind: counts[kind] for kind in CLASSES}


def parse_sass(text: str) -> list[Instruction]:
    """Instructions of `cuobjdump -sass`, NOP left out."""
    lines = list(_SASS_LINE.finditer(text))
    rows = []
    for line in lines:
        opcode = line["opcode"]
        name = opcode.split(".")[0]
        operands = line["operands"].strip()
        # The condition of a branch is a guard, or, if uniform, its first operand.
        unconditional = line["guard"] is None and not re.match(r"!?U?P[0-9T]", operands)
        target = _SASS_BRANCH_TARGET.search(operands) if name in ("BRA", "CALL", "JMP") else None
        rows.append(
            _Row(
                opcode,
                _sass_class(opcode, operands),
                label=int(line["address"], 16),
                target=int(target[1], 16) if target else None,
                falls_through=not (unconditional and name in ("BRA", "JMP", "EXIT", "RET", "BRX")),
                stall=_stall(line["high"]),
            )
        )
    return _linked(rows)


def parse_amd(text: str) -> list[Instruction]:
    """Instructions of LLVM's assembly for AMD GPUs, NOP left out."""
    rows: list[_Row] = []
    label: str | None = None
    renamed: dict[Any, Any] = {}
    for line in text.splitlines():
        if found := _AMD_LABEL.match(line):
            # The first of several labels in a row counts.
            renamed[found["label"]] = label = label or found["label"]
        elif found := _AMD_LINE.match(line.split(";")[0]):
            opcode = found["opcode"]
            branches = opcode.startswith(("s_branch", "s_cbranch"))
            rows.append(
                _Row(
                    opcode,
                    _amd_class(opcode),
                    label=label,
                    target=found["operands"].strip() if branches else None,
                    falls_through=not opcode.startswith(("s_branch", "s_endpgm", "s_setpc")),
                )
            )
            label = None
    for row in rows:
        row.target = renamed.get(row.target)
    return _linked(rows)


def sass_resources(usage: str, shared: int) -> Resources:
    """Resources from `cuobjdump -res-usage`, whose stack frame holds what was spilled."""
    registers = re.search(r"REG:(\d+)", usage)
    stack = re.search(r"STACK:(\d+)", usage)
    if registers is None or stack is None:
        raise ValueError(f"cuobjdump -res-usage printed no REG and STACK, but: {usage!r}")
    return Resources(int(registers[1]), int(stack[1]), shared)


def amd_resources(text: str, shared: int) -> Resources:
    """Resources from the metadata at the end of LLVM's assembly; a spilled register is 4 bytes."""

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        if found is None:
            raise ValueError(f"the assembly has no field .{name}")
        return int(found[1])

    spilled = 4 * (field("vgpr_spill_count") + field("sgpr_spill_count"))
    return Resources(field("vgpr_count"), spilled, shared)


@dataclass
class _Row:
    """An instruction before branch targets are looked up."""

    opcode: str
    kind: str
    label: int | str | None
    target: int | str | None
    falls_through: bool
    stall: int | None = None


def _linked(rows: Sequence[_Row]) -> list[Instruction]:
    """Drop NOP and turn labels into indices of what is left."""
    index = 0
    places: dict[Any, int] = {}
    for row in rows:
        places[row.label] = index
        index += row.opcode.split(".")[0] not in _NOP
    kept = [row for row in rows if row.opcode.split(".")[0] not in _NOP]
    instructions = []
    for place, row in enumerate(kept):
        targets = [place + 1] if row.falls_through else []
        if row.target is not None and row.target in places:
            targets.append(places[row.target])
        inside = tuple(target for target in targets if target < len(kept))
        instructions.append(Instruction(row.opcode, row.kind, inside, row.stall))
    return instructions


def _sass_class(opcode: str, operands: str) -> str:
    if _MOVES.match(f"{opcode} {operands}"):
        return "move"
    return _SASS_CLASS.get(opcode.split(".")[0], "integer")


def _amd_class(opcode: str) -> str:
    return next((kind for kind, pattern in _AMD_PATTERNS if pattern.match(opcode)), "integer")


def _stall(high: str | None) -> int | None:
    """Stall count from the upper 64 bits of an instruction of compute capability 7.0 or later.

    Bits 105 to 125 of its 128 tell the scheduler what the hardware does not check: four bits of
    stall count, a hint to yield, the barriers it sets and waits for, operands to keep. Whatever
    takes a varying time, memory above all, is waited for by barriers and not by stall counts.
    """
    return None if high is None else int(high, 16) >> (105 - 64) & 0xF


def _cuobjdump(option: str, path: Path) -> str:
    from triton import knobs

    command = [knobs.nvidia.cuobjdump.path, option, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
