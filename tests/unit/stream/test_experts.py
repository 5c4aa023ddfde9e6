"""Scorecards: what they learn is one Newton step of logistic regression, written out in NumPy."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from models.basis import Basis, encode
from models.basis_builder import BasisShape, build_basis
from models.copula import bin_scores, is_sampled
from models.families.scorecard import is_kept
from models.families.solver import unpack
from models.features.accounts import DAY_MS
from models.histograms import add_rows, empty_counts
from models.matured import Matured
from models.schema import Schema
from stream.experts import LearningPolicy, SharedExpert
from stream.moments import MAX_FEATURES, MomentLearner
from stream.own_expert import OwnExpert

SCHEMA = Schema(entity_kinds=())
POLICY = LearningPolicy(
    first_n=100, first_frauds=5, growth=1.5, half_life_d=10.0, bucket_d=7, ridge=1.5
)
BUCKET_MS = POLICY.bucket_d * DAY_MS
T = 2_900 * BUCKET_MS


def rows(n: int, seed: int, at_ms: int = T) -> Matured:
    """Return rows of which some values are absent; high first features are more often frauds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(SCHEMA.feature_names))).astype(np.float32)
    is_fraud = rng.random(n) < 1 / (1 + np.exp(2.5 - 2 * x[:, 0]))
    x[rng.random(x.shape) < 0.1] = np.nan
    return Matured(
        features=x,
        is_fraud=is_fraud,
        hashes=rng.integers(0, 2**63, n).astype(np.uint64),
        known_ms=np.full(n, at_ms),
    )


def together(*several: Matured) -> Matured:
    return Matured(
        **{
            name: np.concatenate([getattr(each, name) for each in several])
            for name in ("features", "is_fraud", "hashes", "known_ms")
        }
    )


def a_basis(some: Matured, number: int = 1) -> Basis:
    counts = empty_counts(len(SCHEMA.feature_names))
    add_rows(counts, some.features, some.is_fraud)
    return build_basis(counts, SCHEMA, number, shape=BasisShape(plain_weights=5_000))


def design(basis: Basis, some: Matured) -> np.ndarray:
    """Return the rows as 0-1 columns, one a weight."""
    active = encode(basis, some.features)
    x = np.zeros((len(some), basis.n_weights))
    for row, weights in zip(x, active, strict=True):
        row[weights[weights >= 0]] = 1.0
    return x


