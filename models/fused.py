"""Fused multiply-add for compiled functions: a * b + c, rounded once.

IEEE 754 says what that is to the bit, so it is the same on every machine; one without the
instruction calls libm's function, which is slower. Vectors are written out, since a compiler that
has to find them gives up where it cannot tell many arrays apart.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS, LANES = 4, 8
"""The block of `subtract_products`: its sums fit the registers of AVX2, AVX-512 and NEON."""

_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_Compiled = tuple[Any, Callable[..., Any]]  # a signature and what writes the code, of numba
_tools: Any = cgutils


def _compiled(function: Callable[..., _Compiled | None]) -> Callable[..., Any]:
    """Return what compiled functions call; typed, which numba's decorator is not."""
    made: Callable[..., Any] = intrinsic(function)
    return made


@_compiled
def fma(_context: Any, a: Any, b: Any, c: Any) -> _Compiled:
    """Return a * b + c, float64, rounded once."""

    def write(_target: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.fma(*values)

    return types.float64(types.float64, types.float64, types.float64), write


@_compiled
def subtract_products(
    _context: Any, out: Any, at: Any, stride: Any, packed: Any, left: Any, right: Any, n: Any
) -> _Compiled | None:
    """Subtract a product of two matrices from a block of `ROWS` x `LANES` elements of ``out``.

    With flat indices, for row r and lane c, the terms one after the other and each fused::

        out[at + r * stride + c] -= packed[left + LANES * k + r] * packed[right + LANES * k + c]

    for k = 0, 1, ..., n - 1. Both arrays are float64 in C order; nothing checks the bounds.
    """
    if not (_is_plain(out) and _is_plain(packed)):
        return None

    def write(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        out, at, stride, packed, left, right, n = values
        to = target.make_array(signature.args[0])(target, builder, out).data
        of = target.make_array(signature.args[3])(target, builder, packed).data
        rows = []
        for _ in range(ROWS):
            rows.append(builder.bitcast(builder.gep(to, [at]), _VECTOR.as_pointer()))
            at = builder.add(at, stride)
        sums = [_tools.alloca_once_value(builder, builder.load(row, align=8)) for row in rows]
        with _tools.for_range(builder, n) as loop:
            k = builder.mul(loop.index, ir.Constant(loop.index.type, LANES))
            lefts = builder.gep(of, [builder.add(left, k)])
            rights = builder.gep(of, [builder.add(right, k)])
            factor = builder.load(builder.bitcast(rights, _VECTOR.as_pointer()), align=8)
            for r, total in enumerate(sums):
                one = builder.load(builder.gep(lefts, [ir.Constant(loop.index.type, r)]))
                terms = _everywhere(builder, builder.fneg(one)), factor, builder.load(total)
                builder.store(_fma_of_vectors(builder, *terms), total)
        for row, total in zip(rows, sums, strict=True):
            builder.store(builder.load(total), row, align=8)
        return target.get_dummy_value()

    place = types.intp
    return types.void(out, place, place, packed, place, place, place), write


def _is_plain(array: Any) -> bool:
    return isinstance(array, types.Array) and array.layout == "C" and array.dtype == types.float64


def _everywhere(builder: Any, value: Any) -> Any:
    """Return a vector with the value in every lane."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, nothing, lanes)


def _fma_of_vectors(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    name = f"llvm.fma.v{LANES}f64"
    return builder.call(_tools.get_or_insert_function(builder.module, kind, name), [a, b, c])
