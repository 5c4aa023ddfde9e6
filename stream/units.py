"""A bank whose amounts are in an unknown unit: the factor is found, made exact, and kept.

Until then amounts count as they are written and the bank scores alone. Once the consortium has a
basis and enough of the bank's own transactions are counted, `UnitAlignment.align` finds the factor
by rank and everything that was kept in the old unit is brought to the new one. A bank whose
customers spend a little more than others' is off by as much: whenever the transactions since have
grown by two fifths, its own outcomes under the consortium's scorer correct it, by 10 % at most. By
more it never moves: a factor that followed the stream would follow drift, and fraud.
"""

import logging
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from models.alignment import MIN_N, estimate_factor
from models.basis import Basis
from models.errors import InvalidInputError
from models.features.accounts import rescale_rows
from models.schema import ACCOUNT_FEATURES
from stream.account_table import AccountTable
from stream.row_log import RowLog

log = logging.getLogger(__name__)
_LOG_AMOUNT = ACCOUNT_FEATURES.index("log_amount")
_GROWN = 1.4
"""Times the transactions of the last estimate after which the factor is made more exact."""


class UnitAlignment:
    """What one unit of a bank's amounts is worth.

    Parameters
    ----------
    is_known
        Whether the mapping says so; then there is nothing to do.
    min_n
        Own transactions that must be counted first, > 0.

    Attributes
    ----------
    factor
        Units of the reference currency per unit of what the decoder gives; 1 until aligned.
    is_aligned
        Whether amounts times ``factor`` are in the reference currency.
    since_ms
        Watermark at which it was set, -1 where it was known all along or is not known yet.
    """

    def __init__(self, *, is_known: bool = True, min_n: int = MIN_N) -> None:
        self._min_n = min_n
        self.factor = 1.0
        self.is_aligned = is_known
        self.since_ms = -1
        self._tried_basis = 0
        self._tried_n = 0
        self._found_n = 0

    def in_reference(self, amount: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return amounts in the reference currency, or as they are until aligned."""
        return amount if self.factor == 1.0 else amount * self.factor

    def align(
        self,
        counts: NDArray[np.uint32],
        basis: Basis | None,
        now_ms: int,
        correction: Callable[[], float | None] = lambda: None,
    ) -> float | None:
        """Try to find the factor; it is set, or made more exact, when one is returned.

        Tried once for a basis, and again whenever the own transactions have doubled.

        Parameters
        ----------
        counts
            uint32 of shape (n_features, 2, N_CELLS): own histograms, in the unknown unit.
        basis
            The consortium's in force, None for none.
        now_ms
            Watermark.
        correction
            Gives what `models.alignment.correction_by_outcomes` says of the rows that are held.

        Returns
        -------
        float or None
            New units per unit until now, by which what is held is to be multiplied.
        """
        if basis is None or (self.is_aligned and not self._found_n):
            return None
        of_amount = counts[_LOG_AMOUNT]
        n = int(of_amount.sum())
        if self.is_aligned:
            return self._corrected(n, correction) if n >= _GROWN * self._found_n else None
        is_new = basis.number != self._tried_basis or n >= 2 * self._tried_n
        if n < self._min_n or not is_new:
            return None
        self._tried_basis, self._tried_n = basis.number, n
        try:
            found = estimate_factor(of_amount, *basis.fine_of(_LOG_AMOUNT), min_n=self._min_n)
        except InvalidInputError as error:
            log.warning("amounts stay in their unknown unit: %s", error)
            return None
        self.factor, self.is_aligned, self.since_ms = found.factor, True, now_ms
        self._found_n = found.n
        log.info(
            "amounts aligned by rank: factor %.5g, spread of its log %.3f, %d transactions",
            found.factor,
            found.spread,
            found.n,
        )
        return found.factor

    def _corrected(self, n: int, correction: Callable[[], float | None]) -> float | None:
        """Make the factor more exact by what the bank's own outcomes say."""
        self._found_n = n
        found = correction()
        if found is None:
            return None
        self.factor *= found
        log.info("amounts aligned by outcomes: times %.4g, %d transactions", found, n)
        return found

    def heard(
        self, of_consortium: NDArray[np.bool_], scores: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return scores, changed in place: without the consortium's while the unit is being found.

        Parameters
        ----------
        of_consortium
            bool of shape (n_experts,): experts whose features are in the reference currency.
        scores
            float64 of shape (n, n_experts).
        """
        if not self.is_aligned:
            scores[:, of_consortium] = np.nan
        return scores

    def is_shareable(self, arrival_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows may enter the consortium's statistics and histograms.

        Parameters
        ----------
        arrival_ms
            int64 of shape (n,): watermarks at which the rows were scored.
        """
        if not self.is_aligned:
            return np.zeros(len(arrival_ms), np.bool_)
        return arrival_ms >= self.since_ms

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        tried = [self._tried_basis, self._tried_n, self._found_n]
        return {
            "factor": np.array([self.factor]),
            "marks": np.array([self.is_aligned, self.since_ms, *tried], np.int64),
        }

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave; a rate that is now in the mapping wins."""
        if self.is_aligned:
            return
        self.factor = float(np.asarray(arrays["factor"], np.float64)[0])
        marks: list[int] = np.asarray(arrays["marks"], np.int64).tolist()
        is_aligned, self.since_ms, self._tried_basis, self._tried_n, self._found_n = marks
        self.is_aligned = bool(is_aligned)


def rescale_state(accounts: AccountTable, rows: RowLog, factor: float) -> None:
    """Bring what a worker keeps in its old unit of amounts to the new one, in place.

    Parameters
    ----------
    accounts, rows
        The worker's.
    factor
        New units per old unit.
    """
    accounts.rescale(factor)
    rows.change_features(lambda features: rescale_rows(features, factor))