def normal_equations(
    basis: Basis, some: Matured, z: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (A, b) of the quadratic model of the log-loss around log-odds z."""
    x = design(basis, some)
    z = np.broadcast_to(np.asarray(z, np.float64), len(some))
    y, p = some.is_fraud.astype(np.float64), 1.0 / (1.0 + np.exp(-z))
    v = np.where((y == 0) & (p <= 0.02), np.where(is_kept(some.hashes), 10.0, 0.0), 1.0)
    h = v * np.maximum(p * (1 - p), np.abs(y - p) / 10)
    return (x * h[:, None]).T @ x, x.T @ ((y - p) + h * z)


def solved(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the weights of normal equations; those never seen keep their prior."""
    prior = np.zeros(len(b))
    prior[0] = POLICY.prior_logit
    seen = np.diag(a) > 0
    weights = prior.copy()
    ridge = POLICY.ridge * np.eye(int(seen.sum()))
    weights[seen] = np.linalg.solve(a[np.ix_(seen, seen)] + ridge, (b + POLICY.ridge * prior)[seen])
    return weights


FIRST, SECOND = rows(150, 1), rows(60, 2)
BASIS = a_basis(FIRST)
WEIGHTS = np.random.default_rng(9).normal(-0.1, 0.3, BASIS.n_weights)


def same(found: np.ndarray | None, expected: np.ndarray, *, rtol: float, atol: float) -> None:
    """Compare, faster than `pytest.approx` on large arrays."""
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def an_own(*learnt: Matured) -> OwnExpert:
    expert = OwnExpert(SCHEMA, POLICY)
    for each in learnt:
        expert.learn(each)
    return expert


def a_shared(collecting: Basis | None = BASIS, *, in_force: bool = False) -> SharedExpert:
    expert = SharedExpert(SCHEMA, POLICY)
    scorer = (BASIS, WEIGHTS) if in_force else (None, None)
    retained = FIRST.take(slice(0, 0)) if expert.needs_rows(collecting) else None
    expert.install(*scorer, collecting, retained)
    return expert


def sums(expert: SharedExpert, now_ms: int = T) -> dict[int, tuple[int, np.ndarray, np.ndarray]]:
    """Return bucket -> (n, square A, b) of what is published."""
    found = expert.contributions(now_ms)
    out = {}
    for bucket, (n, given) in found.items():
        packed, gradient = given().values()
        upper = unpack(packed, len(gradient))
        out[bucket] = n, upper + np.triu(upper, 1).T, gradient
    return out


def end_day(expert: OwnExpert, forgetting: float = 1.0) -> None:
    """Solve for new weights where it is time to, and forget."""
    if (solve := expert.solving(forgetting)) is not None:
        expert.take_weights(expert.basis, solve())
    expert.decay(forgetting)


def test_without_weights_there_is_no_score() -> None:
    """Neither from the own nor from the shared scorecard."""
    for expert in (an_own(FIRST), a_shared()):
        assert np.isnan(expert.score(FIRST.features)).all()
        assert len(expert.score(FIRST.features)) == len(FIRST)


@pytest.mark.parametrize(
    ("n", "n_frauds", "is_wanted"), [(99, 20, False), (100, 4, False), (100, 5, True)]
)
def test_the_first_basis_waits_for_enough_rows_and_frauds(
    n: int, n_frauds: int, is_wanted: bool
) -> None:
    """Both thresholds must be reached."""
    some = replace(rows(n, 3), is_fraud=np.arange(n) < n_frauds)
    full = replace(some, features=np.nan_to_num(some.features))
    assert an_own(full).wants_basis == is_wanted


def test_a_next_basis_is_due_when_the_rows_have_grown_by_the_factor() -> None:
    """Half as many again, with a growth of 1.5."""
    full = replace(FIRST, features=np.nan_to_num(FIRST.features))
    expert = an_own(full)
    expert.rebase(full)
    assert not expert.wants_basis
    expert.learn(full.take(slice(0, 74)))
    assert not expert.wants_basis
    expert.learn(full.take(slice(0, 1)))
    assert expert.wants_basis
    expert.rebase(full)
    assert expert.basis is not None
    assert expert.basis.number == 2
    assert not expert.wants_basis


def test_a_new_basis_is_solved_at_once_from_the_retained_rows() -> None:
    """Around the prior at first, around the scores in force later."""
    expert = an_own(FIRST)
    expert.rebase(FIRST)
    assert expert.basis is not None
    assert expert.basis.edges.tolist() == BASIS.edges.tolist()
    first = solved(*normal_equations(BASIS, FIRST, POLICY.prior_logit))
    same(expert.weights, first, rtol=1e-7, atol=1e-9)
    both = together(FIRST, SECOND)
    expert.learn(SECOND)
    z = expert.score(both.features)
    expert.rebase(both)
    second = solved(*normal_equations(expert.basis, both, z))
    same(expert.weights, second, rtol=1e-7, atol=1e-9)


def test_the_own_score_is_the_sum_of_active_weights() -> None:
    """Of each row, within 30 log-odds."""
    expert = an_own(FIRST)
    expert.rebase(FIRST)
    assert expert.weights is not None
    expected = np.clip(design(BASIS, SECOND) @ expert.weights, -30, 30)
    same(expert.score(SECOND.features), expected, rtol=0, atol=1e-9)


def test_rows_learnt_later_are_added_around_the_weights_in_force() -> None:
    """A day's end solves for old and new rows together."""
    expert = an_own(FIRST)
    expert.rebase(FIRST)
    a, b = normal_equations(BASIS, FIRST, POLICY.prior_logit)
    expert.learn(SECOND)
    more = normal_equations(BASIS, SECOND, design(BASIS, SECOND) @ solved(a, b))
    end_day(expert)
    same(expert.weights, solved(a + more[0], b + more[1]), rtol=1e-6, atol=1e-8)


def test_old_rows_fade_by_the_half_life() -> None:
    """After each day's end 0.5 ** (1 / half-life) of the sums stays."""
    expert = OwnExpert(SCHEMA, replace(POLICY, solve_growth=1.0))
    expert.learn(FIRST)
    expert.rebase(FIRST)
    a, b = normal_equations(BASIS, FIRST, POLICY.prior_logit)
    for day in range(3):
        end_day(expert)
        faded = 0.5 ** (day / POLICY.half_life_d)
        same(expert.weights, solved(a * faded, b * faded), rtol=1e-6, atol=1e-8)


def test_it_is_solved_anew_when_enough_has_matured_or_drift_was_found() -> None:
    """150 rows and 10 % are 165: not after 10 more, but after 10 again."""
    expert = OwnExpert(SCHEMA, replace(POLICY, solve_growth=1.1))
    expert.learn(FIRST)
    expert.rebase(FIRST)
    seen = [expert.weights]
    for rows_of_day, forgetting in ((10, 1.0), (10, 1.0), (5, 1.0), (5, 8.0)):
        expert.learn(SECOND.take(slice(0, rows_of_day)))
        end_day(expert, forgetting)
        seen.append(expert.weights)
    is_new = [after is not before for before, after in pairwise(seen)]
    assert is_new == [False, True, False, True]


def test_learning_in_pieces_is_learning_at_once() -> None:
    """To the bit: rows are added one after the other."""
    whole, pieces = an_own(FIRST), an_own(FIRST)
    for expert in (whole, pieces):
        expert.rebase(FIRST)
    whole.learn(SECOND)
    for start in range(0, len(SECOND), 7):
        pieces.learn(SECOND.take(slice(start, start + 7)))
    for expert in (whole, pieces):
        end_day(expert)
    left, right = whole.arrays(), pieces.arrays()
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)


