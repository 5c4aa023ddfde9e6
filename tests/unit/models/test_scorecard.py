"""The scorecard: its formulas in plain NumPy, sums that merge, the solve, rounding for the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.families.scorecard import DULL_P, THINNING, Statistics, is_kept, logits
from models.families.solver import pack, solve, solve_square, unpack

N_WEIGHTS = 12
EPS = np.finfo(np.float64).eps
LOW = 0.02 - 1e-9


def random_rows(
    n: int, seed: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.float64], NDArray[np.bool_]]:
    """Rows of a bias and three transforms, some missing; outcomes, log-odds, what is kept."""
    rng = np.random.default_rng(seed)
    bins = np.array([1, 4, 8]) + rng.integers(0, [3, 4, 4], (n, 3))
    bins[rng.random((n, 3)) < 0.2] = -1
    active = np.concatenate([np.zeros((n, 1)), bins], axis=1).astype(np.int32)
    return active, rng.random(n) < 0.2, rng.uniform(-8, 4, n), rng.random(n) < 0.3


def dense(active: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return x of each row: 1 for each active weight."""
    x = np.zeros((len(active), N_WEIGHTS + 1))
    np.put_along_axis(x, active.astype(int), 1.0, axis=1)  # -1 is the last column, cut off
    return x[:, :-1]


