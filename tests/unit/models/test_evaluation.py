"""Ranking metrics against their definitions, card precision against the Handbook's loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.evaluation import (
    DAY_MS,
    CardProtocol,
    ap_over_time,
    average_precision,
    card_precision_at_k,
    money_saved,
    precision_recall_curve,
    recall_at_alert_rate,
    roc_auc,
)

ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60)


def columns(rows: list[tuple[bool, int]]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    return np.array([y for y, _ in rows], bool), np.array([s for _, s in rows], float)


def ap_by_definition(y: NDArray[np.bool_], s: NDArray[np.float64]) -> float:
    """Sum over thresholds, highest first, of (recall gained) * precision."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(s.tolist()), reverse=True):
        chosen = s >= threshold
        recall = float((y & chosen).sum() / y.sum())
        total += (recall - before) * float(y[chosen].mean())
        before = recall
    return total


@given(ROWS)
def test_average_precision_is_the_sum_over_thresholds(rows: list[tuple[bool, int]]) -> None:
    """Ties form one threshold, as in scikit-learn's definition."""
    y, s = columns(rows)
    got = average_precision(y, s)
    if not y.any():
        assert got is None
    else:
        assert got == pytest.approx(ap_by_definition(y, s), rel=1e-12)


@given(ROWS, st.data())
def test_a_weighted_row_speaks_for_as_many_copies(
    rows: list[tuple[bool, int]], data: st.DataObject
) -> None:
    """Weight w gives what w copies of the row would."""
    y, s = columns(rows)
    times = np.array(data.draw(st.lists(st.integers(1, 4), min_size=len(y), max_size=len(y))))
    weighted = average_precision(y, s, times.astype(float))
    copied = average_precision(np.repeat(y, times), np.repeat(s, times))
    assert weighted == (None if copied is None else pytest.approx(copied, rel=1e-12))


@given(ROWS)
def test_roc_auc_is_the_share_of_pairs_ranked_right(rows: list[tuple[bool, int]]) -> None:
    """Mann-Whitney: pairs, ties counting half."""
    y, s = columns(rows)
    got = roc_auc(y, s)
    if y.all() or not y.any():
        assert got is None
        return
    gaps = s[y][:, None] - s[~y][None, :]
    assert got == pytest.approx(float(np.mean((gaps > 0) + 0.5 * (gaps == 0))), rel=1e-12)


@given(ROWS, st.floats(0, 1))
def test_recall_at_a_rate_is_the_mean_over_orders_of_the_ties(
    rows: list[tuple[bool, int]], rate: float
) -> None:
    """Within a tie each row is alerted on with the same chance."""
    y, s = columns(rows)
    got = recall_at_alert_rate(y, s, rate)
    if not y.any():
        assert got is None
        return
    left, found = rate * len(y), 0.0
    for score in sorted(set(s.tolist()), reverse=True):
        tie = s == score
        taken = min(left, tie.sum())
        found += y[tie].sum() * taken / tie.sum()
        left -= taken
    assert got == pytest.approx(found / y.sum(), abs=1e-9)


def test_recall_at_a_rate_counts_the_top_rows() -> None:
    """Of 10 rows at 30 %, the top 3 hold 1 of 2 frauds."""
    y = np.array([0, 1, 0, 0, 0, 0, 0, 0, 0, 1], bool)
    assert recall_at_alert_rate(y, -np.arange(10.0), 0.3) == 0.5


def test_a_figure_that_is_not_there_yet_is_none() -> None:
    """No rows, or rows without a fraud."""
    for y in (np.zeros(0, bool), np.zeros(3, bool)):
        s = np.arange(len(y), dtype=float)
        assert average_precision(y, s) is None
        assert roc_auc(y, s) is None
        assert recall_at_alert_rate(y, s, 0.1) is None
        assert precision_recall_curve(y, s) is None


def test_a_score_that_is_not_a_number_is_refused() -> None:
    """NaN has no rank."""
    with pytest.raises(InvalidInputError, match="NaN"):
        average_precision(np.array([True, False]), np.array([1.0, np.nan]))


def test_infinite_scores_have_their_rank() -> None:
    """Log-odds of a sure thing."""
    y, s = np.array([True, False, False]), np.array([np.inf, 0.0, -np.inf])
    assert average_precision(y, s) == 1.0
    assert roc_auc(y, s) == 1.0


def test_curve_points_are_points_of_the_whole_curve() -> None:
    """Each threshold gives the precision and recall that it says, and the ends are there."""
    rng = np.random.default_rng(3)
    y = rng.random(5_000) < 0.05
    s = np.round(rng.normal(size=5_000) + 1.5 * y, 2)
    curve = precision_recall_curve(y, s, 50)
    assert curve is not None
    assert 2 <= len(curve.recall) <= 50
    assert curve.recall[-1] == 1.0
    assert np.all(np.diff(curve.recall) > 0)
    for p, r, t in zip(curve.precision, curve.recall, curve.threshold, strict=True):
        assert p == pytest.approx(y[s >= t].mean())
        assert r == pytest.approx(y[s >= t].sum() / y.sum())


