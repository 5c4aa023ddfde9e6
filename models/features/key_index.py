"""A compiled hash table from 64-bit keys to numbers in the order of their first sight.

Keys must be hashes already: their low bits say where they lie.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

ABSENT = -1
_FIRST_CAPACITY = 2_048


@nb.njit(cache=True)
def _slot(slot_keys, slot_numbers, key):  # type: ignore[no-untyped-def]  # compiled
    """Return where a key lies, or would."""
    mask = np.uint64(len(slot_keys) - 1)
    slot = key & mask
    while slot_numbers[slot] >= 0 and slot_keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@nb.njit(cache=True)
def _find(slot_keys, slot_numbers, keys, numbers):  # type: ignore[no-untyped-def]  # compiled
    for i in range(len(keys)):
        numbers[i] = slot_numbers[_slot(slot_keys, slot_numbers, keys[i])]


@nb.njit(cache=True)
def _add(slot_keys, slot_numbers, keys, numbers, next_number):  # type: ignore[no-untyped-def]  # compiled
    for i in range(len(keys)):
        slot = _slot(slot_keys, slot_numbers, keys[i])
        if slot_numbers[slot] < 0:
            slot_keys[slot], slot_numbers[slot] = keys[i], next_number
            next_number += 1
        numbers[i] = slot_numbers[slot]
    return next_number


@nb.njit(cache=True)
def _remove(slot_keys, slot_numbers, keys):  # type: ignore[no-untyped-def]  # compiled
    """Let go of keys that are held; what lies behind one moves up, so that no run is torn."""
    mask = np.uint64(len(slot_keys) - 1)
    for key in keys:
        gap = _slot(slot_keys, slot_numbers, key)
        slot = (gap + np.uint64(1)) & mask
        while slot_numbers[slot] >= 0:
            home = slot_keys[slot] & mask
            if ((slot - home) & mask) >= ((slot - gap) & mask):
                slot_keys[gap], slot_numbers[gap] = slot_keys[slot], slot_numbers[slot]
                gap = slot
            slot = (slot + np.uint64(1)) & mask
        slot_numbers[gap] = ABSENT


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
        self._slot_keys = np.zeros(_FIRST_CAPACITY, np.uint64)
        self._slot_numbers = np.full(_FIRST_CAPACITY, ABSENT, np.int64)

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the keys' numbers, `ABSENT` for those that are not held."""
        numbers = np.empty(len(keys), np.int64)
        _find(self._slot_keys, self._slot_numbers, keys, numbers)
        return numbers

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the keys' numbers; new ones get the next, in order."""
        self._reserve(self._n + len(keys))
        numbers = np.empty(len(keys), np.int64)
        first = self.next_number
        self.next_number = _add(self._slot_keys, self._slot_numbers, keys, numbers, first)
        self._n += self.next_number - first
        return numbers

    def remove_oldest(self, keys: NDArray[np.uint64]) -> None:
        """Let go of the keys that have the lowest numbers, given in any order."""
        _remove(self._slot_keys, self._slot_numbers, keys)
        self._n -= len(keys)

    def _reserve(self, n: int) -> None:
        if 2 * n <= len(self._slot_keys):
            return
        held = self._slot_numbers >= 0
        keys, numbers = self._slot_keys[held], self._slot_numbers[held]
        in_order = np.argsort(numbers)
        first, self._n = self.next_number - self._n, 0
        self._empty(1 << (2 * n - 1).bit_length())
        self.next_number = first
        self.add(keys[in_order])

    def _empty(self, capacity: int) -> None:
        self._n = 0
        self._slot_keys = np.zeros(capacity, np.uint64)
        self._slot_numbers = np.full(capacity, ABSENT, np.int64)
