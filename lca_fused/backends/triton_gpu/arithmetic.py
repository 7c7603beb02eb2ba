"""ReLU of a difference, and sums of such ReLUs: in float32, in fixed point, in packed halves.

A rectangle is relu(b - a) of two prefix sums, added to the others of its size. What that costs
depends on how the numbers are held. ARITHMETIC is one of

| | a thread holds | relu(b - a) | a sum of them | for |
|---|---|---|---|---|
| "maximum" | one column | a difference and a maximum | float | float64, and AMD GPUs |
| "saturated" | one column | `sub.sat` | float32 | float32 |
| "fixed point" | one column | `sub.sat` | int32, two terms per instruction | 16 bits |
| "halves" | two columns | `fma.relu.f16x2` | float16, both columns at once | bfloat16 |

*Values* are prefix sums, *amounts* are ReLUs and sums of them, *totals* are the weighted sums of
amounts, a float for each column that the thread holds.

`sub.sat` clamps to [0, 1], so a column is scaled by a power of two such that all its sums stay
below 1. In fixed point they stay below 2^-125: there the bits of a float32 that is not negative,
read as an integer, count units of 2^-149, so that amounts can be added as integers, without
rounding, and three of them in one instruction. Halves must not reach infinity.

Triton's interpreter cannot run inline assembly; it gets the same arithmetic in plain operators.
"""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") == "1")


@triton.constexpr_function
def ceil_log2(x):
    """The least k with x <= 2**k."""
    return (x - 1).bit_length()


# Packed halves: two float16 in an int32, the first one in the lower bits.


