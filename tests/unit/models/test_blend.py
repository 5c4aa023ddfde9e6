"""The blend: the optimum of its own formula, the gate, cold banks and rows without a score."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

import models.blend as blend_module
from models.blend import Blend, BlendPolicy, equal_blend, fit_blend
from models.errors import InvalidInputError, StateError
from models.families.scorecard import is_kept

COLD = np.array([False, True])
N = 8_000


def window(
    noise: tuple[float, ...] = (0.5, 0.5), seed: int = 0, n: int = N
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64], NDArray[np.uint64]]:
    """Outcomes drawn from true log-odds, and experts that see them with noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2.0, 1.5, n)
    is_fraud = rng.random(n) < 1 / (1 + np.exp(-truth))
    scores = np.stack([truth + sd * rng.normal(size=n) for sd in noise], axis=1)
    hashes = rng.integers(0, 2**63, n).astype(np.uint64)
    return scores, is_fraud, rng.uniform(0, 35, n), hashes


def penalised_loss(
    w: NDArray[np.float64],
    z: NDArray[np.float64],
    y: NDArray[np.bool_],
    v: NDArray[np.float64],
    ridge: float,
) -> float:
    """Log-loss of the stack and its pull towards equal weights, as the module's text has it."""
    margin = z @ w[:-1] + w[-1]
    k = z.shape[1]
    loss = np.sum(v * (np.log1p(np.exp(-np.abs(margin))) + np.maximum(margin, 0) - y * margin))
    return float(loss + ridge / 2 * np.sum((w[:-1] - 1 / k) ** 2))


@pytest.mark.parametrize("ridge", [3.0, 300.0])
def test_weights_minimise_the_penalised_loss(ridge: float) -> None:
    """Compared with a general minimiser on the rows that remain after thinning."""
    scores, y, age, hashes = window((0.5, 1.0))
    policy = BlendPolicy(ridge=ridge, gate_share=0.0)
    blend = fit_blend(scores, y, age, hashes, cold=COLD, policy=policy)
    z = np.clip(scores, -12, 12)
    dull = ~y & (z <= np.log(0.02 / 0.98)).all(axis=1)
    stays = ~dull | is_kept(hashes)
    v = np.where(dull, 10.0, 1.0)[stays]
    best = minimize(
        penalised_loss, np.zeros(3), (z[stays], y[stays], v, ridge), method="BFGS", tol=1e-9
    )
    assert np.append(blend.weights, blend.bias) == pytest.approx(best.x, abs=1e-4)
    assert blend.is_fitted


def test_beyond_a_limit_legitimate_rows_are_thinned_and_weigh_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compared with the whole: a weight forgotten would move the bias by the log of the share."""
    scores, y, age, hashes = window((0.5, 1.0), n=60_000)
    policy = BlendPolicy(gate_share=0.0)
    whole = fit_blend(scores, y, age, hashes, cold=COLD, policy=policy)
    monkeypatch.setattr(blend_module, "MAX_LEGIT", 12_000)
    part = fit_blend(scores, y, age, hashes, cold=COLD, policy=policy)
    assert part.weights == pytest.approx(whole.weights, abs=0.05)
    assert part.bias == pytest.approx(whole.bias, abs=0.05)
    assert part.bias != whole.bias
    assert part.average_precision == pytest.approx(whole.average_precision, abs=0.01)


def test_a_strong_ridge_gives_equal_weights() -> None:
    """In the limit of the penalty, even where one expert is far better."""
    scores, y, age, hashes = window((0.2, 1.5))
    policy = BlendPolicy(ridge=1e9, gate_share=0.0)
    blend = fit_blend(scores, y, age, hashes, cold=COLD, policy=policy)
    assert blend.weights == pytest.approx([0.5, 0.5], abs=1e-4)


def test_newton_settles_where_undamped_steps_run_away() -> None:
    """Both experts are sure and wrong: the curvature is next to nothing, full steps overshoot.

    All rows look the same, so the best log-odds are those of the fraud rate.
    """
    y = np.arange(N) % 10 == 0
    scores, hashes = np.full((N, 2), 12.0), np.arange(N, dtype=np.uint64)
    blend = fit_blend(scores, y, np.zeros(N), hashes, cold=COLD)
    assert blend.apply(scores[:1]) == pytest.approx([np.log(0.1 / 0.9)], abs=1e-3)


def test_the_same_rows_give_the_same_bits() -> None:
    """Twice, and from arrays of another memory layout."""
    scores, y, age, hashes = window()
    one = fit_blend(scores, y, age, hashes, cold=COLD)
    two = fit_blend(np.asfortranarray(scores), y, age, hashes, cold=COLD)
    assert one.weights.tobytes() == two.weights.tobytes()
    assert one.bias == two.bias


STRICT = BlendPolicy(gate_share=0.9, gate_window_d=28.0)


def test_an_expert_far_below_the_best_is_dropped() -> None:
    """Its average precision is below 0.9 of the best one's."""
    scores, y, age, hashes = window((0.1, 4.0))
    blend = fit_blend(scores, y, age, hashes, cold=COLD, policy=STRICT)
    assert blend.active.tolist() == [True, False]
    assert blend.weights[1] == 0.0
    assert blend.average_precision[1] < 0.9 * blend.average_precision[0]


