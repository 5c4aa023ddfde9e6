"""Amounts in an unknown unit find their factor; scales find their quantiles."""

import numpy as np
import pytest

from models.alignment import QuantileMap, estimate_factor, feature_edges
from models.basis_builder import FINE_QUANTILES, build_basis
from models.errors import InvalidInputError
from models.histograms import add_rows, empty_counts, lower_edges, quantile_edges
from models.schema import Schema

GRID = lower_edges()


def counts_of(values: np.ndarray) -> np.ndarray:
    """Return the (2, N_CELLS) histogram of one feature, every tenth row a fraud."""
    counts = empty_counts(1)
    rows = np.asarray(values, np.float32)[:, None]
    add_rows(counts, rows, np.arange(len(rows)) % 10 == 0)
    return counts[0]


def edges_of(values: np.ndarray) -> np.ndarray:
    return quantile_edges(counts_of(values).sum(axis=0), FINE_QUANTILES, edges=GRID)


@pytest.mark.parametrize("factor", [11.3, 1 / 11.3, 0.004, 1.0, 250.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_drawn_factor_is_recovered_within_two_percent(factor: float, seed: int) -> None:
    """Log-normal amounts; the bank writes them in units that are worth ``factor`` each."""
    rng = np.random.default_rng(seed)
    theirs = rng.lognormal(3.5, 1.0, 60_000)
    own = rng.lognormal(3.5, 1.0, 20_000) / factor
    found = estimate_factor(counts_of(np.log1p(own)), edges_of(np.log1p(theirs)))
    assert found.factor == pytest.approx(factor, rel=0.02)
    assert found.n == 20_000
    assert found.spread < 0.1


def test_the_standard_error_covers_what_sampling_does() -> None:
    """Errors of 60 small banks: about as large as it says, few beyond twice it."""
    beyond = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        theirs, own = rng.lognormal(3.5, 1.0, 60_000), rng.lognormal(3.5, 1.0, 3_000) / 11.3
        found = estimate_factor(counts_of(np.log1p(own)), edges_of(np.log1p(theirs)))
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
    assert 12 <= len(edges) < len(FINE_QUANTILES)
    found = estimate_factor(counts_of(np.log1p(spend(20_000) / 11.3)), edges)
    assert found.factor == pytest.approx(11.3, rel=0.03)  # cells are wider than the noise


def test_a_bank_that_spends_otherwise_in_the_tail_keeps_its_factor() -> None:
    """The median over quantiles does not follow a few of them."""
    rng = np.random.default_rng(5)
    theirs, own = rng.lognormal(3.5, 1.0, 60_000), rng.lognormal(3.5, 1.0, 20_000)
    own = np.where(own > np.quantile(own, 0.8), own * 3.0, own) / 11.3
    found = estimate_factor(counts_of(np.log1p(own)), edges_of(np.log1p(theirs)))
    assert found.factor == pytest.approx(11.3, rel=0.03)


def test_too_few_are_refused() -> None:
    rng = np.random.default_rng(6)
    amounts = np.log1p(rng.lognormal(3.5, 1.0, 1_999))
    with pytest.raises(InvalidInputError, match="expected 2000 transactions or more, got 1999"):
        estimate_factor(counts_of(amounts), edges_of(amounts))


def test_equal_amounts_are_refused_on_either_side() -> None:
    rng = np.random.default_rng(7)
    drawn, equal = np.log1p(rng.lognormal(3.5, 1.0, 5_000)), np.full(5_000, 3.0)
    with pytest.raises(InvalidInputError, match="quantiles or more of own amounts, got 1"):
        estimate_factor(counts_of(equal), edges_of(drawn))
    with pytest.raises(InvalidInputError, match="of the consortium's amounts, got 0"):
        estimate_factor(counts_of(drawn), edges_of(equal))


def test_amounts_of_another_shape_are_refused() -> None:
    """No factor turns a narrow distribution into a wide one."""
    rng = np.random.default_rng(8)
    wide, narrow = rng.lognormal(3.5, 2.0, 9_000), rng.lognormal(3.5, 0.3, 9_000)
    with pytest.raises(InvalidInputError, match="not the consortium's in another unit"):
        estimate_factor(counts_of(np.log1p(narrow)), edges_of(np.log1p(wide)))


def test_a_histogram_of_another_grid_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="own_counts: expected shape"):
        estimate_factor(np.zeros(7, np.int64), np.zeros(3, np.float32))
    with pytest.raises(InvalidInputError, match="edges: expected 23 or fewer, got 24"):
        estimate_factor(counts_of(np.arange(3_000.0)), np.arange(24, dtype=np.float32))


def test_edges_of_a_feature_are_its_own() -> None:
    schema = Schema(entity_kinds=("terminal",))
    counts = empty_counts(len(schema.feature_names))
    rng = np.random.default_rng(9)
    rows = rng.normal(size=(4_000, len(schema.feature_names))).astype(np.float32)
    add_rows(counts, rows, np.zeros(len(rows), bool))
    basis = build_basis(counts, schema, 1)
    for feature in (0, 3, len(schema.feature_names) - 1):
        np.testing.assert_array_equal(feature_edges(basis, feature), edges_of(rows[:, feature]))


def test_a_quantile_map_gives_values_the_consortiums_distribution() -> None:
    """A bank that writes the cube of everybody's risk number, in percent."""
    rng = np.random.default_rng(10)
    theirs, own = rng.normal(5.0, 1.0, 60_000), rng.normal(5.0, 1.0, 20_000)
    written = 100.0 * own**3
    fitted = QuantileMap.fit(counts_of(written), edges_of(theirs))
    mapped = fitted.apply(written)
    assert np.all(np.diff(mapped[np.argsort(written)]) >= 0.0)
    levels = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(mapped, levels), np.quantile(theirs, levels), atol=0.06)
    inner = np.abs(own - 5.0) < 1.5
    assert np.median(np.abs(mapped[inner] - own[inner])) < 0.03


def test_a_quantile_map_keeps_what_is_absent_and_goes_on_beyond_its_ends() -> None:
    """Two knots: the line through (1, 10) and (3, 20)."""
    fitted = QuantileMap(own=np.array([1.0, 3.0]), theirs=np.array([10.0, 20.0]))
    np.testing.assert_allclose(
        fitted.apply(np.array([np.nan, 2.0, 5.0, -1.0])), [np.nan, 15.0, 30.0, 0.0]
    )


def test_a_quantile_map_refuses_what_has_no_ranks() -> None:
    rng = np.random.default_rng(11)
    drawn = rng.normal(5.0, 1.0, 5_000)
    edges = edges_of(drawn)
    with pytest.raises(InvalidInputError, match="two or more ascending"):
        QuantileMap.fit(counts_of(np.full(5_000, 2.0)), edges)
    with pytest.raises(InvalidInputError, match="expected 2000 values or more, got 5"):
        QuantileMap.fit(counts_of(drawn[:5]), edges)
    with pytest.raises(InvalidInputError, match="expected 23 edges, got 22"):
        QuantileMap.fit(counts_of(drawn), edges[1:])
