"""A compiled hash table from 128-bit digests to rows; a slot takes 24 bytes.

A table that is full goes on as one of twice the size, into which a few slots of the old one are
moved with every call, see `models.features.moving`.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.features.moving import Growing
from models.features.prefetch import SLOTS_AHEAD, prefetch

ABSENT = -1
_FIRST_CAPACITY = 2_048  # a power of two
_FREE, _GONE = np.uint64(0), np.uint64(2**64 - 1)  # in the place of a row


@nb.njit(cache=True)
def _slot(slots, low, high):  # type: ignore[no-untyped-def]  # compiled
    """Return where a digest lies, or would; of a slot the third word is the row + 1."""
    mask = np.uint64(len(slots) - 1)
    slot = low & mask
    while slots[slot, 2] != _FREE and (slots[slot, 0] != low or slots[slot, 1] != high):
        slot = (slot + np.uint64(1)) & mask
    return slot


@nb.njit(cache=True)
def _find(slots, digests, rows):  # type: ignore[no-untyped-def]  # compiled
    n_absent, mask = np.int64(0), np.uint64(len(slots) - 1)
    for i in range(len(digests)):
        if i + SLOTS_AHEAD < len(digests):
            prefetch(slots, digests[i + SLOTS_AHEAD, 0] & mask, 0)
        row = np.int64(slots[_slot(slots, digests[i, 0], digests[i, 1]), 2]) - 1
        rows[i] = row
        n_absent += row < 0
    return n_absent


@nb.njit(cache=True)
def _add(slots, digests, rows):  # type: ignore[no-untyped-def]  # compiled
    n_new = 0
    for i in range(len(digests)):
        slot = _slot(slots, digests[i, 0], digests[i, 1])
        n_new += slots[slot, 2] == _FREE
        slots[slot, 0], slots[slot, 1] = digests[i, 0], digests[i, 1]
        slots[slot, 2] = np.uint64(rows[i] + 1)
    return n_new


@nb.njit(cache=True)
def _move(slots, old, first, last):  # type: ignore[no-untyped-def]  # compiled
    for at in range(first, last):
        if old[at, 2] != _FREE and old[at, 2] != _GONE:
            slots[_slot(slots, old[at, 0], old[at, 1])] = old[at]
            old[at, 2] = _GONE


@nb.njit(cache=True)
def _pull(slots, old, digests):  # type: ignore[no-untyped-def]  # compiled
    for i in range(len(digests)):
        at = _slot(old, digests[i, 0], digests[i, 1])
        _move(slots, old, at, at + np.uint64(1))


class DigestIndex:
    """Rows by digest; open addressing, at most three quarters full."""

    def __init__(self) -> None:
        self._n = 0
        self._slots = Growing(
            make=lambda n: (np.zeros((n, 3), np.uint64),),
            move=lambda new, old, first, last: _move(*new, *old, first, last),
            n_slots=_FIRST_CAPACITY,
            fill=(3, 4),
        )

    def find(self, digests: NDArray[np.uint64]) -> tuple[NDArray[np.int64], bool]:
        """Return rows, `ABSENT` where there is none, and whether all are there.

        Parameters
        ----------
        digests
            uint64 of shape (n, 2): evenly spread, since their low bits say where they lie.
        """
        self._slots.go_on(len(digests))
        rows = np.empty(len(digests), np.int64)
        n_absent = _find(*self._with(digests), digests, rows)
        return rows, n_absent == 0

    def put(self, digests: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """Note rows, >= 0, of digests of shape (n, 2); a digest that is there gets the new row."""
        self._slots.reserve(self._n, len(digests))
        self._n += _add(*self._with(digests), digests, rows)

    def _with(self, digests: NDArray[np.uint64]) -> tuple[NDArray[np.uint64]]:
        """Return the slots in use, in which these are if they are anywhere."""
        if self._slots.old is not None:
            _pull(*self._slots.table, *self._slots.old, digests)
        return self._slots.table