def test_the_gate_looks_at_its_own_window_only() -> None:
    """An expert that was bad more than 28 days ago stays."""
    scores, y, age, hashes = window((0.3, 0.3))
    old = age >= 28
    scores[old, 1] = -scores[old, 1]
    assert fit_blend(scores, y, age, hashes, cold=COLD, policy=STRICT).active.all()
    scores[:, 1] = np.where(old, -scores[:, 1], -5 - scores[:, 1])
    assert fit_blend(scores, y, age, hashes, cold=COLD, policy=STRICT).active.tolist() == [
        True,
        False,
    ]


def test_rows_older_than_the_window_do_not_count() -> None:
    """Adding older rows changes nothing."""
    scores, y, age, hashes = window()
    older = (np.vstack([scores, -scores]), np.r_[y, y], np.r_[age, age + 60], np.r_[hashes, hashes])
    one, two = fit_blend(scores, y, age, hashes, cold=COLD), fit_blend(*older, cold=COLD)
    assert one.weights.tobytes() == two.weights.tobytes()


def test_a_bank_with_too_few_frauds_uses_the_consortium_alone() -> None:
    """Nine frauds in the window are not ten."""
    scores, y, age, hashes = window()
    frauds = np.flatnonzero(y)
    for n_frauds, is_fitted in ((9, False), (10, True)):
        few = np.zeros(N, bool)
        few[frauds[:n_frauds]] = True
        blend = fit_blend(scores, few, age, hashes, cold=COLD)
        assert blend.is_fitted is is_fitted
        if not is_fitted:
            assert blend.weights.tolist() == [0.0, 1.0]
            assert blend.bias == 0.0


def test_no_rows_at_all_make_a_cold_blend() -> None:
    """The first evening of a bank."""
    scores, y, age, hashes = window(n=0)
    assert fit_blend(scores, y, age, hashes, cold=COLD).weights.tolist() == [0.0, 1.0]


def test_an_expert_that_lacks_a_recent_score_is_not_used() -> None:
    """One row of the last 7 days without it, against gaps that are older."""
    scores, y, age, hashes = window()
    scores[age > 20, 1] = np.nan
    assert fit_blend(scores, y, age, hashes, cold=COLD).active.all()
    scores[np.argmax((age > 6) & (age < 7)), 1] = np.nan
    blend = fit_blend(scores, y, age, hashes, cold=COLD)
    assert blend.active.tolist() == [True, False]
    assert np.isnan(blend.average_precision[1])


def blend_of(weights: list[float], bias: float = 0.5) -> Blend:
    w = np.array(weights)
    return Blend(
        weights=w,
        bias=bias,
        active=w != 0,
        average_precision=np.full(len(w), np.nan),
        prior_logit=-4.5,
        is_fitted=True,
    )


def test_apply_is_the_weighted_sum_of_clipped_experts() -> None:
    """Written out, with one expert beyond the clip."""
    scores = np.array([[1.0, -2.0, 3.0], [40.0, 0.0, np.nan]])
    got = blend_of([0.25, 0.75, 0.0]).apply(scores)
    assert got == pytest.approx([0.5 + 0.25 - 1.5, 0.5 + 0.25 * 12])


def test_a_row_without_an_active_expert_is_scored_by_those_it_has() -> None:
    """Other active ones scaled up; else the mean of the rest; else the prior."""
    nan = np.nan
    scores = np.array([[nan, -2.0, 3.0], [nan, nan, 3.0], [nan, nan, nan]])
    got = blend_of([0.25, 0.75, 0.0]).apply(scores)
    assert got == pytest.approx([0.5 + 1.0 * -2.0, 3.0, -4.5])


def test_a_cold_bank_without_a_release_goes_by_its_own_expert() -> None:
    """Equal weights over the consortium's experts, none of which has a score yet."""
    assert equal_blend(COLD).apply(np.array([[-3.0, np.nan]])).tolist() == [-3.0]


def test_stored_arrays_give_the_same_blend() -> None:
    """Round trip, and what is damaged is refused."""
    scores, y, age, hashes = window()
    blend = fit_blend(scores, y, age, hashes, cold=COLD)
    again = Blend.from_arrays(blend.arrays())
    assert again.apply(scores).tobytes() == blend.apply(scores).tobytes()
    assert again.is_fitted
    for damage in ({"weights": np.zeros(5)}, {"scalars": np.zeros(2)}):
        with pytest.raises(StateError, match="blend"):
            Blend.from_arrays({**blend.arrays(), **damage})


def test_columns_of_another_length_are_refused() -> None:
    """Ages must be one per row, and days."""
    scores, y, age, hashes = window()
    with pytest.raises(InvalidInputError, match="outcomes"):
        fit_blend(scores, y, age[1:], hashes, cold=COLD)
    with pytest.raises(InvalidInputError, match="age_d"):
        fit_blend(scores, y, np.where(age > 34, np.nan, age), hashes, cold=COLD)
    with pytest.raises(InvalidInputError, match="shape"):
        blend_of([1.0, 1.0]).apply(np.zeros((2, 3)))
