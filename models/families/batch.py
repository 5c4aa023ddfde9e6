"""Gradient boosting (LightGBM), refitted on the bank's matured rows every few days.

It learns ordinals between the basis' cuts, so that its trees speak of the consortium's bins.
LightGBM is asked to be deterministic and runs on one thread. Its model is kept as trees, which
score a batch of a hundred rows several times faster than the library, and need it only to refit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.errors import InvalidInputError
from models.families.base import Grower, Retained, demand, read_options
from models.families.grown_trees import as_proposal, flat, from_lightgbm
from models.families.ordinals import Binning, ordinals
from models.families.scorecard import MAX_LOGIT, thinned
from models.matured import Matured
from models.trees import TreeList, sum_of_leaf_values

_FIXED = {
    "objective": "binary",
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
    "bagging_freq": 1,
    "max_bin": 255,
    "min_data_in_bin": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How the bank's boosting is fitted.

    Parameters
    ----------
    refit_d
        Days between refits, >= 1.
    n_trees, num_leaves, learning_rate, min_data_in_leaf, feature_fraction, bagging_fraction,
    lambda_l2
        LightGBM's.
    min_n, min_frauds
        Matured transactions and frauds before the first fit.
    on_residual
        Whether to learn what the consortium's scorer leaves over; its score is then a summand
        of that scorer's and weak alone.
    """

    refit_d: int = 14
    n_trees: int = 300
    num_leaves: int = 31
    learning_rate: float = 0.05
    min_data_in_leaf: int = 40
    feature_fraction: float = 0.4
    bagging_fraction: float = 0.8
    lambda_l2: float = 5.0
    min_n: int = 3_000
    min_frauds: int = 30
    on_residual: bool = False

    def __post_init__(self) -> None:
        for name in ("refit_d", "n_trees", "min_data_in_leaf", "min_n", "min_frauds"):
            demand(getattr(self, name) >= 1, name, "1 or more")
        demand(2 <= self.num_leaves <= 4_096, "num_leaves", "2 to 4096")
        for name in ("learning_rate", "feature_fraction", "bagging_fraction"):
            demand(0.0 < getattr(self, name) <= 1.0, name, "a number in (0, 1]")
        demand(0.0 <= self.lambda_l2 < np.inf, "lambda_l2", "a number in [0, inf)")


def make(options: Mapping[str, object], *, seed: int) -> "BatchFamily":
    """Return the untrained family; see `models.families.registry.make_family`."""
    return BatchFamily(read_options(BatchOptions, options, family="lightgbm"), seed=seed)


