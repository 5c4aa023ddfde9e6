"""Features of accounts against a plain recomputation from the whole history, and cut anywhere."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.features.accounts import (
    ACCOUNT,
    DAY_MS,
    HOUR_MS,
    N_FEATURES,
    RING,
    learn_frauds,
    new_accounts,
    observe,
    roll,
    window,
)
from models.schema import ACCOUNT_FEATURES

MINUTE_MS = 60_000
START_MS = 20_000 * DAY_MS
N_ACCOUNTS = 3
SPIKE_AGE = ACCOUNT_FEATURES.index("spike_age")

Payment = tuple[int, int, float]  # account, time, amount
Fraud = tuple[int, int, int]  # account, when it was paid, when it became known
Event = Payment | Fraud  # told apart by the type of the last

STEPS_MIN = st.sampled_from([0, 1, 60, 24 * 60, 7 * 24 * 60, 30 * 24 * 60]) | st.integers(0, 3_000)
AMOUNTS = st.integers(0, 500).map(lambda halves: halves / 2)  # squares add exactly in float32


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Payments in order of time, and frauds on them or on earlier days, known by then."""
    now, events = START_MS, []
    kinds = st.tuples(st.integers(0, N_ACCOUNTS - 1), STEPS_MIN, AMOUNTS, st.integers(0, 4))
    for account, step, amount, kind in draw(st.lists(kinds, max_size=40)):
        now += step * MINUTE_MS
        if kind == 0:
            events.append((account, now - int(amount * 12) * HOUR_MS, now))
        else:
            events.append((account, now, amount))
    # within an account frauds become known in the order in which they were paid
    newest: dict[int, int] = {}
    for i, (account, paid, known) in enumerate(events):
        if isinstance(known, int):
            newest[account] = max(newest.get(account, 0), paid)
            events[i] = (account, newest[account], known)
    return events


def long_stream(n: int, seed: int, late_ms: int = 0) -> list[Event]:
    """Return payments alone, each up to ``late_ms`` behind a clock that runs on by 5 hours."""
    rng = np.random.default_rng(seed)
    clock = START_MS + rng.exponential(5 * HOUR_MS, n).cumsum().astype(int)
    time = clock - (rng.random(n) * late_ms).astype(int)
    amounts = rng.integers(0, 500, n) / 2
    return list(
        zip(rng.integers(0, N_ACCOUNTS, n).tolist(), time.tolist(), amounts.tolist(), strict=True)
    )


