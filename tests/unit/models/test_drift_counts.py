"""Counts and sums that drift is seen in, against the formulas written out."""

import numpy as np
import pytest

from models.drift_counts import N_COARSE, N_SUMS, add_outcomes, count_coarse, stability_index
from models.errors import InvalidInputError

ALL = np.arange(3)


def test_each_value_is_counted_in_one_cell_and_the_absent_in_the_last() -> None:
    """Order of cells is order of values; four cells an octave."""
    counts = np.zeros((3, N_COARSE), np.uint32)
    rows = np.array([[1.0, -2.0, np.nan], [1.24, 0.0, np.inf], [1.26, 2.0, 1e-9]], np.float32)
    count_coarse(counts, rows, ALL)
    assert counts.sum(axis=1).tolist() == [3, 3, 3]
    assert sorted(counts[0][counts[0] > 0].tolist()) == [1, 2]  # 1.0 and 1.24 share [1, 1.25)
    cells = [int(np.flatnonzero(one_count(v))[0]) for v in (-np.inf, -3.0, -1e-9, 0.5, 3.0, np.inf)]
    assert cells == sorted(set(cells))
    assert counts[2, N_COARSE - 1] == 1
    assert one_count(0.0).tolist() == one_count(-0.0).tolist() == one_count(1e-9).tolist()


def one_count(value: float) -> np.ndarray:
    counts = np.zeros((1, N_COARSE), np.uint32)
    count_coarse(counts, np.array([[value]], np.float32), np.array([0]))
    return counts[0]


def test_only_the_columns_asked_for_are_counted_in_any_cut() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 4)).astype(np.float32)
    whole, cut = np.zeros((2, N_COARSE), np.uint32), np.zeros((2, N_COARSE), np.uint32)
    count_coarse(whole, rows, np.array([1, 3]))
    for piece in np.split(rows, [3, 77, 400]):
        count_coarse(cut, piece, np.array([1, 3]))
    assert np.array_equal(whole, cut)
    alone = np.zeros((1, N_COARSE), np.uint32)
    count_coarse(alone, rows[:, 3:], np.array([0]))
    assert np.array_equal(whole[1], alone[0])


def test_wrong_shapes_are_refused_before_anything_is_written() -> None:
    counts = np.zeros((2, N_COARSE), np.uint32)
    with pytest.raises(InvalidInputError, match="counts: expected shape"):
        count_coarse(counts, np.zeros((1, 3), np.float32), ALL)
    with pytest.raises(InvalidInputError, match="rows: expected the columns"):
        count_coarse(counts, np.zeros((1, 3), np.float32), np.array([0, 3]))
    with pytest.raises(InvalidInputError, match="sums of shape"):
        add_outcomes(np.zeros((1, N_SUMS)), np.zeros((4, 2)), np.zeros(4, bool))


def test_sums_are_those_of_the_formulas() -> None:
    """Log-loss above the expected one is loss - entropy, row by row."""
    rng = np.random.default_rng(2)
    z = rng.normal(-3.0, 2.0, 400)
    y = rng.random(400) < 0.2
    scores = np.column_stack([z, np.where(rng.random(400) < 0.5, np.nan, z)])
    sums = np.zeros((2, N_SUMS))
    add_outcomes(sums, scores, y)
    for j in (0, 1):
        there = ~np.isnan(scores[:, j])
        p, of = 1.0 / (1.0 + np.exp(-z[there])), y[there]
        loss = -np.where(of, np.log(p), np.log1p(-p))
        entropy = -p * np.log(p) - (1.0 - p) * np.log1p(-p)
        expected = [
            there.sum(),
            of.sum(),
            p.sum(),
            (p * (1.0 - p)).sum(),
            (loss - entropy).sum(),
            entropy.sum(),
            (p * (1.0 - p) * z[there] ** 2).sum(),
        ]
        np.testing.assert_allclose(sums[j], expected, rtol=1e-10)


def test_sums_do_not_depend_on_the_cut_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    scores, y = rng.normal(size=(300, 2)), rng.random(300) < 0.1
    whole, cut = np.zeros((2, N_SUMS)), np.zeros((2, N_SUMS))
    add_outcomes(whole, scores, y)
    for piece in np.split(np.arange(300), [1, 100, 101]):
        add_outcomes(cut, scores[piece], y[piece])
    assert whole.tobytes() == cut.tobytes()


def test_extreme_scores_stay_finite() -> None:
    sums = np.zeros((1, N_SUMS))
    add_outcomes(sums, np.array([[np.inf], [-np.inf], [500.0]]), np.array([False, True, True]))
    assert np.isfinite(sums).all()


def test_equal_distributions_have_an_index_of_about_nothing() -> None:
    """What sampling makes of it, (groups - 1)(1/n + 1/m), is taken off."""
    rng = np.random.default_rng(4)
    found = [
        stability_index(of_values(rng.normal(3, 1, 2_000)), of_values(rng.normal(3, 1, 500)))
        for _ in range(200)
    ]
    assert max(found) < 0.05
    assert np.mean(found) < 0.01


def of_values(values: np.ndarray) -> np.ndarray:
    counts = np.zeros((1, N_COARSE), np.uint32)
    count_coarse(counts, values.astype(np.float32)[:, None], np.array([0]))
    return counts[0]


def test_the_index_of_two_groups_is_the_formula() -> None:
    """80 % zeros against 50 %: (.8 - .5) log(.8 / .5) + (.2 - .5) log(.2 / .5)."""
    n = 100_000
    reference, current = np.zeros(N_COARSE, np.int64), np.zeros(N_COARSE, np.int64)
    reference[[100, 150]] = [80 * n, 20 * n]
    current[[100, 150]] = [50 * n, 50 * n]
    expected = 0.3 * np.log(0.8 / 0.5) - 0.3 * np.log(0.2 / 0.5)
    assert stability_index(reference, current) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("broken", [np.full(800, 5.0), np.full(800, np.nan), np.zeros(800)])
def test_a_feature_that_is_constant_or_gone_has_a_large_index_both_ways(broken) -> None:
    rng = np.random.default_rng(5)
    usual = of_values(rng.normal(3, 1, 2_000))
    assert stability_index(usual, of_values(broken)) > 1.0
    assert stability_index(of_values(broken), usual) > 1.0


def test_an_empty_side_is_refused() -> None:
    empty = np.zeros(N_COARSE, np.int64)
    with pytest.raises(InvalidInputError, match="rows on both sides, got 0 and 3"):
        stability_index(empty, of_values(np.ones(3)))
