"""Matured rows as they are at an instant, for a thread that looks at them while the log goes on."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from models.matured import Matured
from stream.row_log import LoggedRows, RowLog

_BLOCK = 1_000
"""Rows for which the thread keeps Python's lock, a few milliseconds.

Kernels that decisions call do not let go of it: they would wait to get it back at each call.
"""


class FixedRows:
    """Matured rows of a log as they are at an instant; what becomes of them later is not seen.

    As long as it lives the log drops no rows.

    Parameters
    ----------
    log
        May be appended to and settled meanwhile.
    known
        Gives the rows that are known by now, int64 of shape (n,): these, and later the newer ones.
    view
        How they are seen; safe in another thread.
    """

    def __init__(
        self,
        log: RowLog,
        known: Callable[[], NDArray[np.int64]],
        view: Callable[[LoggedRows], Matured],
    ) -> None:
        self._log, self._known, self._view = log, known, view
        self._index = known()
        self._version, self._rows = log.version, log.hold(self._index)

    def blocks(self, n: int = _BLOCK) -> Iterator[Matured]:
        """Yield the rows in order, at most ``n`` at a time."""
        for start in range(0, len(self._index), n):
            yield self._view(self._rows.part(slice(start, start + n)))

    def whole(self) -> Matured:
        """Return all at once, copied a block at a time."""
        n, start = len(self._index), 0
        whole: Matured | None = None
        for block in self.blocks():
            whole = whole or block.room_for(n)
            whole.put(start, block)
            start += len(block)
        return self._view(self._rows) if whole is None else whole

    def newer(self) -> Matured | None:
        """Return those of the rows known now that are not in here, or got another outcome since.

        In the order in which they became known. None where rows were changed, so that what was
        seen may have been anything.
        """
        log = self._log
        if log.version != self._version:
            return None
        known = self._known()
        is_here = np.zeros(log.size, np.bool_)
        is_here[self._index] = log.at(self._index).known_ms == self._rows.known_ms
        index = known[~is_here[known]]
        return self._view(log.at(index[np.lexsort((index, log.at(index).known_ms))]))
