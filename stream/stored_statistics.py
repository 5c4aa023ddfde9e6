"""Statistics whose largest array is copied bit by bit when a state is stored."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.families.scorecard import Statistics
from stream.page_file import PAGE_BYTES
from stream.touched import TouchedPages


class StoredStatistics(Statistics):
    """Statistics that say when their pairs change; new ones have changed.

    Attributes
    ----------
    pages
        Of the pairs.
    """

    def __init__(self, n_weights: int) -> None:
        super().__init__(n_weights, on_change=self._changes)
        self.pages = TouchedPages(1, PAGE_BYTES)
        self._changes()

    def _changes(self) -> None:
        self.pages.span(0, self._sum.pairs.nbytes)

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.generic]]) -> "StoredStatistics":
        """Return what `arrays` gave, unchanged since."""
        loaded = cls(0)
        loaded.load(arrays)
        loaded.pages.clear()
        return loaded
