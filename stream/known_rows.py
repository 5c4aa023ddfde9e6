"""The logged rows whose outcome is known, as each of the experts sees them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.matured import Matured
from stream.row_log import LoggedRows, RetainedRows, RowLog
from stream.scales import AttributeScales
from stream.units import UnitAlignment


class KnownRows:
    """Which rows of a log are known at an instant, and what is made of them.

    Parameters
    ----------
    log, units, scales
        The worker's.
    experts
        Names of the columns of scores.
    """

    def __init__(
        self, log: RowLog, units: UnitAlignment, scales: AttributeScales, experts: Sequence[str]
    ) -> None:
        self._log, self._units, self._scales = log, units, scales
        self._student = experts.index("student") if "student" in experts else None

    def index(self, tick_ms: int) -> NDArray[np.int64]:
        """Return the rows that are matured by a tick."""
        known_ms = self._log.known_ms
        return np.flatnonzero((known_ms >= 0) & (known_ms <= tick_ms))

    def index_for_all(self, tick_ms: int) -> NDArray[np.int64]:
        """Return those of them that the consortium may learn from."""
        index = self.index(tick_ms)
        return index[self.shareable(index)]

    def shareable(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of rows in the consortium's unit; all while the unit is being found."""
        if not self._units.is_aligned:  # counted, to find the factor; nothing of it is published
            return np.arange(len(index))
        return np.flatnonzero(self._units.is_shareable(self._log.at(index).arrival_ms))

    def as_shared(self, rows: LoggedRows) -> Matured:
        """Return rows as the consortium's experts, and the bank's families, see them.

        The consortium's scorer is the merged scorecard, and the student where that gave no score.
        """
        matured = rows.matured()
        base = matured.base_logits
        if self._student is not None and base is not None and bool(np.isnan(base).any()):
            student = rows.scores[:, self._student].astype(np.float64)
            base = np.where(np.isnan(base), student, base)
        features = self._scales.in_consortium(matured.features)
        return replace(matured, features=features, base_logits=base)

    def own(self, tick_ms: int) -> RetainedRows:
        """Return the rows that are matured by a tick as the bank's own scorecard sees them."""
        return RetainedRows(self._log, self.index(tick_ms), LoggedRows.matured_as_own)

    def for_all(self, tick_ms: int) -> RetainedRows:
        """Return the rows that are matured by a tick and that the consortium may learn from."""
        return RetainedRows(self._log, self.index_for_all(tick_ms), self.as_shared)
