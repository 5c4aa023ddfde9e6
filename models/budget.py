"""Alert budget: a threshold that keeps each day's alerts near a rate, whatever the scores.

The threshold is a quantile of the last ``RING`` scores (log-odds), sorted anew every ``BLOCK`` rows
counted from the stream's start. Which quantile follows the day's debt (alerts so far - rate x rows
so far), row by row::

    u = debt / slack          quantile = 1 - rate * exp(-u / (1 - u ** 2))

At u >= 1 nothing alerts, at u <= -1 everything does. The slack shrinks as the UTC day passes, so
that a burst of frauds may borrow from the rest of the day and the day still ends on budget::

    slack = max(slack_share * granted, slack_alerts) + loan_share * granted * (part of day left)

where ``granted`` is the rate times the rows of the day before, or of today once those are more.

Guarantee: at the last row of a day the debt is within +-(slack + 1) for any sequence of
scores, also where the scorer changed in mid-day. With the defaults a day of 80 granted alerts or
more, with traffic up to midnight, ends within 5 % (slack 3 %, or 3 alerts, and the one that
overshoots). No decision looks ahead or depends on how the stream was cut into batches.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError, StateError

RING = 4_096
BLOCK = 512
DAY_MS = 86_400_000
_SEEN, _NEWEST_MS, _ROWS, _ALERTS, _ROWS_BEFORE, _FILLED = range(6)
_N_COUNTERS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetPolicy:
    """How firmly a budget is kept.

    Parameters
    ----------
    rate
        Share of scored transactions to alert on, in (0, 1).
    slack_share
        Debt allowed, as a share of a day's alerts, in (0, 1).
    slack_alerts
        Debt allowed at least, in alerts, > 0: a small bank's few alerts go to the best scores
        and not to whichever row is next.
    loan_share
        Debt allowed in addition, as a share of the alerts that the rest of the day will be
        granted, in [0, 1).
    warm_up
        No alerts, and no budget spent, before this many scores were seen; in [1, ``RING``].

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    rate: float = 0.01
    slack_share: float = 0.03
    slack_alerts: float = 3.0
    loan_share: float = 0.5
    warm_up: int = 500

    def __post_init__(self) -> None:
        if not 0.0 < self.rate < 1.0:
            raise InvalidInputError(f"rate: expected a share in (0, 1), got {self.rate}")
        if not 0.0 < self.slack_share < 1.0:
            raise InvalidInputError(f"slack_share: expected (0, 1), got {self.slack_share}")
        if not 0.0 < self.slack_alerts < np.inf:
            raise InvalidInputError(f"slack_alerts: expected > 0, got {self.slack_alerts}")
        if not 0.0 <= self.loan_share < 1.0:
            raise InvalidInputError(f"loan_share: expected [0, 1), got {self.loan_share}")
        if not 1 <= self.warm_up <= RING:
            raise InvalidInputError(f"warm_up: expected 1 to {RING} scores, got {self.warm_up}")


@nb.njit(cache=True)
def _threshold(ordered, n, debt, slack, rate):  # type: ignore[no-untyped-def]  # compiled
    u = debt / slack
    if u >= 1.0:
        return np.inf
    if u <= -1.0:
        return -np.inf
    share = rate * np.exp(-u / (1.0 - u * u))
    if share >= 1.0:
        return -np.inf
    return ordered[min(int((1.0 - share) * n), n - 1)]


@nb.njit(cache=True)
def _turn(counters, now_ms):  # type: ignore[no-untyped-def]  # compiled
    """Move the clock on and open a new account at a new UTC day."""
    if now_ms // DAY_MS > counters[_NEWEST_MS] // DAY_MS:
        counters[_ROWS_BEFORE] = counters[_ROWS]
        counters[_ROWS], counters[_ALERTS] = 0, 0
    counters[_NEWEST_MS] = max(counters[_NEWEST_MS], now_ms)


@nb.njit(cache=True)
def _decide(score, event_time_ms, counters, ring, ordered, knobs, alert, threshold):  # type: ignore[no-untyped-def]  # compiled
    """Decide until the block of ``BLOCK`` rows is full; return how many rows were used."""
    rate, slack_share, slack_alerts, loan_share, warm_up = knobs
    for i in range(score.shape[0]):
        alert[i], threshold[i] = False, np.inf
        _turn(counters, event_time_ms[i])
        if np.isnan(score[i]):
            continue
        n = counters[_FILLED]
        if n >= warm_up:
            counters[_ROWS] += 1
            left = 1.0 - (counters[_NEWEST_MS] % DAY_MS) / DAY_MS
            per_day = rate * max(counters[_ROWS], counters[_ROWS_BEFORE])
            slack = max(slack_share * per_day, slack_alerts) + loan_share * per_day * left
            debt = counters[_ALERTS] - rate * counters[_ROWS]
            threshold[i] = _threshold(ordered, n, debt, slack, rate)
            if score[i] > threshold[i]:
                alert[i] = True
                counters[_ALERTS] += 1
        ring[counters[_SEEN] % RING] = score[i]
        counters[_SEEN] += 1
        if counters[_SEEN] % BLOCK == 0 or counters[_SEEN] == warm_up:
            return i + 1
    return score.shape[0]


