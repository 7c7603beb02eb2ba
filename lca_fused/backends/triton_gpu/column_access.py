"""Loads and stores of whole columns, number by number.

Threads are neighbouring features, so each load is contiguous over the threads of a program, and
nothing goes through shared memory.

For each load and store whose pointer an operation computes, Triton walks all that hangs together
with it, here the whole kernel: nine tenths of the time to compile it. It does not for pointers
that a loop carries. The loops below run once, as LLVM can tell, and leave nothing in the machine
code.
"""

import triton
import triton.language as tl


@triton.constexpr_function
def place_of(k, W, STRIDE_H, STRIDE_W):
    """Where position k of a map with W columns lies in memory, in positions."""
    return (k // W) * STRIDE_H + (k % W) * STRIDE_W


@triton.jit
def column_pointers(
    ptr, DISTANCE: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
):  # fmt: skip
    """Where the H*W numbers of a column lie, row by row: positions are DISTANCE apart."""
    pointers = ()
    for k in tl.static_range(H * W):
        pointers = pointers + (ptr + place_of(k, W, STRIDE_H, STRIDE_W) * DISTANCE,)
    return pointers


@triton.jit
def load_column(pointers, inside):
    """The numbers at `pointers`, 0 where not `inside`."""
    column = ()
    for _ in tl.static_range(len(pointers)):
        column = column + (tl.zeros(inside.shape, pointers[0].dtype.element_ty),)
    pending = tl.program_id(0) >= 0
    while pending:
        column = ()
        for k in tl.static_range(len(pointers)):
            column = column + (tl.load(pointers[k], mask=inside, other=0),)
        pointers = _moved(pointers)
        pending = tl.program_id(0) < 0
    return column


@triton.jit
def store_column(pointers, column, inside):
    """Write numbers of the pointers' dtype to `pointers`, where `inside`."""
    pending = tl.program_id(0) >= 0
    while pending:
        for k in tl.static_range(len(pointers)):
            tl.store(pointers[k], column[k], mask=inside)
        pointers = _moved(pointers)
        pending = tl.program_id(0) < 0


@triton.jit
def _moved(pointers):
    """Other pointers, or no loop would have to carry them."""
    out = ()
    for k in tl.static_range(len(pointers)):
        out = out + (pointers[k] + 1,)
    return out


@triton.jit
def in_dtype(column, DTYPE: tl.constexpr):
    """The numbers of a column in another dtype."""
    out = ()
    for k in tl.static_range(len(column)):
        out = out + (column[k].to(DTYPE),)
    return out


@triton.jit
def image_and_feature(FEATURES: tl.constexpr, BLOCK: tl.constexpr):
    """The image of this program, in 64 bits, and its BLOCK features of FEATURES."""
    blocks: tl.constexpr = (FEATURES + BLOCK - 1) // BLOCK
    image = (tl.program_id(0) // blocks).to(tl.int64)
    return image, (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