def expected_sums(
    active: NDArray[np.int32],
    y: NDArray[np.bool_],
    z: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return A and b as the module's text defines them."""
    x, p = dense(active), 1 / (1 + np.exp(-z))
    h = np.maximum(p * (1 - p), np.abs(y - p) / 10)
    v = np.where(~y & (p <= 0.02), np.where(kept, 10.0, 0.0), 1.0)
    return (x * (v * h)[:, None]).T @ x, x.T @ ((y - p) + v * h * z)


def statistics_of(
    active: NDArray[np.int32],
    y: NDArray[np.bool_],
    z: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> Statistics:
    sums = Statistics(N_WEIGHTS)
    sums.add(active, y, z, kept=kept)
    return sums


def test_logits_are_the_sum_of_active_weights() -> None:
    """Missing transforms add nothing."""
    active = random_rows(200)[0]
    weights = np.random.default_rng(1).normal(size=N_WEIGHTS)
    assert logits(active, weights) == pytest.approx(dense(active) @ weights, abs=8 * EPS)


def test_logits_stay_within_thirty() -> None:
    """On both sides; no rows give no logits."""
    active = np.array([[0, -1], [1, -1], [0, 1]], np.int32)
    assert logits(active, np.array([40.0, -75.0])).tolist() == [30.0, -30.0, -30.0]
    assert logits(active[:0], np.zeros(2)).shape == (0,)


@pytest.mark.parametrize("n", [500, 3_000])
def test_statistics_are_those_of_the_text(n: int) -> None:
    """A and b against dense matrices, dull rows both kept and thinned out among them."""
    rows = random_rows(n)
    sums = statistics_of(*rows)
    curvature, gradient = expected_sums(*rows)
    assert np.triu(sums.curvature()) == pytest.approx(np.triu(curvature), rel=1e-12, abs=1e-12)
    assert not np.tril(sums.curvature(), -1).any()
    assert sums.gradient == pytest.approx(gradient, rel=1e-12, abs=1e-10)
    assert sums.n == n


@pytest.mark.parametrize(
    ("p", "y", "v"),
    [(LOW, False, THINNING), (0.02 + 1e-9, False, 1), (LOW, True, 1), (0.9, False, 1)],
)
def test_only_legitimate_rows_scored_low_are_thinned(p: float, y: bool, v: int) -> None:
    """One row each, kept and not: v is 10 or 0 for the dull, 1 whatever the hash for others."""
    z = np.log(p / (1 - p))
    h = max(p * (1 - p), abs(y - p) / 10)
    for kept in (True, False):
        weight = v if kept or v == 1 else 0
        row = (np.zeros((1, 1), np.int32), np.array([y]), np.array([z]), np.array([kept]))
        sums = statistics_of(*row)
        assert sums.curvature()[0, 0] == pytest.approx(weight * h, rel=1e-12)
        assert sums.gradient[0] == pytest.approx((y - p) + weight * h * z, rel=1e-12)


def test_the_limit_of_the_dull_is_two_per_cent() -> None:
    """What the module's text says."""
    assert (DULL_P, THINNING) == (0.02, 10)


def test_thinning_is_unbiased() -> None:
    """A tenth of the sums with every dull row kept and nine tenths of those with none are v = 1."""
    active, y, z, _ = random_rows(400)
    x, p = dense(active), 1 / (1 + np.exp(-z))
    h = np.maximum(p * (1 - p), np.abs(y - p) / 10)
    every = statistics_of(active, y, z, np.ones(400, bool))
    none = statistics_of(active, y, z, np.zeros(400, bool))
    mean_a = 0.1 * every.curvature() + 0.9 * none.curvature()
    mean_b = 0.1 * every.gradient + 0.9 * none.gradient
    assert mean_a == pytest.approx(np.triu((x * h[:, None]).T @ x), rel=1e-12, abs=1e-12)
    assert mean_b == pytest.approx(x.T @ ((y - p) + h * z), rel=1e-12, abs=1e-11)


@pytest.mark.parametrize("kind", ["counting", "even", "drawn"])
def test_a_tenth_is_kept_whatever_the_hashes(kind: str) -> None:
    """Within 5 standard deviations of the binomial; twice the same rows."""
    n = 100_000
    hashes = np.arange(n, dtype=np.uint64)
    if kind == "even":
        hashes *= np.uint64(2**20)
    if kind == "drawn":
        hashes = np.random.default_rng(0).integers(0, 2**64, n, np.uint64)
    kept = is_kept(hashes)
    assert abs(kept.sum() - n / 10) < 5 * np.sqrt(n * 0.1 * 0.9)
    assert (is_kept(hashes[::-1])[::-1] == kept).all()


@given(n=st.integers(0, 40), cuts=st.tuples(st.integers(0, 40), st.integers(0, 40)))
def test_statistics_of_parts_sum_to_those_of_the_whole(n: int, cuts: tuple[int, int]) -> None:
    """Three members, empty ones included, in either order; the operands stay as they are."""
    rows = random_rows(n, seed=n)
    whole = statistics_of(*rows)
    pieces = zip(*(np.split(column, sorted(cuts)) for column in rows), strict=True)
    parts = [statistics_of(*piece) for piece in pieces]
    for order in (parts, parts[::-1]):
        curvature = sum(part.curvature() for part in order)
        gradient = sum(part.gradient for part in order)
        assert curvature == pytest.approx(whole.curvature(), rel=1e-9, abs=1e-9)
        assert gradient == pytest.approx(whole.gradient, rel=1e-9, abs=1e-9)
    assert sum(part.n for part in parts) == whole.n == n


def test_adding_in_chunks_gives_the_same_bits() -> None:
    """Rows are added one after the other, however they arrive."""
    rows = random_rows(90)
    whole, chunked = statistics_of(*rows), Statistics(N_WEIGHTS)
    for start in range(0, 90, 7):
        active, y, z, kept = (column[start : start + 7] for column in rows)
        chunked.add(active, y, z, kept=kept)
    assert chunked.curvature().tobytes() == whole.curvature().tobytes()
    assert chunked.gradient.tobytes() == whole.gradient.tobytes()


def test_rows_that_are_not_finite_show() -> None:
    """They are no thinned ones."""
    sums = statistics_of(
        np.zeros((1, 1), np.int32), np.array([True]), np.array([np.nan]), np.array([True])
    )
    assert np.isnan(sums.curvature()[0, 0])


def test_decay_multiplies_both_sums() -> None:
    """And leaves the count of rows alone."""
    rows = random_rows(50)
    sums, before = statistics_of(*rows), statistics_of(*rows)
    sums.decay(0.25)
    assert (sums.curvature() == 0.25 * before.curvature()).all()
    assert (sums.gradient == 0.25 * before.gradient).all()
    assert sums.n == 50


@given(
    seed=st.integers(0, 1000),
    weights=st.lists(st.floats(-30, 30), min_size=N_WEIGHTS, max_size=N_WEIGHTS),
)
def test_rounding_keeps_the_residual(seed: int, weights: list[float]) -> None:
    """Of float32 A and corrected b, b - A w at the weights in force is that before rounding."""
    sums, w = statistics_of(*random_rows(60, seed)), np.array(weights)
    exact_a, exact_b = sums.curvature().copy(), sums.gradient.copy()
    packed, corrected = sums.rounded(w)
    full = exact_a + np.triu(exact_a, 1).T
    rounded = packed.astype(np.float64)
    assert packed.dtype == np.float32
    assert rounded == pytest.approx(exact_a[np.triu_indices(N_WEIGHTS)], rel=2.0**-24)
    square = np.zeros_like(full)
    square[np.triu_indices(N_WEIGHTS)] = rounded
    square += np.triu(square, 1).T
    # A's entries are below 60 / 4, so |A| |w| is below 12 * 15 * 30 = 5400
    assert corrected - square @ w == pytest.approx(exact_b - full @ w, abs=50 * 5400 * EPS)
    assert (sums.curvature() == exact_a).all()
    assert (sums.gradient == exact_b).all()


@given(n=st.integers(1, 9), seed=st.integers(0, 100))
def test_pack_and_unpack_are_inverse(n: int, seed: int) -> None:
    """Row by row of the upper triangle; what stands below it is dropped."""
    square = np.random.default_rng(seed).normal(size=(n, n))
    packed = pack(square)
    assert packed.tolist() == square[np.triu_indices(n)].tolist()
    assert unpack(packed, n).tolist() == np.triu(square).tolist()
    assert pack(unpack(packed, n)).tolist() == packed.tolist()
    assert unpack(packed.astype(np.float32), n).dtype == np.float64


@pytest.mark.parametrize("ridge", [0.5, 2.0, 100.0])
def test_solve_is_the_ridge_solution_around_the_prior(ridge: float) -> None:
    """It is (A + ridge I)^-1 (b + ridge w0) by LAPACK, square and packed; operands stay."""
    sums = statistics_of(*random_rows(300))
    full = sums.curvature() + np.triu(sums.curvature(), 1).T
    prior = np.r_[-4.5, np.zeros(N_WEIGHTS - 1)]
    assert (np.diag(full) > 0).all()
    expected = np.linalg.solve(full + ridge * np.eye(N_WEIGHTS), sums.gradient + ridge * prior)
    given = sums.curvature()
    before = given.copy()
    square = solve_square(given, sums.gradient, ridge=ridge, prior_logit=-4.5)
    packed = solve(pack(given), sums.gradient, ridge=ridge, prior_logit=-4.5)
    assert square == pytest.approx(expected, rel=1e-10, abs=1e-10)
    assert packed.tobytes() == square.tobytes()
    assert (given == before).all()


def test_weights_without_curvature_keep_their_prior() -> None:
    """Whatever their gradient; the others are solved as if these did not exist."""
    sums = statistics_of(*random_rows(300))
    unseen, curvature = [3, 9], sums.curvature()
    curvature[unseen] = 0.0
    curvature[:, unseen] = 0.0
    got = solve_square(curvature, sums.gradient, ridge=2.0, prior_logit=-3.0)
    rest = np.setdiff1d(np.arange(N_WEIGHTS), unseen)
    inner = solve_square(
        curvature[np.ix_(rest, rest)], sums.gradient[rest], ridge=2.0, prior_logit=-3.0
    )
    assert got[unseen].tolist() == [0.0, 0.0]
    assert got[rest].tobytes() == inner.tobytes()


def test_no_data_at_all_give_the_prior() -> None:
    """The log-odds of fraud on the bias, nothing else."""
    sums = Statistics(3)
    got = solve(pack(sums.curvature()), sums.gradient, ridge=2.0, prior_logit=-4.5)
    assert got.tolist() == [-4.5, 0.0, 0.0]


def test_a_curvature_that_is_no_sum_of_squares_is_refused() -> None:
    """As a damaged or forged contribution may have it."""
    for bad in (5.0, np.nan):
        packed = np.array([1.0, bad, 1.0])
        with pytest.raises(np.linalg.LinAlgError):
            solve(packed, np.ones(2), ridge=1.0, prior_logit=-4.5)


def test_repeated_steps_settle_at_the_penalised_optimum() -> None:
    """There the gradient of the log-loss is ridge (w - w0), thinned curvature or not."""
    rng = np.random.default_rng(5)
    active = random_rows(2_000, seed=5)[0]
    truth = np.r_[-4.5, rng.normal(size=N_WEIGHTS - 1)]
    x = dense(active)
    y = rng.random(2_000) < 1 / (1 + np.exp(-x @ truth))
    kept = is_kept(rng.integers(0, 2**64, 2_000, np.uint64))
    w = prior = np.r_[-4.5, np.zeros(N_WEIGHTS - 1)]
    for _ in range(60):
        sums = statistics_of(active, y, logits(active, w), kept)
        w = solve_square(sums.curvature(), sums.gradient, ridge=2.0, prior_logit=-4.5)
    p = 1 / (1 + np.exp(-x @ w))
    assert (~y & (p <= DULL_P)).any()
    assert x.T @ (y - p) == pytest.approx(2.0 * (w - prior), abs=1e-8)