def test_shared_statistics_are_the_normal_equations_of_each_bucket() -> None:
    """Around the prior before there is a scorer; float32 on the wire, so within its rounding."""
    expert = a_shared()
    later = replace(SECOND, known_ms=np.full(len(SECOND), T + BUCKET_MS))
    expert.learn(FIRST)
    expert.learn(later)
    found = sums(expert)
    assert sorted(found) == [2_900, 2_901]
    for bucket, some in ((2_900, FIRST), (2_901, later)):
        n, a, b = found[bucket]
        expected = normal_equations(BASIS, some, POLICY.prior_logit)
        assert n == len(some)
        same(a, expected[0], rtol=2**-23, atol=1e-12)
        same(b, expected[1], rtol=0, atol=1e-9)


def test_shared_statistics_are_taken_around_the_scorer_in_force() -> None:
    """And the residual at its weights survives the rounding: b - A w is exact."""
    expert = a_shared(in_force=True)
    expert.learn(SECOND)
    (n, a, b) = sums(expert)[2_900]
    z = np.clip(design(BASIS, SECOND) @ WEIGHTS, -30, 30)
    expected = normal_equations(BASIS, SECOND, z)
    assert n == len(SECOND)
    same(a, expected[0], rtol=2**-23, atol=1e-12)
    same(b - a @ WEIGHTS, expected[1] - expected[0] @ WEIGHTS, rtol=0, atol=1e-9)


def test_statistics_for_a_coming_basis_are_taken_around_the_old_scorer() -> None:
    """Its scores of the same rows, not its weights, which mean something else."""
    coming = a_basis(SECOND, number=2)
    expert = a_shared(coming, in_force=True)
    expert.learn(SECOND)
    z = np.clip(design(BASIS, SECOND) @ WEIGHTS, -30, 30)
    expected = normal_equations(coming, SECOND, z)
    (_, a, b) = sums(expert)[2_900]
    same(a, expected[0], rtol=2**-23, atol=1e-12)
    same(b, expected[1], rtol=0, atol=1e-9)


