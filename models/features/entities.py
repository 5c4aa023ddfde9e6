"""Evidence on entities as array state: own outcomes always fresh, the others' as of a release.

Outcomes are filed under the time at which they became known (a label came, or the label horizon
passed), so a bucket never changes once its time is over. Windows are rings as for accounts.
"""

import math
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.features.accounts import DAY_MS, HOUR_MS, NEVER, RING, extend, roll, two_windows, window
from models.features.prefetch import expect, lines_of
from models.schema import ENTITY_FEATURES

N_FEATURES = len(ENTITY_FEATURES)
EPISODE_GAP_MS = 30 * DAY_MS
AGE_CAP_D = 60.0
SHARED_HOURS = 48
"""Hour slots of the others' evidence: those of the two newest days."""
_HOUR_DAYS = SHARED_HOURS // 24
_LOG_AGE_CAP = math.log(AGE_CAP_D)
_SLOT = RING - 1  # a bucket's slot is its number modulo RING, which is a power of two

ENTITY = np.dtype(
    [
        ("day_n", "f4", RING),
        ("day_f", "f4", RING),
        ("hour_n", "f4", RING),
        ("hour_f", "f4", RING),
        ("others_day_n", "f4", RING),
        ("others_day_f", "f4", RING),
        ("others_hour_n", "f4", SHARED_HOURS),
        ("others_hour_f", "f4", SHARED_HOURS),
        ("day", "i4"),
        ("hour", "i4"),
        ("last_fraud_ms", "i8"),
        ("last_legit_ms", "i8"),
        ("episode_ms", "i8"),
        ("others_last_fraud_ms", "i8"),
        ("others_last_legit_ms", "i8"),
        ("others_episode_ms", "i8"),
    ]
)
_AGES = tuple(name for name in ENTITY.names or () if name.endswith("_ms"))
# what is read, or written, of most entities: those without fraud
_READ = lines_of(ENTITY, ("day_n", "hour_n", "others_day_n", "others_hour_n", "day", *_AGES))
_HOURS = lines_of(ENTITY, ("others_hour_n", "others_hour_f"))
_PLACES: Any = ENTITY.fields
_DAY_N, _DAY_F, _LAST = (
    int(_PLACES[name][1]) for name in ("others_day_n", "others_day_f", "others_last_fraud_ms")
)
_LEARNT = lines_of(ENTITY, ("day_n", "hour_n", "day", *_AGES))


def new_entities(n: int) -> NDArray[np.void]:
    """Return the state of ``n`` entities of which nothing is known."""
    state = np.zeros(n, ENTITY)
    for name in _AGES:
        state[name] = NEVER
    return state


@nb.njit(cache=True)
def _age(now_ms, then_ms):  # type: ignore[no-untyped-def]  # compiled
    if then_ms < 0:
        return AGE_CAP_D
    return min(max(now_ms - then_ms, 0) / DAY_MS, AGE_CAP_D)


@nb.njit(cache=True)
def _log_age(now_ms, then_ms):  # type: ignore[no-untyped-def]  # compiled
    if then_ms < 0:
        return _LOG_AGE_CAP
    return math.log(max(_age(now_ms, then_ms), 1e-3))


@nb.njit(cache=True)
def _write(n, f, fraud_ms, legit_ms, episode_ms, now_ms, out):  # type: ignore[no-untyped-def]  # compiled
    out[0], out[1] = math.log1p(n[1]), math.log1p(n[2])
    for w in range(3):
        out[2 + w] = math.log1p(f[w]) if f[w] != 0.0 else 0.0
    out[5], out[6], out[7] = f[0] / (n[0] + 0.5), f[1] / (n[1] + 1.0), f[2] / (n[2] + 2.0)
    out[8], out[9] = _log_age(now_ms, fraud_ms), _log_age(now_ms, legit_ms)
    out[10] = 1.0 if fraud_ms > legit_ms else 0.0
    out[11] = _age(now_ms, episode_ms) / 30.0


