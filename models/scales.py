"""Reading an attribute of unknown scale in the consortium's scale, by rank.

Two banks that mean the same by an attribute may write it differently: points of 0 to 999 or a
share of 1, a distance or its logarithm. Where their payments are of the same sort, a value of one
is worth the value of the other that stands at the same rank, whatever function lies between them,
if only it rises. Values are taken by cells of the histograms' grid.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.histograms import cell_of_bits


def scale_table(
    counts: NDArray[np.integer], cuts: NDArray[np.float32], ranks: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what a value in each cell of the grid is worth in the consortium's scale.

    Parameters
    ----------
    counts
        Integers of shape (N_CELLS,): the bank's histogram, in its own scale; not all 0.
    cuts, ranks
        float32, ascending, one cut at least: the consortium's, see `models.basis.Basis.cuts_of`.

    Returns
    -------
    ndarray of shape (N_CELLS,), float32
        Never falling.

    Raises
    ------
    InvalidInputError
        If nothing is counted, or there is no cut.

    Notes
    -----
    The middle of a cell's ranks says between which cuts its values lie, and where between them; so
    a value that many payments share stays on its side of a cut though its share differs a little.
    One that makes up most of what lies between two cuts is worth the lower cut, where a value that
    repeats stands at the others. Beyond the first and the last cut the steps next to them go on.
    """
    n = int(counts.sum())
    if n <= 0 or not len(cuts):
        raise InvalidInputError(f"scale: expected counts and cuts, got {n} and {len(cuts)}")
    share = counts / n
    middle = np.cumsum(share) - share / 2
    edges = cuts.astype(np.float64)
    steps = np.diff(edges) if len(edges) > 1 else np.array([max(abs(float(edges[0])), 1.0)])
    ends = np.concatenate([[edges[0] - steps[0]], edges, [edges[-1] + steps[-1]]])
    shares = np.concatenate([[0.0], ranks.astype(np.float64), [1.0]])
    place = np.searchsorted(ranks.astype(np.float64), middle, side="right")
    width = np.diff(shares)[place]
    within = np.where(width > 0.0, (middle - shares[place]) / np.maximum(width, 1e-12), 0.0)
    within[share > width / 2] = 0.0
    values = (ends[place] + np.clip(within, 0.0, 1.0) * np.diff(ends)[place]).astype(np.float32)
    below = np.nextafter(cuts, np.float32(-np.inf))[np.minimum(place, len(cuts) - 1)]
    table = np.where(place < len(cuts), np.minimum(values, below), values)
    rising: NDArray[np.float32] = np.minimum.accumulate(table[::-1])[::-1]
    return rising


def count_values(
    rows: NDArray[np.float32], columns: NDArray[np.int64], counts: NDArray[np.uint32]
) -> None:
    """Add the cells of some columns to counts, in place; NaN is absent and not counted.

    Parameters
    ----------
    rows
        float32 of shape (n, n_features), C-contiguous.
    columns
        int64 of shape (k,).
    counts
        uint32 of shape (k, N_CELLS).
    """
    _count(rows.view(np.uint32), np.isnan(rows[:, columns]), columns, counts)


@nb.njit(cache=True)
def _count(bits, missing, columns, counts):  # type: ignore[no-untyped-def]  # compiled
    for i in range(bits.shape[0]):
        for k in range(columns.shape[0]):
            if not missing[i, k]:
                counts[k, cell_of_bits(bits[i, columns[k]])] += np.uint32(1)
