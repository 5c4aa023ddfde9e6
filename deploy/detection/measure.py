"""From scores of rows to what an outcome holds: average precision, weeks, curves, per bank."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.bank_rows import BankRows
from deploy.detection.outcome import BankOutcome
from deploy.detection.plans import RowSource
from models.errors import InvalidInputError
from models.evaluation import ap_over_time, average_precision, precision_recall_curve
from stream.experts import LearningPolicy

DAY_MS = 86_400_000
SETTLED_D = 21
"""Days after which a bank that joined cold is compared with itself warm."""
Systems = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Window:
    """Days since 1970 that are evaluated, both included."""

    first_day: int
    last_day: int

    @property
    def days(self) -> range:
        """All of them."""
        return range(self.first_day, self.last_day + 1)

    @property
    def weeks(self) -> list[int]:
        """First day of each week, the last of which may be cut short."""
        return list(self.days[::7])


def window_of(source: RowSource, event_ms: NDArray[np.int64]) -> Window:
    """Return the days of a source that are evaluated; by default the last third.

    Raises
    ------
    InvalidInputError
        If no row lies within.
    """
    day = event_ms // DAY_MS
    first, last = int(day.min()), int(day.max())
    third = last + 1 - max((last + 1 - first) // 3, 1)
    window = Window(
        third if source.first_day is None else source.first_day,
        last if source.last_day is None else source.last_day,
    )
    if not bool(np.any(is_within(window, event_ms))):
        dates = [
            np.datetime64(int(d), "D") for d in (window.first_day, window.last_day, first, last)
        ]
        raise InvalidInputError(
            f"expected rows to evaluate from {dates[0]} to {dates[1]}; "
            f"the file goes from {dates[2]} to {dates[3]}"
        )
    return window


def is_within(window: Window, event_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows are evaluated."""
    day = event_ms // DAY_MS
    within: NDArray[np.bool_] = (day >= window.first_day) & (day <= window.last_day)
    return within


def bank_outcomes(
    data: BankRows,
    window: Window,
    systems: Systems,
    *,
    is_scored: NDArray[np.bool_],
    reasons: Mapping[str, Counter[str]] | None = None,
) -> list[BankOutcome]:
    """Return each bank's figures over the evaluated rows that were scored.

    Parameters
    ----------
    data, window
        What is evaluated.
    systems
        Name -> float64 of shape (n,): log-odds, NaN where it gave none, which counts as the prior.
        A system without any number at a bank is left out there.
    is_scored
        bool of shape (n,).
    reasons
        Bank -> transforms that were reasons.
    """
    evaluated = is_within(window, data.batch.event_time_ms) & is_scored
    return [
        _bank(data, window, systems, np.flatnonzero(evaluated & (data.bank == i)), i, reasons or {})
        for i in range(len(data.names))
    ]


def _bank(
    data: BankRows,
    window: Window,
    systems: Systems,
    rows: NDArray[np.int64],
    bank: int,
    reasons: Mapping[str, Counter[str]],
) -> BankOutcome:
    is_fraud, event_ms = data.is_fraud[rows], data.batch.event_time_ms[rows]
    name = data.names[bank]
    ap: dict[str, float] = {}
    weekly: dict[str, list[float | None]] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for system, of_file in systems.items():
        given = of_file[rows]
        scores = or_prior(given)
        found = average_precision(is_fraud, scores)
        if found is None or np.isnan(given).all():
            continue
        ap[system] = found
        weekly[system] = _weekly(is_fraud, scores, event_ms, window)
        curves[system] = _curve(is_fraud, scores)
    return BankOutcome(
        name=name,
        n=len(rows),
        n_frauds=int(np.count_nonzero(is_fraud)),
        ap=ap,
        ap_by_week=weekly,
        curve=curves,
        reasons=reasons.get(name, Counter()).most_common(),
    )


def or_prior(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores, the prior where there is none."""
    return np.where(np.isnan(scores), LearningPolicy().prior_logit, scores)


def _weekly(
    is_fraud: NDArray[np.bool_],
    scores: NDArray[np.float64],
    event_ms: NDArray[np.int64],
    window: Window,
) -> list[float | None]:
    periods = ap_over_time(is_fraud, scores, event_ms, start_ms=window.first_day * DAY_MS)
    found = [period.average_precision for period in periods]
    return found + [None] * (len(window.weeks) - len(found))


def _curve(is_fraud: NDArray[np.bool_], scores: NDArray[np.float64]) -> list[tuple[float, float]]:
    curve = precision_recall_curve(is_fraud, scores)
    if curve is None:
        return []
    return list(zip(curve.recall.tolist(), curve.precision.tolist(), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdJoin:
    """A bank that joined cold beside the same bank warm.

    Parameters
    ----------
    by_week
        (days since joining, average precision cold, warm).
    settled
        (cold, warm) over all rows from day `SETTLED_D` on; None without a fraud there.
    """

    by_week: list[tuple[float, float | None, float | None]]
    settled: tuple[float, float] | None


def cold_join(
    is_fraud: NDArray[np.bool_],
    age_d: NDArray[np.int64],
    cold: NDArray[np.float64],
    warm: NDArray[np.float64],
) -> ColdJoin:
    """Compare the scores of the same rows.

    Parameters
    ----------
    is_fraud
        bool of shape (n,).
    age_d
        int64 of shape (n,): whole days since the bank joined, >= 0.
    cold, warm
        float64 of shape (n,): log-odds, NaN for the prior.
    """
    scores = or_prior(cold), or_prior(warm)
    weeks = np.unique(age_d // 7).tolist()
    by_week = []
    for week in weeks:
        rows = age_d // 7 == week
        first, second = (average_precision(is_fraud[rows], each[rows]) for each in scores)
        by_week.append((7.0 * week, first, second))
    late = age_d >= SETTLED_D
    first, second = (average_precision(is_fraud[late], each[late]) for each in scores)
    settled = None if first is None or second is None else (first, second)
    return ColdJoin(by_week=by_week, settled=settled)
