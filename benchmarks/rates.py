"""What a GPU does at most: `python -m benchmarks.rates`.

Memory and matrix rates, and how many of the instructions that the kernels are made of a
multiprocessor issues, against float32 FMA: what `benchmarks.prediction` assumes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import triton
import triton.language as tl
from tabulate import tabulate

from benchmarks.machine import describe
from benchmarks.measure import make_stopwatch

INSTRUCTIONS = {
    "FFMA": "fma.rn.f32 {x}, {x}, {x}, {c};",
    "FADD.SAT": "sub.sat.f32 {x}, {x}, {c};",
    "IADD3": "add.s32 {x}, {x}, {c}; add.s32 {x}, {x}, {d};",
    "FSET": "set.gt.f32.f32 {x}, {x}, {c};",
    "HADD2": "add.rn.f16x2 {x}, {x}, {c};",
    "HFMA2.RELU": "fma.rn.relu.f16x2 {x}, {x}, {d}, {c};",
    "HADD2.SAT": "sub.rn.sat.f16x2 {x}, {x}, {c};",
    "HADD2.SAT, HADD2": "sub.rn.sat.f16x2 {x}, {x}, {c}; add.rn.f16x2 {x}, {x}, {d};",
    "HSET2": "set.gt.f16x2.f16x2 {x}, {x}, {c};",
    "VABSDIFF": "sad.s32 {x}, {x}, {c}, {d};",
    "HFMA2.RELU, HADD2": "fma.rn.relu.f16x2 {x}, {x}, {d}, {c}; add.rn.f16x2 {x}, {x}, {c};",
    "FADD.SAT, IADD3": "sub.sat.f32 {x}, {x}, {c}; add.s32 {x}, {x}, {d};",
}
"""Instructions of the machine, and what the assembler makes them of, for a register {x}."""
_CHAINS, _LENGTH = 8, 32  # independent of each other, so that none waits for itself
_PROGRAMS_PER_MULTIPROCESSOR, _THREADS, _LOOPS = 8, 256, 64
_REPEATS = 20
_GIGABYTE = 1 << 30
_SIDE = 8192


@triton.jit
def repeat_kernel(out_ptr, loops, ASM: tl.constexpr, BLOCK: tl.constexpr):
    """Run inline assembly `loops` times, each on the result of the last."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = place
    for _ in range(loops):
        x = tl.inline_asm_elementwise(ASM, "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1)
    tl.store(out_ptr + place, x)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the rates; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rates there")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks.rates measures a GPU: torch finds none", file=sys.stderr)
        return 1
    device = torch.device("cuda")
    rates = {
        "copy, TB/s read and written": copy_rate(device) / 1e12,
        "bfloat16 product, TFLOP/s": product_rate(device) / 1e12,
        "launch and empty stream, us": 1e6 * launch_seconds(device),
        **{f"{name} against FFMA": rate for name, rate in instruction_rates(device).items()},
    }
    print(tabulate(rates.items(), ["rate", "measured"], tablefmt="github", floatfmt=".3f"))
    if options.json is not None:
        options.json.write_text(json.dumps({**describe(device), "rates": rates}, indent=1) + "\n")
    return 0


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy within memory much larger than the L2 cache."""
    source = torch.randint(0, 255, (2 * _GIGABYTE,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _median_seconds(lambda: target.copy_(source), device)


def product_rate(device: torch.device) -> float:
    """Operations per second of a large product of random bfloat16 matrices."""
    left, right = (torch.randn(_SIDE, _SIDE, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * _SIDE**3 / _median_seconds(lambda: left @ right, device)


def launch_seconds(device: torch.device) -> float:
    """Time between two events around a kernel that has next to nothing to do."""
    one = torch.zeros(1, device=device)
    return _median_seconds(lambda: one.zero_(), device)


def instruction_rates(device: torch.device) -> dict[str, float]:
    """How many instructions of each kind are issued in the time of one float32 FMA."""
    seconds = {name: _instruction_seconds(ptx, device) for name, ptx in INSTRUCTIONS.items()}
    return {name: seconds["FFMA"] / each * len(name.split(", ")) for name, each in seconds.items()}


def assembly(ptx: str) -> str:
    """_CHAINS registers made from $1, _LENGTH times the instruction on each, their sum in $0."""
    registers = [f"x{chain}" for chain in range(_CHAINS)]
    lines = [f".reg .b32 {', '.join(registers)}, c, d;"]
    lines += ["xor.b32 c, $1, 0x1555;", "xor.b32 d, $1, 0x2aaa;", "mov.b32 $0, $1;"]
    lines += [f"xor.b32 {x}, $1, {chain};" for chain, x in enumerate(registers)]
    lines += [ptx.format(x=x, c="c", d="d") for _ in range(_LENGTH) for x in registers]
    lines += [f"xor.b32 $0, $0, {x};" for x in registers]
    return "{\n" + "\n".join(lines) + "\n}"


def _instruction_seconds(ptx: str, device: torch.device) -> float:
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    programs = _PROGRAMS_PER_MULTIPROCESSOR * multiprocessors
    out = torch.empty(programs * _THREADS, dtype=torch.int32, device=device)
    asm = assembly(ptx)

    def run() -> None:
        repeat_kernel[(programs,)](out, _LOOPS, ASM=asm, BLOCK=_THREADS, num_warps=_THREADS // 32)

    return _median_seconds(run, device)


def _median_seconds(call: Callable[[], object], device: torch.device) -> float:
    stopwatch = make_stopwatch(device)
    for _ in range(3):
        stopwatch(call)
    readings = [stopwatch(call) for _ in range(_REPEATS)]
    return statistics.median(read() for read in readings)


if __name__ == "__main__":
    sys.exit(main())
