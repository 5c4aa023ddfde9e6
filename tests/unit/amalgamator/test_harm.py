"""Verdicts on statistics, against dense solutions with NumPy."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from amalgamator.harm import (
    MemberSums,
    Verdict,
    _room_for_others,
    judge_statistics,
    losses,
    prior_weights,
)
from amalgamator.policy import FoldConfig, TrustPolicy
from tests.consortium import SCHEMA

CONFIG = FoldConfig(schema=SCHEMA, ridge=2.0, prior_logit=-3.0)
POLICY = TrustPolicy()
N_WEIGHTS = 12
TRUTH = np.r_[-3.0, np.linspace(-1.5, 1.5, N_WEIGHTS - 1)]


def sums_of(seed: int, *, n: int = 4_000, flip: bool = False) -> MemberSums:
    """Return what n rows of the same world give: a bias and two active weights in each."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, N_WEIGHTS))
    rows[:, 0] = 1.0
    rows[np.arange(n), rng.integers(1, 6, n)] = 1.0
    rows[np.arange(n), rng.integers(6, N_WEIGHTS, n)] = 1.0
    y = rng.random(n) < 1 / (1 + np.exp(-rows @ TRUTH))
    y = ~y if flip else y
    z = np.full(n, CONFIG.prior_logit)
    p = 1 / (1 + np.exp(-z))
    h = np.maximum(p * (1 - p), np.abs(y - p) / 10)
    square = rows.T @ (h[:, None] * rows)
    return MemberSums(
        curvature=square[np.triu_indices(N_WEIGHTS)],
        gradient=rows.T @ ((y - p) + h * z),
        n=float(n),
        n_published=n,
        n_matured=n,
    )


def dense(sums: MemberSums) -> np.ndarray:
    square = np.zeros((N_WEIGHTS, N_WEIGHTS))
    square[np.triu_indices(N_WEIGHTS)] = sums.curvature
    return square + np.triu(square, 1).T


def solved(several: list[MemberSums]) -> np.ndarray:
    """Return the ridge solution of summed statistics."""
    system = sum(dense(one) for one in several) + CONFIG.ridge * np.eye(N_WEIGHTS)
    target = sum(one.gradient for one in several) + CONFIG.ridge * prior_weights(CONFIG, N_WEIGHTS)
    return np.linalg.solve(system, target)


def dense_loss(sums: MemberSums, w: np.ndarray) -> float:
    return float(w @ dense(sums) @ w / 2 - sums.gradient @ w)


HONEST = {name: sums_of(i) for i, name in enumerate("abcde")}


def judged(sums: dict[str, MemberSums], *, exact: bool = False) -> dict[str, Verdict]:
    return judge_statistics(sums, CONFIG, POLICY, exact=exact)


def test_losses_are_those_of_the_quadratic_model() -> None:
    """Half of w'Aw, less b'w, for each w."""
    points = np.random.default_rng(0).normal(size=(N_WEIGHTS, 5))
    expected = [dense_loss(HONEST["a"], w) for w in points.T]
    assert losses(HONEST["a"], points) == pytest.approx(expected, rel=1e-12)


def test_honest_members_count_in_full() -> None:
    """All five."""
    assert {v.weight for v in judged(HONEST).values()} == {1.0}