class BatchFamily:
    """A bank's LightGBM; see `models.families.base.Family`.

    Parameters
    ----------
    options
        How it is fitted.
    seed
        Of LightGBM's generators; the day of the refit is added.
    """

    name = "lightgbm"

    def __init__(self, options: BatchOptions, *, seed: int) -> None:
        self._options = options
        self._seed = seed
        self._asked: Binning | None = None
        self._fitted: Binning | None = None
        self._trees: TreeList | None = None
        self._day = -1

    @property
    def began_day(self) -> int:
        """Return the day of the last refit."""
        return self._day

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds, NaN before the first fit."""
        if self._trees is None or self._fitted is None:
            return np.full(len(rows), np.nan)
        raw = sum_of_leaf_values(self._trees, self._fitted.categories.apply(rows))
        return np.clip(raw, -MAX_LOGIT, MAX_LOGIT)

    def learn(self, matured: Matured) -> None:
        """Do nothing: it learns at refits."""

    def install(self, basis: Basis) -> None:
        """Bin rows by this basis from the next refit on."""
        self._asked = Binning.of_cuts(basis)

    def is_due(self, day: int) -> bool:
        """Return whether the last fit is old enough."""
        is_old = self._trees is None or day >= self._day + self._options.refit_d
        return self._asked is not None and is_old

    def end_day(self, day: int, retained: Retained) -> None:
        """Refit where the last fit is old enough and enough has matured."""
        if self._asked is None or not self.is_due(day):
            return
        matured = retained()
        frauds = int(matured.is_fraud.sum())
        if len(matured) < self._options.min_n or frauds < self._options.min_frauds:
            return
        if frauds < len(matured):
            self._fit(day, self._asked, matured)

    def _fit(self, day: int, binning: Binning, matured: Matured) -> None:
        options = self._options
        rows, weights = thinned(matured)
        columns = ordinals(binning, rows.features)
        init = _base_logits(rows) if options.on_residual else None
        names = ("num_leaves", "learning_rate", "min_data_in_leaf", "feature_fraction")
        given = {name: getattr(options, name) for name in (*names, "lambda_l2")}
        given |= {"bagging_fraction": options.bagging_fraction, "seed": self._seed + day}
        fitted = _boosted(
            given, columns, rows.is_fraud, options.n_trees, weights=weights, init=init
        )
        self._trees, self._fitted = flat(from_lightgbm(fitted.dump_model(), binning)), binning
        self._day = day

    def propose(self, basis: Basis, *, n_trees: int, day: int) -> Grower | None:
        """Return what grows small trees; see `grow_trees`."""
        binning, seed = Binning.of_cuts(basis), self._seed + day
        return lambda matured: grow_trees(binning, matured, n_trees=n_trees, seed=seed)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out: dict[str, NDArray[np.generic]] = {"day": np.array([self._day], np.int64)}
        if self._asked is not None:
            out |= self._asked.arrays("asked")
        if self._fitted is not None and self._trees is not None:
            out |= self._fitted.arrays("fitted") | self._trees.arrays("trees")
        return out

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self._day = int(arrays["day"][0])
        self._asked = Binning.load("asked", arrays)
        self._fitted = Binning.load("fitted", arrays)
        self._trees = TreeList.load("trees", arrays)


def _base_logits(matured: Matured) -> NDArray[np.float64] | None:
    """Return the consortium's log-odds, the rows' own rate where it gave none; None if nowhere."""
    z = matured.base_logits
    if z is None or not bool(np.any(np.isfinite(z))):
        return None
    rate = matured.is_fraud.mean()
    return np.where(np.isfinite(z), z, np.log(rate / (1.0 - rate)))


def _boosted(
    given: Mapping[str, object],
    columns: NDArray[np.uint8],
    is_fraud: NDArray[np.bool_],
    n_trees: int,
    *,
    weights: NDArray[np.float32],
    init: NDArray[np.float64] | None = None,
) -> lightgbm.Booster:
    parameters = {**_FIXED, **given}
    data = lightgbm.Dataset(
        columns,
        is_fraud.astype(np.float32),
        weight=weights,
        init_score=init,
        params=parameters,
    )
    return lightgbm.train(parameters, data, num_boost_round=n_trees)


def grow_trees(
    binning: Binning,
    matured: Matured,
    *,
    n_trees: int,
    seed: int,
    max_leaves: int = 16,
    max_depth: int = 6,
    min_accounts: int = 20,
) -> TreeList | None:
    """Return small trees for the consortium's basis.

    They are grown on outcomes, not on what the consortium's scorer leaves over: measured on two
    data sets, the latter overfits a member's own few frauds and gains half as much.

    Parameters
    ----------
    binning
        Of the consortium's basis.
    matured
        With accounts.
    n_trees
        To grow; fewer may be left after those that say the same or single accounts out.
    seed
        Of LightGBM's generators.
    max_leaves, max_depth, min_accounts
        The consortium's bounds.

    Raises
    ------
    InvalidInputError
        If the rows come without accounts or with one outcome alone.
    """
    if matured.accounts is None:
        raise InvalidInputError("matured: expected rows with their accounts, got none")
    if not bool(matured.is_fraud.any()) or bool(matured.is_fraud.all()):
        raise InvalidInputError("matured: expected rows of both outcomes")
    given = {
        "num_leaves": max_leaves,
        "max_depth": max_depth,
        "learning_rate": 0.1,
        "min_data_in_leaf": max(40, min_accounts),
        "feature_fraction": 0.4,
        "bagging_fraction": 0.8,
        "lambda_l2": 5.0,
        "seed": seed,
    }
    rows, weights = thinned(matured)
    columns = ordinals(binning, rows.features)
    booster = _boosted(given, columns, rows.is_fraud, n_trees, weights=weights)
    roots = from_lightgbm(booster.dump_model(), binning)
    return as_proposal(roots, matured.features, matured.accounts, min_accounts=min_accounts)
