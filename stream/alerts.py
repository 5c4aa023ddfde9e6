"""From chosen transactions to alerts: ids that repeat when processing repeats, cases, reasons."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.features.accounts import DAY_MS
from models.records import Alert, Reason, TransactionBatch

_MONDAY = 3
"""1970-01-01 was a Thursday: days since 1970 plus 3 divide by 7 at the turn to Monday, UTC."""


def _digest(kind: str, *parts: str) -> str:
    """Return 32 hexadecimal digits; lengths go in, so that no two lists of parts read the same."""
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]


def alert_id_of(member: str, transaction_id: str) -> str:
    """Return the id of the alert on a transaction; the same whenever it is processed."""
    return _digest("alert", member, transaction_id)


def case_id_of(member: str, account_id: str, event_time_ms: int) -> str:
    """Return the id of the case that gathers an account's alerts of one UTC week, Monday to Sunday.

    Weeks are the calendar's, so that a case needs no memory and repeats with its alerts; a run of
    frauds over a Sunday night makes two cases.
    """
    week = (event_time_ms // DAY_MS + _MONDAY) // 7
    return _digest("case", member, account_id, str(week))


def probability(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + e^-logit), without overflow, also for infinite log-odds."""
    tail = np.exp(-np.abs(logit))
    return np.where(logit >= 0, 1.0, tail) / (1.0 + tail)


def make_alerts(
    member: str,
    batch: TransactionBatch,
    *,
    logit: NDArray[np.float64],
    threshold: NDArray[np.float64],
    reasons: Sequence[list[Reason]],
    release: str,
) -> list[Alert]:
    """Return one alert per transaction of ``batch``, in order.

    Parameters
    ----------
    member
        The bank; enters the ids.
    batch
        The transactions chosen, and only those.
    logit, threshold
        float64 of shape (n,): log-odds given, and what they had to exceed; reported as
        probabilities.
    reasons
        One list per transaction.
    release
        Version that scored them.
    """
    _require_one_each(len(batch), logit, threshold, reasons)
    columns = zip(
        batch.transaction_id,
        batch.account_id,
        batch.event_time_ms.tolist(),
        batch.amount_minor.tolist(),
        batch.currency,
        probability(logit).tolist(),
        probability(threshold).tolist(),
        reasons,
        strict=True,
    )
    return [
        Alert(
            alert_id=alert_id_of(member, transaction_id),
            case_id=case_id_of(member, account_id, event_time_ms),
            transaction_id=transaction_id,
            account_id=account_id,
            event_time_ms=event_time_ms,
            amount_minor=amount_minor,
            currency=currency,
            y_score=y_score,
            threshold=least,
            release=release,
            reasons=why,
        )
        for (
            transaction_id,
            account_id,
            event_time_ms,
            amount_minor,
            currency,
            y_score,
            least,
            why,
        ) in columns
    ]


def _require_one_each(
    n: int,
    logit: NDArray[np.float64],
    threshold: NDArray[np.float64],
    reasons: Sequence[list[Reason]],
) -> None:
    if not logit.shape == threshold.shape == (n,) or len(reasons) != n:
        raise InvalidInputError(
            f"expected {n} scores, thresholds and reasons, got {logit.shape}, {threshold.shape}, "
            f"{len(reasons)}"
        )
