"""A compiled hash table from 64-bit keys to numbers in the order of their first sight.

Keys must be hashes already: their low bits say where they lie. A table that is full goes on as one
of twice the size, into which a few slots of the old one are moved with every call, see
`models.features.moving`.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.features.moving import Growing
from models.features.prefetch import SLOTS_AHEAD, prefetch

ABSENT = -1
_FIRST_CAPACITY = 2_048
_FREE, _GONE = 0, -1  # in the place of a number + 1
_Slots = tuple[NDArray[np.uint64], NDArray[np.int64]]


@nb.njit(cache=True)
def _slot(slot_keys, slot_numbers, key):  # type: ignore[no-untyped-def]  # compiled
    """Return where a key lies, or would; slots hold numbers + 1."""
    mask = np.uint64(len(slot_keys) - 1)
    slot = key & mask
    while slot_numbers[slot] != _FREE and slot_keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@nb.njit(cache=True)
def _expect(slot_keys, slot_numbers, keys, i):  # type: ignore[no-untyped-def]  # compiled
    """Ask for the slot of the i-th key, where there is one."""
    if i < len(keys):
        slot = keys[i] & np.uint64(len(slot_keys) - 1)
        prefetch(slot_keys, slot, 0)
        prefetch(slot_numbers, slot, 0)


@nb.njit(cache=True)
def _find(slot_keys, slot_numbers, keys, numbers):  # type: ignore[no-untyped-def]  # compiled
    for i in range(len(keys)):
        _expect(slot_keys, slot_numbers, keys, i + SLOTS_AHEAD)
        numbers[i] = slot_numbers[_slot(slot_keys, slot_numbers, keys[i])] - 1


@nb.njit(cache=True)
def _add(slot_keys, slot_numbers, keys, numbers, next_number):  # type: ignore[no-untyped-def]  # compiled
    for i in range(len(keys)):
        _expect(slot_keys, slot_numbers, keys, i + SLOTS_AHEAD)
        slot = _slot(slot_keys, slot_numbers, keys[i])
        if slot_numbers[slot] == _FREE:
            next_number += 1
            slot_keys[slot], slot_numbers[slot] = keys[i], next_number
        numbers[i] = slot_numbers[slot] - 1
    return next_number


@nb.njit(cache=True)
def _remove(slot_keys, slot_numbers, keys):  # type: ignore[no-untyped-def]  # compiled
    """Let go of keys that are held; what lies behind one moves up, so that no run is torn."""
    mask = np.uint64(len(slot_keys) - 1)
    for key in keys:
        gap = _slot(slot_keys, slot_numbers, key)
        slot = (gap + np.uint64(1)) & mask
        while slot_numbers[slot] != _FREE:
            home = slot_keys[slot] & mask
            if ((slot - home) & mask) >= ((slot - gap) & mask):
                slot_keys[gap], slot_numbers[gap] = slot_keys[slot], slot_numbers[slot]
                gap = slot
            slot = (slot + np.uint64(1)) & mask
        slot_numbers[gap] = _FREE


@nb.njit(cache=True)
def _move(slot_keys, slot_numbers, old_keys, old_numbers, first, last):  # type: ignore[no-untyped-def]  # compiled
    for at in range(first, last):
        if old_numbers[at] > _FREE:
            slot = _slot(slot_keys, slot_numbers, old_keys[at])
            slot_keys[slot], slot_numbers[slot] = old_keys[at], old_numbers[at]
            old_numbers[at] = _GONE


@nb.njit(cache=True)
def _pull(slot_keys, slot_numbers, old_keys, old_numbers, keys):  # type: ignore[no-untyped-def]  # compiled
    for key in keys:
        at = _slot(old_keys, old_numbers, key)
        _move(slot_keys, slot_numbers, old_keys, old_numbers, at, at + np.uint64(1))


class KeyIndex:
    """Numbers by key; open addressing, at most half full, 32 to 64 bytes a key.

    Attributes
    ----------
    next_number
        That the next new key gets.
    """

    def __init__(self) -> None:
        self.next_number = 0
        self._n = 0
        self._slots = Growing(
            make=lambda n: (np.zeros(n, np.uint64), np.zeros(n, np.int64)),
            move=lambda new, old, first, last: _move(*new, *old, first, last),
            n_slots=_FIRST_CAPACITY,
            fill=(1, 2),
        )

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the keys' numbers, `ABSENT` for those that are not held."""
        self._slots.go_on(len(keys))
        numbers = np.empty(len(keys), np.int64)
        _find(*self._with(keys), keys, numbers)
        return numbers

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the keys' numbers; new ones get the next, in order."""
        self._slots.reserve(self._n, len(keys))
        numbers = np.empty(len(keys), np.int64)
        first = self.next_number
        self.next_number = _add(*self._with(keys), keys, numbers, first)
        self._n += self.next_number - first
        return numbers

    def remove_oldest(self, keys: NDArray[np.uint64]) -> None:
        """Let go of the keys that have the lowest numbers, given in any order."""
        _remove(*self._with(keys), keys)
        self._n -= len(keys)

    def _with(self, keys: NDArray[np.uint64]) -> _Slots:
        """Return the slots in use, in which these keys are if they are anywhere."""
        if self._slots.old is not None:
            _pull(*self._slots.table, *self._slots.old, keys)
        return self._slots.table
