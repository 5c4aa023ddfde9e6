"""What is known of each paying account: array state, and the compiled kernel on it.

Windows are rings of buckets: 32 days and 32 hours. A window of W buckets back from `now` takes the
running bucket, the W - 1 before it whole, and of the one before those the share that still lies in
the window; so an account costs 840 bytes however often it pays. A payment that comes late is told
of whole windows up to a day (7 hours for the window of 24 hours) behind its account's newest.
"""

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.features.prefetch import expect, lines_of
from models.schema import ACCOUNT_FEATURES

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
RING = 32
_SLOT = RING - 1  # a bucket's slot is its number modulo RING, which is a power of two
N_FEATURES = len(ACCOUNT_FEATURES)
NEVER = -1
SMALL_CHANGE = 5.0
"""Reference-currency units added to amounts in ratios, so that cents do not make large ones."""
SPIKE_RATIO = 2.5
EPISODE_GAP_MS = 20 * DAY_MS

ACCOUNT = np.dtype(
    [
        ("day_n", "f4", RING),
        ("day_sum", "f4", RING),
        ("day_squares", "f4", RING),
        ("day_frauds", "f4", RING),
        ("hour_n", "f4", RING),
        ("hour_sum", "f4", RING),
        ("day", "i4"),
        ("fraud_day", "i4"),
        ("hour", "i4"),
        ("n", "f4"),
        ("robust_mean", "f4"),
        ("spikes_3d", "f4"),
        ("spikes_10d", "f4"),
        ("spare", "f4"),
        ("last_ms", "i8"),
        ("last_spike_ms", "i8"),
        ("last_fraud_ms", "i8"),
        ("first_fraud_ms", "i8"),
    ]
)
_LINES = lines_of(ACCOUNT)


def new_accounts(n: int) -> NDArray[np.void]:
    """Return the state of ``n`` accounts of which nothing is known."""
    state = np.zeros(n, ACCOUNT)
    for name in ("last_ms", "last_spike_ms", "last_fraud_ms", "first_fraud_ms"):
        state[name] = NEVER
    return state


def rescale(accounts: NDArray[np.void], factor: float) -> None:
    """Bring what is linear or square in amounts to another unit, in place.

    The state becomes that of amounts which had come in the new unit, but for rounding and for what
    ``SMALL_CHANGE`` did: spikes that were counted stay counted, and ``robust_mean`` was bounded
    with it.

    Parameters
    ----------
    accounts
        State, structured array of shape (n_accounts,), changed in place.
    factor
        New units per old unit, in (0, inf).
    """
    if not 0.0 < factor < math.inf:
        raise InvalidInputError(f"factor: expected a number in (0, inf), got {factor}")
    for name in ("day_sum", "hour_sum", "robust_mean"):
        accounts[name] = accounts[name].astype(np.float64) * factor
    accounts["day_squares"] = accounts["day_squares"].astype(np.float64) * factor**2


def rescale_rows(rows: NDArray[np.float32], factor: float) -> None:
    """Bring rows of features that `observe` wrote to another unit of amounts, in place.

    What amounts stand behind the columns is worked out and the columns are written anew, so that
    the rows become those of the new unit, but for rounding, for counts and ages of spikes, and for
    ``z_30d`` where it was 0 or clipped.

    Parameters
    ----------
    rows
        float32 of shape (n, >= N_FEATURES), changed in place.
    factor
        New units per old unit, in (0, inf).
    """
    if not 0.0 < factor < math.inf:
        raise InvalidInputError(f"factor: expected a number in (0, inf), got {factor}")
    old = rows[:, :N_FEATURES].astype(np.float64)
    amount, mean = np.expm1(old[:, 0]), np.expm1(old[:, 8])
    n = np.expm1(old[:, 5])
    of_all = (mean * (n - 1.0) + amount) / np.maximum(n, 1.0)

    def ratio(column: int, below: NDArray[np.float64]) -> NDArray[np.float64]:
        above = np.exp(old[:, column]) * (below + SMALL_CHANGE) - SMALL_CHANGE
        return np.log(
            (np.maximum(above, 0.0) * factor + SMALL_CHANGE) / (below * factor + SMALL_CHANGE)
        )

    robust = np.maximum((amount + SMALL_CHANGE) / np.exp(old[:, 13]) - SMALL_CHANGE, 0.0)
    z = old[:, 7]
    is_open = (z > -3.0) & (z < 10.0) & (z != 0.0)
    spread = (amount - mean) / np.where(is_open, z, np.nan)
    wider = factor * (spread - SMALL_CHANGE) + SMALL_CHANGE
    rows[:, 0], rows[:, 8] = np.log1p(factor * amount), np.log1p(factor * mean)
    rows[:, 6], rows[:, 9], rows[:, 10] = ratio(6, mean), ratio(9, of_all), ratio(10, of_all)
    rows[:, 7] = np.where(is_open, np.clip(factor * (amount - mean) / wider, -3.0, 10.0), z)
    rows[:, 13] = np.log((factor * amount + SMALL_CHANGE) / (factor * robust + SMALL_CHANGE))