@nb.njit(cache=True)
def _add_shared(of_day, of_hour, days, time_ms, sums):  # type: ignore[no-untyped-def]  # compiled
    """Add the others' evidence of the last 1, 7 and 30 days to the sums of a count."""
    day, hour = time_ms // DAY_MS, time_ms // HOUR_MS % 24
    part = (time_ms % DAY_MS) / DAY_MS
    if days[(day - 1) & _SLOT] == day - 1:
        first = (day - 1) % _HOUR_DAYS * 24
        sums[0] += (1.0 - (time_ms % HOUR_MS) / HOUR_MS) * of_hour[first + hour]
        for slot in range(first + hour + 1, first + 24):
            sums[0] += of_hour[slot]
    if days[day & _SLOT] == day:
        first = day % _HOUR_DAYS * 24
        for slot in range(first, first + hour + 1):
            sums[0] += of_hour[slot]
    for bucket in range(day - 30, day + 1):
        slot = bucket & _SLOT
        if days[slot] == bucket:
            count = of_day[slot]
            if bucket >= day - 7:
                sums[1] += count if bucket > day - 7 else (1.0 - part) * count
            sums[2] += count if bucket > day - 30 else (1.0 - part) * count


@nb.njit(cache=True)
def _episode(own_start, own_last, others_start, others_last):  # type: ignore[no-untyped-def]  # compiled
    """Return the start of the newest run of frauds of two sides without a gap over 30 days."""
    if own_start < 0:
        return others_start
    if others_start < 0:
        return own_start
    if max(own_start, others_start) - min(own_last, others_last) <= EPISODE_GAP_MS:
        return min(own_start, others_start)
    return max(own_start, others_start)


@nb.njit(cache=True)
def read(entities, days, row, time_ms, own, shared):  # type: ignore[no-untyped-def]  # compiled
    """Write what is known of each payment's entity, from own outcomes and from own plus others'.

    Parameters
    ----------
    entities
        State, structured array of shape (n_entities,).
    days
        int64 of shape (RING,): the day that each slot of the others' rings holds.
    row
        int64 of shape (n,): the entity's row, -1 where the payment names none (all NaN).
    time_ms
        int64 of shape (n,): event time.
    own, shared
        float32 of shape (n, N_FEATURES), written.
    """
    n, f = np.empty(3), np.empty(3)
    for i in range(row.shape[0]):
        expect(entities, row, i, _READ)
        if row[i] < 0:
            own[i, :] = np.nan
            shared[i, :] = np.nan
            continue
        e, now = entities[row[i]], time_ms[i]
        day, hour = now // DAY_MS, now // HOUR_MS
        of_day, of_hour = (now % DAY_MS) / DAY_MS, (now % HOUR_MS) / HOUR_MS
        n[0] = window(e.hour_n, e.hour, hour, of_hour, 24)
        n[1], n[2] = two_windows(e.day_n, e.day, day, of_day, 7, 30)
        f[:] = 0.0
        if e.last_fraud_ms >= 0:  # of most there was none: rings that need not be read
            f[0] = window(e.hour_f, e.hour, hour, of_hour, 24)
            f[1], f[2] = two_windows(e.day_f, e.day, day, of_day, 7, 30)
        _write(n, f, e.last_fraud_ms, e.last_legit_ms, e.episode_ms, now, own[i])
        of_own = (n[0], n[1], n[2], f[0], f[1], f[2])
        _add_shared(e.others_day_n, e.others_hour_n, days, now, n)
        if e.others_last_fraud_ms >= 0:  # as above
            _add_shared(e.others_day_f, e.others_hour_f, days, now, f)
        fraud_ms = max(e.last_fraud_ms, e.others_last_fraud_ms)
        legit_ms = max(e.last_legit_ms, e.others_last_legit_ms)
        others = e.others_episode_ms, e.others_last_fraud_ms
        episode_ms = _episode(e.episode_ms, e.last_fraud_ms, *others)
        of_all = (n[0], n[1], n[2], f[0], f[1], f[2])
        ages_of_own = (e.last_fraud_ms, e.last_legit_ms, e.episode_ms)
        if of_all == of_own and (fraud_ms, legit_ms, episode_ms) == ages_of_own:
            shared[i] = own[i]  # nobody else has anything to say: logarithms cost most here
        else:
            _write(n, f, fraud_ms, legit_ms, episode_ms, now, shared[i])


