"""Statistics whose largest array is copied bit by bit when a state is stored."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.families.scorecard import MAX_HELD, Statistics
from stream.page_file import PAGE_BYTES
from stream.touched import TouchedPages


class StoredStatistics(Statistics):
    """Statistics that say when A changes; a new A has changed.

    Attributes
    ----------
    pages
        Of A.
    """

    def __init__(self, n_weights: int, *, max_held: int = MAX_HELD) -> None:
        super().__init__(n_weights, max_held=max_held)
        self.pages = TouchedPages(1, PAGE_BYTES)
        self._changes()

    def _changes(self) -> None:
        self.pages.span(0, self._curvature.nbytes)

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Return what `arrays` gave, unchanged since."""
        loaded = super().load(arrays)
        loaded.pages.clear()
        return loaded
