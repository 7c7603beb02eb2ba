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

# In the order of a table. "matrix" includes moving numbers to and from the tensor memory that
# sm_100's matrix instructions work in; "integer" is integer arithmetic, addresses, predicates and
# bit operations, and holds whatever no other class names.
CLASSES = ("fp32", "matrix", "global", "shared", "local", "integer", "move", "control")

_SASS_OPCODES = {
    "fp32": "FADD FADD2 FADD32I FFMA FFMA2 FFMA32I FMUL FMUL2 FMUL32I FHADD FHFMA FSET FSETP FSEL "
    "FMNMX FMNMX3 FCHK FSWZADD MUFU",
    "matrix": "HGMMA QGMMA IGMMA HMMA IMMA DMMA QMMA OMMA UTCHMMA UTCQMMA UTCIMMA UTCOMMA LDTM "
    "STTM",
    "global": "LDG STG LD ST LDGSTS ATOMG ATOM RED REDG UBLKCP UTMALDG UTMASTG",
    "shared": "LDS STS LDSM STSM ATOMS",
    "local": "LDL STL",
    "move": "MOV MOV32I UMOV PRMT UPRMT SEL USEL SHFL S2R S2UR CS2R R2UR R2P P2R F2F F2I I2F F2FP "
    "I2FP FRND HADD2 HFMA2 LDC LDCU ULDC",
    "control": "BRA BRX JMP CALL RET EXIT BSSY BSYNC BREAK BMOV BAR B2R R2B BPT WARPSYNC NANOSLEEP "
    "YIELD MEMBAR FENCE ERRBAR DEPBAR LDGDEPBAR SYNCS WARPGROUP WARPGROUPDEPBAR UTCBAR UTCATOMSWS "
    "ELECT ACQBULK CCTL KILL",
}
_SASS_CLASS = {opcode: kind for kind, names in _SASS_OPCODES.items() for opcode in names.split()}

# The first pattern that matches wins.
_AMD_PATTERNS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("matrix", r"v_(mfma|smfmac|wmma)"),
        ("fp32", r"v_(?!cvt|mov|cmp)\w+_f32(_|$)|v_cmpx?_\w+_f32|v_cndmask"),
        ("global", r"global_|buffer_|flat_|s_load|s_buffer_load"),
        ("move", r"v_(pk_)?mov|s_c?mov|v_cvt|v_perm|v_swap|v_read|v_write|v_accvgpr|ds_\w*permute"),
        ("shared", r"ds_"),
        ("local", r"scratch_"),
        ("control", r"s_(c?branch|endpgm|barrier|waitcnt|sleep|setpc|swappc|sethalt|trap|setprio)"),
    )
)
# These add, multiply or fuse two numbers at once: one issue slot, two FP32 instructions.
_PACKED = re.compile(r"(FADD2|FMUL2|FFMA2)$|v_pk_\w+_f32")
_COMPARISON = re.compile(r"(FSETP?)$|v_cmpx?_\w+_f32")
_MATRIX_PRODUCT = re.compile(r"\w*MMA(\.|$)|v_(mfma|smfmac|wmma)")
_NOP = frozenset(("NOP", "s_nop", "v_nop"))

_SASS_LINE = re.compile(
    r"/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@(?P<guard>!?U?P\w+)\s+)?(?P<opcode>[A-Z][A-Z0-9_.]*)"
    r"(?P<operands>[^;]*);"
)
_SASS_BRANCH_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
_AMD_LABEL = re.compile(r"(?P<label>[.\w$]+):")
_AMD_LINE = re.compile(r"\s+(?P<opcode>(?:v|s|ds|global|buffer|flat|scratch)_\w+)(?P<operands>.*)")


@dataclass(frozen=True)
class Instruction:
    """One instruction; `successors` are indices of those that may run next."""

    opcode: str
    successors: tuple[int, ...]

    @property
    def kind(self) -> str:
        """One of CLASSES."""
        if "_" in self.opcode and self.opcode[0].islower():
            return next(
                (kind for kind, pattern in _AMD_PATTERNS if pattern.match(self.opcode)), "integer"
            )
        if self.opcode.startswith("IMAD.MOV"):
            return "move"
        return _SASS_CLASS.get(self.opcode.split(".")[0], "integer")

    @property
    def fp32(self) -> int:
        """FP32 instructions it stands for: two if it handles a pair of numbers."""
        if self.kind != "fp32":
            return 0
        return 2 if _PACKED.match(self.opcode.split(".")[0]) else 1

    @property
    def multiplies(self) -> bool:
        """Whether it multiplies matrices."""
        return bool(_MATRIX_PRODUCT.match(self.opcode))

    @property
    def compares(self) -> bool:
        """Whether it compares FP32 numbers."""
        return bool(_COMPARISON.match(self.opcode.split(".")[0]))


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
                label=int(line["address"], 16),
                target=int(target[1], 16) if target else None,
                falls_through=not (unconditional and name in ("BRA", "JMP", "EXIT", "RET", "BRX")),
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
            # Of several labels in a row the first one counts.
            renamed[found["label"]] = label = label or found["label"]
        elif found := _AMD_LINE.match(line.split(";")[0]):
            opcode = found["opcode"]
            branches = opcode.startswith(("s_branch", "s_cbranch"))
            rows.append(
                _Row(
                    opcode,
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
    label: int | str | None
    target: int | str | None
    falls_through: bool


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
        instructions.append(Instruction(row.opcode, inside))
    return instructions


def _cuobjdump(option: str, path: Path) -> str:
    from triton import knobs

    command = [knobs.nvidia.cuobjdump.path, option, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