def test_each_week_is_scored_by_itself() -> None:
    """Weeks count from the first day; one without fraud has no figure."""
    rng = np.random.default_rng(4)
    time = np.sort(rng.integers(3 * DAY_MS, 24 * DAY_MS, 900))
    week = (time - 3 * DAY_MS) // (7 * DAY_MS)
    y = (rng.random(900) < 0.2) & (week != 1)
    s = rng.normal(size=900) + y
    got = ap_over_time(y, s, time, start_ms=3 * DAY_MS)
    assert [p.start_ms // DAY_MS for p in got] == [3, 10, 17]
    assert [p.n for p in got] == np.bincount(week).tolist()
    assert got[1].average_precision is None
    assert got[1].n_frauds == 0
    for k in (0, 2):
        assert got[k].average_precision == average_precision(y[week == k], s[week == k])


def test_a_week_without_rows_is_told_too() -> None:
    """A hole in the data is a period of no transactions."""
    time = np.array([0, 15 * DAY_MS])
    got = ap_over_time(np.array([True, True]), np.array([0.0, 0.0]), time)
    assert [p.n for p in got] == [1, 0, 1]
    assert ap_over_time(np.zeros(0, bool), np.zeros(0), np.zeros(0, np.int64)) == []


def card_precision_by_loop(
    y: NDArray[np.bool_],
    s: NDArray[np.float64],
    time: NDArray[np.int64],
    card: NDArray[np.int64],
    *,
    start: int,
    p: CardProtocol,
) -> float:
    """Take the Handbook's steps one after the other, with sets."""
    day = time // DAY_MS
    figures = []
    found: set[int] = set()
    for today in range(start // DAY_MS, int(day.max()) + 1):
        fold = today - (today - start // DAY_MS) % p.fold_d
        if fold == today:
            found = set()
        first, last = fold - p.delay_d - p.known_d, today - p.delay_d - 1
        known = set(card[y & (day >= first) & (day <= last)].tolist())
        of_today = (day == today) & (time >= start)
        if not of_today.any():
            continue
        best: dict[int, float] = {}
        for i in np.flatnonzero(of_today):
            if card[i] not in known | found:
                best[int(card[i])] = max(best.get(int(card[i]), -np.inf), float(s[i]))
        top = sorted(best, key=lambda c: (-best[c], c))[: p.k]
        hits = [c for c in top if y[of_today & (card == c)].any()]
        found |= set(hits)
        figures.append(len(hits) / p.k)
    return float(np.mean(figures))


@pytest.mark.parametrize(
    "protocol",
    [
        CardProtocol(k=5),
        CardProtocol(k=3, delay_d=2, known_d=0, fold_d=30),
        CardProtocol(k=1, delay_d=0, known_d=3, fold_d=1),
        CardProtocol(k=80),
    ],
)
def test_card_precision_takes_the_handbooks_steps(protocol: CardProtocol) -> None:
    """Known and found cards are left out, cards are ranked by their best payment of the day."""
    rng = np.random.default_rng(protocol.k)
    n = 4_000
    time = np.sort(rng.integers(100 * DAY_MS, 140 * DAY_MS, n))
    card = rng.integers(0, 60, n)
    y = rng.random(n) < 0.03
    s = np.round(rng.normal(size=n) + 2 * y, 1)
    start = 118 * DAY_MS
    got = card_precision_at_k(y, s, time, card, start_ms=start, protocol=protocol)
    assert got == pytest.approx(
        card_precision_by_loop(y, s, time, card, start=start, p=protocol), rel=1e-12
    )


def test_a_card_reported_in_time_is_left_out_and_one_reported_late_is_not() -> None:
    """A fraud 8 days ago is known under a delay of 7, one of 7 days ago is not yet."""
    time = np.array([92, 93, 100, 100]) * DAY_MS
    card = np.array([1, 2, 1, 2])
    y = np.ones(4, bool)
    got = card_precision_at_k(
        y, np.ones(4), time, card, start_ms=100 * DAY_MS, protocol=CardProtocol(k=2)
    )
    assert got == 0.5


def test_card_precision_without_rows_is_none() -> None:
    """Nothing at or after the start."""
    one = np.array([5 * DAY_MS])
    got = card_precision_at_k(np.array([True]), np.zeros(1), one, one, start_ms=9 * DAY_MS)
    assert got is None


def test_money_saved_is_fraud_alerted_on_less_the_reviews() -> None:
    """100 prevented by 2 alerts of 10 each, 30 missed."""
    money = money_saved(
        np.array([100.0, 30.0, 7.0, 1.0]),
        np.array([True, True, False, False]),
        np.array([True, False, True, False]),
        10.0,
    )
    assert (money.prevented, money.missed, money.review, money.saved) == (100.0, 30.0, 20.0, 80.0)


def test_a_cost_that_is_not_a_number_is_refused() -> None:
    """Positive form: NaN is outside any range."""
    with pytest.raises(InvalidInputError, match="review_cost"):
        money_saved(np.ones(1), np.ones(1, bool), np.ones(1, bool), float("nan"))
