"""The factor of an unknown unit is found once, kept, and applied to what is held."""

import logging

import numpy as np
import pytest

from models.basis import Basis
from models.basis_builder import build_basis
from models.features.accounts import DAY_MS, N_FEATURES
from models.histograms import add_rows, empty_counts
from models.schema import Schema
from stream.account_table import AccountTable
from stream.row_log import RowLog
from stream.units import UnitAlignment, rescale_state

SCHEMA = Schema(entity_kinds=("terminal",))
N = len(SCHEMA.feature_names)


def counts_and_rows(seed: int, n: int, worth: float = 1.0) -> np.ndarray:
    """Return histograms of drawn rows; only log_amount, in units worth so much, matters."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, N)).astype(np.float32)
    rows[:, 0] = np.log1p(rng.lognormal(3.5, 1.0, n) / worth)
    counts = empty_counts(N)
    add_rows(counts, rows, np.zeros(n, bool))
    return counts


def a_basis(number: int = 1) -> Basis:
    return build_basis(counts_and_rows(1, 20_000), SCHEMA, number)


def test_it_is_found_once_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """And another one never again, whatever comes."""
    caplog.set_level(logging.INFO)
    alignment = UnitAlignment(is_known=False)
    assert alignment.align(counts_and_rows(2, 5_000, 11.3), None, 7) is None
    assert not alignment.is_aligned
    found = alignment.align(counts_and_rows(2, 5_000, 11.3), a_basis(), 7)
    assert found is not None
    assert alignment.factor == found == pytest.approx(11.3, rel=0.02)
    assert alignment.since_ms == 7
    assert alignment.align(counts_and_rows(3, 50_000, 3.0), a_basis(2), 9) is None
    assert alignment.factor == found
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_it_is_made_exact_when_there_is_two_fifths_more() -> None:
    """By what the outcomes say; once for each time, and since stays."""
    alignment, asked = UnitAlignment(is_known=False), []

    def correction() -> float | None:
        asked.append(1)
        return 1.03

    first = alignment.align(counts_and_rows(7, 2_000, 11.3), a_basis(), 7, correction)
    assert first is not None
    assert alignment.align(counts_and_rows(5, 2_799), a_basis(), 8, correction) is None
    assert not asked
    assert alignment.align(counts_and_rows(5, 3_000), a_basis(), 9, correction) == 1.03
    assert alignment.factor == pytest.approx(1.03 * first)
    assert alignment.since_ms == 7
    again = UnitAlignment(is_known=False)
    again.load(alignment.arrays())
    for one in (alignment, again):
        assert one.align(counts_and_rows(6, 4_199), a_basis(), 10, correction) is None
        assert one.align(counts_and_rows(6, 4_200), a_basis(), 11, lambda: None) is None
        assert one.factor == alignment.factor
    assert len(asked) == 1
    assert UnitAlignment().align(counts_and_rows(2, 50_000), a_basis(), 9, correction) is None


def test_amounts_count_as_written_until_then() -> None:
    alignment = UnitAlignment(is_known=False)
    amounts = np.array([1.0, 2.5])
    np.testing.assert_array_equal(alignment.in_reference(amounts), amounts)
    alignment.align(counts_and_rows(2, 5_000, 11.3), a_basis(), 0)
    np.testing.assert_allclose(alignment.in_reference(amounts), amounts * alignment.factor)


def test_rows_from_before_are_not_for_the_consortium() -> None:
    alignment = UnitAlignment(is_known=False)
    arrival_ms = np.array([6, 7, 8])
    assert alignment.is_shareable(arrival_ms).tolist() == [False, False, False]
    alignment.align(counts_and_rows(2, 5_000, 11.3), a_basis(), 7)
    assert alignment.is_shareable(arrival_ms).tolist() == [False, True, True]
    assert UnitAlignment().is_shareable(arrival_ms).all()


def test_what_cannot_be_aligned_is_tried_again_when_there_is_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not at every release: each try would be a warning."""
    alignment = UnitAlignment(is_known=False)
    equal = empty_counts(N)
    add_rows(equal, np.ones((3_000, N), np.float32), np.zeros(3_000, bool))
    assert alignment.align(equal, a_basis(), 1) is None
    assert alignment.align(equal, a_basis(), 2) is None
    assert len(caplog.records) == 1
    assert alignment.align(2 * equal, a_basis(), 3) is None
    assert alignment.align(2 * equal, a_basis(2), 4) is None
    assert len(caplog.records) == 3


def test_state_comes_back_and_a_rate_in_the_mapping_wins() -> None:
    alignment = UnitAlignment(is_known=False)
    alignment.align(counts_and_rows(2, 5_000, 11.3), a_basis(), 7)
    other, known = UnitAlignment(is_known=False), UnitAlignment(is_known=True)
    for one in (other, known):
        one.load(alignment.arrays())
    assert (other.factor, other.is_aligned, other.since_ms) == (alignment.factor, True, 7)
    assert (known.factor, known.since_ms) == (1.0, -1)
    fresh = UnitAlignment(is_known=False)
    fresh.load(UnitAlignment(is_known=False).arrays())
    assert not fresh.is_aligned


def test_what_is_held_becomes_that_of_the_new_unit() -> None:
    """Payments told in the old unit and rescaled, against the same told in the new one."""
    rng = np.random.default_rng(12)
    n, factor = 600, 11.3
    account = [f"A{i}" for i in rng.integers(0, 12, n)]
    event_ms = 20_000 * DAY_MS + np.sort(rng.integers(0, 40 * DAY_MS, n))
    amount = rng.lognormal(5.0, 0.5, n)  # all high: spikes are the same in both units
    tables, rows = [], []
    for scale in (1.0, factor):
        table, out = AccountTable(b"k" * 32), np.empty((n, N_FEATURES), np.float32)
        table.observe(table.rows(account), event_ms, amount * scale, out)
        tables.append(table)
        rows.append(out)
    log = RowLog(n_entities=0, n_features=N_FEATURES, n_own=0, n_experts=1)
    log.append(
        {
            "hash": np.arange(n, dtype=np.uint64),
            "event_ms": event_ms,
            "arrival_ms": event_ms,
            "account": np.zeros(n, np.int32),
            "entity": np.zeros((n, 0), np.int32),
            "features": rows[0],
            "own": np.zeros((n, 0), np.float32),
            "scores": np.zeros((n, 1), np.float32),
        }
    )
    for holder in (tables[0], log):
        for pages in holder.touched().values():
            pages.clear()
    rescale_state(tables[0], log, factor)
    for name in ("day_sum", "hour_sum", "day_squares", "day_n", "hour_n"):
        old, new = (table.state[name][:12].astype(np.float64) for table in tables)
        np.testing.assert_allclose(old, new, rtol=1e-6)
    robust = [table.state["robust_mean"][:12] for table in tables]
    np.testing.assert_allclose(*robust, rtol=0.03)  # its bound holds SMALL_CHANGE, once
    same_spikes = [0, *range(3, 14), 19]
    np.testing.assert_allclose(
        log.features[:, same_spikes], rows[1][:, same_spikes], rtol=2e-3, atol=2e-2
    )
    close = np.abs(log.features[:, [0, 6, 8, 9, 10]] - rows[1][:, [0, 6, 8, 9, 10]])
    assert np.nanmax(close) < 1e-3
    assert log.touched()["features"].marks(1).all()
    assert tables[0].touched()["state"].marks(1).all()
