"""A compiled hash table from entity names (kind and 16-byte pseudonym) to rows."""

import numba as nb
import numpy as np
from numpy.typing import NDArray

_FIRST_CAPACITY = 1_024


@nb.njit(cache=True)
def _find_or_add(slots, halves, kinds, size, wanted_halves, wanted_kinds, rows):  # type: ignore[no-untyped-def]  # compiled
    mask = np.uint64(len(slots) - 1)
    for i in range(len(wanted_kinds)):
        high, low, kind = wanted_halves[i, 0], wanted_halves[i, 1], wanted_kinds[i]
        slot = (high ^ (low >> np.uint64(7)) ^ np.uint64(kind)) & mask
        while True:
            row = slots[slot]
            if row < 0:
                slots[slot] = size
                halves[size, 0], halves[size, 1], kinds[size] = high, low, kind
                rows[i] = size
                size += 1
                break
            if halves[row, 0] == high and halves[row, 1] == low and kinds[row] == kind:
                rows[i] = row
                break
            slot = (slot + np.uint64(1)) & mask
    return size


class NameIndex:
    """Rows in order of first sight; open addressing, at most half full.

    Attributes
    ----------
    size
        Names held.
    """

    def __init__(self) -> None:
        self.size = 0
        self._halves = np.zeros((_FIRST_CAPACITY, 2), np.uint64)
        self._kinds = np.zeros(_FIRST_CAPACITY, np.uint8)
        self._slots = np.full(2 * _FIRST_CAPACITY, -1, np.int32)

    @property
    def names(self) -> NDArray[np.uint8]:
        """Pseudonyms of shape (size, 16), a view."""
        return self._halves[: self.size].view(np.uint8)

    @property
    def kinds(self) -> NDArray[np.uint8]:
        """Kind indices of shape (size,), a view."""
        return self._kinds[: self.size]

    def rows(self, names: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the rows of names, new ones added in order.

        Parameters
        ----------
        names
            uint8 of shape (n, 16).
        kinds
            uint8 of shape (n,).
        """
        self._reserve(self.size + len(kinds))
        rows = np.empty(len(kinds), np.int64)
        halves = np.ascontiguousarray(names).view(np.uint64)
        self.size = _find_or_add(
            self._slots, self._halves, self._kinds, self.size, halves, kinds, rows
        )
        return rows

    def _reserve(self, n: int) -> None:
        if n <= len(self._kinds):
            return
        names, kinds, size = self._halves[: self.size].copy(), self.kinds.copy(), self.size
        capacity = 1 << (n - 1).bit_length()
        self._halves = np.zeros((capacity, 2), np.uint64)
        self._kinds = np.zeros(capacity, np.uint8)
        self._slots = np.full(2 * capacity, -1, np.int32)
        rows = np.empty(size, np.int64)
        self.size = _find_or_add(self._slots, self._halves, self._kinds, 0, names, kinds, rows)
