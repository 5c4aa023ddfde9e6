"""Which transactions are taken in: each once, and none that would move the stream's time astray."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.features.accounts import DAY_MS, HOUR_MS
from models.features.key_index import ABSENT
from stream.label_join import Rejected
from stream.row_log import RowLog


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """Bounds on event time.

    Parameters
    ----------
    lateness_ms
        How far an event may lie behind the newest one of its own source: sources that are read
        at another pace, as after an outage, are not late for it.
    ahead_ms
        How far it may lie after the wall clock of a live worker.
    jump_ms
        How far it may lie ahead of the watermark unless the wall clock vouches for it.
    """

    lateness_ms: int = DAY_MS
    ahead_ms: int = HOUR_MS
    jump_ms: int = 30 * DAY_MS


def admit(
    event_ms: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    log: RowLog,
    *,
    watermark_ms: int,
    newest_ms: int,
    clock_ms: int | None,
    policy: AdmissionPolicy,
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Rejected]]:
    """Return (rows taken, watermark at each, what was refused).

    Reasons: ``duplicate_transaction``, ``late_event``, ``future_event``. ``watermark_ms`` is the
    newest event time of all sources, ``newest_ms`` that of this one; -1 for none. ``hashes`` is as
    `stream.label_join.hash_ids` gives it.
    """
    held = log.find(hashes) != ABSENT
    ordered = np.sort(hashes)
    if not (held.any() or (ordered[1:] == ordered[:-1]).any()):
        highest = _if_none_is_refused(event_ms, watermark_ms, newest_ms, clock_ms, policy)
        if highest is not None:
            return np.arange(len(event_ms)), highest, []
    high = watermark_ms
    taken, arrival, rejected = [], [], []
    seen: set[int] = set()
    for row, (time_ms, one, is_held) in enumerate(
        zip(event_ms.tolist(), hashes.tolist(), held.tolist(), strict=True)
    ):
        reason = _refusal(time_ms, high, newest_ms, clock_ms, policy)
        if is_held or one in seen:
            reason = ("duplicate_transaction", "expected an id not seen before")
        if reason:
            rejected.append(Rejected(row, *reason))
            continue
        high, newest_ms = max(high, time_ms), max(newest_ms, time_ms)
        seen.add(one)
        taken.append(row)
        arrival.append(high)
    return np.array(taken, np.int64), np.array(arrival, np.int64), rejected


def _if_none_is_refused(
    event_ms: NDArray[np.int64],
    watermark_ms: int,
    newest_ms: int,
    clock_ms: int | None,
    policy: AdmissionPolicy,
) -> NDArray[np.int64] | None:
    """Return the watermark at each row if `_refusal` refuses none, by whole columns."""
    high = np.maximum.accumulate(np.concatenate([[watermark_ms], event_ms]))
    newest = np.maximum.accumulate(np.concatenate([[newest_ms], event_ms]))[:-1]
    is_late = (newest >= 0) & (event_ms < newest - policy.lateness_ms)
    is_far = event_ms > high[:-1] + policy.jump_ms
    is_ahead = np.zeros(len(event_ms), bool)
    if clock_ms is not None:
        is_far &= np.abs(clock_ms - event_ms) > DAY_MS
        is_ahead = event_ms > clock_ms + policy.ahead_ms
    refused = is_ahead | ((is_late | is_far) & (high[:-1] >= 0))
    return None if refused.any() else high[1:]


def _refusal(
    time_ms: int, high_ms: int, newest_ms: int, clock_ms: int | None, policy: AdmissionPolicy
) -> tuple[str, str] | None:
    if clock_ms is not None and time_ms > clock_ms + policy.ahead_ms:
        return "future_event", "expected an event time not after the clock"
    if high_ms < 0:
        return None
    if newest_ms >= 0 and time_ms < newest_ms - policy.lateness_ms:
        return "late_event", "expected an event time within the allowed lateness"
    vouched = clock_ms is not None and abs(clock_ms - time_ms) <= DAY_MS
    if time_ms > high_ms + policy.jump_ms and not vouched:
        return "future_event", "expected an event time near the stream's"
    return None


def segments(arrival_ms: NDArray[np.int64], tick_ms: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of a batch that lie within one tick.

    Parameters
    ----------
    arrival_ms
        int64 of shape (n,): ascending.
    tick_ms
        Length of a tick.
    """
    if len(arrival_ms):
        cuts = (np.flatnonzero(np.diff(arrival_ms // tick_ms)) + 1).tolist()
        yield from zip([0, *cuts], [*cuts, len(arrival_ms)], strict=True)
