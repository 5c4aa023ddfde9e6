"""What an outcome says of each bank follows from the rows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deploy.bank_rows import BankRows
from deploy.detection.measure import Window, bank_outcomes, cold_join, window_of
from deploy.detection.plans import RowSource
from models.errors import InvalidInputError
from models.records import TransactionBatch

DAY_MS = 86_400_000
SOURCE = RowSource(name="x", file=Path("x.csv"), mapping=Path("x.toml"))


def ap_by_hand(is_fraud, scores):
    """Return the sum over the distinct scores, from above, of precision times gain in recall."""
    total, before = 0.0, 0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        above = scores >= threshold
        hits = int(np.sum(is_fraud & above))
        total += hits / int(np.sum(above)) * (hits - before)
        before = hits
    return total / int(np.sum(is_fraud))


def made_rows(n=600, days=30):
    """Return rows of two banks and scores that are better than chance, some of them equal."""
    rng = np.random.default_rng(8)
    is_fraud = rng.random(n) < 0.2
    batch = TransactionBatch(
        transaction_id=[f"t{i}" for i in range(n)],
        account_id=["a"] * n,
        event_time_ms=np.sort(rng.integers(100 * DAY_MS, (100 + days) * DAY_MS, n)),
        amount_minor=np.ones(n, np.int64),
        amount=np.ones(n),
        currency=["EUR"] * n,
    )
    data = BankRows(
        batch=batch,
        is_fraud=is_fraud,
        bank=rng.integers(2, size=n),
        names=("north", "south"),
        refused=(),
    )
    return data, np.round(rng.normal(size=n) + is_fraud, 1)


def test_average_precision_is_that_of_the_evaluated_rows_that_were_scored():
    """Over the window and without the rows that were refused, bank by bank and week by week."""
    data, scores = made_rows()
    is_scored = np.arange(600) % 7 != 0
    window = Window(110, 125)
    found = bank_outcomes(data, window, {"blend": scores}, is_scored=is_scored)
    day = data.batch.event_time_ms // DAY_MS
    for i, bank in enumerate(found):
        rows = is_scored & (day >= 110) & (day <= 125) & (data.bank == i)
        assert (bank.name, bank.n) == (data.names[i], int(rows.sum()))
        assert bank.n_frauds == int(data.is_fraud[rows].sum())
        assert bank.ap["blend"] == pytest.approx(ap_by_hand(data.is_fraud[rows], scores[rows]))
        weekly = [
            ap_by_hand(data.is_fraud[rows & of_week], scores[rows & of_week])
            for of_week in ((day - 110) // 7 == w for w in range(3))
        ]
        assert bank.ap_by_week["blend"] == pytest.approx(weekly)
    assert window.weeks == [110, 117, 124]


def test_a_row_without_a_score_counts_as_the_prior():
    """It ranks below what is above the prior of -4.5 log-odds, and above what is below."""
    data, scores = made_rows()
    given = np.where(np.arange(600) % 3 == 0, np.nan, scores)
    window, everything = Window(100, 129), np.ones(600, np.bool_)
    found = bank_outcomes(data, window, {"own": given}, is_scored=everything)
    rows = data.bank == 0
    expected = ap_by_hand(data.is_fraud[rows], np.where(np.isnan(given), -4.5, given)[rows])
    assert found[0].ap["own"] == pytest.approx(expected)


def test_a_system_that_a_bank_does_not_run_is_left_out_there():
    """As a family is that only one bank has."""
    data, scores = made_rows()
    only_first = np.where(data.bank == 0, scores, np.nan)
    found = bank_outcomes(
        data, Window(100, 129), {"mlp": only_first}, is_scored=np.ones(600, np.bool_)
    )
    assert "mlp" in found[0].ap
    assert found[1].ap == {}


def test_weeks_after_a_banks_last_row_have_no_figure():
    """The list is as long as the weeks."""
    data, scores = made_rows(days=10)
    found = bank_outcomes(
        data, Window(100, 127), {"blend": scores}, is_scored=np.ones(600, np.bool_)
    )
    assert found[0].ap_by_week["blend"][2:] == [None, None]


def test_curves_ascend_in_recall_and_reasons_are_the_banks_own():
    """At most 200 points; the most frequent reason comes first."""
    data, scores = made_rows()
    found = bank_outcomes(
        data,
        Window(100, 129),
        {"blend": scores},
        is_scored=np.ones(600, np.bool_),
        reasons={"south": Counter({"night": 2, "log_amount": 5})},
    )
    recall = [point[0] for point in found[0].curve["blend"]]
    assert recall == sorted(recall)
    assert recall[-1] == 1.0
    assert 2 <= len(recall) <= 200
    assert found[0].reasons == []
    assert found[1].reasons == [("log_amount", 5), ("night", 2)]


@pytest.mark.parametrize(("days", "first"), [(30, 20), (31, 21), (2, 1), (1, 0)])
def test_the_last_third_is_evaluated_unless_days_are_named(days, first):
    """Whole days, at least one."""
    event_ms = np.arange(50, 50 + days) * DAY_MS
    assert window_of(SOURCE, event_ms) == Window(50 + first, 50 + days - 1)


def test_days_without_a_row_are_refused():
    """The message says what there is."""
    source = RowSource(name="x", file=Path("x"), mapping=Path("x"), first_day=200, last_day=201)
    with pytest.raises(InvalidInputError, match=r"1970-07-20 to 1970-07-21.*from 1970-04-11"):
        window_of(source, np.array([100 * DAY_MS]))


def test_cold_and_warm_are_compared_on_the_same_rows_week_by_week():
    """And from day 21 on in one figure."""
    rng = np.random.default_rng(4)
    age_d = np.sort(rng.integers(0, 35, 800))
    is_fraud = rng.random(800) < 0.3
    warm = rng.normal(size=800) + is_fraud
    cold = np.where(age_d < 3, np.nan, warm + rng.normal(size=800))
    found = cold_join(is_fraud, age_d, cold, warm)
    with_prior = np.where(np.isnan(cold), -4.5, cold)
    assert [week for week, _, _ in found.by_week] == [0.0, 7.0, 14.0, 21.0, 28.0]
    for week, first, second in found.by_week:
        rows = (age_d >= week) & (age_d < week + 7)
        assert first == pytest.approx(ap_by_hand(is_fraud[rows], with_prior[rows]))
        assert second == pytest.approx(ap_by_hand(is_fraud[rows], warm[rows]))
    late = age_d >= 21
    assert found.settled == pytest.approx(
        (ap_by_hand(is_fraud[late], cold[late]), ap_by_hand(is_fraud[late], warm[late]))
    )


def test_a_join_too_late_to_settle_has_no_figure():
    """The weeks are there all the same."""
    found = cold_join(np.array([True, False]), np.array([3, 20]), np.ones(2), np.ones(2))
    assert found.settled is None
    assert len(found.by_week) == 2
