"""Memory that copies of the state are made into, one after the other."""

import numpy as np
from numpy.typing import NDArray

_LEAST_BYTES, _MOST_BYTES = 64 * 1024 * 1024, 1024 * 1024 * 1024


class CopyBuffer:
    """Keeps its memory and has it ready: new memory costs a multiple of the copying.

    The machine gives memory only when it is first written to, a page at a time.
    """

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)
        self._n_wanted = 0

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return so many bytes, of any content; what was taken before is given up."""
        self._n_wanted = n_bytes
        if n_bytes > len(self._bytes):
            self._bytes = np.empty(n_bytes, np.uint8)
        return self._bytes[:n_bytes]

    def make_ready(self) -> None:
        """Have memory for half as much again as was last asked for; slow, safe in another thread.

        What is larger than `take` wanted many times over, or very large, is let go of. Whoever
        still reads what was taken keeps it.
        """
        n = self._n_wanted + self._n_wanted // 2
        if n > _MOST_BYTES:
            self._bytes = np.empty(0, np.uint8)
        elif not n <= len(self._bytes) <= max(4 * n, _LEAST_BYTES):
            ready = np.empty(n + n // 4, np.uint8)
            ready.fill(0)
            self._bytes = ready
