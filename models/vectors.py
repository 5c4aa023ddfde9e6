"""Vectors for compiled functions, most of eight doubles, written out.

A compiler that has to find them in loops gives up where it cannot tell many arrays apart, or where
numbers change their width on the way. Lanes are independent, so the bits are those of the loops.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
VECTOR = ir.VectorType(ir.DoubleType(), LANES)
Compiled = tuple[Any, Callable[..., Any]]  # a signature and what writes the code, of numba
tools: Any = cgutils


def compiled(function: Callable[..., Compiled | None]) -> Callable[..., Any]:
    """Return what compiled functions call; typed, which numba's decorator is not."""
    made: Callable[..., Any] = intrinsic(function)
    return made


def is_plain(array: Any, *kinds: Any) -> bool:
    """Return whether a type is that of arrays in C order of one of these numbers."""
    return isinstance(array, types.Array) and array.layout == "C" and array.dtype in kinds


def data(target: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Return where the numbers of an array begin."""
    return target.make_array(kind)(target, builder, value).data


def load(builder: Any, start: Any, kind: Any = types.float64) -> Any:
    """Return eight numbers as doubles."""
    if kind == types.float64:
        return builder.load(builder.bitcast(start, VECTOR.as_pointer()), align=8)
    narrow = ir.VectorType(ir.FloatType(), LANES)
    numbers = builder.load(builder.bitcast(start, narrow.as_pointer()), align=4)
    return builder.fpext(numbers, VECTOR)


def store(builder: Any, vector: Any, start: Any) -> None:
    """Write eight doubles."""
    builder.store(vector, builder.bitcast(start, VECTOR.as_pointer()), align=8)


def everywhere(builder: Any, value: Any, kind: Any = VECTOR) -> Any:
    """Return a vector with the value in every lane."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, _lane(0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, nothing, lanes)


@compiled
def multiply_row(
    _context: Any, packed: Any, at: Any, x: Any, out: Any, i: Any, n: Any
) -> Compiled | None:
    """Multiply by n elements of a packed row, as a row and as a column; n is a multiple of `LANES`.

    With flat indices, each product and each sum rounded::

        out[i + j] += packed[at + j] * x[i]

    for j = 0, 1, ..., n - 1. Returns eight sums of packed[at + j] * x[i + j], each of every eighth
    j in order. ``packed`` is float32 or float64, ``x`` and ``out`` are float64, all in C order;
    nothing checks the bounds.
    """
    if not (
        is_plain(packed, types.float32, types.float64)
        and is_plain(x, types.float64)
        and is_plain(out, types.float64)
    ):
        return None

    def write(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds, (packed, at, x, out, i, n) = signature.args, values
        row = builder.gep(data(target, builder, kinds[0], packed), [at])
        tail = builder.gep(data(target, builder, kinds[2], x), [i])
        column = builder.gep(data(target, builder, kinds[3], out), [i])
        factor = everywhere(builder, builder.load(tail))
        total = tools.alloca_once_value(builder, ir.Constant(VECTOR, [0.0] * LANES))
        with tools.for_range_slice(builder, n.type(0), n, n.type(LANES)) as (j, _):
            elements = load(builder, builder.gep(row, [j]), kinds[0].dtype)
            own = builder.fmul(elements, load(builder, builder.gep(tail, [j])))
            builder.store(builder.fadd(builder.load(total), own), total)
            below = builder.gep(column, [j])
            sums = builder.fadd(load(builder, below), builder.fmul(elements, factor))
            store(builder, sums, below)
        lanes = [builder.extract_element(builder.load(total), _lane(k)) for k in range(LANES)]
        return target.make_tuple(builder, signature.return_type, lanes)

    sums = types.UniTuple(types.float64, LANES)  # type: ignore[no-untyped-call]  # numba's
    return sums(packed, types.intp, x, out, types.intp, types.intp), write


def _lane(k: int) -> Any:
    return ir.Constant(ir.IntType(32), k)
