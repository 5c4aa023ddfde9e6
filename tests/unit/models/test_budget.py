"""The alert budget: held day by day, through any change of scores, however the stream is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.budget import BLOCK, DAY_MS, RING, AlertBudget, BudgetPolicy
from models.errors import InvalidInputError, StateError

PER_DAY = 10_000
N_DAYS = 8
POLICY = BudgetPolicy(rate=0.01)
STEADY = np.repeat([0.0], N_DAYS)
JUMPS = np.array([0.0, 0.0, 6.0, -8.0, 3.0, 3.0, -20.0, 0.0])


def stream(seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, N_DAYS * DAY_MS, N_DAYS * PER_DAY))
    return rng.normal(-5.0, 2.0, len(time)), time


def error_by_day(alert: NDArray[np.bool_], time: NDArray[np.int64]) -> NDArray[np.float64]:
    day = time // DAY_MS
    return np.bincount(day, alert) / (POLICY.rate * np.bincount(day)) - 1.0


@pytest.mark.parametrize("shift", [STEADY, JUMPS, 5 * np.sin(np.arange(N_DAYS))])
def test_each_day_ends_within_five_percent_of_the_budget(shift: NDArray[np.float64]) -> None:
    """Whether scores stay, jump up or down at noon, or swing: 100 alerts a day, give or take 5."""
    scores, time = stream()
    scores = scores + shift[np.minimum((time + DAY_MS // 2) // DAY_MS, N_DAYS - 1)]
    alert, _ = AlertBudget(POLICY).choose(scores, time)
    assert np.abs(error_by_day(alert, time)[1:]).max() <= 0.05


def test_debt_never_leaves_the_slack_at_any_row() -> None:
    """Debt at each row, recomputed from the mask, against the formula of the module's text."""
    scores, time = stream(1)
    scores += JUMPS[time // DAY_MS]
    alert, _ = AlertBudget(POLICY).choose(scores, time)
    day = time // DAY_MS
    for d in range(2, N_DAYS):
        rows = np.flatnonzero(day == d)
        nth = np.arange(1, len(rows) + 1)
        debt = np.cumsum(alert[rows]) - POLICY.rate * nth
        granted = POLICY.rate * np.maximum(nth, int((day == d - 1).sum()))
        left = 1 - (time[rows] % DAY_MS) / DAY_MS
        slack = np.maximum(0.03 * granted, 3.0) + 0.5 * granted * left
        assert np.all(np.abs(debt) <= slack + 1)


def test_alerts_go_to_high_scores() -> None:
    """On steady scores almost all alerts lie in the top 2 %, at a budget of 1 %."""
    scores, time = stream(2)
    alert, threshold = AlertBudget(POLICY).choose(scores, time)
    top = scores > np.quantile(scores, 0.98)
    assert top[alert].mean() > 0.95
    assert np.all(scores[alert] > threshold[alert])


@given(st.lists(st.integers(0, 3_000), max_size=12), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_the_way_the_stream_is_cut_changes_nothing(cuts: list[int], seed: int) -> None:
    """Mask, thresholds and state are equal to the bit for any batches."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=3_000), 2)
    scores[rng.random(3_000) < 0.1] = np.nan
    time = np.sort(rng.integers(0, 3 * DAY_MS, 3_000))
    policy = BudgetPolicy(rate=0.05, warm_up=100)
    whole, pieces = AlertBudget(policy), AlertBudget(policy)
    expected, expected_threshold = whole.choose(scores, time)
    parts = [
        pieces.choose(scores[a:b], time[a:b])
        for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 3_000], strict=True)
    ]
    assert np.array_equal(np.concatenate([p[0] for p in parts]), expected)
    assert np.array_equal(np.concatenate([p[1] for p in parts]), expected_threshold)
    for name, array in whole.arrays().items():
        assert np.array_equal(array, pieces.arrays()[name])


def test_a_restored_budget_goes_on_alike() -> None:
    """State taken in mid-block and mid-day, as copies."""
    scores, time = stream(3)
    cut = 7 * BLOCK + 100
    first = AlertBudget(POLICY)
    first.choose(scores[:cut], time[:cut])
    copies = {name: array.copy() for name, array in first.arrays().items()}
    second = AlertBudget.from_arrays(POLICY, copies)
    a, b = first.choose(scores[cut:], time[cut:]), second.choose(scores[cut:], time[cut:])
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])
    assert first.debt == second.debt


def test_rescored_memory_keeps_alerts_on_the_top_scores_after_a_swap() -> None:
    """After scores rise by 6 with a new scorer, told in advance, the alerts stay in the top 2 %."""
    scores, time = stream(4)
    swap = 4 * PER_DAY + 1_234
    new = scores.copy()
    new[swap:] += 6.0
    told, untold = AlertBudget(POLICY), AlertBudget(POLICY)
    for budget in (told, untold):
        budget.choose(new[:swap], time[:swap])
    told.rescore(scores[swap - RING : swap] + 6.0)
    after = slice(swap, swap + 2_000)
    top = scores[after] > np.quantile(scores, 0.98)
    share = [top[b.choose(new[after], time[after])[0]].mean() for b in (told, untold)]
    assert share[0] > 0.9
    assert share[1] < 0.6


def test_too_few_rescored_rows_leave_the_memory_alone() -> None:
    """A quantile of a handful of rows says nothing."""
    scores, time = stream(5)
    budget = AlertBudget(POLICY)
    budget.choose(scores[:5_000], time[:5_000])
    before = {name: array.copy() for name, array in budget.arrays().items()}
    budget.rescore(np.full(POLICY.warm_up - 1, 9.0))
    budget.rescore(np.full(RING, np.nan))
    for name, array in budget.arrays().items():
        assert np.array_equal(array, before[name])


def test_a_gap_in_the_days_traffic_is_made_up_for() -> None:
    """A morning far under budget: the next rows, an hour before midnight, all alert at first."""
    scores, time = stream(7)
    second_day = int(np.searchsorted(time, DAY_MS))
    morning = slice(second_day, second_day + 3_000)
    scores[morning] = -99.0
    until_late = time[second_day + 3_000] - time[second_day]
    time[morning] = DAY_MS + (time[morning] - time[second_day]) * (DAY_MS // 4) // until_late
    budget = AlertBudget(POLICY)
    budget.choose(scores[: second_day + 3_000], time[: second_day + 3_000])
    assert budget.debt < -10
    evening = 2 * DAY_MS - 3_600_000 + np.arange(200)
    alert, threshold = budget.choose(np.linspace(-60.0, -70.0, 200), evening)
    assert alert[:20].all()
    assert np.isneginf(threshold[:20]).all()
    assert -6 <= budget.debt < 0


@pytest.mark.parametrize("warm_up", [100, 500, 1_000])
def test_no_alert_and_no_debt_before_enough_scores_were_seen(warm_up: int) -> None:
    """One score too few gives nothing, whatever they are; unscored rows do not count."""
    budget = AlertBudget(BudgetPolicy(rate=0.01, warm_up=warm_up))
    scores = np.append(np.full(10_000, np.nan), np.arange(warm_up - 1.0))
    alert, threshold = budget.choose(scores, np.zeros(len(scores), np.int64))
    assert not alert.any()
    assert np.isinf(threshold).all()
    assert budget.debt == 0.0
    assert not budget.is_warm
    budget.choose(np.array([1.0]), np.array([0]))
    assert budget.is_warm


def test_a_row_of_the_day_before_is_put_on_the_running_day() -> None:
    """A late event neither turns the day back nor opens a new one: as if it came on time."""
    scores, time = stream(6)
    late = np.arange(5 * PER_DAY, 6 * PER_DAY, 50)
    time[late] = time[late - 1]
    alert, _ = AlertBudget(POLICY).choose(scores, time)
    time[late] -= DAY_MS
    got, _ = AlertBudget(POLICY).choose(scores, time)
    assert np.array_equal(got, alert)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate: float) -> None:
    """NaN included."""
    with pytest.raises(InvalidInputError, match="rate"):
        BudgetPolicy(rate=rate)


def test_state_of_another_shape_is_refused() -> None:
    """A damaged checkpoint must not be half-used."""
    arrays = dict(AlertBudget(POLICY).arrays())
    with pytest.raises(StateError, match="ring"):
        AlertBudget.from_arrays(POLICY, arrays | {"ring": np.zeros(3)})
    del arrays["ordered"]
    with pytest.raises(StateError, match="ordered"):
        AlertBudget.from_arrays(POLICY, arrays)


def test_scores_and_times_must_match() -> None:
    """One time per score."""
    with pytest.raises(InvalidInputError, match="shape"):
        AlertBudget(POLICY).choose(np.zeros(3), np.zeros(2, np.int64))
