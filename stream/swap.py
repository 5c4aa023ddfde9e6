"""What a release changes of a worker, found out in a thread while decisions are made."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.evidence_changes import Changes
from models.matured import Matured
from models.release import Release, Source
from stream.entity_table import EntityTable
from stream.experts import SharedExpert
from stream.row_log import FRAUD, LoggedRows, RetainedRows, RowLog

_BLOCK = 1_000
"""Rows for which the thread keeps Python's lock, a few milliseconds.

Kernels that decisions call do not let go of it: they would wait to get it back at each call.
"""


class FixedRows(RetainedRows):
    """Matured rows of a log as they are at an instant; what becomes of them later is not seen.

    Parameters
    ----------
    log
        May be appended to and settled meanwhile.
    index
        int64 of shape (n,): which rows.
    view
        How they are seen; safe in another thread.
    """

    def __init__(
        self, log: RowLog, index: NDArray[np.int64], view: Callable[[LoggedRows], Matured]
    ) -> None:
        super().__init__(log, index, view)
        self._version, self._rows = log.version, log.at(index)  # at their places, come what may
        self._known_ms, self._is_fraud = self._rows.known_ms, self._rows.outcome == FRAUD

    def blocks(self, n: int = _BLOCK) -> Iterator[Matured]:
        """Yield the rows in order, at most ``n`` at a time."""
        return super().blocks(n)

    def block(self, rows: slice) -> Matured:
        """Return some of the rows."""
        seen = self._view(self._rows.part(rows))
        return replace(seen, known_ms=self._known_ms[rows], is_fraud=self._is_fraud[rows])

    def newer(self, known: NDArray[np.int64]) -> Matured | None:
        """Return those of the rows known now that are not in here, or got another outcome since.

        In the order in which they became known. None where rows were dropped or changed, so that
        what was seen may have been anything.
        """
        log = self._log
        if log.version != self._version:
            return None
        is_here = np.zeros(log.size, np.bool_)
        is_here[self._index] = self._rows.known_ms == self._known_ms
        index = known[~is_here[known]]
        return self._view(log.at(index[np.lexsort((index, log.at(index).known_ms))]))


class Swap:
    """A release made ready.

    Parameters
    ----------
    release
        To be installed.
    entities, own
        Of the worker, and what the release says of it, None for nothing.
    encoding
        An expert like the worker's, and the rows that it is to encode for the release's basis; None
        where that is the worker's already.
    """

    def __init__(
        self,
        release: Release,
        entities: EntityTable,
        own: Source | None,
        encoding: tuple[SharedExpert, FixedRows] | None,
    ) -> None:
        self._release, self._entities, self._own = release, entities, own
        self._encoding = encoding
        self.days: Changes = {}

    def encoded(
        self, known: Callable[[], NDArray[np.int64]]
    ) -> tuple[SharedExpert, Matured] | None:
        """Return the expert and the outcomes that came since; None where it serves no more.

        ``known`` gives the rows that the consortium may learn from now; seldom asked.
        """
        if self._encoding is None:
            return None
        expert, rows = self._encoding
        newer = rows.newer(known())
        return None if newer is None else (expert, newer)

    def find_out(self) -> None:
        """Do the slow part; safe in another thread."""
        release, own = self._release, self._own
        self.days = self._entities.changes_of(
            release.evidence,
            seq=own.seq if own else -1,
            max_frauds=own.max_frauds if own else 0,
        )
        if self._encoding is not None:
            expert, rows = self._encoding
            collecting = release.next_basis or release.basis
            expert.install(release.basis, release.weights, collecting, rows)
