"""Values -> bins for compiled functions, a block of rows at a time.

Each edge is held against a value of all rows of the block at once, which a processor does in a few
instructions; and of each feature only against as many edges as it has.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Rows of a block: as many as make the most of the processor's registers."""


def rows_of_edges(edges: NDArray[np.float32], counts: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return one row of edges per feature, filled up with NaN to one width."""
    width = max(int(counts.max(initial=0)), 1)
    table = np.full((len(counts), width), np.nan, np.float32)
    table[np.arange(width) < counts[:, None]] = edges
    return table


@nb.njit(cache=True)
def turn(rows, start, values):  # type: ignore[no-untyped-def]  # compiled
    """Put a block of rows into columns; return how many there are.

    Parameters
    ----------
    rows
        float32 of shape (n, n_features).
    start
        First row of the block.
    values
        float32 of shape (n_features, BLOCK), filled; what lies beyond the last row stays as it is.
    """
    n = min(BLOCK, rows.shape[0] - start)
    for i in range(n):
        for j in range(rows.shape[1]):
            values[j, i] = rows[start + i, j]
    return n


@nb.njit(cache=True)
def bins_of(values, edges, n_edges, found):  # type: ignore[no-untyped-def]  # compiled
    """Count the edges that are not above each value, -1 where it is absent.

    Parameters
    ----------
    values
        float32 of shape (BLOCK,).
    edges, n_edges
        Ascending; the first so many count.
    found
        int32 of shape (BLOCK,), filled.
    """
    for i in range(BLOCK):
        found[i] = 0
    for k in range(n_edges):
        edge = edges[k]
        for i in range(BLOCK):
            found[i] += np.int32(edge <= values[i])
    for i in range(BLOCK):
        if np.isnan(values[i]):
            found[i] = -1
