"""Pages of a table's bytes: which of them some rows lie in, and copies of those still owed."""

import numba as nb
import numpy as np

_WORD = 8  # bytes


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


@nb.njit(cache=True)
def _copy(page, page_bytes, source, place, out):  # type: ignore[no-untyped-def]  # compiled
    """Copy a page if it is owed, in words: byte by byte, or as a slice, it takes four times that.

    A page begins on a word's boundary in either array.
    """
    if place[page] >= 0:
        start = page * page_bytes
        n = min(start + page_bytes, len(source)) - start
        to = place[page] * page_bytes
        whole = n // _WORD * _WORD
        words = source[start : start + whole].view(np.uint64)
        copied = out[to : to + whole].view(np.uint64)
        for i in range(len(words)):
            copied[i] = words[i]
        for i in range(whole, n):
            out[to + i] = source[start + i]
        place[page] = -1


@nb.njit(cache=True)
def copy_pages(first, last, page_bytes, source, place, out):  # type: ignore[no-untyped-def]  # compiled
    """Copy those of the pages ``first`` up to, not including, ``last`` that are owed.

    Parameters
    ----------
    first, last
        Pages; what lies behind the last page of ``place`` is passed over.
    page_bytes
        Length of a page; the last of ``source`` may be shorter.
    source
        uint8 of shape (n_bytes,).
    place
        int64 of shape (n_pages,): which page of ``out`` each goes to, -1 where none is owed; set to
        -1 where one was copied.
    out
        uint8: pages one after the other, written.
    """
    for page in range(first, min(last, len(place))):
        _copy(page, page_bytes, source, place, out)


@nb.njit(cache=True)
def copy_pages_of(rows, row_bytes, page_bytes, source, place, out):  # type: ignore[no-untyped-def]  # compiled
    """Copy the owed pages of rows; see `mark_pages` and `copy_pages`."""
    for row in rows:
        if row >= 0:
            first = np.int64(row) * row_bytes
            last = (first + row_bytes - 1) // page_bytes + 1
            for page in range(first // page_bytes, min(last, len(place))):
                _copy(page, page_bytes, source, place, out)
