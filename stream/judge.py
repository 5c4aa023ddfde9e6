"""From the experts' log-odds to decisions: the blend, the alert budget, and alerts with reasons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, encode
from models.blend import Blend, BlendPolicy, equal_blend, fit_blend
from models.budget import RING, AlertBudget, BudgetPolicy
from models.features.accounts import DAY_MS
from models.named_arrays import under
from models.reasons import baseline, contributions, explain
from models.records import Alert, Reason, TransactionBatch
from models.schema import Schema
from stream.alerts import make_alerts
from stream.row_log import FRAUD, LoggedRows, RowLog

N_RECENT = 2_000
"""Newest transactions that show what is usual."""

Rescore = Callable[[NDArray[np.int64]], NDArray[np.float64]]
Scorer = tuple[Basis, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePolicy:
    """How experts are weighed, how many alerts are given, how many reasons each way."""

    blend: BlendPolicy = BlendPolicy()
    budget: BudgetPolicy = BudgetPolicy()
    n_reasons: int = 4


class Judge:
    """Blend and budget of one worker.

    Parameters
    ----------
    member
        Enters the alerts' ids.
    schema
        Names the features.
    policy
        See `JudgePolicy`.
    cold
        bool of shape (n_experts,): on whom a cold bank relies, see `stream.panel.Panel`.

    Attributes
    ----------
    blend
        In force.
    """

    def __init__(
        self, member: str, schema: Schema, policy: JudgePolicy, *, cold: NDArray[np.bool_]
    ) -> None:
        self._member = member
        self._schema = schema
        self._policy = policy
        self._cold = cold
        self.blend: Blend = equal_blend(cold, policy.blend)
        self.budget = AlertBudget(policy.budget)
        self._scorers: dict[int, Scorer] = {}
        self._usual: dict[int, NDArray[np.float64]] = {}

    def decide(
        self, scores: NDArray[np.float64], event_ms: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        """Return blended log-odds, which rows become alerts, and the threshold at each."""
        logit = self.blend.apply(scores)
        alert, threshold = self.budget.choose(_known(logit, scores), event_ms)
        return logit, alert, threshold

    def window(self, log: RowLog, now_ms: int, part: float = 1.0) -> NDArray[np.int64]:
        """Return the rows by which experts are weighed: outcomes of late, known at ``now_ms``.

        ``part``, in (0, 1], is that of the usual window which is looked at.
        """
        window_ms = int(part * self._policy.blend.window_d * DAY_MS)
        rows = log.matured_since(now_ms - window_ms)
        return rows[log.at(rows).known_ms <= now_ms]

    def refitted(self, fitted: LoggedRows, now_ms: int) -> Blend:
        """Return the experts' weights by some outcomes; in any thread, of rows that are held."""
        return fit_blend(
            fitted.scores,
            fitted.outcome == FRAUD,
            (now_ms - fitted.known_ms) / DAY_MS,
            fitted.hash,
            cold=self._cold,
            policy=self._policy.blend,
        )

    def rescore(self, log: RowLog, rescored: Rescore) -> None:
        """Tell the budget what a new scorer gives to the newest transactions."""
        rows = np.arange(max(log.size - RING, 0), log.size)
        if len(rows):
            scores = rescored(rows)
            self.budget.rescore(_known(self.blend.apply(scores), scores))

    def new_scorer(
        self,
        expert: int,
        basis: Basis,
        weights: NDArray[np.float64],
        recent: NDArray[np.float32],
    ) -> None:
        """Take note of a scorer that alerts may be explained by, and what is usual under it.

        Parameters
        ----------
        expert
            Its position among the experts.
        basis, weights
            The scorer.
        recent
            float32 of shape (n, n_features): the newest transactions as that expert sees them.
        """
        self._scorers[expert] = (basis, weights)
        usual = np.zeros(basis.n_transforms)
        if len(recent):
            usual = baseline(weights, encode(basis, recent))
        self._usual[expert] = usual

    def explain(
        self,
        batch: TransactionBatch,
        views: Sequence[NDArray[np.float32]],
        logit: NDArray[np.float64],
        *,
        threshold: NDArray[np.float64],
        release: int,
    ) -> list[Alert]:
        """Return one alert per row, with reasons from the consortium's scorecard or else the own.

        Parameters
        ----------
        batch
            The transactions that alert.
        views
            One float32 array of shape (n, n_features) per expert: the rows as it sees them.
        logit, threshold
            float64 of shape (n,).
        release
            Number of the release in force.
        """
        reasons: list[list[Reason]] = [[] for _ in range(len(batch))]
        expert = max(self._scorers, default=None)
        if expert is not None and len(batch):
            basis, weights = self._scorers[expert]
            excess = contributions(weights, encode(basis, views[expert])) - self._usual[expert]
            reasons = explain(
                self._schema.feature_names,
                basis,
                views[expert],
                excess,
                n_towards=self._policy.n_reasons,
            )
        return make_alerts(
            self._member,
            batch,
            logit=logit,
            threshold=threshold,
            reasons=reasons,
            release=str(release),
        )

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        blend = {f"blend/{name}": array for name, array in self.blend.arrays().items()}
        budget = {f"budget/{name}": array for name, array in self.budget.arrays().items()}
        return blend | budget | {f"usual/{expert}": usual for expert, usual in self._usual.items()}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave; scorers come by `restore_scorer`."""
        self.blend = Blend.from_arrays(under("blend/", arrays))
        self.budget = AlertBudget.from_arrays(self._policy.budget, under("budget/", arrays))
        self._usual = {
            int(expert): np.array(usual, np.float64)
            for expert, usual in under("usual/", arrays).items()
        }

    def restore_scorer(self, expert: int, basis: Basis, weights: NDArray[np.float64]) -> None:
        """Take a scorer up again whose usual contributions `load` brought."""
        if expert in self._usual:
            self._scorers[expert] = (basis, weights)


def _known(logit: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the blend, NaN where no expert had a score: the prior is nothing to alert on."""
    return np.where(np.isnan(scores).all(axis=1), np.nan, logit)
