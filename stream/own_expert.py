"""The bank's scorecard alone: learnt and solved here, on bins of its own."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, encode
from models.basis_builder import build_basis
from models.families.scorecard import Statistics, is_kept, logits
from models.families.solver import solve_square
from models.histograms import add_rows, empty_counts
from models.matured import Matured, MaturedRows
from models.named_arrays import under
from models.schema import Schema
from stream.expert_arrays import load_scorer, scorer_arrays
from stream.experts import LearningPolicy
from stream.stored_statistics import StoredStatistics
from stream.touched import TouchedPages


class OwnExpert:
    """The bank's scorecard alone: own evidence, own bins, own statistics.

    Parameters
    ----------
    schema, policy
        The consortium's.

    Attributes
    ----------
    basis, weights
        In force, None until enough has matured.
    """

    def __init__(self, schema: Schema, policy: LearningPolicy) -> None:
        self._schema = schema
        self._policy = policy
        self._counts = empty_counts(len(schema.feature_names))
        self._n_at_basis = 0
        self._n_at_solve = 0
        self.basis: Basis | None = None
        self.weights: NDArray[np.float64] | None = None
        self._statistics: StoredStatistics | None = None

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds, NaN before there are weights."""
        if self.basis is None or self.weights is None:
            return np.full(len(rows), np.nan)
        return logits(encode(self.basis, rows), self.weights)

    def learn(self, matured: Matured) -> None:
        """Add outcomes."""
        add_rows(self._counts, matured.features, matured.is_fraud)
        self._teach(matured)

    def _teach(self, matured: Matured) -> None:
        if self.basis is not None and self._statistics is not None:
            active = encode(self.basis, matured.features)
            z = self._reference(active)
            self._statistics.add(active, matured.is_fraud, z, kept=is_kept(matured.hashes))

    def _reference(self, active: NDArray[np.int32]) -> NDArray[np.float64]:
        if self.weights is None:
            return np.full(len(active), self._policy.prior_logit)
        return logits(active, self.weights)

    @property
    def _n_matured(self) -> int:
        return int(self._counts[0].sum())

    @property
    def wants_basis(self) -> bool:
        """Whether the matured transactions have outgrown the basis."""
        n, frauds = self._n_matured, int(self._counts[0, 1].sum())
        policy = self._policy
        if self.basis is None:
            return n >= policy.first_n and frauds >= policy.first_frauds
        return n >= policy.growth * self._n_at_basis

    def rebase(self, retained: MaturedRows) -> None:
        """Make a new basis from own histograms and encode the retained rows for it."""
        number = 1 if self.basis is None else self.basis.number + 1
        basis = build_basis(self._counts, self._schema, number)
        statistics = StoredStatistics(basis.n_weights)
        for block in retained.blocks():
            z = self.score(block.features)
            if np.isnan(z).any():
                z = np.full(len(block), self._policy.prior_logit)
            active = encode(basis, block.features)
            statistics.add(active, block.is_fraud, z, kept=is_kept(block.hashes))
        self.basis, self._statistics = basis, statistics
        self._n_at_basis = self._n_matured
        self._solve(statistics)

    def begun_anew(self) -> "OwnExpert":
        """Return one that knows what this one knows now, to be rebased in another thread."""
        other = OwnExpert(self._schema, self._policy)
        other._counts, other.basis, other.weights = self._counts.copy(), self.basis, self.weights
        return other

    def take_over(self, rebased: "OwnExpert", newer: Matured) -> None:
        """Go on with basis, statistics and weights of one that was rebased; counts stay.

        Parameters
        ----------
        rebased
            Result of `begun_anew`.
        newer
            Outcomes since, in order.
        """
        self.basis, self.weights = rebased.basis, rebased.weights
        self._statistics = rebased._statistics  # noqa: SLF001  # one of us
        self._n_at_basis, self._n_at_solve = rebased._n_at_basis, rebased._n_at_solve  # noqa: SLF001
        self._teach(newer)

    def _solve(self, statistics: StoredStatistics) -> None:
        self.weights = self._solved(statistics)
        self._n_at_solve = self._n_matured

    def _solved(self, statistics: Statistics) -> NDArray[np.float64]:
        given = statistics.curvature(), statistics.gradient
        policy = self._policy
        return solve_square(*given, ridge=policy.ridge, prior_logit=policy.prior_logit)

    def solving(self, forgetting: float = 1.0) -> Callable[[], NDArray[np.float64]] | None:
        """Return what gives new weights, in any thread, where it is time for them."""
        is_due = self._n_matured >= self._policy.solve_growth * self._n_at_solve
        if self._statistics is None or not (is_due or forgetting != 1.0):
            return None
        return partial(self._solved, self._statistics.copied())

    def take_weights(self, basis: Basis | None, weights: NDArray[np.float64]) -> None:
        """Score by new weights, where they are of the basis in force."""
        if basis is self.basis:
            self.weights, self._n_at_solve = weights, self._n_matured

    def decay(self, forgetting: float = 1.0) -> None:
        """Forget a day's worth, or several where drift was found."""
        if self._statistics is not None:
            self._statistics.decay(0.5 ** (forgetting / self._policy.half_life_d))

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out: dict[str, NDArray[np.generic]] = {"counts": self._counts}
        out |= scorer_arrays("basis", self.basis, self.weights)
        if self._statistics is not None:
            out |= {f"statistics/{k}": a for k, a in self._statistics.arrays().items()}
        out["n_at"] = np.array([self._n_at_basis, self._n_at_solve], np.int64)
        return out

    def touched(self) -> dict[str, TouchedPages]:
        """Return of large arrays: name -> pages that may have changed since they were copied."""
        held = self._statistics
        return {} if held is None else {"statistics/pairs": held.pages}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self._counts = np.array(arrays["counts"], np.uint32)
        self.basis, self.weights = load_scorer("basis", arrays)
        if held := under("statistics/", arrays):
            self._statistics = StoredStatistics.of(held)
        self._n_at_basis, self._n_at_solve = arrays["n_at"].tolist()
