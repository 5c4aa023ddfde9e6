"""The judge: cold banks follow the consortium, decisions see no future, alerts say why."""

from dataclasses import replace

import numpy as np
import pytest

from models.basis import Basis
from models.blend import BlendPolicy
from models.budget import BudgetPolicy
from models.features.accounts import DAY_MS
from models.records import TransactionBatch
from models.schema import Schema
from stream.judge import Judge, JudgePolicy
from stream.row_log import FRAUD, LEGIT, RowLog

SCHEMA = Schema(entity_kinds=())
N_FEATURES = len(SCHEMA.feature_names)
NIGHT = SCHEMA.feature_names.index("night")
WEEKEND = SCHEMA.feature_names.index("weekend")
POLICY = JudgePolicy(
    blend=BlendPolicy(min_frauds=5, fresh_d=2.0), budget=BudgetPolicy(rate=0.1, warm_up=50)
)
COLD = np.array([False, True])
NOW_MS = 20_000 * DAY_MS


def a_judge() -> Judge:
    return Judge("north", SCHEMA, POLICY, cold=COLD)


def a_log(n: int = 300, seed: int = 1) -> RowLog:
    """Return rows whose outcomes came over the last 20 days; both experts know something."""
    rng = np.random.default_rng(seed)
    log = RowLog(n_entities=0, n_features=0, n_own=0, n_experts=2)
    is_fraud = rng.random(n) < 0.2
    known_ms = NOW_MS - np.sort(rng.integers(0, 20 * DAY_MS, n))[::-1]
    scores = rng.normal(size=(n, 2)) + is_fraud[:, None] * np.array([2.0, 3.0]) - 2.0
    none = np.zeros((n, 0))
    log.append(
        {
            "hash": rng.integers(0, 2**63, n).astype(np.uint64),
            "event_ms": known_ms - DAY_MS,
            "arrival_ms": known_ms - DAY_MS,
            "account": np.zeros(n, np.int64),
            **dict.fromkeys(("entity", "features", "own"), none),
            "scores": scores,
        }
    )
    log.settle(np.arange(n), np.where(is_fraud, FRAUD, LEGIT).astype(np.int8), known_ms)
    return log


def a_scorer(night: float, weekend: float) -> tuple[Basis, np.ndarray]:
    """Return a scorecard that looks at two features, each with one edge at a half."""
    n_edges = np.zeros(N_FEATURES, np.int32)
    n_edges[[NIGHT, WEEKEND]] = 1
    basis = Basis(
        number=1,
        schema_hash=SCHEMA.hash,
        edges=np.full(2, 0.5, np.float32),
        n_edges=n_edges,
        coarse_edges=np.empty(0, np.float32),
        n_coarse_edges=np.zeros(N_FEATURES, np.int32),
        selected=np.arange(N_FEATURES, dtype=np.int32),
        crosses=np.empty((0, 2), np.int32),
        n_categories=np.zeros(N_FEATURES, np.int32),
    )
    weights = np.zeros(basis.n_weights)
    weights[basis.offsets[1 + NIGHT] + 1] = night
    weights[basis.offsets[1 + WEEKEND] + 1] = weekend
    return basis, weights


def payments(n: int) -> TransactionBatch:
    return TransactionBatch(
        transaction_id=[f"t{i}" for i in range(n)],
        account_id=["a"] * n,
        event_time_ms=np.full(n, NOW_MS),
        amount_minor=np.full(n, 100),
        amount=np.ones(n),
        currency=["EUR"] * n,
    )


def view(*, night: float = 0.0, weekend: float = 0.0) -> np.ndarray:
    """Return the features of one payment."""
    features = np.zeros((1, N_FEATURES), np.float32)
    features[0, [NIGHT, WEEKEND]] = night, weekend
    return features


def reasons(judge: Judge, *views: np.ndarray) -> list[tuple[str, float]]:
    """Return why a payment that the experts see like this alerts."""
    (alert,) = judge.explain(
        payments(1), views, np.array([1.0]), threshold=np.array([0.0]), release=3
    )
    assert alert.release == "3"
    return [(reason.feature, reason.contribution) for reason in alert.reasons]


def refit(judge: Judge, log: RowLog, now_ms: int) -> None:
    """Weigh the experts afresh."""
    judge.blend = judge.refitted(log.at(judge.window(log, now_ms)), now_ms)


def test_a_cold_bank_follows_the_consortium_alone() -> None:
    """Its own scorecard counts only where there is no other; without any, the prior."""
    scores = np.array([[3.0, -1.0], [3.0, np.nan], [np.nan, -2.0], [np.nan, np.nan]])
    logit, alert, threshold = a_judge().decide(scores, np.full(4, NOW_MS))
    prior = POLICY.blend.prior_logit
    assert logit.tolist() == [-1.0, 3.0, -2.0, prior]
    assert not alert.any()
    assert np.isinf(threshold).all()


def test_a_transaction_that_no_expert_scored_never_alerts_nor_warms_up() -> None:
    """The prior is nothing to alert on, whatever the others score."""
    judge = a_judge()
    nothing = np.full((500, 2), np.nan)
    assert not judge.decide(nothing, np.full(500, NOW_MS))[1].any()
    assert not judge.budget.is_warm
    low = np.full((500, 2), -9.0)
    low[::2] = np.nan
    alert = judge.decide(low, np.full(500, NOW_MS))[1]
    assert not alert[::2].any()


