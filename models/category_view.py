"""Rows in which a number stands for each cell of some columns: categories, values in a scale."""

from dataclasses import dataclass
from typing import Self

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.histograms import N_CELLS, cells_of


@dataclass(frozen=True, slots=True, eq=False)
class CategoryView:
    """What stands for each category of each categorical column, or for each value of another.

    Parameters
    ----------
    columns
        int64 of shape (k,): the categorical columns.
    logits
        float32 of shape (k, N_CELLS): how much more often than usual the category in a cell was
        fraud, in log-odds, by merged counts; 0 where that is not known.
    """

    columns: NDArray[np.int64]
    logits: NDArray[np.float32]

    @classmethod
    def of(
        cls, cells: NDArray[np.int16], logits: NDArray[np.float32], counts: NDArray[np.int32]
    ) -> Self:
        """Return the view of flat arrays, feature after feature, as a basis carries them."""
        columns = np.flatnonzero(counts)
        table = np.zeros((len(columns), N_CELLS), np.float32)
        table[np.repeat(np.arange(len(columns)), counts[columns]), cells] = logits
        return cls(columns, table)

    def apply(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return rows with numbers for categories; NaN stays. Without categories, the same rows."""
        if not len(self.columns):
            return rows
        seen = rows.copy()
        for k, column in enumerate(self.columns.tolist()):
            _replace(seen, cells_of(rows[:, column]), column, self.logits[k])
        return seen


@nb.njit(cache=True)
def _replace(rows, cells, column, logits):  # type: ignore[no-untyped-def]  # compiled
    for i in range(rows.shape[0]):
        if cells[i] >= 0:
            rows[i, column] = logits[cells[i]]
