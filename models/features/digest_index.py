"""A compiled hash table from 128-bit digests to rows, growing; a slot takes 24 bytes."""

import numba as nb
import numpy as np
from numpy.typing import NDArray

ABSENT = -1
_FIRST_CAPACITY = 2_048  # a power of two


@nb.njit(cache=True)
def _slot(slots, low, high):  # type: ignore[no-untyped-def]  # compiled
    """Return where a digest lies, or would: a free slot holds row 0, others their row + 1."""
    mask = np.uint64(len(slots) - 1)
    slot = low & mask
    while slots[slot, 2] != 0 and (slots[slot, 0] != low or slots[slot, 1] != high):
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
        n_new += slots[slot, 2] == 0
        slots[slot, 0], slots[slot, 1] = digests[i, 0], digests[i, 1]
        slots[slot, 2] = np.uint64(rows[i] + 1)
    return n_new


class DigestIndex:
    """Rows by digest; open addressing, at most three quarters full."""

    def __init__(self) -> None:
        self._n = 0
        self._slots = np.zeros((_FIRST_CAPACITY, 3), np.uint64)

    def find(self, digests: NDArray[np.uint64]) -> tuple[NDArray[np.int64], bool]:
        """Return rows, `ABSENT` where there is none, and whether all are there.

        Parameters
        ----------
        digests
            uint64 of shape (n, 2): evenly spread, since their low bits say where they lie.
        """
        rows = np.empty(len(digests), np.int64)
        n_absent = _find(self._slots, digests, rows)
        return rows, n_absent == 0

    def put(self, digests: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        """Note rows, >= 0, of digests of shape (n, 2); a digest that is there gets the new row."""
        if 4 * (self._n + len(digests)) > 3 * len(self._slots):
            held = self._slots[self._slots[:, 2] != 0]
            wanted = 4 * (self._n + len(digests)) // 3 + 1
            self._slots = np.zeros((1 << (wanted - 1).bit_length(), 3), np.uint64)
            _add(self._slots, held[:, :2], held[:, 2].astype(np.int64) - 1)
        self._n += _add(self._slots, digests, rows)