@nb.njit(cache=True)
def learn_outcomes(entities, row, time_ms, known_ms, is_fraud):  # type: ignore[no-untyped-def]  # compiled
    """Add own outcomes that became known, in the order of ``known_ms``.

    Parameters
    ----------
    entities
        State, changed in place.
    row
        int64 of shape (n,): the entity's row; -1 is skipped.
    time_ms, known_ms
        int64 of shape (n,): when it was paid, when its outcome became known.
    is_fraud
        bool of shape (n,).
    """
    for i in range(row.shape[0]):
        expect(entities, row, i, _LEARNT)
        if row[i] < 0:
            continue
        e = entities[row[i]]
        day, hour = known_ms[i] // DAY_MS, known_ms[i] // HOUR_MS
        e.day = roll(e.day, day, e.day_n, e.day_f)
        e.hour = roll(e.hour, hour, e.hour_n, e.hour_f)
        y = 1.0 if is_fraud[i] else 0.0
        if day > e.day - RING:
            e.day_n[day % RING] += 1.0
            e.day_f[day % RING] += y
        if hour > e.hour - RING:
            e.hour_n[hour % RING] += 1.0
            e.hour_f[hour % RING] += y
        if is_fraud[i]:
            e.episode_ms = extend(
                e.episode_ms, e.last_fraud_ms, time_ms[i], time_ms[i], EPISODE_GAP_MS
            )
            e.last_fraud_ms = max(e.last_fraud_ms, time_ms[i])
        else:
            e.last_legit_ms = max(e.last_legit_ms, time_ms[i])


@nb.njit(cache=True)
def _day_lines(day):  # type: ignore[no-untyped-def]  # compiled
    """Return a byte of each cache line that holds the others' counts of a day, or their ages."""
    slot = day % RING * 4
    return (_DAY_N + slot, _DAY_F + slot, _LAST)


@nb.njit(cache=True)
def clear_others_day(entities, row, day):  # type: ignore[no-untyped-def]  # compiled
    """Empty the day slot of one UTC day of the given rows; repeats in a row are passed over."""
    last, lines = -1, _day_lines(day)
    for i, r in enumerate(row):
        expect(entities, row, i, lines)
        if r == last:
            continue
        last = r
        e = entities[r]
        e.others_day_n[day % RING] = 0.0
        e.others_day_f[day % RING] = 0.0


@nb.njit(cache=True)
def clear_others_hours(entities, row, day):  # type: ignore[no-untyped-def]  # compiled
    """Empty the hour slots of one UTC day of the given rows; two days on they are another's."""
    first, last = (day * 24) % SHARED_HOURS, -1
    for i, r in enumerate(row):
        expect(entities, row, i, _HOURS)
        if r == last:  # the cells of an entity follow each other
            continue
        last = r
        e = entities[r]
        for slot in range(first, first + 24):
            e.others_hour_n[slot] = 0.0
            e.others_hour_f[slot] = 0.0


@nb.njit(cache=True)
def add_others(entities, row, day, hour, n, f, first_fraud_ms, last_fraud_ms, last_legit_ms):  # type: ignore[no-untyped-def]  # noqa: PLR0913  # compiled: takes columns
    """Add cells of one UTC day to the others' rings (or, with negative counts, take own ones out).

    Parameters
    ----------
    entities
        State, changed in place; the day's slots were cleared before.
    row
        int64 of shape (n_cells,).
    day
        Days since 1970.
    hour
        uint8 of shape (n_cells,): hour of the day; 255 to leave the hour slots alone.
    n, f
        float32 of shape (n_cells,).
    first_fraud_ms, last_fraud_ms, last_legit_ms
        int64 of shape (n_cells,), -1 for none.
    """
    lines = _day_lines(day)
    for i in range(row.shape[0]):
        expect(entities, row, i, lines)
        e = entities[row[i]]
        e.others_day_n[day % RING] += n[i]
        e.others_day_f[day % RING] += f[i]
        if hour[i] < 24:
            slot = (day * 24 + hour[i]) % SHARED_HOURS
            e.others_hour_n[slot] += n[i]
            e.others_hour_f[slot] += f[i]
        if last_fraud_ms[i] >= 0:
            e.others_episode_ms = extend(
                e.others_episode_ms,
                e.others_last_fraud_ms,
                first_fraud_ms[i],
                last_fraud_ms[i],
                EPISODE_GAP_MS,
            )
            e.others_last_fraud_ms = max(e.others_last_fraud_ms, last_fraud_ms[i])
        e.others_last_legit_ms = max(e.others_last_legit_ms, last_legit_ms[i])
