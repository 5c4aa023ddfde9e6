"""How good scores and alerts were: ranking metrics, card precision, money, all as pure functions.

Scores may be probabilities or log-odds: only their order counts. A figure that does not exist yet
(no rows, no fraud, one class only) is None.

Labels come late, so a figure may only be taken of rows whose outcome is known: a back-test knows
all of them at its end; a running worker passes its matured rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrecisionRecall:
    """Points of a precision-recall curve, from the highest threshold to the lowest.

    Parameters
    ----------
    precision, recall
        float64 of shape (n_points,), in [0, 1]; recall ascends.
    threshold
        float64 of shape (n_points,): the lowest score that counts as fraud at the point.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    threshold: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodScore:
    """Average precision of one period; None where it held no fraud.

    Parameters
    ----------
    start_ms
        Start of the period, event time.
    n
        Transactions in it.
    n_frauds
        Frauds among them.
    average_precision
        In [0, 1].
    """

    start_ms: int
    n: int
    n_frauds: int
    average_precision: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """What the alerts of a period were worth, in major units of the reference currency.

    Parameters
    ----------
    saved
        Amount of the frauds alerted on less the cost of reviewing all alerts; may be negative.
    prevented
        Amount of the frauds alerted on, >= 0.
    missed
        Amount of the other frauds, >= 0.
    review
        Cost of reviewing all alerts, >= 0.
    """

    saved: float
    prevented: float
    missed: float
    review: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CardProtocol:
    """Card precision as the Fraud Detection Handbook takes it, fold after fold.

    Parameters
    ----------
    k
        Cards that analysts can check in a day, >= 1.
    delay_d
        Days until a fraud is reported, >= 0.
    known_d
        Days before ``delay_d`` whose reported frauds are known when a fold starts, >= 0 (the
        Handbook's training period).
    fold_d
        Days after which the protocol starts afresh, >= 1 (the Handbook's test period).
    """

    k: int = 100
    delay_d: int = 7
    known_d: int = 7
    fold_d: int = 7

    def __post_init__(self) -> None:
        if not (self.k >= 1 and self.fold_d >= 1 and self.delay_d >= 0 and self.known_d >= 0):
            raise InvalidInputError(
                "expected k and fold_d >= 1, delay_d and known_d >= 0, got "
                f"{self.k}, {self.fold_d}, {self.delay_d}, {self.known_d}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cumulative:
    """Sums over the rows from the highest score down to each distinct score."""

    hits: NDArray[np.float64]
    rows: NDArray[np.float64]
    score: NDArray[np.float64]


def _check(name: str, values: NDArray[np.generic], n: int) -> None:
    if values.shape != (n,):
        raise InvalidInputError(f"{name}: expected shape ({n},), got {values.shape}")


def _cumulate(
    is_fraud: NDArray[np.bool_],
    scores: NDArray[np.float64],
    weight: NDArray[np.float64] | None = None,
) -> _Cumulative:
    _check("scores", scores, len(is_fraud))
    if not bool(np.all(scores == scores)):  # noqa: PLR0124  # false for NaN alone
        raise InvalidInputError("scores: expected numbers, got NaN; leave unscored rows out")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    of_row = np.ones(len(order)) if weight is None else weight[order]
    last_of_tie = np.ones(len(order), np.bool_)
    last_of_tie[:-1] = ranked[1:] != ranked[:-1]
    hits = np.cumsum(np.where(is_fraud[order], of_row, 0.0))
    return _Cumulative(
        hits=hits[last_of_tie], rows=np.cumsum(of_row)[last_of_tie], score=ranked[last_of_tie]
    )


def average_precision(
    is_fraud: NDArray[np.bool_],
    scores: NDArray[np.float64],
    weight: NDArray[np.float64] | None = None,
) -> float | None:
    """Return the sum over distinct scores of precision times gain in recall.

    Parameters
    ----------
    is_fraud
        bool of shape (n,).
    scores
        float64 of shape (n,), higher is more suspicious; equal scores count as one threshold.
    weight
        float64 of shape (n,), > 0: of how many transactions the row speaks; None for one each.

    Returns
    -------
    float or None
        In (0, 1]; None without a fraud.
    """
    curve = _cumulate(is_fraud, scores, weight)
    if len(curve.hits) == 0 or not curve.hits[-1] > 0:
        return None
    gain = np.diff(curve.hits, prepend=0.0)
    return float(np.sum(gain * (curve.hits / curve.rows)) / curve.hits[-1])


def roc_auc(is_fraud: NDArray[np.bool_], scores: NDArray[np.float64]) -> float | None:
    """Return the share of (fraud, legitimate) pairs that are ranked right, ties counting half.

    Returns
    -------
    float or None
        In [0, 1]; None unless both classes are there.
    """
    curve = _cumulate(is_fraud, scores)
    if len(curve.hits) == 0:
        return None
    frauds = np.diff(curve.hits, prepend=0.0)
    legit = np.diff(curve.rows, prepend=0.0) - frauds
    pairs = curve.hits[-1] * (curve.rows[-1] - curve.hits[-1])
    if not pairs > 0:
        return None
    legit_below = legit.sum() - np.cumsum(legit)
    return float(np.sum(frauds * (legit_below + legit / 2)) / pairs)


def recall_at_alert_rate(
    is_fraud: NDArray[np.bool_], scores: NDArray[np.float64], alert_rate: float
) -> float | None:
    """Return the share of frauds among the ``alert_rate`` highest scores.

    Of the rows that tie at the boundary a share is alerted on, the frauds among them in proportion;
    so the figure does not depend on the order of the rows.

    Parameters
    ----------
    is_fraud, scores
        As for `average_precision`.
    alert_rate
        Share of transactions alerted on, in [0, 1]; n * alert_rate need not be whole.

    Returns
    -------
    float or None
        In [0, 1]; None without a fraud.
    """
    if not 0.0 <= alert_rate <= 1.0:
        raise InvalidInputError(f"alert_rate: expected a share in [0, 1], got {alert_rate}")
    curve = _cumulate(is_fraud, scores)
    if len(curve.hits) == 0 or not curve.hits[-1] > 0:
        return None
    rows, hits = np.concatenate([[0.0], curve.rows]), np.concatenate([[0.0], curve.hits])
    return float(np.interp(alert_rate * len(scores), rows, hits) / hits[-1])


def precision_recall_curve(
    is_fraud: NDArray[np.bool_], scores: NDArray[np.float64], n_points: int = 200
) -> PrecisionRecall | None:
    """Return at most ``n_points`` points, spread evenly over recall, first and last included.

    Each is a true point of the curve: thinned, never interpolated. None without a fraud.
    """
    if not n_points >= 2:
        raise InvalidInputError(f"n_points: expected at least 2, got {n_points}")
    curve = _cumulate(is_fraud, scores)
    if len(curve.hits) == 0 or not curve.hits[-1] > 0:
        return None
    recall = curve.hits / curve.hits[-1]
    wanted = np.linspace(recall[0], 1.0, n_points)
    kept = np.unique(np.minimum(np.searchsorted(recall, wanted), len(recall) - 1))
    return PrecisionRecall(
        precision=curve.hits[kept] / curve.rows[kept],
        recall=recall[kept],
        threshold=curve.score[kept],
    )


def ap_over_time(
    is_fraud: NDArray[np.bool_],
    scores: NDArray[np.float64],
    event_time_ms: NDArray[np.int64],
    *,
    period_d: int = 7,
    start_ms: int | None = None,
) -> list[PeriodScore]:
    """Return the average precision of each period of ``period_d`` days, in order.

    Parameters
    ----------
    is_fraud, scores, event_time_ms
        One per transaction.
    period_d
        Days per period, >= 1.
    start_ms
        Start of the first period, a row before it is left out; None for the UTC day of the
        first row. The last period may be cut short by the end of the data.
    """
    if not period_d >= 1:
        raise InvalidInputError(f"period_d: expected at least 1 day, got {period_d}")
    _check("scores", scores, len(is_fraud))
    _check("event_time_ms", event_time_ms, len(is_fraud))
    if len(is_fraud) == 0:
        return []
    first = int(event_time_ms.min()) // DAY_MS * DAY_MS if start_ms is None else start_ms
    period = (event_time_ms - first) // (period_d * DAY_MS)
    out = []
    for one in range(int(period.max()) + 1):
        rows = np.flatnonzero(period == one)
        out.append(
            PeriodScore(
                start_ms=first + one * period_d * DAY_MS,
                n=len(rows),
                n_frauds=int(np.count_nonzero(is_fraud[rows])),
                average_precision=average_precision(is_fraud[rows], scores[rows]),
            )
        )
    return out


def card_precision_at_k(
    is_fraud: NDArray[np.bool_],
    scores: NDArray[np.float64],
    event_time_ms: NDArray[np.int64],
    account: NDArray[np.int64],
    *,
    start_ms: int,
    protocol: CardProtocol = CardProtocol(),
) -> float | None:
    """Return the mean over days of the share of compromised cards among the k most suspicious.

    A UTC day's cards are ranked by the highest score of their payments of that day; a card is a hit
    if one of these payments is fraud; precision is hits / k, also where fewer than k cards pay.
    Left out on a day d of the fold that starts on day s are the cards with

    - a fraud paid on one of the days s - delay_d - known_d ... d - delay_d - 1, whose label was
      there by day d, or
    - a hit on an earlier day of the fold: an analyst found it.

    So each fold is the Handbook's test period: training days known, then the delay, then its days.

    Parameters
    ----------
    is_fraud, scores, event_time_ms
        One per transaction; rows before ``start_ms`` only tell which cards are known (their
        scores may be anything, also NaN).
    account
        int64 of shape (n,): card, as any number.
    start_ms
        First instant evaluated; folds count from its UTC day.
    protocol
        k, delay and folds.

    Returns
    -------
    float or None
        In [0, 1]; None without a row at or after ``start_ms``.

    References
    ----------
    .. [1] Le Borgne, Siblini, Lebichot & Bontempi (2022), Reproducible Machine Learning for Credit
       Card Fraud Detection - Practical Handbook, "Precision top-k metrics".
    """
    n = len(is_fraud)
    for name, values in (("scores", scores), ("time", event_time_ms), ("account", account)):
        _check(name, values, n)
    day = event_time_ms // DAY_MS
    cards, card = np.unique(account, return_inverse=True)
    tested = np.flatnonzero(event_time_ms >= start_ms)
    frauds = np.flatnonzero(is_fraud)
    precisions: list[float] = []
    gone, fold = np.zeros(len(cards), np.bool_), -1
    for today in np.unique(day[tested]).tolist():
        start_of_fold = today - (today - start_ms // DAY_MS) % protocol.fold_d
        if start_of_fold != fold:
            fold = start_of_fold
            gone[:] = False
        since = fold - protocol.delay_d - protocol.known_d
        reported = frauds[(day[frauds] >= since) & (day[frauds] < today - protocol.delay_d)]
        gone[card[reported]] = True
        rows = tested[day[tested] == today]
        rows = rows[~gone[card[rows]]]
        hits = _hits(card[rows], scores[rows], is_fraud[rows], protocol.k)
        gone[hits] = True
        precisions.append(len(hits) / protocol.k)
    return float(np.mean(precisions)) if precisions else None


def _hits(
    card: NDArray[np.int64], scores: NDArray[np.float64], is_fraud: NDArray[np.bool_], k: int
) -> NDArray[np.int64]:
    """Return the compromised among the k cards of highest score; ties go to the lower card."""
    if len(card) == 0:
        return card
    order = np.lexsort((-scores, card))
    first = np.flatnonzero(np.diff(card[order], prepend=-1))
    paying = card[order][first]
    compromised = np.logical_or.reduceat(is_fraud[order], first)
    top = np.argsort(-scores[order][first], kind="stable")[:k]
    return paying[top][compromised[top]]


def money_saved(
    amount: NDArray[np.float64],
    is_fraud: NDArray[np.bool_],
    alert: NDArray[np.bool_],
    review_cost: float,
) -> Money:
    """Return what alerts saved: the frauds alerted on less ``review_cost`` for each alert.

    Parameters
    ----------
    amount
        float64 of shape (n,), >= 0, reference currency; taken as lost wholly if not alerted on.
    is_fraud, alert
        bool of shape (n,).
    review_cost
        Of one alert, reference currency, >= 0.
    """
    _check("is_fraud", is_fraud, len(amount))
    _check("alert", alert, len(amount))
    if not 0.0 <= review_cost < np.inf:
        raise InvalidInputError(f"review_cost: expected >= 0, got {review_cost}")
    prevented = float(np.sum(amount, where=is_fraud & alert))
    review = float(np.count_nonzero(alert) * review_cost)
    return Money(
        saved=prevented - review,
        prevented=prevented,
        missed=float(np.sum(amount, where=is_fraud & ~alert)),
        review=review,
    )