class AlertBudget:
    """Chooses, in stream order, which scores become alerts; see the module's text.

    Parameters
    ----------
    policy
        Rate and firmness.
    """

    def __init__(self, policy: BudgetPolicy) -> None:
        self.policy = policy
        self._counters: NDArray[np.int64] = np.zeros(_N_COUNTERS, np.int64)
        self._counters[_NEWEST_MS] = -1
        self._ring: NDArray[np.float64] = np.zeros(RING)
        self._ordered: NDArray[np.float64] = np.zeros(RING)
        self._knobs = np.array(
            [
                policy.rate,
                policy.slack_share,
                policy.slack_alerts,
                policy.loan_share,
                policy.warm_up,
            ]
        )

    @property
    def debt(self) -> float:
        """Alerts of the running day above (positive) or below what the rate grants, in alerts."""
        return float(self._counters[_ALERTS] - self.policy.rate * self._counters[_ROWS])

    @property
    def is_warm(self) -> bool:
        """Whether enough scores were seen to alert."""
        return bool(self._counters[_FILLED] >= self.policy.warm_up)

    def choose(
        self, scores: NDArray[np.float64], event_time_ms: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Decide on rows in order; about 0.2 microseconds each.

        Parameters
        ----------
        scores
            float64 of shape (n,): log-odds; a NaN has no score yet, never alerts and costs
            nothing.
        event_time_ms
            int64 of shape (n,): gives the UTC day whose budget is spent; a row that is late by a
            day is put on the running one.

        Returns
        -------
        alert : ndarray of shape (n,), bool
        threshold : ndarray of shape (n,), float64
            What the score had to exceed; infinite where no score or every score would do.
        """
        if scores.shape != event_time_ms.shape or scores.ndim != 1:
            raise InvalidInputError(
                f"expected scores and times of one shape (n,), got {scores.shape} "
                f"and {event_time_ms.shape}"
            )
        alert = np.zeros(len(scores), np.bool_)
        threshold = np.empty(len(scores))
        start = 0
        while start < len(scores):
            rest = slice(start, None)
            start += _decide(
                scores[rest],
                event_time_ms[rest],
                self._counters,
                self._ring,
                self._ordered,
                self._knobs,
                alert[rest],
                threshold[rest],
            )
            if self._is_due:
                self._sort(min(int(self._counters[_SEEN]), RING))
        return alert, threshold

    @property
    def _is_due(self) -> bool:
        seen = int(self._counters[_SEEN])
        return seen > 0 and (seen % BLOCK == 0 or seen == self.policy.warm_up)

    def _sort(self, n: int) -> None:
        self._ordered[:n] = np.sort(self._ring[:n])
        self._counters[_FILLED] = n

    def rescore(self, scores: NDArray[np.float64]) -> None:
        """Replace what is remembered by the scores that a new scorer gives to recent rows.

        Parameters
        ----------
        scores
            float64 of shape (n,): in stream order, at most the newest ``RING`` are used; NaNs are
            left out. Fewer than ``warm_up`` are no base for a quantile and change nothing: then
            the debt alone corrects.
        """
        known = scores[~np.isnan(scores)][-RING:]
        n = len(known)
        if n < self.policy.warm_up:
            return
        self._ring[:n] = known
        self._counters[_SEEN] = n
        self._sort(n)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the whole state by name, as views."""
        return {"counters": self._counters, "ring": self._ring, "ordered": self._ordered}

    @classmethod
    def from_arrays(
        cls, policy: BudgetPolicy, arrays: Mapping[str, NDArray[np.generic]]
    ) -> "AlertBudget":
        """Return a budget that goes on where ``arrays`` were taken; they are copied.

        Raises
        ------
        StateError
            If an array is missing or has another type or shape.
        """
        budget = cls(policy)
        for name, mine in budget.arrays().items():
            theirs = arrays.get(name)
            if theirs is None or theirs.shape != mine.shape or theirs.dtype != mine.dtype:
                raise StateError(
                    f"alert budget {name!r}: expected {mine.dtype} of shape {mine.shape}, got "
                    f"{None if theirs is None else (str(theirs.dtype), theirs.shape)}"
                )
            np.copyto(mine, theirs)
        return budget
