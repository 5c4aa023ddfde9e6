"""Amounts in an unknown unit find their factor."""

from collections.abc import Callable

import numpy as np
import pytest

from models.alignment import correction_by_outcomes, estimate_factor
from models.basis_builder import build_basis
from models.errors import InvalidInputError
from models.features.accounts import N_FEATURES
from models.histograms import add_rows, empty_counts
from models.matured import Matured
from models.schema import Schema
from stream.account_table import AccountTable


def counts_of(values: np.ndarray) -> np.ndarray:
    """Return the (2, N_CELLS) histogram of one feature, every tenth row a fraud."""
    counts = empty_counts(1)
    rows = np.asarray(values, np.float32)[:, None]
    add_rows(counts, rows, np.arange(len(rows)) % 10 == 0)
    return counts[0]


SCHEMA = Schema(entity_kinds=())


def edges_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges and ranks of a consortium's basis for a feature with these values."""
    counts = empty_counts(len(SCHEMA.feature_names))
    counts[0] = counts_of(values)
    return build_basis(counts, SCHEMA, 1).fine_of(0)


@pytest.mark.parametrize("factor", [11.3, 1 / 11.3, 0.004, 1.0, 250.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_drawn_factor_is_recovered_within_two_percent(factor: float, seed: int) -> None:
    """Log-normal amounts; the bank writes them in units that are worth ``factor`` each."""
    rng = np.random.default_rng(seed)
    theirs = rng.lognormal(3.5, 1.0, 60_000)
    own = rng.lognormal(3.5, 1.0, 20_000) / factor
    found = estimate_factor(counts_of(np.log1p(own)), *edges_of(np.log1p(theirs)))
    assert found.factor == pytest.approx(factor, rel=0.02)
    assert found.n == 20_000
    assert found.spread < 0.1


def test_the_standard_error_covers_what_sampling_does() -> None:
    """Errors of 60 small banks: about as large as it says, few beyond twice it."""
    beyond = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        theirs, own = rng.lognormal(3.5, 1.0, 60_000), rng.lognormal(3.5, 1.0, 3_000) / 11.3
        found = estimate_factor(counts_of(np.log1p(own)), *edges_of(np.log1p(theirs)))
        beyond.append(abs(np.log(found.factor / 11.3)) / found.standard_error)
    assert 0.3 < np.median(beyond) < 1.0  # .67 of a normal error
    assert np.mean(np.array(beyond) > 2.0) < 0.12


def test_prices_that_many_pay_do_not_move_it() -> None:
    """Of several quantiles in one cell the basis has one edge; a third pays one of two prices."""
    rng = np.random.default_rng(4)

    def spend(n: int) -> np.ndarray:
        amounts = rng.lognormal(3.5, 1.0, n)
        amounts[: n // 4] = 9.99
        amounts[n // 4 : n // 3] = 49.9
        return amounts

    edges = edges_of(np.log1p(spend(60_000)))
    assert 12 <= len(edges[0]) < 40
    found = estimate_factor(counts_of(np.log1p(spend(20_000) / 11.3)), *edges)
    assert found.factor == pytest.approx(11.3, rel=0.03)  # cells are wider than the noise


def test_a_bank_that_spends_otherwise_in_the_tail_keeps_its_factor() -> None:
    """The median over quantiles does not follow a few of them."""
    rng = np.random.default_rng(5)
    theirs, own = rng.lognormal(3.5, 1.0, 60_000), rng.lognormal(3.5, 1.0, 20_000)
    own = np.where(own > np.quantile(own, 0.8), own * 3.0, own) / 11.3
    found = estimate_factor(counts_of(np.log1p(own)), *edges_of(np.log1p(theirs)))
    assert found.factor == pytest.approx(11.3, rel=0.03)


def test_too_few_are_refused() -> None:
    rng = np.random.default_rng(6)
    amounts = np.log1p(rng.lognormal(3.5, 1.0, 1_999))
    with pytest.raises(InvalidInputError, match="expected 2000 transactions or more, got 1999"):
        estimate_factor(counts_of(amounts), *edges_of(amounts))


def test_equal_amounts_are_refused_on_either_side() -> None:
    rng = np.random.default_rng(7)
    drawn, equal = np.log1p(rng.lognormal(3.5, 1.0, 5_000)), np.full(5_000, 3.0)
    with pytest.raises(InvalidInputError, match="quantiles or more of own amounts, got 1"):
        estimate_factor(counts_of(equal), *edges_of(drawn))
    with pytest.raises(InvalidInputError, match="of the consortium's amounts, got 0"):
        estimate_factor(counts_of(drawn), *edges_of(equal))


def test_amounts_of_another_shape_are_refused() -> None:
    """No factor turns a narrow distribution into a wide one."""
    rng = np.random.default_rng(8)
    wide, narrow = rng.lognormal(3.5, 2.0, 9_000), rng.lognormal(3.5, 0.3, 9_000)
    with pytest.raises(InvalidInputError, match="not the consortium's in another unit"):
        estimate_factor(counts_of(np.log1p(narrow)), *edges_of(np.log1p(wide)))


def test_a_histogram_of_another_grid_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="own_counts: expected shape"):
        estimate_factor(np.zeros(7, np.int64), *[np.zeros(3, np.float32)] * 2)
    with pytest.raises(InvalidInputError, match="edges: expected 3 as there are ranks, got 2"):
        estimate_factor(counts_of(np.arange(3_000.0)), *map(np.float32, ([1, 2], [0.1, 0.2, 0.3])))


def fraud_above(threshold: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a scorer that knows that frauds begin at an amount."""
    return lambda rows: np.where(np.expm1(rows[:, 0]) > threshold, 0.0, -5.0).astype(np.float64)


def spent(unit: float, n: int = 6_000) -> Matured:
    """Return payments of a bank whose customers spend 4 % more, its amounts off by ``unit``."""
    rng = np.random.default_rng(3)
    amount = 1.04 * rng.lognormal(3.5, 0.8, n)
    table, features = AccountTable(b"k" * 32), np.empty((n, N_FEATURES), np.float32)
    event_ms = 20_000 * 86_400_000 + np.arange(n) * 60_000
    table.observe(table.rows([f"A{i % 50}" for i in range(n)]), event_ms, amount * unit, features)
    return Matured(
        features=features,
        is_fraud=(amount > 60.0) & (rng.random(n) < 0.5),
        hashes=np.arange(n, dtype=np.uint64),
        known_ms=event_ms,
    )


@pytest.mark.parametrize("unit", [0.95, 1.03, 1.08])
def test_outcomes_correct_what_rank_cannot(unit: float) -> None:
    """Frauds begin at 60 in the reference currency, whatever the customers spend."""
    found = correction_by_outcomes(fraud_above(60.0), spent(unit))
    assert found is not None
    assert found * unit == pytest.approx(1.0, abs=0.01)


def test_outcomes_that_say_nothing_correct_nothing() -> None:
    """Where the unit is right, frauds are few, all are alike, or it is far off."""
    right = spent(1.0)
    assert correction_by_outcomes(fraud_above(60.0), right) in (None, pytest.approx(1.0, abs=0.006))
    few = right.take(np.r_[np.flatnonzero(right.is_fraud)[:29], np.flatnonzero(~right.is_fraud)])
    assert correction_by_outcomes(fraud_above(66.0), few) is None
    assert correction_by_outcomes(lambda rows: np.full(len(rows), -2.0), right) is None
    assert correction_by_outcomes(lambda rows: np.full(len(rows), np.nan), right) is None
    assert correction_by_outcomes(fraud_above(60.0), spent(1.3)) is None
