"""The merged scorecard: the basis in force, and the weights that summed statistics give."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.moments import merged_moments
from amalgamator.policy import FoldConfig
from amalgamator.state import Pairs, by_bucket, of_part
from amalgamator.structure import choose_trees, due_period, proposals_of, standing_of
from models.basis import MAX_WEIGHTS, Basis
from models.basis_builder import build_basis, schema_crosses
from models.cross_choice import choose_crosses, only_crosses, with_crosses
from models.families.scorecard import solve
from models.histograms import N_CELLS
from models.packed import diagonal
from models.release import Release
from models.summary import ContributionKey, Part
from models.tree_checks import TreeLimits

log = logging.getLogger(__name__)

_READINESS: tuple[Part, ...] = ("moments", "statistics")
"""Parts that show a worker's basis, the later one before the earlier."""

Stamp = tuple[tuple[ContributionKey, int, float], ...]
"""What a sum was made of: the key, seq and weight of each contribution."""


class Scorer(NamedTuple):
    """The frozen scorer of a release, and the basis that members shall encode for next."""

    basis: Basis | None
    weights: NDArray[np.float64] | None
    next_basis: Basis | None


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    curvature: NDArray[np.float64]
    gradient: NDArray[np.float64]


def stamp_of(pairs: Pairs, config: FoldConfig) -> Stamp:
    """Return what identifies the weighted sum of these contributions."""
    return tuple((key, held.seq, config.weight_of(key.member)) for key, held in pairs)


