"""Alerts: ids that repeat, cases per account and week, and what the record says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidInputError
from models.features.accounts import DAY_MS
from models.records import Reason, TransactionBatch
from stream.alerts import alert_id_of, case_id_of, make_alerts, probability

MONDAY_MS = 1_530_489_600_000  # 2018-07-02 00:00 UTC, a Monday
WHY = Reason(feature="n_1d", contribution=1.0, text="3 payments")


def batch() -> TransactionBatch:
    return TransactionBatch(
        transaction_id=["t1", "t2"],
        account_id=["a", "a"],
        event_time_ms=np.array([MONDAY_MS, MONDAY_MS + DAY_MS]),
        amount_minor=np.array([1_250, 99]),
        amount=np.array([12.5, 0.99]),
        currency=["EUR", "CHF"],
    )


def test_an_alert_carries_its_transaction_score_threshold_and_version() -> None:
    """Log-odds come out as probabilities, by the logistic function."""
    alerts = make_alerts(
        "north",
        batch(),
        logit=np.array([0.0, 2.0]),
        threshold=np.array([-1.0, -np.inf]),
        reasons=[[WHY], []],
        release="7",
    )
    assert [a.transaction_id for a in alerts] == ["t1", "t2"]
    assert [a.amount_minor for a in alerts] == [1_250, 99]
    assert [a.currency for a in alerts] == ["EUR", "CHF"]
    assert [a.y_score for a in alerts] == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    assert [a.threshold for a in alerts] == pytest.approx([1 / (1 + np.e), 0.0])
    assert [a.release for a in alerts] == ["7", "7"]
    assert [a.reasons for a in alerts] == [[WHY], []]
    assert alerts[0].case_id == alerts[1].case_id
    assert alerts[0].alert_id != alerts[1].alert_id


def test_ids_repeat_and_are_what_they_were() -> None:
    """Kept as literals: a change would double every alert that is processed again."""
    assert alert_id_of("north", "t1") == "c72a3696992b10b780ead251cf8b0a10"
    assert case_id_of("north", "a", MONDAY_MS) == "be883b6d8269bae143d253a61fcc7507"


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_different_transactions_have_different_alerts(a: str, b: str, c: str, d: str) -> None:
    """Member and id are told apart wherever the boundary between them lies."""
    assert (alert_id_of(a, b) == alert_id_of(c, d)) == ((a, b) == (c, d))


@given(st.integers(0, 7 * DAY_MS - 1))
def test_a_case_lasts_from_monday_to_sunday(offset_ms: int) -> None:
    """Every instant of the week has the Monday's case; the next Monday another."""
    first = case_id_of("north", "a", MONDAY_MS)
    assert case_id_of("north", "a", MONDAY_MS + offset_ms) == first
    assert case_id_of("north", "a", MONDAY_MS + 7 * DAY_MS + offset_ms) != first
    assert case_id_of("north", "b", MONDAY_MS + offset_ms) != first
    assert case_id_of("south", "a", MONDAY_MS + offset_ms) != first


def test_probability_does_not_overflow() -> None:
    """Infinite log-odds are 0 and 1."""
    logit = np.array([-np.inf, -800.0, 0.0, 800.0, np.inf])
    assert probability(logit).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_no_transactions_make_no_alerts() -> None:
    """The usual batch."""
    empty = np.zeros(0)
    none = batch().rows(slice(0, 0))
    assert make_alerts("n", none, logit=empty, threshold=empty, reasons=[], release="1") == []


def test_columns_of_another_length_are_refused() -> None:
    """One score, threshold and list of reasons per transaction."""
    with pytest.raises(InvalidInputError, match="2 scores"):
        make_alerts(
            "n",
            batch(),
            logit=np.zeros(2),
            threshold=np.zeros(1),
            reasons=[[], []],
            release="1",
        )