def test_decisions_do_not_depend_on_how_rows_are_cut() -> None:
    """To the bit, thresholds too."""
    scores = np.random.default_rng(4).normal(size=(900, 2))
    at_ms = NOW_MS + np.arange(900) * 60_000
    whole = a_judge().decide(scores, at_ms)
    judge = a_judge()
    cut = [judge.decide(scores[i : i + 37], at_ms[i : i + 37]) for i in range(0, 900, 37)]
    assert whole[1].any()
    for column, pieces in zip(whole, zip(*cut, strict=True), strict=True):
        assert np.concatenate(pieces).tobytes() == column.tobytes()


def test_outcomes_that_became_known_later_do_not_enter_the_blend() -> None:
    """Nor do pending ones: as if those rows were not there."""
    log, known = a_log(), a_log()
    until_ms = NOW_MS - 5 * DAY_MS
    late = np.flatnonzero(known.known_ms > until_ms)
    known.settle(late, np.zeros(len(late), np.int8), np.full(len(late), -1))
    judges = a_judge(), a_judge()
    for judge, each in zip(judges, (log, known), strict=True):
        refit(judge, each, until_ms)
    assert judges[0].blend.is_fitted
    assert judges[0].blend.weights.tolist() == judges[1].blend.weights.tolist()
    refit(judges[0], log, NOW_MS)
    assert judges[0].blend.weights.tolist() != judges[1].blend.weights.tolist()


def test_outcomes_older_than_the_window_do_not_enter_the_blend() -> None:
    """They are as if they had been forgotten."""
    policy = replace(POLICY, blend=replace(POLICY.blend, window_d=10.0))
    log, fewer = a_log(), a_log()
    old = np.flatnonzero(log.known_ms <= NOW_MS - 10 * DAY_MS)
    fewer.settle(old, np.zeros(len(old), np.int8), np.full(len(old), -1))
    judges = [Judge("north", SCHEMA, policy, cold=COLD) for _ in range(2)]
    for judge, each in zip(judges, (log, fewer), strict=True):
        refit(judge, each, NOW_MS)
    assert judges[0].blend.is_fitted
    assert judges[0].blend.weights.tolist() == judges[1].blend.weights.tolist()


def test_reasons_are_contributions_above_the_usual() -> None:
    """Of a quarter of payments by night, the weight of the night counts three quarters."""
    judge = a_judge()
    usual = np.concatenate([view(night=1.0), view(), view(), view()])
    judge.new_scorer(1, *a_scorer(2.0, -1.0), usual)
    seen = view(night=1.0, weekend=1.0)
    assert reasons(judge, seen, seen) == [("night", 1.5), ("weekend", -1.0)]


def test_without_payments_before_everything_is_above_the_usual() -> None:
    """The usual contribution is 0 then."""
    judge = a_judge()
    judge.new_scorer(1, *a_scorer(2.0, 0.0), np.empty((0, N_FEATURES), np.float32))
    assert reasons(judge, view(), view(night=1.0)) == [("night", 2.0)]


def test_the_consortiums_scorecard_explains_before_the_own_does() -> None:
    """Each from what it sees; without either there are no reasons."""
    judge = a_judge()
    views = view(night=1.0), view(weekend=1.0)
    assert reasons(judge, *views) == []
    judge.new_scorer(0, *a_scorer(2.0, 1.0), view())
    assert reasons(judge, *views) == [("night", 2.0)]
    judge.new_scorer(1, *a_scorer(2.0, 1.0), view())
    assert reasons(judge, *views) == [("weekend", 1.0)]


def test_at_most_as_many_reasons_as_asked_for_point_towards_fraud() -> None:
    """The strongest first."""
    judge = Judge("north", SCHEMA, replace(POLICY, n_reasons=1), cold=COLD)
    judge.new_scorer(1, *a_scorer(1.0, 2.0), view())
    seen = view(night=1.0, weekend=1.0)
    assert reasons(judge, seen, seen) == [("weekend", 2.0)]


def test_a_new_scorer_moves_the_threshold_to_its_own_scores() -> None:
    """Rows that would have alerted on the old scale do not, at once."""
    scores = np.random.default_rng(6).normal(size=(300, 2))
    log = a_log()
    judge = a_judge()
    judge.decide(scores, np.full(300, NOW_MS))
    judge.rescore(log, lambda rows: scores[rows] + 100.0)
    _, alert, threshold = judge.decide(np.full((1, 2), 5.0), np.array([NOW_MS]))
    assert not alert[0]
    assert threshold[0] > 5.0


@pytest.mark.parametrize("has_scorers", [True, False])
def test_a_restored_judge_decides_and_explains_as_before(has_scorers: bool) -> None:
    """Once it has its scorers back; to the bit."""
    log, rng = a_log(), np.random.default_rng(8)
    judge, again = a_judge(), a_judge()
    refit(judge, log, NOW_MS)
    judge.decide(rng.normal(size=(600, 2)), np.full(600, NOW_MS))
    if has_scorers:
        judge.new_scorer(0, *a_scorer(1.0, 1.0), view(night=1.0))
    again.load({name: array.copy() for name, array in judge.arrays().items()})
    for expert in (0, 1):
        again.restore_scorer(expert, *a_scorer(1.0, 1.0))
    scores = rng.normal(size=(200, 2))
    for left, right in zip(
        judge.decide(scores, np.full(200, NOW_MS)),
        again.decide(scores, np.full(200, NOW_MS)),
        strict=True,
    ):
        assert left.tobytes() == right.tobytes()
    seen = view(weekend=1.0)
    expected = [("weekend", 1.0), ("night", -1.0)] if has_scorers else []
    assert reasons(again, seen, seen) == reasons(judge, seen, seen) == expected