@triton.jit
def _lower(x):
    return (x & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def _upper(x):
    return ((x >> 16) & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def _packed(lower, upper):
    low_bits = lower.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    return low_bits | (upper.to(tl.int16, bitcast=True).to(tl.int32) << 16)


@triton.jit
def halves_of(like, VALUE: tl.constexpr):
    """A number in both halves, of the shape of `like`."""
    half = tl.full(like.shape, VALUE, tl.float16)
    return _packed(half, half)


@triton.jit
def pack(lower, upper):
    """Round two float32 to halves."""
    if INTERPRETED:
        return _packed(lower.to(tl.float16), upper.to(tl.float16))
    else:
        return tl.inline_asm_elementwise(
            "cvt.rn.f16x2.f32 $0, $2, $1;", "=r,f,f", [lower, upper],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def lower_half(x):
    """The first of two halves as float32."""
    if INTERPRETED:
        return _lower(x).to(tl.float32)
    else:
        return tl.inline_asm_elementwise(
            "{.reg .b16 l, u; mov.b32 {l, u}, $1; cvt.f32.f16 $0, l;}", "=f,r", [x],
            dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def upper_half(x):
    """The second of two halves as float32."""
    if INTERPRETED:
        return _upper(x).to(tl.float32)
    else:
        return tl.inline_asm_elementwise(
            "{.reg .b16 l, u; mov.b32 {l, u}, $1; cvt.f32.f16 $0, u;}", "=f,r", [x],
            dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def add_halves(x, y):
    """Return x + y."""
    if INTERPRETED:
        return _packed(_lower(x) + _lower(y), _upper(x) + _upper(y))
    else:
        return tl.inline_asm_elementwise(
            "add.rn.f16x2 $0, $1, $2;", "=r,r,r", [x, y], dtype=tl.int32, is_pure=True, pack=1
        )


@triton.jit
def subtract_halves(x, y):
    """Return x - y."""
    if INTERPRETED:
        return _packed(_lower(x) - _lower(y), _upper(x) - _upper(y))
    else:
        return tl.inline_asm_elementwise(
            "sub.rn.f16x2 $0, $1, $2;", "=r,r,r", [x, y], dtype=tl.int32, is_pure=True, pack=1
        )


@triton.jit
def _rounded_fma(x, y, z):
    """Return x * y + z of float16, rounded once; float64 holds the sum."""
    product = x.to(tl.float64) * y.to(tl.float64)
    return (product + z.to(tl.float64)).to(tl.float16)


@triton.jit
def fma_halves(x, y, z):
    """Return x * y + z, rounded once."""
    if INTERPRETED:
        return _packed(
            _rounded_fma(_lower(x), _lower(y), _lower(z)),
            _rounded_fma(_upper(x), _upper(y), _upper(z)),
        )
    else:
        return tl.inline_asm_elementwise(
            "fma.rn.f16x2 $0, $1, $2, $3;", "=r,r,r,r", [x, y, z],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def subtract_product_of_halves(z, x, y):
    """Less a product, rounded once."""
    if INTERPRETED:
        return _packed(
            _rounded_fma(-_lower(x), _lower(y), _lower(z)),
            _rounded_fma(-_upper(x), _upper(y), _upper(z)),
        )
    else:
        return tl.inline_asm_elementwise(
            "{.reg .b32 n; neg.f16x2 n, $1; fma.rn.f16x2 $0, n, $2, $3;}", "=r,r,r,r", [x, y, z],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def _one_where_greater(x, y):
    return tl.where(x > y, 1.0, 0.0).to(tl.float16)


@triton.jit
def greater_halves(x, y):
    """1 where x > y, else 0."""
    if INTERPRETED:
        return _packed(
            _one_where_greater(_lower(x), _lower(y)), _one_where_greater(_upper(x), _upper(y))
        )
    else:
        return tl.inline_asm_elementwise(
            "set.gt.f16x2.f16x2 $0, $1, $2;", "=r,r,r", [x, y], dtype=tl.int32, is_pure=True, pack=1
        )


@triton.jit
def _relu_of_difference_of_halves(b, a):
    if INTERPRETED:
        lower, upper = _lower(b) - _lower(a), _upper(b) - _upper(a)
        return _packed(
            tl.where(lower < 0, 0.0, lower).to(tl.float16),
            tl.where(upper < 0, 0.0, upper).to(tl.float16),
        )
    else:
        return tl.inline_asm_elementwise(  # a difference has no ReLU of its own, b * 1 - a has
            "{.reg .b32 n; neg.f16x2 n, $2; fma.rn.relu.f16x2 $0, $1, $3, n;}", "=r,r,r,r",
            [b, a, halves_of(b, 1.0)], dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def _relu_of_sum_of_halves(b, a):
    if INTERPRETED:
        lower, upper = _lower(b) + _lower(a), _upper(b) + _upper(a)
        return _packed(
            tl.where(lower < 0, 0.0, lower).to(tl.float16),
            tl.where(upper < 0, 0.0, upper).to(tl.float16),
        )
    else:
        return tl.inline_asm_elementwise(
            "fma.rn.relu.f16x2 $0, $1, $3, $2;", "=r,r,r,r",
            [b, a, halves_of(b, 1.0)], dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def _relu_of_halves(b):
    if INTERPRETED:
        return _packed(
            tl.where(_lower(b) < 0, 0.0, _lower(b)).to(tl.float16),
            tl.where(_upper(b) < 0, 0.0, _upper(b)).to(tl.float16),
        )
    else:
        return tl.inline_asm_elementwise(
            "max.NaN.f16x2 $0, $1, $2;", "=r,r,r", [b, tl.zeros_like(b)],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def larger_magnitude_of_bfloat16(x, y, XORSIGN: tl.constexpr):
    """The larger of |x| and |y|, of two pairs of bfloat16, of any sign; NaN if either is.

    XORSIGN says whether the GPU has an instruction for that: from compute capability 8.6 on.
    Where it has none, x must be 0 or what this function returned.
    """
    if INTERPRETED:
        x, y = x & 0x7FFF7FFF, y & 0x7FFF7FFF
        return tl.maximum(x & 0xFFFF, y & 0xFFFF) | tl.maximum(x & -65536, y & -65536)
    elif XORSIGN:
        return tl.inline_asm_elementwise(
            "max.NaN.xorsign.abs.bf16x2 $0, $1, $2;", "=r,r,r", [x, y],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip
    else:
        return tl.inline_asm_elementwise(
            "{.reg .b32 t; abs.bf16x2 t, $2; max.NaN.bf16x2 $0, $1, t;}", "=r,r,r", [x, y],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


@triton.jit
def lower_bfloat16(x):
    """The first of two bfloat16 in an int32 as float32."""
    return (x << 16).to(tl.float32, bitcast=True)


@triton.jit
def upper_bfloat16(x):
    """The second of two bfloat16 in an int32 as float32."""
    return (x & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _bfloat16_bits(x):
    bits = x.to(tl.int32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(x == x, rounded, 0x7FFF) & 0xFFFF


@triton.jit
def pack_bfloat16(lower, upper):
    """Round two float32 to bfloat16 in an int32."""
    if INTERPRETED:
        return _bfloat16_bits(lower) | (_bfloat16_bits(upper) << 16)
    else:
        return tl.inline_asm_elementwise(
            "cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,f,f", [lower, upper],
            dtype=tl.int32, is_pure=True, pack=1,
        )  # fmt: skip


# What the kernels of any arithmetic are written in.


@triton.jit
def _saturated_difference(b, a):
    """Return b - a clamped to [0, 1], and 0 for NaN; values are scaled to stay below 1."""
    if INTERPRETED:
        return tl.where(b > a, b - a, 0.0)
    else:
        return tl.inline_asm_elementwise(
            "sub.rn.sat.f32 $0, $1, $2;", "=f,f,f", [b, a], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def relu_of_difference(b, a, ARITHMETIC: tl.constexpr):
    """The amount relu(b - a) of two values."""
    if ARITHMETIC == "maximum":
        return tl.maximum(b - a, 0.0)
    elif ARITHMETIC == "saturated":
        return _saturated_difference(b, a)
    elif ARITHMETIC == "fixed point":
        return _saturated_difference(b, a).to(tl.int32, bitcast=True)
    else:
        return _relu_of_difference_of_halves(b, a)


@triton.jit
def relu_of(b, ARITHMETIC: tl.constexpr):
    """The amount relu(b) of a value."""
    if ARITHMETIC == "halves":
        return _relu_of_halves(b)
    else:
        return relu_of_difference(b, tl.zeros_like(b), ARITHMETIC)


@triton.jit
def relu_of_sum(b, a, ARITHMETIC: tl.constexpr):
    """The amount relu(b + a) of two values."""
    if ARITHMETIC == "halves":
        return _relu_of_sum_of_halves(b, a)
    else:
        return relu_of_difference(b, -a, ARITHMETIC)


@triton.jit
def add_values(x, y, ARITHMETIC: tl.constexpr):
    """Return x + y of two values."""
    return add_halves(x, y) if ARITHMETIC == "halves" else x + y


@triton.jit
def subtract_values(x, y, ARITHMETIC: tl.constexpr):
    """Difference of two values."""
    return subtract_halves(x, y) if ARITHMETIC == "halves" else x - y


@triton.jit
def add_amounts(x, y, ARITHMETIC: tl.constexpr):
    """Return x + y of two amounts."""
    return add_halves(x, y) if ARITHMETIC == "halves" else x + y


@triton.jit
def fma_values(x, y, z, ARITHMETIC: tl.constexpr):
    """A product plus z."""
    if ARITHMETIC == "halves":
        return fma_halves(x, y, z)
    else:
        return tl.fma(x, y, z)


@triton.jit
def subtract_product(z, x, y, ARITHMETIC: tl.constexpr):
    """Less a product."""
    if ARITHMETIC == "halves":
        return subtract_product_of_halves(z, x, y)
    else:
        return tl.fma(-x, y, z)


@triton.jit
def negative(x, ARITHMETIC: tl.constexpr):
    """-x of a value."""
    return x ^ -0x7FFF8000 if ARITHMETIC == "halves" else -x


@triton.jit
def is_greater(x, y, ARITHMETIC: tl.constexpr):
    """1 where x > y, else 0, as a value."""
    if ARITHMETIC == "halves":
        return greater_halves(x, y)
    else:
        return (x > y).to(x.dtype)


@triton.jit
def lanes_of(x, ARITHMETIC: tl.constexpr):
    """The columns' numbers in a value, in float32 where it is packed."""
    if ARITHMETIC == "halves":
        return lower_half(x), upper_half(x)
    else:
        return (x,)


@triton.jit
def add_weighted(totals, amount, weight, ARITHMETIC: tl.constexpr):
    """`totals` plus `weight`, of the dtype of the totals, times an amount."""
    if ARITHMETIC == "halves":
        return (
            tl.fma(lower_half(amount), weight, totals[0]),
            tl.fma(upper_half(amount), weight, totals[1]),
        )
    else:
        return (tl.fma(amount.to(totals[0].dtype), weight, totals[0]),)


@triton.jit
def biased_exponent(magnitude):
    """The exponent of a float32, plus 127; 1 for what is smaller, 255 for NaN and infinity."""
    bits = magnitude.to(tl.int32, bitcast=True)
    return tl.maximum((bits >> 23) & 0xFF, 1)


@triton.jit
def power_of_two(exponent):
    """The float32 2**(exponent - 127), exponent -22 to 254; up to 0 it has leading zeros."""
    bits = tl.where(exponent > 0, exponent << 23, (1 << 22) >> tl.maximum(-exponent, 0))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def larger_magnitude(x, y):
    """The larger of x, not negative, and |y|; NaN if either is."""
    if INTERPRETED:
        return tl.where(x != x, x, tl.where(tl.abs(y) <= x, x, tl.abs(y)))
    else:
        return tl.inline_asm_elementwise(
            "{.reg .f32 t; abs.f32 t, $2; max.NaN.f32 $0, $1, t;}", "=f,f,f", [x, y],
            dtype=tl.float32, is_pure=True, pack=1,
        )  # fmt: skip
