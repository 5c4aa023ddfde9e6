"""Memory that copies of the state are made into, one after the other."""

import contextlib
import mmap

import numpy as np
from numpy.typing import NDArray

from models.features.room import Room

_LEAST_BYTES, _MOST_BYTES = 64 * 1024 * 1024, 1024 * 1024 * 1024
_PATIENCE = 8  # copies in a row that want far less


class CopyBuffer:
    """Keeps its memory and has it ready: new memory costs a multiple of the copying.

    The machine gives memory only when it is first written to, a page at a time.
    """

    def __init__(self) -> None:
        self._room = Room(np.uint8)
        self._n_wanted = self._n_ready = self._n_small = 0

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return so many bytes, of any content; what was taken before is given up."""
        self._n_wanted = n_bytes
        self._n_ready = max(self._n_ready, n_bytes)
        taken: NDArray[np.uint8] = self._room.rows(n_bytes)
        return taken

    def make_ready(self, n_least: int = 0) -> None:
        """Have memory for a quarter more than was last asked for; slow, safe in another thread.

        What is larger than `take` wanted many times over, several times in a row, is given back,
        and so is what lies beyond a gigabyte; nobody may still read what was taken.

        Parameters
        ----------
        n_least
            Bytes to be had in any case, up to a gigabyte.
        """
        n = min(max(self._n_wanted + self._n_wanted // 4, n_least), _MOST_BYTES)
        is_small = self._n_ready > max(4 * n, _LEAST_BYTES)
        self._n_small = self._n_small + 1 if is_small else 0
        if self._n_ready > _MOST_BYTES or self._n_small > _PATIENCE:
            self._room.give_back(n)
            self._n_ready = n
        elif self._n_ready < n:
            with contextlib.suppress(MemoryError):  # then it is had, or not, once it is needed
                self._room.rows(n)[self._n_ready :: mmap.PAGESIZE] = 0
                self._n_ready = n
