"""What compiled functions will read soon, asked of memory before they get there.

Payments of a chunk are of accounts and entities all over tables of a hundred megabytes and more. A
function that waits for each row in turn waits for memory most of its time; one that asks for the
row of a few payments on finds it in the processor's caches.
"""

from collections.abc import Sequence
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from models.vectors import Compiled, compiled, tools

AHEAD = 6
"""Rows from the one in hand to the one that is asked for."""
SLOTS_AHEAD = 16
"""Likewise in a hash table: a slot is one cache line or two, so that many may be on their way."""
LINE_BYTES = 64
_FOR_READING, _KEEP, _DATA = 0, 3, 1


@compiled
def prefetch(_context: Any, array: Any, _row: Any, _offset: Any) -> Compiled:
    """Ask for the cache line at a byte of a row of an array; nothing happens if it is none."""

    def write(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        held = target.make_array(signature.args[0])(target, builder, values[0])
        row_bytes = tools.unpack_tuple(builder, held.strides)[0]
        at = builder.add(builder.mul(values[1], row_bytes), values[2])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.gep(builder.bitcast(held.data, byte), [at])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        asking = builder.module.declare_intrinsic("llvm.prefetch", (byte,), kind)
        builder.call(asking, [place, number(_FOR_READING), number(_KEEP), number(_DATA)])
        return target.get_dummy_value()

    return types.void(array, types.intp, types.intp), write


@nb.njit(cache=True, inline="always")
def expect(array, rows, i, lines):  # type: ignore[no-untyped-def]  # compiled
    """Ask for cache lines, given by their bytes, of the row `AHEAD` of the i-th; -1 is none."""
    if i + AHEAD < len(rows) and rows[i + AHEAD] >= 0:
        for line in lines:
            prefetch(array, rows[i + AHEAD], line)


def lines_of(record: np.dtype[np.void], fields: Sequence[str] = ()) -> NDArray[np.int64]:
    """Return a byte of each cache line in which fields of a record lie, all fields by default."""
    found: set[int] = set()
    places: Any = record.fields
    for name in fields or record.names or ():
        kind, first = places[name][:2]
        found |= set(range(first // LINE_BYTES, (first + kind.itemsize - 1) // LINE_BYTES + 1))
    return np.array(sorted(found), np.int64) * LINE_BYTES