def test_of_many_members_the_same_few_have_a_voice() -> None:
    """Those with the lowest digests of their names; whoever lies is left out by them all the same.

    A liar among them has no voice on itself, and none once it is left out.
    """
    policy = replace(POLICY, max_jurors=3)
    names = sorted("abcdefgh", key=lambda name: hashlib.sha256(name.encode()).digest())
    for liar in (names[0], names[-1]):
        sums = {name: sums_of(i, flip=name == liar) for i, name in enumerate("abcdefgh")}
        said = said_of(sums, liar)
        jury = [said[name] for name in names[:3] if name != liar]
        verdicts = judge_statistics(sums, CONFIG, policy)
        expected = sorted(jury)[(len(jury) - 1) // 2]
        assert verdicts[liar].harm == pytest.approx(expected, rel=0.1)
        assert [name for name, v in verdicts.items() if v.weight < 1.0] == [liar]


def test_as_many_jurors_as_members_are_all_members() -> None:
    """To the bit, so that nothing changes for a consortium of up to 64."""
    policy = replace(POLICY, max_jurors=5)
    sums = HONEST | {"b": sums_of(1, flip=True)}
    assert judge_statistics(sums, CONFIG, policy) == judged(sums)


def said_of(sums: dict[str, MemberSums], sender: str) -> dict[str, float]:
    """Return what each other member says of one, by dense solutions."""
    start = solved(list(sums.values()))
    without = solved([one for name, one in sums.items() if name != sender])
    prior, ridge = prior_weights(CONFIG, N_WEIGHTS), CONFIG.ridge / len(sums)
    said = {}
    for name, one in sums.items():
        if name != sender:
            own = np.linalg.solve(
                dense(one) + ridge * np.eye(N_WEIGHTS), one.gradient + ridge * prior
            )
            gain = dense_loss(one, prior) - dense_loss(one, own)
            rise = dense_loss(one, start) - dense_loss(one, without)
            said[name] = rise / (gain + POLICY.prior_gain)
    return said


def test_harm_is_what_a_presence_costs_of_what_could_be_gained() -> None:
    """The lower median of the four others, each by its own quadratic."""
    sums = HONEST | {"b": sums_of(1, flip=True)}
    said = said_of(sums, "b").values()
    # Solutions are good to 5 % of the step between them.
    assert judged(sums)["b"].harm == pytest.approx(sorted(said)[1], rel=0.1)


def test_a_member_that_learns_the_opposite_is_left_out() -> None:
    """The others would lose more than they can gain."""
    verdicts = judged(HONEST | {"b": sums_of(1, flip=True)})
    assert verdicts["b"].why == "harm"
    assert verdicts["b"].harm > 1.0
    assert {name: v.weight for name, v in verdicts.items()} == {
        **dict.fromkeys("acde", 1.0),
        "b": 0.0,
    }


def test_two_that_collude_are_both_left_out_and_nobody_else() -> None:
    """They do not vouch for each other, and their voices expel no third."""
    liars = {name: sums_of(i, flip=True) for i, name in ((1, "b"), (4, "e"))}
    weights = {name: v.weight for name, v in judged(HONEST | liars).items()}
    assert weights == {**dict.fromkeys("acd", 1.0), "b": 0.0, "e": 0.0}


def narrow(sums: MemberSums) -> MemberSums:
    return replace(sums, curvature=sums.curvature.astype(np.float32))


def test_float32_curvatures_are_judged_as_float64_ones_are() -> None:
    """Honest members of very different sizes, and one that lies."""
    sums = {name: sums_of(i, n=40 * 10**i) for i, name in enumerate("abcd")}
    sums["e"] = sums_of(9, flip=True)
    found = judged({name: narrow(one) for name, one in sums.items()})
    for name, verdict in judged(sums).items():
        assert found[name].why == verdict.why
        assert found[name].weight == pytest.approx(verdict.weight, rel=1e-5)
        assert found[name].harm == pytest.approx(verdict.harm, rel=1e-3, abs=1e-6)


def test_a_huge_member_does_not_drown_what_the_others_say() -> None:
    """All its rows are alike: beside its sums, float32 would lose how theirs differ."""
    active = np.zeros(N_WEIGHTS)
    active[[0, 1, 6]] = 1e5
    square = np.outer(active, active)
    huge = replace(
        HONEST["c"], curvature=square[np.triu_indices(N_WEIGHTS)], gradient=square @ TRUTH
    )
    sums = HONEST | {"b": sums_of(1, flip=True)}
    found = judged({name: narrow(one) for name, one in sums.items()} | {"c": huge})
    for name, verdict in judged(sums | {"c": huge}).items():
        assert found[name].why == verdict.why
        assert found[name].harm == pytest.approx(verdict.harm, rel=1e-2, abs=1e-6)


def test_the_sum_of_the_others_is_rounded_only_where_the_ridge_outweighs_that() -> None:
    """The bound of `amalgamator.narrow` on the total, for the whole ridge."""
    total = HONEST["a"].curvature
    limit = 2.0**24 / (dense(HONEST["a"]).sum(axis=0).max())
    for factor, kind in ((0.99 * limit, np.float32), (1.01 * limit, np.float64)):
        assert _room_for_others(factor * total, N_WEIGHTS, CONFIG).dtype == kind


def test_three_members_are_needed_for_a_judgement() -> None:
    """Of two either could be the liar."""
    two = {"a": HONEST["a"], "b": sums_of(1, flip=True)}
    assert {v.weight for v in judged(two).values()} == {1.0}


def test_statistics_out_of_scale_come_down_to_three_times_the_median() -> None:
    """The same content a hundred times over."""
    one = HONEST["c"]
    scaled = replace(one, curvature=100.0 * one.curvature, gradient=100.0 * one.gradient)
    verdict = judged(HONEST | {"c": scaled})["c"]
    norms = {}
    for name, sums in (HONEST | {"c": scaled}).items():
        pull = sums.gradient - dense(sums) @ prior_weights(CONFIG, N_WEIGHTS)
        norms[name] = np.trace(dense(sums)) / sums.n, np.linalg.norm(pull) / sums.n
    limits = 3.0 * np.median(list(norms.values()), axis=0)
    assert verdict.why == "norm"
    assert verdict.weight == pytest.approx(min(limits / norms["c"]), rel=1e-9)


def test_a_gradient_beyond_forty_times_the_curvature_is_impossible() -> None:
    """|b_i| <= (10 + 30) a_ii + .02 n, and a hundredth for rounding."""
    one = HONEST["d"]
    bound = 40.0 * np.diag(dense(one)) + 0.02 * one.n
    for factor, why in ((0.99, True), (1.02, False)):
        gradient = one.gradient.copy()
        gradient[3] = factor * bound[3]
        verdict = judged(HONEST | {"d": replace(one, gradient=gradient)})["d"]
        assert (verdict.why != "gradient") is why


def test_rows_that_follow_the_rule_stay_within_the_bound() -> None:
    """At the worst of z and p: a fraud at -30, a payment at 30, a dull row that was thinned out."""
    for z, y, v in ((-30.0, 1.0, 1.0), (30.0, 0.0, 1.0), (np.log(0.02 / 0.98), 0.0, 0.0)):
        p = 1 / (1 + np.exp(-z))
        h = v * max(p * (1 - p), abs(y - p) / 10)
        gradient = (y - p) + h * z
        assert abs(gradient) <= 40.0 * h + 0.02 + 1e-12


@pytest.mark.parametrize("exact", [False, True])
def test_a_curvature_that_is_not_positive_is_left_out(exact: bool) -> None:
    """Entries within the gate's bounds, but indefinite."""
    square = dense(HONEST["e"])
    diag = np.diag(square).copy()
    bent = np.where(
        np.add.outer(range(N_WEIGHTS), range(N_WEIGHTS)) % 2, np.minimum.outer(diag, diag), 0
    )
    bent[np.diag_indices(N_WEIGHTS)] = diag
    assert np.linalg.eigvalsh(bent)[0] < -CONFIG.ridge
    one = replace(HONEST["e"], curvature=bent[np.triu_indices(N_WEIGHTS)])
    verdicts = judged(HONEST | {"e": one}, exact=exact)
    assert verdicts["e"] == Verdict(0.0, "curvature", 0.0)
    assert {verdicts[name].weight for name in "abcd"} == {1.0}


def test_more_rows_than_ever_matured_are_impossible() -> None:
    """A quarter and 1,000 are allowed for what came between two publications."""
    one = HONEST["a"]
    fits = replace(one, n_published=round(1.25 * 4_000) + 1_000)
    assert judged(HONEST | {"a": fits})["a"].weight == 1.0
    too_many = replace(one, n_published=round(1.25 * 4_000) + 1_001)
    assert judged(HONEST | {"a": too_many})["a"] == Verdict(0.0, "n", 0.0)


def test_nobody_is_judged_where_nobody_publishes() -> None:
    """No verdicts."""
    assert judged({}) == {}