@nb.njit(cache=True)
def roll(stamp, now, *rings):  # type: ignore[no-untyped-def]  # compiled
    """Clear the slots between the newest bucket seen and ``now``; return the newest."""
    if now <= stamp:
        return stamp
    for bucket in range(max(stamp + 1, now - RING + 1), now + 1):
        for ring in rings:
            ring[bucket % RING] = 0.0
    return now


@nb.njit(cache=True)
def window(ring, stamp, now, part, width):  # type: ignore[no-untyped-def]  # compiled
    """Sum the last ``width`` buckets up to time ``now + part`` (part in [0, 1) of a bucket)."""
    total = 0.0
    for bucket in range(max(now - width + 1, stamp - RING + 1), min(now, stamp) + 1):
        total += ring[bucket & _SLOT]
    oldest = now - width
    if stamp - RING < oldest <= stamp:
        total += (1.0 - part) * ring[oldest & _SLOT]
    return total


@nb.njit(cache=True)
def two_windows(ring, stamp, now, part, width, wider):  # type: ignore[no-untyped-def]  # compiled
    """Return `window` of two widths, to the bit, in one pass over the wider one."""
    total, of_wider = 0.0, 0.0
    for bucket in range(max(now - wider + 1, stamp - RING + 1), min(now, stamp) + 1):
        value = ring[bucket & _SLOT]
        of_wider += value
        if bucket > now - width:
            total += value
    oldest = now - width
    if stamp - RING < oldest <= stamp:
        total += (1.0 - part) * ring[oldest & _SLOT]
    oldest = now - wider
    if stamp - RING < oldest <= stamp:
        of_wider += (1.0 - part) * ring[oldest & _SLOT]
    return total, of_wider


