"""Which pages of a growing table were written to since the state was last stored."""

import numpy as np
from numpy.typing import NDArray

from models.features.pages import mark_pages

TABLE_PAGE_BYTES = 4_096


class TouchedPages:
    """Marks pages of one array of rows.

    Parameters
    ----------
    row_bytes
        Length of a row.
    """

    def __init__(self, row_bytes: int) -> None:
        self._row_bytes = row_bytes
        self._marks = np.zeros(64, np.bool_)

    def rows(self, rows: NDArray[np.integer]) -> None:
        """Mark the pages of some rows; negative ones are skipped."""
        end = (int(rows.max(initial=-1)) + 1) * self._row_bytes
        if end > 0:
            self._reach((end - 1) // TABLE_PAGE_BYTES)
            mark_pages(rows, self._row_bytes, TABLE_PAGE_BYTES, self._marks)

    def span(self, start: int, stop: int) -> None:
        """Mark the pages of rows ``start`` to ``stop``."""
        if stop > start:
            last = (stop * self._row_bytes - 1) // TABLE_PAGE_BYTES
            self._reach(last)
            self._marks[start * self._row_bytes // TABLE_PAGE_BYTES : last + 1] = True

    def all(self) -> None:
        """Mark everything."""
        self._marks[:] = True

    def _reach(self, page: int) -> None:
        if page >= len(self._marks):
            grown = np.zeros(max(page + 1, 2 * len(self._marks)), np.bool_)
            grown[: len(self._marks)] = self._marks
            self._marks = grown

    def marks(self, n_rows: int) -> NDArray[np.bool_]:
        """Return the mark of each page of an array that has so many rows."""
        n_pages = -(-n_rows * self._row_bytes // TABLE_PAGE_BYTES)
        if n_pages:
            self._reach(n_pages - 1)
        return self._marks[:n_pages]

    def clear(self) -> None:
        """Unmark everything: it was stored."""
        self._marks[:] = False
