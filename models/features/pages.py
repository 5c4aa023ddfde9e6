"""Which pages of a table's bytes some of its rows lie in."""

import numba as nb
import numpy as np


@nb.njit(cache=True)
def mark_pages(rows, row_bytes, page_bytes, marks):  # type: ignore[no-untyped-def]  # compiled
    """Mark the pages of rows; negative ones are skipped.

    Parameters
    ----------
    rows
        Integers of shape (n,).
    row_bytes, page_bytes
        Length of a row and of a page.
    marks
        bool of shape (n_pages,), set to True where a row's bytes lie.
    """
    for row in rows:
        if row >= 0:
            first = np.int64(row) * row_bytes
            for page in range(first // page_bytes, (first + row_bytes - 1) // page_bytes + 1):
                marks[page] = True
