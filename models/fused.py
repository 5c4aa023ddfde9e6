"""Fused multiply-add for compiled functions: a * b + c, rounded once.

IEEE 754 says what that is to the bit, so it is the same on every machine; one without the
instruction calls libm's function, which is slower.
"""

from typing import Any

from llvmlite import ir
from numba import types

from models.vectors import (
    LANES,
    VECTOR,
    Compiled,
    compiled,
    data,
    everywhere,
    is_plain,
    load,
    store,
    tools,
)

ROWS = 4
"""Of the block of `subtract_products`: its sums fit the registers of AVX2, AVX-512 and NEON."""


@compiled
def fma(_context: Any, a: Any, b: Any, c: Any) -> Compiled:
    """Return a * b + c, float64, rounded once."""

    def write(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return types.float64(types.float64, types.float64, types.float64), write


@compiled
def subtract_products(
    _context: Any, out: Any, at: Any, stride: Any, packed: Any, left: Any, right: Any, n: Any
) -> Compiled | None:
    """Subtract a product of two matrices from a block of `ROWS` x `LANES` elements of ``out``.

    With flat indices, for row r and lane c, the terms one after the other and each fused::

        out[at + r * stride + c] -= packed[left + LANES * k + r] * packed[right + LANES * k + c]

    for k = 0, 1, ..., n - 1. Both arrays are float64 in C order; nothing checks the bounds.
    """
    if not (is_plain(out, types.float64) and is_plain(packed, types.float64)):
        return None

    def write(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds, (out, at, stride, packed, left, right, n) = signature.args, values
        to, of = data(target, builder, kinds[0], out), data(target, builder, kinds[3], packed)
        rows = []
        for _ in range(ROWS):
            rows.append(builder.gep(to, [at]))
            at = builder.add(at, stride)
        sums = [tools.alloca_once_value(builder, load(builder, row)) for row in rows]
        with tools.for_range(builder, n) as loop:
            k = builder.mul(loop.index, loop.index.type(LANES))
            lefts = builder.gep(of, [builder.add(left, k)])
            factor = load(builder, builder.gep(of, [builder.add(right, k)]))
            for r, total in enumerate(sums):
                one = builder.load(builder.gep(lefts, [loop.index.type(r)]))
                terms = everywhere(builder, builder.fneg(one)), factor, builder.load(total)
                builder.store(_fma_of_vectors(builder, *terms), total)
        for row, total in zip(rows, sums, strict=True):
            store(builder, builder.load(total), row)
        return target.get_dummy_value()

    place = types.intp
    return types.void(out, place, place, packed, place, place, place), write


def _fma_of_vectors(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    name = f"llvm.fma.v{LANES}f64"
    return builder.call(tools.get_or_insert_function(builder.module, kind, name), [a, b, c])