class ScorerFold:
    """Sums statistics and solves; remembers each bucket's sum while its contributions stay.

    The sum over members (sorted) is taken per bucket, then buckets are added in ascending order,
    so a remembered bucket gives the same bits as one that is added anew.

    Attributes
    ----------
    is_indefinite
        Whether the last fold left the weights as they were because a sum had no solution.
    """

    def __init__(self, config: FoldConfig) -> None:
        self._config = config
        self._buckets: dict[int, tuple[Stamp, _Sums]] = {}
        self._solved: tuple[tuple[int, Stamp], NDArray[np.float64]] | None = None
        self.is_indefinite = False

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Take other factors on the members' statistics and histograms."""
        self._config = replace(self._config, weights=weights)

    def fold(self, pairs: Pairs, previous: Release | None) -> Scorer:
        """Return the scorer for sorted contributions, given the release before.

        The next basis takes over once enough members publish for it; until then the weights of
        the present one follow its statistics while enough members still publish those, and stay
        as they are otherwise.
        """
        self.is_indefinite = False
        scorer = (
            Scorer(None, None, None)
            if previous is None
            else Scorer(previous.basis, previous.weights, previous.next_basis)
        )
        if scorer.next_basis is not None and self._is_covered(pairs, scorer.next_basis):
            weights = self._weights(pairs, scorer.next_basis)
            if weights is not None:
                scorer = Scorer(scorer.next_basis, weights, None)
        elif scorer.basis is not None and self._is_covered(pairs, scorer.basis):
            weights = self._weights(pairs, scorer.basis)
            if weights is not None:
                scorer = scorer._replace(weights=weights)
        if scorer.next_basis is None:
            scorer = scorer._replace(next_basis=self._due_basis(pairs, scorer))
        return scorer

    def _is_covered(self, pairs: Pairs, basis: Basis) -> bool:
        """Return whether enough workers, by their matured transactions, publish for the basis.

        A worker's basis is that of its newest statistics bucket, or of its moments where it runs
        no scorecard.
        """
        basis_of = {
            (key.member, key.worker): held.contribution.basis
            for part in _READINESS
            for key, held in of_part(pairs, part)
        }
        total = covered = 0.0
        for key, held in of_part(pairs, "histograms"):
            n = self._config.weight_of(key.member) * held.contribution.n
            total += n
            if basis_of.get((key.member, key.worker)) == basis.number:
                covered += n
        return total > 0.0 and covered >= self._config.basis.switch_coverage * total

    def _due_basis(self, pairs: Pairs, scorer: Scorer) -> Basis | None:
        """Return a basis with edges for more data, or with other trees, if one is due.

        Its crosses are the schema's and those that the moments of the basis in force ask for.
        """
        due = self._plain_due_basis(pairs, scorer)
        if due is None or scorer.basis is None:
            return due
        plain = only_crosses(due, schema_crosses(self._config.schema, due.selected.tolist()))
        moments = merged_moments(pairs, scorer.basis, self._config)
        if moments is None:
            return plain
        shape, room = self._config.shape, MAX_WEIGHTS - plain.n_weights - self._tree_room(plain)
        chosen = choose_crosses(
            moments,
            plain,
            most=shape.proposed_crosses,
            most_weights=min(shape.cross_weights, room),
        )
        return with_crosses(plain, chosen)

    def _tree_room(self, basis: Basis) -> int:
        """Return the weights that trees to come may need beside those that are there."""
        n_more = max(self._config.structure.max_trees - len(basis.trees), 0)
        return n_more * TreeLimits().max_leaves

    def _plain_due_basis(self, pairs: Pairs, scorer: Scorer) -> Basis | None:
        basis = scorer.basis
        due = self._config.basis.number_due(*self.matured(pairs))
        if due > (0 if basis is None else basis.drawn):
            return build_basis(
                self.merged_counts(pairs),
                self._config.schema,
                due if basis is None else max(due, basis.number + 1),
                shape=self._config.shape,
                trees=None if basis is None else basis.trees,
                made_from=(due, -1 if basis is None else basis.grown),
            )
        if basis is None or scorer.weights is None:
            return None
        period = due_period(pairs, basis, self._config)
        if period is None:
            return None
        standing = standing_of(basis, scorer.weights, self._diagonal(pairs, basis))
        trees = choose_trees(standing, proposals_of(pairs, self._config), self._config.structure)
        return replace(basis, number=basis.number + 1, trees=trees, grown=period)

    def matured(self, pairs: Pairs) -> tuple[int, int]:
        """Return the matured transactions behind histograms, and the frauds among them."""
        n, n_frauds = 0, 0
        for key, held in of_part(pairs, "histograms"):
            if self._config.weight_of(key.member) > 0.0:
                arrays = held.contribution.arrays
                frauds = arrays["count"] * arrays["is_fraud"].astype(np.uint64)
                per_feature = np.bincount(arrays["feature"].astype(np.int64), frauds)
                n += held.contribution.n
                n_frauds += int(per_feature.max(initial=0))
        return n, n_frauds

    def _diagonal(self, pairs: Pairs, basis: Basis) -> NDArray[np.float64]:
        """Return the diagonal of the summed curvature of a basis."""
        sums = self._decayed(by_bucket(self._statistics_for(pairs, basis)), basis.n_weights)
        return diagonal(sums.curvature, basis.n_weights)

    def merged_counts(self, pairs: Pairs) -> NDArray[np.int64]:
        """Return the weighted sum of histograms, shape (n_features, 2, N_CELLS)."""
        n_features = len(self._config.schema.feature_names)
        counts = np.zeros((n_features, 2, N_CELLS), np.int64)
        for key, held in of_part(pairs, "histograms"):
            arrays: Mapping[str, NDArray[Any]] = held.contribution.arrays
            weighted = np.rint(self._config.weight_of(key.member) * arrays["count"])
            # Cells of one contribution do not repeat, so plain indexing adds each of them.
            counts[arrays["feature"], arrays["is_fraud"], arrays["cell"]] += weighted.astype(
                np.int64
            )
        return counts

    def _weights(self, pairs: Pairs, basis: Basis) -> NDArray[np.float64] | None:
        """Return the solution for all statistics of ``basis``; None if there is none."""
        n_weights = basis.n_weights
        used = self._statistics_for(pairs, basis)
        identity = (basis.number, stamp_of(used, self._config))
        if self._solved is not None and self._solved[0] == identity:
            return self._solved[1]
        sums = self._decayed(by_bucket(used), n_weights)
        try:
            weights = solve(
                sums.curvature,
                sums.gradient,
                ridge=self._ridge(basis),
                prior_logit=self._config.prior_logit,
            )
        except np.linalg.LinAlgError:
            log.warning("statistics of basis %d are not positive definite", basis.number)
            self.is_indefinite = True
            return None
        if not bool(np.isfinite(weights).all()):
            log.warning("statistics of basis %d have no finite solution", basis.number)
            return None
        weights.flags.writeable = False
        self._solved = (identity, weights)
        return weights

    def _statistics_for(self, pairs: Pairs, basis: Basis) -> Pairs:
        """Return what counts of a basis; the buckets of others would move the decay."""
        return [
            pair
            for pair in of_part(pairs, "statistics")
            if pair[1].contribution.basis == basis.number
            and self._config.weight_of(pair[0].member) > 0.0
            and len(pair[1].contribution.arrays["gradient"]) == basis.n_weights
        ]

    def _ridge(self, basis: Basis) -> NDArray[np.float64]:
        ridge = np.full(basis.n_weights, self._config.ridge)
        ridge[basis.offsets[basis.n_transforms - len(basis.trees)] :] = self._config.leaf_ridge
        return ridge

    def _decayed(self, buckets: dict[int, Pairs], n_weights: int) -> _Sums:
        self._buckets = {k: cached for k, cached in self._buckets.items() if k in buckets}
        curvature = np.zeros(n_weights * (n_weights + 1) // 2)
        gradient = np.zeros(n_weights)
        newest = max(buckets, default=0)
        for bucket, pairs in buckets.items():
            age_d = (newest - bucket) * self._config.bucket_days
            decay = 0.5 ** (age_d / self._config.half_life_d)
            sums = self._bucket_sums(bucket, pairs, n_weights)
            curvature += decay * sums.curvature
            gradient += decay * sums.gradient
        return _Sums(curvature, gradient)

    def _bucket_sums(self, bucket: int, pairs: Pairs, n_weights: int) -> _Sums:
        stamp = stamp_of(pairs, self._config)
        cached = self._buckets.get(bucket)
        if cached is not None and cached[0] == stamp:
            return cached[1]
        sums = _Sums(np.zeros(n_weights * (n_weights + 1) // 2), np.zeros(n_weights))
        for key, held in pairs:
            weight = self._config.weight_of(key.member)
            arrays = held.contribution.arrays
            sums.curvature[:] += np.multiply(arrays["curvature"], weight, dtype=np.float64)
            sums.gradient[:] += np.multiply(arrays["gradient"], weight, dtype=np.float64)
        self._buckets[bucket] = (stamp, sums)
        return sums