def test_statistics_of_several_banks_add_up_to_the_pooled_ones() -> None:
    """Which is the whole point."""
    several = [rows(50, seed) for seed in (11, 12, 13)]
    experts = [a_shared(in_force=True) for _ in several]
    for expert, some in zip(experts, several, strict=True):
        expert.learn(some)
    pooled = a_shared(in_force=True)
    pooled.learn(together(*several))
    parts = [sums(expert)[2_900] for expert in experts]
    n, a, b = sums(pooled)[2_900]
    assert n == sum(part[0] for part in parts)
    same(sum(part[1] for part in parts), a, rtol=1e-6, atol=1e-6)
    residual = sum(part[2] - part[1] @ WEIGHTS for part in parts)
    same(residual, b - a @ WEIGHTS, rtol=0, atol=1e-8)


def test_what_changed_is_published_cumulatively_and_once() -> None:
    """A bucket that is over is let go after its last publication."""
    expert = a_shared()
    expert.learn(FIRST)
    assert sums(expert)[2_900][0] == len(FIRST)
    assert sums(expert) == {}
    expert.learn(SECOND)
    assert sums(expert, T + BUCKET_MS)[2_900][0] == len(FIRST) + len(SECOND)
    assert not [name for name in expert.arrays() if name.startswith("open/")]


def test_a_new_basis_asks_for_the_retained_rows_and_counts_them_afresh() -> None:
    """Old statistics are dropped; the same number again needs nothing."""
    expert = a_shared()
    expert.learn(SECOND)
    assert not expert.needs_rows(BASIS)
    assert not expert.needs_rows(None)
    coming = a_basis(SECOND, number=2)
    assert expert.needs_rows(coming)
    expert.install(None, None, coming, FIRST)
    (n, a, _) = sums(expert)[2_900]
    assert n == len(FIRST)
    expected = normal_equations(coming, FIRST, POLICY.prior_logit)[0]
    same(a, expected, rtol=2**-23, atol=1e-12)


def test_histograms_are_learnt_before_any_basis() -> None:
    """They are what the first basis is made of."""
    expert = SharedExpert(SCHEMA, POLICY)
    full = replace(FIRST, features=np.nan_to_num(FIRST.features))
    expert.learn(full)
    assert expert.n == len(full)
    n_frauds = int(full.is_fraud.sum())
    assert expert.counts[0].sum(axis=1).tolist() == [len(full) - n_frauds, n_frauds]
    assert expert.contributions(T) == {}


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_a_restored_expert_goes_on_to_the_bit(kind: str) -> None:
    """With its basis, weights, sums and what is still to be published."""
    expert: OwnExpert | SharedExpert = an_own(FIRST) if kind == "own" else a_shared(in_force=True)
    if isinstance(expert, OwnExpert):
        expert.rebase(FIRST)
    expert.learn(FIRST)
    again = type(expert)(SCHEMA, POLICY)
    again.load({name: array.copy() for name, array in expert.arrays().items()})
    assert {name: array.tobytes() for name, array in again.arrays().items()} == {
        name: array.tobytes() for name, array in expert.arrays().items()
    }
    for each in (expert, again):
        each.learn(SECOND)
        if isinstance(each, OwnExpert):
            end_day(each)
    left, right = expert.arrays(), again.arrays()
    assert left.keys() == right.keys()
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)
    assert again.score(SECOND.features).tobytes() == expert.score(SECOND.features).tobytes()


def moments_of(basis: Basis, some: Matured) -> dict[str, np.ndarray]:
    """Return the sums of scores and presences, row by row as the definition says."""
    z, present = np.zeros(some.features.shape, np.int64), ~np.isnan(some.features)
    scores, active = bin_scores(basis), encode(basis, some.features)
    for j in range(z.shape[1]):
        z[present[:, j], j] = scores[active[present[:, j], 1 + j]]
    x = np.concatenate([z, present.astype(np.int64)], axis=1)
    v = np.where(some.is_fraud, 1, np.where(is_sampled(some.hashes), 10, 0))
    upper = np.triu_indices(x.shape[1])
    classes = (~some.is_fraud, some.is_fraud)
    return {
        "n": np.array([v[c].sum() for c in classes]),
        "sums": np.array([(v[c, None] * x[c]).sum(axis=0) for c in classes]),
        "products": np.array([((v[c, None] * x[c]).T @ x[c])[upper] for c in classes]),
    }


