"""One day's outcomes of entities that are not published yet, counted as they come."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.entity_risk import EvidenceCells, added, empty_cells
from models.named_arrays import under

_COUNTED_AT = 16_384
"""Outcomes that are counted together, in a few milliseconds."""


class Outcomes(NamedTuple):
    """Outcomes one by one: whose, when they became known, of when, and what."""

    row: NDArray[np.int64]
    known_ms: NDArray[np.int64]
    event_ms: NDArray[np.int64]
    is_fraud: NDArray[np.bool_]


Count = Callable[[Outcomes], EvidenceCells]


class NewCells:
    """The newest outcomes one by one, and sorted cells of those before them, in few runs.

    A run is at least twice as long as the next, so that each outcome is gone over a few times and
    none waits to be counted at the instant at which a summary is made. In which order they are
    added makes no difference: counts are whole numbers.

    Parameters
    ----------
    count
        Returns the cells of outcomes.
    """

    def __init__(self, count: Count) -> None:
        self._count = count
        self._newest: list[Outcomes] = []
        self._n_newest = 0
        self._runs: list[EvidenceCells] = []

    def add(self, outcomes: Outcomes) -> None:
        """Add outcomes of the day."""
        self._newest.append(outcomes)
        self._n_newest += len(outcomes.row)
        if self._n_newest >= _COUNTED_AT:
            self._count_newest()
            while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
                self._join_last()

    def all(self) -> EvidenceCells:
        """Return the cells of all."""
        if self._newest:
            self._count_newest()
        while len(self._runs) > 1:
            self._join_last()
        return self._runs[0] if self._runs else empty_cells()

    def _count_newest(self) -> None:
        self._runs.append(self._count(self._joined()))
        self._newest.clear()
        self._n_newest = 0

    def _joined(self) -> Outcomes:
        return Outcomes(*(np.concatenate(column) for column in zip(*self._newest, strict=True)))

    def _join_last(self) -> None:
        one, two = self._runs[-2:]
        self._runs[-2:] = [added(one, two)]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        out: dict[str, NDArray[np.generic]] = {}
        if self._newest:
            out |= {f"newest/{field}": a for field, a in self._joined()._asdict().items()}
        for i, cells in enumerate(self._runs):
            out |= {f"run{i}/{field}": array for field, array in cells.arrays().items()}
        return out

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        newest = under("newest/", arrays)
        self._newest = [Outcomes(**newest)] if newest else []  # type: ignore[arg-type]  # dtypes are as they were stored
        self._n_newest = sum(len(outcomes.row) for outcomes in self._newest)
        self._runs = []
        while held := under(f"run{len(self._runs)}/", arrays):
            self._runs.append(EvidenceCells(**held))  # type: ignore[arg-type]  # as above
