"""Which pages of a growing table were written to since the state was last stored.

A copy of those pages need not be made at once. Whoever is about to write to some says so before,
and what a running copy still owes of them is copied then; the rest is copied bit by bit. So the
copy is of one instant, and nobody waits for all of it.
"""

import numpy as np
from numpy.typing import NDArray

from models.features.pages import copy_pages, copy_pages_of, mark_pages

TABLE_PAGE_BYTES = 16_384


class OwedPages:
    """Pages of one array that are still to be copied.

    Parameters
    ----------
    source
        uint8 of shape (n_bytes,): the array.
    page_bytes
        Length of a page; the last one may be shorter.
    pages
        int64 of shape (n,): which, ascending.
    out
        uint8: where they go, one after the other.
    """

    def __init__(
        self,
        source: NDArray[np.uint8],
        page_bytes: int,
        pages: NDArray[np.int64],
        out: NDArray[np.uint8],
    ) -> None:
        self._page_bytes = page_bytes
        self._pages, self._next = pages, 0
        place = np.full(-(-len(source) // page_bytes), -1, np.int64)
        place[pages] = np.arange(len(pages))
        self._copy: tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]] | None
        self._copy = (source, place, out) if len(pages) else None

    @property
    def is_owing(self) -> bool:
        """Whether some may still be owed."""
        return self._copy is not None

    def pay(self, n_bytes: int) -> int:
        """Copy about so much of what is owed, in order; return how many bytes were looked at."""
        if self._copy is None:
            return 0
        stop = min(self._next + max(n_bytes // self._page_bytes, 1), len(self._pages))
        last = int(self._pages[stop - 1]) + 1
        copy_pages(int(self._pages[self._next]), last, self._page_bytes, *self._copy)
        n, self._next = stop - self._next, stop
        if stop == len(self._pages):
            self._copy = None
        return n * self._page_bytes

    def pay_all(self) -> None:
        """Copy the rest."""
        self.pay(len(self._pages) * self._page_bytes)

    def pay_rows(self, rows: NDArray[np.integer], row_bytes: int) -> None:
        """Copy what is owed of some rows; negative ones are skipped."""
        if self._copy is not None:
            copy_pages_of(rows, row_bytes, self._page_bytes, *self._copy)

    def pay_span(self, first: int, last: int) -> None:
        """Copy what is owed of the pages from ``first`` up to, not including, ``last``."""
        if self._copy is not None:
            copy_pages(first, last, self._page_bytes, *self._copy)


class TouchedPages:
    """Marks pages of one array of rows; told before rows are written to.

    Parameters
    ----------
    row_bytes
        Length of a row.
    page_bytes
        Length of a page.
    """

    def __init__(self, row_bytes: int, page_bytes: int = TABLE_PAGE_BYTES) -> None:
        self._row_bytes = row_bytes
        self.page_bytes = page_bytes
        self._marks = np.zeros(64, np.bool_)
        self._owed: OwedPages | None = None

    def rows(self, rows: NDArray[np.integer]) -> None:
        """Mark the pages of some rows; negative ones are skipped."""
        end = (int(rows.max(initial=-1)) + 1) * self._row_bytes
        if end > 0:
            self._reach((end - 1) // self.page_bytes)
            mark_pages(rows, self._row_bytes, self.page_bytes, self._marks)
            if self._owed is not None:
                self._owed.pay_rows(rows, self._row_bytes)

    def span(self, start: int, stop: int) -> None:
        """Mark the pages of rows ``start`` to ``stop``."""
        if stop > start:
            first = start * self._row_bytes // self.page_bytes
            last = (stop * self._row_bytes - 1) // self.page_bytes + 1
            self._reach(last - 1)
            self._marks[first:last] = True
            if self._owed is not None:
                self._owed.pay_span(first, last)

    def _reach(self, page: int) -> None:
        if page >= len(self._marks):
            grown = np.zeros(max(page + 1, 2 * len(self._marks)), np.bool_)
            grown[: len(self._marks)] = self._marks
            self._marks = grown

    def marks(self, n_pages: int) -> NDArray[np.bool_]:
        """Return the mark of each page of an array that has so many."""
        if n_pages:
            self._reach(n_pages - 1)
        return self._marks[:n_pages]

    def copied(self, owed: OwedPages) -> None:
        """Unmark everything: a copy was begun, and what it owes is paid before it is written to.

        The copy before it must be whole.
        """
        self._marks[:] = False
        self._owed = owed

    def clear(self) -> None:
        """Unmark everything: it is as it was stored."""
        self._marks[:] = False