def windowed(items: Iterable[tuple[int, float]], now_ms: int, unit_ms: int, width: int) -> float:
    """Sum values by the window's definition: whole buckets, and a share of the one before them."""
    bucket, part = now_ms // unit_ms, (now_ms % unit_ms) / unit_ms
    found = [(time // unit_ms, value) for time, value in items]
    whole = sum(value for at, value in found if bucket - width < at <= bucket)
    return whole + (1.0 - part) * sum(value for at, value in found if at == bucket - width)


def days_since(then_ms: int | None, now_ms: int, cap: float) -> float:
    return cap if then_ms is None else min(max(now_ms - then_ms, 0) / DAY_MS, cap)


def spending(history: list[Payment], now: int, amount: float) -> dict[str, float]:
    """Return the features of counts and means; the last of the history is the payment itself."""
    paid = [(time, value) for _, time, value in history]
    ones = [(time, 1.0) for time, _ in paid]
    squares = [(time, value**2) for time, value in paid]
    n = {w: windowed(ones, now, DAY_MS, w) for w in (7, 30)}
    total = {w: windowed(paid, now, DAY_MS, w) for w in (7, 30)}
    n[1], total[1] = windowed(ones, now, HOUR_MS, 24), windowed(paid, now, HOUR_MS, 24)
    found = {f"n_{w}d": math.log1p(n[w]) for w in (1, 7, 30)}
    others = n[30] - 1
    if others > 0.5:
        mean = (total[30] - amount) / others
        found["ratio_30d"] = math.log((amount + 5) / (mean + 5))
        found["log_mean_30d"] = math.log1p(mean)
        for w in (1, 7):
            ratio = (total[w] / n[w] + 5) / (total[30] / n[30] + 5)
            found[f"mean_{w}d_30d"] = math.log(ratio)
        if others > 1.5:
            variance = (windowed(squares, now, DAY_MS, 30) - amount**2) / others - mean**2
            spread = math.sqrt(max(variance, 0.0)) + 5
            found["z_30d"] = min(max((amount - mean) / spread, -3.0), 10.0)
    return found


def habits(history: list[Payment], now: int, amount: float) -> dict[str, float]:
    """Return the features of high spends: more than 2.5 times a mean that follows slowly."""
    mean, clock, spikes = history[0][2], history[0][1], []
    for i, (_, time, value) in enumerate(history[:-1]):
        clock = max(clock, time)
        if i and (value + 5) / (mean + 5) > 2.5:
            spikes.append((clock, time))
        step = (min(value, 3 * mean + 5) - mean) / (min(i + 1, 60) + 2)
        mean = float(np.float32(mean + step))  # as it is kept, so that ties at 2.5 fall alike
    gap = max(now - clock, 0)
    found = {"spike_age": days_since(max((t for _, t in spikes), default=None), now, 30.0)}
    for days in (3, 10):
        decayed = [math.exp(-(clock + gap - at) / DAY_MS / days) for at, _ in spikes]
        found[f"spikes_{days}d"] = math.log1p(sum(decayed))
    if len(history) > 1:
        found["robust_ratio"] = math.log((amount + 5) / (mean + 5))
    found["gap_d"] = min(gap / DAY_MS, 10.0)
    return found


def frauds_known(frauds: list[Fraud], now: int) -> dict[str, float]:
    """Return the features of frauds: windows go by when they became known, ages by payment."""
    known = [(at, 1.0) for _, _, at in frauds]
    first = last = None
    for _, paid, _ in frauds:
        if last is None or paid - last > 20 * DAY_MS:
            first = paid
        last = paid
    return {
        "frauds_7d": math.log1p(windowed(known, now, DAY_MS, 7)),
        "frauds_30d": math.log1p(windowed(known, now, DAY_MS, 30)),
        "fraud_age": days_since(last, now, 40.0),
        "first_fraud_age": days_since(first, now, 40.0),
    }


def expected_features(events: list[Event]) -> NDArray[np.float64]:
    """Return each payment's features from all that came before it on its account."""
    rows = []
    for i, (account, now, amount) in enumerate(events):
        if isinstance(amount, int):
            continue
        mine = [event for event in events[: i + 1] if event[0] == account]
        payments = [event for event in mine if isinstance(event[2], float)]
        moment = datetime.fromtimestamp(now / 1000, UTC)
        found = {
            "log_amount": math.log1p(amount),
            "weekend": float(moment.weekday() >= 5),
            "night": float(moment.hour <= 6),
            **spending(payments, now, amount),
            **habits(payments, now, amount),
            **frauds_known([event for event in mine if isinstance(event[2], int)], now),
        }
        assert found.keys() <= set(ACCOUNT_FEATURES)
        rows.append([found.get(name, math.nan) for name in ACCOUNT_FEATURES])
    return np.array(rows).reshape(-1, N_FEATURES)


def run(
    events: list[Event], cuts: Iterable[int] = ()
) -> tuple[NDArray[np.float32], NDArray[np.void]]:
    """Return the features and the state after; a batch ends at each cut and each change of kind."""
    state, outs, start = new_accounts(N_ACCOUNTS), [np.empty((0, N_FEATURES), np.float32)], 0
    kinds = [type(event[2]) for event in events]
    ends = {i for i in range(1, len(events)) if kinds[i] != kinds[i - 1]} | set(cuts)
    for stop in [*sorted(end for end in ends if end < len(events)), len(events)]:
        chunk = events[start:stop]
        row, time, last = (np.array([event[k] for event in chunk]) for k in range(3))
        if chunk and kinds[start] is int:
            learn_frauds(state, row, time, last)
        elif chunk:
            outs.append(np.full((len(chunk), N_FEATURES), 7.0, np.float32))
            observe(state, row, time, last, outs[-1])
        start = stop
    return np.concatenate(outs), state


def assert_features(got: NDArray[np.float32], expected: NDArray[np.float64]) -> None:
    """Compare; a chain of 60 roundings to float32 in the decays leaves 4e-6."""
    for k, name in enumerate(ACCOUNT_FEATURES):
        np.testing.assert_allclose(got[:, k], expected[:, k], 1e-5, 1e-5, err_msg=name)


@given(events=streams())
def test_features_are_those_of_the_whole_history(events: list[Event]) -> None:
    """Every feature of every payment, recomputed from all payments and frauds before it."""
    assert_features(run(events)[0], expected_features(events))


@pytest.mark.parametrize("seed", [0, 1])
def test_features_of_a_long_stream_are_those_of_its_history(seed: int) -> None:
    """Sixty days of three accounts, so that rings go round twice and the mean's weight is full."""
    events = long_stream(300, seed)
    assert_features(run(events)[0], expected_features(events))


def test_a_payment_up_to_seven_hours_late_sees_whole_windows() -> None:
    """The rings have 32 slots, so 24 hours and 30 days back from then are all still there."""
    events = long_stream(200, seed=2, late_ms=7 * HOUR_MS)
    times = [event[1] for event in events]
    assert times != sorted(times)
    got, expected = run(events)[0], expected_features(events)
    assert_features(got, expected)


def test_a_payment_older_than_the_rings_does_not_touch_newer_days() -> None:
    """Its slot belongs to a later day or hour by then."""
    events = long_stream(100, seed=3)
    _, state = run(events)
    late = new_accounts(N_ACCOUNTS)
    late[:] = state
    time = np.full(N_ACCOUNTS, events[-1][1] - 40 * DAY_MS)
    out = np.empty((N_ACCOUNTS, N_FEATURES), np.float32)
    observe(late, np.arange(N_ACCOUNTS), time, np.full(N_ACCOUNTS, 90.0), out)
    for name in ("day_n", "day_sum", "day_squares", "hour_n", "hour_sum", "day", "hour", "last_ms"):
        assert late[name].tobytes() == state[name].tobytes()


@given(events=streams(), cuts=st.sets(st.integers(0, 40)))
def test_batches_cut_anywhere_give_the_same_bits(events: list[Event], cuts: set[int]) -> None:
    """Features and the state after, against one batch as long as can be and one for each event."""
    out, state = run(events)
    for some in (cuts, range(len(events))):
        again, state_again = run(events, some)
        assert again.tobytes() == out.tobytes()
        assert state_again.tobytes() == state.tobytes()


def test_the_first_payment_of_an_account_is_written_out() -> None:
    """Monday 2018-10-08 at 06:30: one payment in each window, ages at their caps, no ratios."""
    now = 1_538_980_200_000  # date -u -d 2018-10-08T06:30Z +%s
    expected = [math.log(12), 0, 1, *[math.log(2)] * 3, *[math.nan] * 5, 0, 0, math.nan, 0, 0]
    expected += [30, 40, 40, 0]
    assert_features(run([(0, now, 11.0)])[0], np.array([expected]))


def test_columns_beyond_the_account_s_are_left_alone() -> None:
    """They are the entities'."""
    out = np.full((2, N_FEATURES + 3), 7.0, np.float32)
    observe(new_accounts(1), np.zeros(2, int), np.full(2, START_MS), np.ones(2), out)
    assert (out[:, N_FEATURES:] == 7.0).all()


def test_an_episode_ends_after_twenty_quiet_days() -> None:
    """A fraud 20 days after the last is of the same episode, one a millisecond later is not."""
    for gap, first_age in ((20 * DAY_MS, 21.0), (20 * DAY_MS + 1, 1.0)):
        second = START_MS + gap
        frauds: list[Event] = [(0, START_MS, START_MS), (0, second, second)]
        (features,) = run([*frauds, (0, second + DAY_MS, 1.0)])[0]
        assert features[ACCOUNT_FEATURES.index("first_fraud_age")] == pytest.approx(first_age)
        assert features[ACCOUNT_FEATURES.index("fraud_age")] == 1.0


def test_an_account_never_grows() -> None:
    """With its 8-byte key in the table it has the 840 bytes that the module's text says."""
    assert ACCOUNT.itemsize + 8 == 840


@given(
    steps=st.lists(st.integers(0, 12), max_size=25),
    width=st.integers(1, RING - 1),
    since=st.integers(-8, 40),
    quarters=st.integers(0, 3),
)
def test_a_ring_sums_the_buckets_of_its_window(
    steps: list[int], width: int, since: int, quarters: int
) -> None:
    """Of widths up to 31, before and after the newest bucket, at any part of the bucket."""
    ring, stamp, bucket = np.zeros(RING, np.float32), 1_000, 1_000
    items = []
    for i, step in enumerate(steps):
        bucket += step
        stamp = roll(stamp, bucket, ring)
        ring[bucket % RING] += i + 1
        items.append((bucket * 4, i + 1.0))
    now = bucket + since
    held = [item for item in items if item[0] // 4 > stamp - RING]
    expected = windowed(held, now * 4 + quarters, 4, width)
    assert window(ring, stamp, now, quarters / 4, width) == expected


def test_a_late_high_spend_does_not_take_the_newest_one_back() -> None:
    """The age counts from the newest high spend by payment, whichever came last."""
    times = [START_MS + hours * HOUR_MS for hours in (0, 10, 4, 34)]
    events: list[Event] = [
        (0, t, a) for t, a in zip(times, (10.0, 100.0, 100.0, 10.0), strict=True)
    ]
    assert run(events)[0][-1, SPIKE_AGE] == pytest.approx(1.0)


def test_a_fraud_that_becomes_known_late_moves_the_episode_s_start_back() -> None:
    """Paid on day 1, known after one that was paid on day 5: the episode began on day 1."""
    day = [START_MS + n * DAY_MS for n in range(30)]
    events: list[Event] = [(0, day[5], day[6]), (0, day[1], day[20]), (0, day[21], 1.0)]
    (features,) = run(events)[0]
    assert features[ACCOUNT_FEATURES.index("first_fraud_age")] == pytest.approx(20.0)
    assert features[ACCOUNT_FEATURES.index("fraud_age")] == pytest.approx(16.0)
