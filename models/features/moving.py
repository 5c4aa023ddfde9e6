"""A hash table that goes on as a larger one, a little with every call.

To move all of a million keys at once would take a quarter of a second, in which nothing is decided.
Here the larger table is had ready before the one in use is full, and is then filled a few slots at
a time. Each key is in one of the two: whoever asks for one has it moved before.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

TableT = TypeVar("TableT", bound=tuple[NDArray[Any], ...])
_PER_KEY = 4  # slots: all are moved long before the next table is full
_LEAST = 256
_READY_BYTES = 4_096  # a key, from the last thirty-second on: twice what is needed
_PAGE_BYTES = 4_096


class Growing(Generic[TableT]):
    """The slots of a table, and of the one before while they are moved.

    Parameters
    ----------
    make
        Returns so many free slots, all zeros; their number is a power of two.
    move
        Puts what slots of one table hold, from a first up to a last, into another.
    n_slots
        At the start.
    fill
        Of so many slots, so many keys at most: ``(1, 2)`` for a half.

    Attributes
    ----------
    table
        In use.
    old
        What is still to be moved, None for nothing.
    """

    def __init__(
        self,
        make: Callable[[int], TableT],
        move: Callable[[TableT, TableT, int, int], None],
        n_slots: int,
        fill: tuple[int, int],
    ) -> None:
        self._make, self._move, self._fill = make, move, fill
        self.table: TableT = make(n_slots)
        self.old: TableT | None = None
        self._n_moved = 0
        self._ahead: TableT | None = None
        self._n_ready = 0

    def reserve(self, n_held: int, n_new: int) -> None:
        """Have room for so many keys more than are held."""
        n_slots, n = len(self.table[0]), n_held + n_new
        n_keys = n_slots * self._fill[0] // self._fill[1]
        if n > n_keys:
            self._go_on(-(-n * self._fill[1] // self._fill[0]))
        elif n > n_keys - n_keys // 32 and self._ahead is None:
            self._ahead, self._n_ready = self._make(2 * n_slots), 0
        if self._ahead is not None:
            self._make_ready(n_new)
        self.go_on(n_new)

    def _go_on(self, n_slots: int) -> None:
        """Begin to use a table of at least so many slots, more than there are now."""
        self.go_on(len(self.table[0]))
        self.old, self._n_moved = self.table, 0
        ahead, self._ahead = self._ahead, None
        if ahead is None or len(ahead[0]) < n_slots:
            ahead = self._make(1 << (n_slots - 1).bit_length())
        self.table = ahead

    def _make_ready(self, n_new: int) -> None:
        """Write to some of the table's memory, which the system gives only then."""
        first, self._n_ready = self._n_ready, self._n_ready + _READY_BYTES * n_new
        for array in self._ahead or ():
            array.reshape(-1).view(np.uint8)[first : self._n_ready : _PAGE_BYTES] = 0

    def go_on(self, n_keys: int) -> None:
        """Move some slots, where so many keys are asked for or may be new."""
        if self.old is None:
            return
        n_slots = len(self.old[0])
        first = self._n_moved
        self._n_moved = min(first + _PER_KEY * n_keys + _LEAST, n_slots)
        self._move(self.table, self.old, first, self._n_moved)
        if self._n_moved == n_slots:
            self.old = None
