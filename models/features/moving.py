"""A hash table that is moved into a larger one, a few slots with every call.

All of a million keys at once would take a quarter of a second, in which nothing is decided. Each
key is in one of the two tables: whoever asks for one has it moved before.
"""

from typing import Generic, Self, TypeVar

TableT = TypeVar("TableT")
_PER_KEY = 4  # a table is moved long before the next one, of twice the size, is full
_LEAST = 256


class Moving(Generic[TableT]):
    """The table of before, and how far it has been moved.

    Parameters
    ----------
    table
        Its slots.
    n_slots
        How many.
    """

    def __init__(self, table: TableT, n_slots: int) -> None:
        self.table = table
        self._n_slots = n_slots
        self._n_moved = 0

    def next(self, n_keys: int) -> tuple[int, int]:
        """Return from which slot to which to move now, where so many keys may be new."""
        first = self._n_moved
        self._n_moved = min(first + _PER_KEY * n_keys + _LEAST, self._n_slots)
        return first, self._n_moved

    def unless_done(self) -> Self | None:
        """Return this, None once `next` has given the last slot."""
        return self if self._n_moved < self._n_slots else None
