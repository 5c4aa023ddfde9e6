"""Walks down decision trees, as `models.trees` lays them out, for many rows at once.

A walk is a chain of loads and of branches that nobody can foresee. A tree with few leaves is read
instead as a list of its nodes, each of which rules out the leaves on the side that a row does not
go to: for `BLOCK` rows side by side, without a branch. One leaf is left over, the one that the walk
ends in. That takes the time of all nodes rather than of a path, so larger trees are walked.
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types

from models.vectors import Compiled, compiled, data, everywhere, tools

BLOCK = 16
MAX_LEAVES = 32
_FEW = 4  # rows: fewer are walked one by one
_BITS = ir.VectorType(ir.IntType(32), BLOCK)
_VALUES = ir.VectorType(ir.FloatType(), BLOCK)
_CHOICE = ir.VectorType(ir.IntType(1), BLOCK)


@compiled
def _leaves_of_block(  # compiled: takes columns
    _context: Any,
    block: Any,
    feature: Any,
    threshold: Any,
    absent_left: Any,
    sides: Any,
    start: Any,
    stop: Any,
    out: Any,
) -> Compiled:
    """Write the leaf of each row of a block to ``out``, uint32 of shape (BLOCK,).

    The nodes of the tree are start..stop, at least one; ``block`` is float32 of shape (n_features,
    BLOCK), ``sides`` uint32 of shape (n_nodes, 2): the leaves that a row which goes left, or right,
    may still come to. All are in C order; nothing checks the bounds.
    """

    def write(target: Any, builder: Any, signature: Any, values: Any) -> Any:
        columns, features, thresholds, absents, bits, to = (
            data(target, builder, signature.args[k], values[k]) for k in (0, 1, 2, 3, 4, 7)
        )
        start, stop = values[5:7]
        every = ir.Constant(_BITS, [2**32 - 1] * BLOCK)
        left_over = tools.alloca_once_value(builder, every)
        with tools.for_range_slice(builder, start, stop, start.type(1)) as (at, _):
            column = builder.sext(builder.load(builder.gep(features, [at])), at.type)
            place = builder.gep(columns, [builder.mul(column, at.type(BLOCK))])
            value = builder.load(builder.bitcast(place, _VALUES.as_pointer()), align=4)
            limit = everywhere(builder, builder.load(builder.gep(thresholds, [at])), _VALUES)
            absent = builder.load(builder.gep(absents, [at]))
            absent = everywhere(builder, builder.icmp_signed("!=", absent, absent.type(0)), _CHOICE)
            is_absent = builder.and_(builder.fcmp_unordered("uno", value, value), absent)
            goes_left = builder.or_(builder.fcmp_ordered("<", value, limit), is_absent)
            first = builder.mul(at, at.type(2))
            left, right = (
                everywhere(
                    builder,
                    builder.load(builder.gep(bits, [builder.add(first, at.type(k))])),
                    _BITS,
                )
                for k in (0, 1)
            )
            may = builder.select(goes_left, left, right)
            builder.store(builder.and_(builder.load(left_over), may), left_over)
        found = _lowest_bit(builder, builder.load(left_over))
        builder.store(found, builder.bitcast(to, _BITS.as_pointer()), align=4)
        return target.get_dummy_value()

    arrays = (block, feature, threshold, absent_left, sides)
    return types.void(*arrays, types.intp, types.intp, out), write


def _lowest_bit(builder: Any, vector: Any) -> Any:
    flag = ir.IntType(1)
    kind = ir.FunctionType(_BITS, [_BITS, flag])
    function = tools.get_or_insert_function(builder.module, kind, f"llvm.cttz.v{BLOCK}i32")
    return builder.call(function, [vector, flag(0)])


@nb.njit(cache=True)
def _fill_sides(starts, left, right, sides):  # type: ignore[no-untyped-def]  # compiled
    """Fill in the leaves that are not on the other side of each node, children before parents."""
    below = np.zeros(len(left), np.uint32)
    for tree in range(len(starts) - 1):
        start = starts[tree]
        if starts[tree + 1] - start >= MAX_LEAVES:
            continue
        for at in range(starts[tree + 1] - 1, start - 1, -1):
            of_left, of_right = left[at], right[at]
            one = np.uint32(1) << np.uint32(-1 - of_left) if of_left < 0 else below[start + of_left]
            two = (
                np.uint32(1) << np.uint32(-1 - of_right)
                if of_right < 0
                else below[start + of_right]
            )
            below[at] = one | two
            sides[at, 0], sides[at, 1] = ~two, ~one


@nb.njit(cache=True)
def _walk(rows, i, start, feature, threshold, absent_left, left, right):  # type: ignore[no-untyped-def]  # compiled: takes columns
    """Return the leaf that a walk from a root ends in."""
    node = 0
    while node >= 0:
        at = start + node
        value = rows[i, feature[at]]
        goes_left = absent_left[at] != 0 if np.isnan(value) else value < threshold[at]
        node = left[at] if goes_left else right[at]
    return -1 - node


@nb.njit(cache=True)
def _walk_all(rows, first, starts, feature, threshold, absent_left, left, right, out):  # type: ignore[no-untyped-def]  # noqa: PLR0913  # compiled: takes columns
    """Fill in the leaves of all rows from one on, row by row."""
    for i in range(first, len(rows)):
        for tree in range(len(starts) - 1):
            start = starts[tree]
            out[i, tree] = 0
            if starts[tree + 1] > start:
                out[i, tree] = _walk(rows, i, start, feature, threshold, absent_left, left, right)


@nb.njit(cache=True)
def _fill_block(rows, first, block):  # type: ignore[no-untyped-def]  # compiled
    """Lay rows out by column; lanes without a row keep what they have."""
    for i in range(first, min(first + BLOCK, len(rows))):
        for j in range(rows.shape[1]):
            block[j, i - first] = rows[i, j]


@nb.njit(cache=True)
def walk(rows, starts, feature, threshold, absent_left, left, right, out):  # type: ignore[no-untyped-def]  # compiled
    """Fill ``out``, int32 of shape (n, n_trees), with the leaf of each tree for each row."""
    n = len(rows)
    in_blocks = n if n % BLOCK >= _FEW else n // BLOCK * BLOCK
    _walk_all(rows, in_blocks, starts, feature, threshold, absent_left, left, right, out)
    if not in_blocks:
        return
    sides = np.zeros((len(feature), 2), np.uint32)
    _fill_sides(starts, left, right, sides)
    block = np.zeros((rows.shape[1], BLOCK), np.float32)
    found = np.zeros(BLOCK, np.uint32)
    for first in range(0, in_blocks, BLOCK):
        last = min(first + BLOCK, n)
        _fill_block(rows, first, block)
        for tree in range(len(starts) - 1):
            start, stop = starts[tree], starts[tree + 1]
            if start == stop:
                out[first:last, tree] = 0
            elif stop - start < MAX_LEAVES:
                _leaves_of_block(block, feature, threshold, absent_left, sides, start, stop, found)
                for i in range(first, last):
                    out[i, tree] = found[i - first]
            else:
                for i in range(first, last):
                    out[i, tree] = _walk(
                        rows, i, start, feature, threshold, absent_left, left, right
                    )