def a_watcher() -> SharedExpert:
    """Return an expert that learns moments, for the first basis."""
    expert = SharedExpert(SCHEMA, replace(POLICY, moments=True))
    expert.install(None, None, BASIS, rows(0, 0))
    return expert


def test_moments_are_the_sums_over_retained_and_later_rows() -> None:
    """Of the basis collected for, and of nothing before it."""
    expert, several = a_watcher(), [rows(300, 1), rows(1, 2), rows(200, 3)]
    for some in several:
        expert.learn(some)
    expected = moments_of(BASIS, together(*several))
    found = expert.moments.arrays()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    later = a_basis(rows(2_000, 9), 2)
    expert.install(None, None, later, together(*several[1:]))
    expected = moments_of(later, together(*several[1:]))
    found = expert.moments.arrays()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    expert.restart()
    assert not expert.moments.arrays()["products"].any()


def test_moments_go_on_after_a_restart() -> None:
    """Rows that wait for the kernel are in the state."""
    expert = a_watcher()
    expert.learn(rows(100, 1))
    other = SharedExpert(SCHEMA, replace(POLICY, moments=True))
    other.load({name: array.copy() for name, array in expert.arrays().items()})
    for one in (expert, other):
        one.learn(rows(50, 2))
    assert all(np.array_equal(a, other.arrays()[name]) for name, a in expert.arrays().items())


def test_rows_that_changed_are_counted_anew_in_place_of_what_they_were() -> None:
    """To the bit what an expert has that never saw them otherwise; published as before."""
    rescaled = replace(FIRST, features=FIRST.features * np.float32(1.5))
    expert, other = a_shared(), a_shared()
    expert.learn(FIRST)
    assert list(sums(expert)) == [2_900]
    expert.recount(rescaled)
    other.learn(rescaled)
    found, expected = sums(expert), sums(other)
    assert list(found) == list(expected) == [2_900]
    for one, same_one in zip(found[2_900], expected[2_900], strict=True):
        np.testing.assert_array_equal(one, same_one)


def test_moments_are_learnt_only_where_they_are_wanted() -> None:
    """Off by default, and with too many features."""
    expert = a_shared()
    expert.learn(rows(100, 1))
    assert expert.moments.settled() is None
    assert not any(name.startswith("moments/") for name in expert.arrays())
    wide = MomentLearner(is_on=True)
    n = MAX_FEATURES + 1
    none = np.zeros(n, np.int32)
    wide.begin(
        replace(
            BASIS,
            edges=np.empty(0, np.float32),
            ranks=np.empty(0, np.float32),
            n_edges=none,
            coarse_edges=np.empty(0, np.float32),
            n_coarse_edges=none,
            cuts=np.empty(0, np.float32),
            n_cuts=none,
            n_categories=none,
            crosses=np.empty((0, 2), np.int32),
        )
    )
    assert wide.settled() is None


def test_a_basis_of_the_same_number_from_another_log_is_another_basis() -> None:
    """Numbers begin anew where the consortium's topics do; weights must never fit the wrong one."""
    small, large = rows(150, 1), rows(4_000, 2)
    one, other = a_basis(small), a_basis(large)
    assert one.number == other.number
    assert one.n_weights != other.n_weights
    expert = SharedExpert(SCHEMA, POLICY)
    expert.install(one, np.zeros(one.n_weights), one, small)
    assert not expert.needs_rows(a_basis(small))
    assert expert.needs_rows(other)
    expert.install(one, np.zeros(one.n_weights), other, small)
    expert.learn(large)
    ((n, given),) = expert.contributions(T).values()
    packed, gradient = given().values()
    assert (n, len(gradient)) == (len(small) + len(large), other.n_weights)
    assert len(packed) == other.n_weights * (other.n_weights + 1) // 2
