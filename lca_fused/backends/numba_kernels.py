"""The compiled loops of the Numba backend: rectangle pooling of one block of columns at a time.

A block is as many neighbouring columns (n, d) as one 64-byte SIMD register holds: 16 of float32 or
8 of float64. `Lanes` is such a register as a Numba type of its own, because leaving vectorisation
to the compiler would cost a check for overlapping arrays in every inner loop and keep no running
sum in a register. A processor with narrower registers gets the same code, split by the compiler.
"""

# The types of what Numba compiles are Numba's own.
# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

BLOCK_BYTES = 64
# The pair loop takes four kernel widths at once and so reads up to three positions past the end.
WIDTHS_AT_ONCE = 4
PADDING = WIDTHS_AT_ONCE - 1

# What is summed for the elements of a tensor. The 16-bit formats are unknown to NumPy or Numba:
# bfloat16 comes as uint16 and float16 as int16.
_SUMMED_IN = {
    types.float64: types.float64,
    types.float32: types.float32,
    types.uint16: types.float32,
    types.int16: types.float32,
}


def _jit(function: Callable[..., Any]) -> Any:
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder for the cache can be written: compile in every process
        return njit(nogil=True)(function)


def _inlined(function: Callable[..., Any]) -> Any:
    return njit(nogil=True, forceinline=True)(function)


