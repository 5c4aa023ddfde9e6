"""A compiled hash table from entity names (kind and 16-byte pseudonym) to rows.

A table that is full goes on as one of twice the size, into which a few slots of the old one are
moved with every call, see `models.features.moving`.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.features.moving import Growing
from models.features.room import Room

_FIRST_CAPACITY = 1_024
_FREE, _GONE = 0, -1  # in the place of a row + 1
_Slots = tuple[NDArray[np.int32]]


@nb.njit(cache=True)
def _slot(slots, halves, kinds, high, low, kind):  # type: ignore[no-untyped-def]  # compiled
    """Return where a name lies, or would; slots hold rows + 1."""
    mask = np.uint64(len(slots) - 1)
    slot = (high ^ (low >> np.uint64(7)) ^ np.uint64(kind)) & mask
    while slots[slot] != _FREE:
        row = slots[slot] - 1
        if row >= 0 and halves[row, 0] == high and halves[row, 1] == low and kinds[row] == kind:
            break
        slot = (slot + np.uint64(1)) & mask
    return slot


@nb.njit(cache=True)
def _find_or_add(slots, halves, kinds, size, wanted_halves, wanted_kinds, rows):  # type: ignore[no-untyped-def]  # compiled
    mask = np.uint64(len(slots) - 1)
    for i in range(len(wanted_kinds)):
        high, low, kind = wanted_halves[i, 0], wanted_halves[i, 1], wanted_kinds[i]
        slot = (high ^ (low >> np.uint64(7)) ^ np.uint64(kind)) & mask
        while True:  # as in `_slot`, which here would cost thrice as much
            row = slots[slot] - 1
            if row < 0:
                halves[size, 0], halves[size, 1], kinds[size] = high, low, kind
                rows[i] = size
                size += 1
                slots[slot] = size
                break
            if halves[row, 0] == high and halves[row, 1] == low and kinds[row] == kind:
                rows[i] = row
                break
            slot = (slot + np.uint64(1)) & mask
    return size


@nb.njit(cache=True)
def _move(slots, old, halves, kinds, first, last):  # type: ignore[no-untyped-def]  # compiled
    for at in range(first, last):
        if old[at] > _FREE:
            row = old[at] - 1
            slots[_slot(slots, halves, kinds, halves[row, 0], halves[row, 1], kinds[row])] = old[at]
            old[at] = _GONE


@nb.njit(cache=True)
def _pull(slots, old, halves, kinds, wanted_halves, wanted_kinds):  # type: ignore[no-untyped-def]  # compiled
    for i in range(len(wanted_kinds)):
        name = wanted_halves[i, 0], wanted_halves[i, 1], wanted_kinds[i]
        at = _slot(old, halves, kinds, *name)
        _move(slots, old, halves, kinds, at, at + np.uint64(1))


class NameIndex:
    """Rows in order of first sight; open addressing, at most half full.

    Attributes
    ----------
    size
        Names held.
    """

    def __init__(self) -> None:
        self.size = 0
        self._rooms = Room(np.uint64, (2,)), Room(np.uint8)
        self._halves, self._kinds = (room.rows(_FIRST_CAPACITY) for room in self._rooms)
        self._slots = Growing(
            make=lambda n: (np.zeros(n, np.int32),),
            move=self._move,
            n_slots=2 * _FIRST_CAPACITY,
            fill=(1, 2),
        )

    def _move(self, new: _Slots, old: _Slots, first: int, last: int) -> None:
        _move(*new, *old, self._halves, self._kinds, first, last)

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
        self._slots.reserve(self.size, len(kinds))
        if self.size + len(kinds) > len(self._kinds):
            n = self.size + self.size // 8 + len(kinds)
            self._halves, self._kinds = (room.rows(n) for room in self._rooms)
        rows = np.empty(len(kinds), np.int64)
        halves = np.ascontiguousarray(names).view(np.uint64)
        held = self._halves, self._kinds
        if self._slots.old is not None:
            _pull(*self._slots.table, *self._slots.old, *held, halves, kinds)
        self.size = _find_or_add(*self._slots.table, *held, self.size, halves, kinds, rows)
        return rows