@nb.njit(cache=True)
def _calendar(time_ms, out):  # type: ignore[no-untyped-def]  # compiled
    weekday = (time_ms // DAY_MS + 4) % 7
    out[1] = 1.0 if weekday in (0, 6) else 0.0
    out[2] = 1.0 if (time_ms % DAY_MS) // HOUR_MS <= 6 else 0.0


@nb.njit(cache=True)
def _spending(a, time_ms, amount, out):  # type: ignore[no-untyped-def]  # compiled
    day, hour = time_ms // DAY_MS, time_ms // HOUR_MS
    a.day = roll(a.day, day, a.day_n, a.day_sum, a.day_squares)
    a.hour = roll(a.hour, hour, a.hour_n, a.hour_sum)
    if day > a.day - RING:
        a.day_n[day % RING] += 1.0
        a.day_sum[day % RING] += amount
        a.day_squares[day % RING] += amount * amount
    if hour > a.hour - RING:
        a.hour_n[hour % RING] += 1.0
        a.hour_sum[hour % RING] += amount
    of_day = (time_ms % DAY_MS) / DAY_MS
    of_hour = (time_ms % HOUR_MS) / HOUR_MS
    n_1d = window(a.hour_n, a.hour, hour, of_hour, 24)
    sum_1d = window(a.hour_sum, a.hour, hour, of_hour, 24)
    n_7d, n_30d = two_windows(a.day_n, a.day, day, of_day, 7, 30)
    sum_7d, sum_30d = two_windows(a.day_sum, a.day, day, of_day, 7, 30)
    squares_30d = window(a.day_squares, a.day, day, of_day, 30)
    out[0] = math.log1p(amount)
    out[3], out[4], out[5] = math.log1p(n_1d), math.log1p(n_7d), math.log1p(n_30d)
    for k in range(6, 11):
        out[k] = np.nan
    others = n_30d - 1.0
    if others > 0.5:
        mean = max(sum_30d - amount, 0.0) / others
        out[6] = math.log((amount + SMALL_CHANGE) / (mean + SMALL_CHANGE))
        out[8] = math.log1p(mean)
        of_all = sum_30d / n_30d + SMALL_CHANGE
        out[9] = math.log((sum_1d / max(n_1d, 1.0) + SMALL_CHANGE) / of_all)
        out[10] = math.log((sum_7d / max(n_7d, 1.0) + SMALL_CHANGE) / of_all)
        if others > 1.5:
            variance = (squares_30d - amount * amount) / others - mean * mean
            spread = math.sqrt(max(variance, 0.0)) + SMALL_CHANGE
            out[7] = min(max((amount - mean) / spread, -3.0), 10.0)


@nb.njit(cache=True)
def _age_days(now_ms, then_ms, cap):  # type: ignore[no-untyped-def]  # compiled
    if then_ms < 0:
        return cap
    return min(max(now_ms - then_ms, 0) / DAY_MS, cap)


@nb.njit(cache=True)
def _habits(a, time_ms, amount, out):  # type: ignore[no-untyped-def]  # compiled
    gap_d = _age_days(time_ms, a.last_ms, 1e6) if a.last_ms >= 0 else 0.0
    a.spikes_3d *= math.exp(-gap_d / 3.0)
    a.spikes_10d *= math.exp(-gap_d / 10.0)
    out[13] = np.nan
    ratio = 1.0
    if a.n > 0.0:
        ratio = (amount + SMALL_CHANGE) / (a.robust_mean + SMALL_CHANGE)
        out[13] = math.log(ratio)
    out[14], out[15] = math.log1p(a.spikes_3d), math.log1p(a.spikes_10d)
    out[16] = _age_days(time_ms, a.last_spike_ms, 30.0)
    out[17] = _age_days(time_ms, a.last_fraud_ms, 40.0)
    out[18] = _age_days(time_ms, a.first_fraud_ms, 40.0)
    out[19] = min(gap_d, 10.0)
    if ratio > SPIKE_RATIO:
        a.spikes_3d += 1.0
        a.spikes_10d += 1.0
        a.last_spike_ms = max(a.last_spike_ms, time_ms)
    if a.n == 0.0:
        a.robust_mean = amount
    a.n = min(a.n + 1.0, 60.0)
    step = min(amount, 3.0 * a.robust_mean + SMALL_CHANGE) - a.robust_mean
    a.robust_mean += step / (a.n + 2.0)
    a.last_ms = max(a.last_ms, time_ms)


@nb.njit(cache=True)
def observe(accounts, row, time_ms, amount, out):  # type: ignore[no-untyped-def]  # compiled
    """Add payments in order and write what is known at each, the payment itself included.

    Parameters
    ----------
    accounts
        State, structured array of shape (n_accounts,), changed in place.
    row
        int64 of shape (n,): the paying account's row.
    time_ms
        int64 of shape (n,): event time.
    amount
        float64 of shape (n,), reference currency.
    out
        float32 of shape (n, >= N_FEATURES); the first N_FEATURES columns are written.
    """
    for i in range(row.shape[0]):
        expect(accounts, row, i, _LINES)
        a = accounts[row[i]]
        _calendar(time_ms[i], out[i])
        _spending(a, time_ms[i], amount[i], out[i])
        day = time_ms[i] // DAY_MS
        part = (time_ms[i] % DAY_MS) / DAY_MS
        of_7d, of_30d = two_windows(a.day_frauds, a.fraud_day, day, part, 7, 30)
        out[i, 11], out[i, 12] = math.log1p(of_7d), math.log1p(of_30d)
        _habits(a, time_ms[i], amount[i], out[i])


@nb.njit(cache=True)
def extend(start, last, first_new, last_new, gap_ms):  # type: ignore[no-untyped-def]  # compiled
    """Return the start of the newest run of frauds, now that another run became known.

    Runs closer than ``gap_ms`` are one. Only the newest run's ends are kept, so that of runs that
    become known out of order one may be forgotten before the next would have joined them.
    """
    if start < 0 or first_new - last > gap_ms:
        return first_new
    if first_new < start and start - last_new <= gap_ms:
        return first_new
    return start


@nb.njit(cache=True)
def learn_frauds(accounts, row, time_ms, known_ms):  # type: ignore[no-untyped-def]  # compiled
    """Note frauds that became known.

    Parameters
    ----------
    accounts
        State, changed in place.
    row
        int64 of shape (n,): the defrauded accounts' rows.
    time_ms
        int64 of shape (n,): when the fraud was paid.
    known_ms
        int64 of shape (n,): when it became known.
    """
    for i in range(row.shape[0]):
        a = accounts[row[i]]
        day = known_ms[i] // DAY_MS
        a.fraud_day = roll(a.fraud_day, day, a.day_frauds)
        if day > a.fraud_day - RING:
            a.day_frauds[day % RING] += 1.0
        a.first_fraud_ms = extend(
            a.first_fraud_ms, a.last_fraud_ms, time_ms[i], time_ms[i], EPISODE_GAP_MS
        )
        a.last_fraud_ms = max(a.last_fraud_ms, time_ms[i])
