"""A compiled hash table from 128-bit digests to rows; a slot takes 24 bytes.

A table that is full goes on as one of twice the size, into which a few slots of the old one are
moved with every call, see `models.features.moving`.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.features.moving import Moving

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
    n_absent = np.int64(0)
    for i in range(len(digests)):
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
        self._slots = np.zeros((_FIRST_CAPACITY, 3), np.uint64)
        self._old: Moving[NDArray[np.uint64]] | None = None

    def find(self, digests: NDArray[np.uint64]) -> tuple[NDArray[np.int64], bool]:
        """Return rows, `ABSENT` where there is none, and whether all are there.

        Parameters
        ----------
        digests
            uint64 of shape (n, 2): evenly spread, since their low bits say where they lie.
        """
        self._move(len(digests))
        if self._old is not None:
            _pull(self._slots, self._old.table, digests)
        rows = np.empty(len(digests), np.int64)
        n_absent = _find(self._slots, digests, rows)
        return rows, n_absent == 0

    def put(self, digests: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """Note rows, >= 0, of digests of shape (n, 2); a digest that is there gets the new row."""
        self._reserve(len(digests))
        if self._old is not None:
            _pull(self._slots, self._old.table, digests)
        self._n += _add(self._slots, digests, rows)

    def _reserve(self, n: int) -> None:
        if 4 * (self._n + n) > 3 * len(self._slots):
            self._move(len(self._slots))
            wanted = 4 * (self._n + n) // 3 + 1
            self._old = Moving(self._slots, len(self._slots))
            self._slots = np.zeros((1 << (wanted - 1).bit_length(), 3), np.uint64)
        self._move(n)

    def _move(self, n_keys: int) -> None:
        if self._old is not None:
            _move(self._slots, self._old.table, *self._old.next(n_keys))
            self._old = self._old.unless_done()