def _intrinsic(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


class Lanes(types.Type):
    """One block's numbers, a value in each column: an LLVM vector."""

    def __init__(self, element: Any) -> None:
        self.element = element
        self.count = BLOCK_BYTES * 8 // element.bitwidth
        super().__init__(name=f"Lanes({element})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        element = manager.lookup(lanes.element).get_value_type()
        super().__init__(manager, lanes, ir.VectorType(element, lanes.count))


@_intrinsic
def splat(_typing: Any, like: Any, _value: Any) -> Any:
    """Return lanes that all hold `value`, of the type `load(like, ...)` returns."""
    lanes = Lanes(_SUMMED_IN[like.dtype])

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = context.cast(builder, args[1], signature.args[1], lanes.element)
        vector = context.get_value_type(lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        index = ir.IntType(32)
        first = builder.insert_element(undefined, value, ir.Constant(index, 0))
        zeros = ir.Constant(ir.VectorType(index, lanes.count), None)
        return builder.shuffle_vector(first, undefined, zeros)

    return lanes(like, _value), emit


@_intrinsic
def load(_typing: Any, array: Any, _index: Any) -> Any:
    """Read the lanes that start at `array[index]`, widening 16-bit numbers."""
    lanes = Lanes(_SUMMED_IN[array.dtype])

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args, lanes.count)
        raw = builder.load(pointer, align=array.dtype.bitwidth // 8)
        return _widen(builder, array.dtype, raw, context.get_value_type(lanes))

    return lanes(array, types.intp), emit


@_intrinsic
def store(_typing: Any, array: Any, _index: Any, values: Any) -> Any:
    """Write lanes from `array[index]` on, rounding to nearest even; 16 bits must be finite."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args, values.count)
        raw = _narrow(builder, array.dtype, args[2])
        builder.store(raw, pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, values), emit


@_intrinsic
def add(_typing: Any, x: Any, y: Any) -> Any:
    """Return x + y."""
    return x(x, y), lambda _context, builder, _signature, args: builder.fadd(*args)


@_intrinsic
def sub(_typing: Any, x: Any, y: Any) -> Any:
    """Return x - y."""
    return x(x, y), lambda _context, builder, _signature, args: builder.fsub(*args)


@_intrinsic
def mul(_typing: Any, x: Any, y: Any) -> Any:
    """Return x * y."""
    return x(x, y), lambda _context, builder, _signature, args: builder.fmul(*args)


@_intrinsic
def add_where_greater(_typing: Any, total: Any, term: Any, x: Any, y: Any) -> Any:
    """Return total + term in the columns where x > y or either is NaN, and total elsewhere."""

    def emit(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        total, term, x, y = args
        open_columns = builder.fcmp_unordered(">", x, y)
        return builder.select(open_columns, builder.fadd(total, term), total)

    return total(total, term, x, y), emit


def _pointer(context: Any, builder: Any, array_type: Any, args: Any, count: int) -> Any:
    array = make_array(array_type)(context, builder, args[0])
    vector = ir.VectorType(_storage(array_type.dtype), count)
    return builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())


def _storage(element: Any) -> Any:
    if element == types.float64:
        return ir.DoubleType()
    if element == types.float32:
        return ir.FloatType()
    return ir.HalfType() if element == types.int16 else ir.IntType(16)


def _widen(builder: Any, element: Any, raw: Any, vector: Any) -> Any:
    if element == types.int16:
        return builder.fpext(raw, vector)
    if element == types.uint16:  # a bfloat16 is the upper half of a float32
        words = ir.VectorType(ir.IntType(32), vector.count)
        upper = builder.shl(builder.zext(raw, words), _integers(words, 16))
        return builder.bitcast(upper, vector)
    return raw


def _narrow(builder: Any, element: Any, values: Any) -> Any:
    if element == types.int16:
        return builder.fptrunc(values, ir.VectorType(ir.HalfType(), values.type.count))
    if element == types.uint16:
        words = ir.VectorType(ir.IntType(32), values.type.count)
        bits = builder.bitcast(values, words)
        odd = builder.and_(builder.lshr(bits, _integers(words, 16)), _integers(words, 1))
        rounded = builder.add(bits, builder.add(odd, _integers(words, 0x7FFF)))
        upper = builder.lshr(rounded, _integers(words, 16))
        return builder.trunc(upper, ir.VectorType(ir.IntType(16), values.type.count))
    return values


def _integers(vector: Any, value: int) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def pool_scratch(height: int, width: int) -> int:
    """Return how many lanes `pool` needs as scratch memory."""
    return height * width + (width + 1 + PADDING)


def pool_with_gate_scratch(height: int, width: int) -> int:
    """Return how many lanes `pool_with_gate` needs as scratch memory."""
    return 2 * height * width + height * (width + 1 + PADDING) + (width + 1)


@_jit
def pool(projection, size, weights, reach, scratch, tail, pooled, first, last):
    """Pool the blocks first..last-1 of `projection` into `pooled`, one block after the other.

    `size` is (H, W, D). `weights[kh - 1, kw]` weighs a rectangle's sum, zero for a kernel size
    that is not wanted, and `reach[kh - 1]` is the widest of the wanted widths, or zero.
    """
    height, width, features = size
    lanes = tail.size
    blocks = (features + lanes - 1) // lanes
    rows = scratch[: height * width * lanes]
    prefix = scratch[rows.size : rows.size + (width + 1 + PADDING) * lanes]
    _pad(prefix, width, lanes)
    mean = splat(scratch, 1.0 / (height * width))
    for block in range(first, last):
        image, column = block // blocks, block % blocks * lanes
        start = image * height * width * features + column
        columns = min(lanes, features - column)
        total = _sum_rows(projection, start, size, columns, tail, rows)
        for top in range(height):
            _clear(prefix, 0, width + 1, lanes)
            band_total = splat(scratch, 0.0)
            for kh in range(1, height - top + 1):
                _add_row(prefix, rows, top + kh - 1, width, lanes)
                band = _pool_band(prefix, width, weights, reach, kh, lanes)
                band_total = add(band_total, band)
            total = add(total, band_total)
        store(pooled, block * lanes, mul(total, mean))


@_jit
def pool_with_gate(  # type: ignore
    projection, size, weights, reach, scratch, tail, pooled, gate, first, last
):
    """`pool`, and the gate map with the same weights.

    A rectangle adds its weight to the positions it holds. Along W that is a step up and a step
    down; the steps of a band are collected in `steps` and summed up once per row. Along H, a row
    is held by the bands from a given top that reach it, and the tallest come first: `steps` then
    holds just these when the band that ends with the row has been added. Nothing is subtracted
    again, which would leave rounding errors at positions that no open rectangle holds.
    """
    height, width, features = size
    lanes = tail.size
    blocks = (features + lanes - 1) // lanes
    ends = (width + 1 + PADDING) * lanes
    rows = scratch[: height * width * lanes]
    held = scratch[rows.size : 2 * rows.size]
    prefixes = scratch[2 * rows.size : 2 * rows.size + height * ends]
    steps = scratch[2 * rows.size + prefixes.size :]
    for i in range(height):
        _pad(prefixes[i * ends :], width, lanes)
    mean = splat(scratch, 1.0 / (height * width))
    for block in range(first, last):
        image, column = block // blocks, block % blocks * lanes
        start = image * height * width * features + column
        columns = min(lanes, features - column)
        total = _sum_rows(projection, start, size, columns, tail, rows)
        _clear(held, 0, height * width, lanes)
        for top in range(height):
            _stack_bands(prefixes, rows, top, height, width, lanes)
            _clear(steps, 0, width + 1, lanes)
            for kh in range(height - top, 0, -1):
                prefix = prefixes[(kh - 1) * ends : kh * ends]
                _step_band(prefix, steps, width, weights, reach, kh, lanes)
                _add_steps(held, (top + kh - 1) * width, steps, width, lanes)
            level = splat(scratch, 0.0)
            row_total = splat(scratch, 0.0)
            for j in range(width):
                position = top * width + j
                level = add(level, load(held, position * lanes))
                at = start + position * features
                row_total = add(row_total, mul(level, _read(projection, at, columns, tail)))
                _write(gate, at, level, columns, tail)
            total = add(total, row_total)
        average = mul(total, mean)
        zero = splat(scratch, 0.0)
        # Rounding could leave less than zero of a column that hardly opens.
        store(pooled, block * lanes, add_where_greater(zero, average, average, zero))


@_inlined
def _pool_band(prefix, width, weights, reach, kh, lanes):
    """Sum weight * relu(sum over the rectangle) over the rectangles of one band of rows.

    The ends of four rectangles that start together slide along with their start, so a rectangle
    costs half a load. The padding, minus infinity, closes those that would end outside.
    """
    zero = splat(prefix, 0.0)
    total = zero
    for kw in range(1, reach[kh - 1] + 1, WIDTHS_AT_ONCE):
        sum0, sum1, sum2, sum3 = zero, zero, zero, zero
        end0 = load(prefix, kw * lanes)
        end1 = load(prefix, (kw + 1) * lanes)
        end2 = load(prefix, (kw + 2) * lanes)
        for left in range(width + 1 - kw):
            start = load(prefix, left * lanes)
            end3 = load(prefix, (left + kw + 3) * lanes)
            sum0 = add_where_greater(sum0, sub(end0, start), end0, start)
            sum1 = add_where_greater(sum1, sub(end1, start), end1, start)
            sum2 = add_where_greater(sum2, sub(end2, start), end2, start)
            sum3 = add_where_greater(sum3, sub(end3, start), end3, start)
            end0, end1, end2 = end1, end2, end3
        total = add(total, mul(sum0, splat(prefix, weights[kh - 1, kw])))
        total = add(total, mul(sum1, splat(prefix, weights[kh - 1, kw + 1])))
        total = add(total, mul(sum2, splat(prefix, weights[kh - 1, kw + 2])))
        total = add(total, mul(sum3, splat(prefix, weights[kh - 1, kw + 3])))
    return total


@_inlined
def _step_band(prefix, steps, width, weights, reach, kh, lanes):
    """Add to `steps` a step up and a step down for every open rectangle of one band of rows."""
    zero = splat(prefix, 0.0)
    for kw in range(1, reach[kh - 1] + 1, WIDTHS_AT_ONCE):
        weight0 = splat(prefix, weights[kh - 1, kw])
        weight1 = splat(prefix, weights[kh - 1, kw + 1])
        weight2 = splat(prefix, weights[kh - 1, kw + 2])
        weight3 = splat(prefix, weights[kh - 1, kw + 3])
        end0 = load(prefix, kw * lanes)
        end1 = load(prefix, (kw + 1) * lanes)
        end2 = load(prefix, (kw + 2) * lanes)
        down0, down1, down2 = zero, zero, zero
        for left in range(width + 1 - kw):
            start = load(prefix, left * lanes)
            end3 = load(prefix, (left + kw + 3) * lanes)
            up = load(steps, left * lanes)
            up = add_where_greater(up, weight0, end0, start)
            up = add_where_greater(up, weight1, end1, start)
            up = add_where_greater(up, weight2, end2, start)
            up = add_where_greater(up, weight3, end3, start)
            store(steps, left * lanes, up)
            down0 = add_where_greater(down0, weight0, end0, start)
            down1 = add_where_greater(down1, weight1, end1, start)
            down2 = add_where_greater(down2, weight2, end2, start)
            down3 = add_where_greater(zero, weight3, end3, start)
            finished = (left + kw) * lanes
            store(steps, finished, sub(load(steps, finished), down0))
            down0, down1, down2 = down1, down2, down3
            end0, end1, end2 = end1, end2, end3


@_inlined
def _sum_rows(projection, start, size, columns, tail, rows):
    """Write the prefix sums along W of every row of one block.

    Return zero, or NaN for a column that holds NaN or an infinity: minus infinity would close
    all rectangles beside it and so go unnoticed.
    """
    height, width, features = size
    lanes = tail.size
    zero = splat(rows, 0.0)
    poison = zero
    for i in range(height):
        total = splat(rows, 0.0)
        for j in range(width):
            position = i * width + j
            at = start + position * features
            total = add(total, _read(projection, at, columns, tail))
            store(rows, position * lanes, total)
        poison = add(poison, mul(total, zero))
    return poison


@_inlined
def _add_row(prefix, rows, row, width, lanes):
    """Extend the band whose prefix sums are `prefix` (they start with a zero) by a row."""
    for j in range(width):
        at = (j + 1) * lanes
        store(prefix, at, add(load(prefix, at), load(rows, (row * width + j) * lanes)))


@_inlined
def _stack_bands(prefixes, rows, top, height, width, lanes):
    """Write the prefix sums of the bands that start at row `top`, one after the other."""
    ends = (width + 1 + PADDING) * lanes
    _clear(prefixes, 0, 1, lanes)
    for j in range(width):
        store(prefixes, (j + 1) * lanes, load(rows, (top * width + j) * lanes))
    for kh in range(2, height - top + 1):
        band = (kh - 1) * ends
        _clear(prefixes[band:], 0, 1, lanes)
        for j in range(width):
            at = band + (j + 1) * lanes
            row = ((top + kh - 1) * width + j) * lanes
            store(prefixes, at, add(load(prefixes, at - ends), load(rows, row)))


@_inlined
def _add_steps(target, first, steps, width, lanes):
    for j in range(width):
        at = (first + j) * lanes
        store(target, at, add(load(target, at), load(steps, j * lanes)))


@_inlined
def _clear(array, first, last, lanes):
    for i in range(first, last):
        store(array, i * lanes, splat(array, 0.0))


@_inlined
def _pad(prefix, width, lanes):
    for i in range(width + 1, width + 1 + PADDING):
        store(prefix, i * lanes, splat(prefix, -float("inf")))


@_inlined
def _read(values, at, columns, tail):
    """Load a block that may be cut short by the last column, through `tail`."""
    if columns == tail.size:
        return load(values, at)
    for i in range(columns):
        tail[i] = values[at + i]
    return load(tail, 0)


@_inlined
def _write(values, at, lanes, columns, tail):
    if columns == tail.size:
        store(values, at, lanes)
    else:
        store(tail, 0, lanes)
        for i in range(columns):
            values[at + i] = tail[i]
