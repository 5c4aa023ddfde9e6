"""The merged scorecard: the basis in force, and the weights that summed statistics give."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.moments import merged_moments
from amalgamator.personal import personal_weights
from amalgamator.policy import FoldConfig
from amalgamator.state import Pairs, of_part
from amalgamator.structure import choose_trees, due_period, proposals_of, standing_of
from amalgamator.sums import BucketSums, Stamp, solution, stamp_of
from amalgamator.target import Target, targets
from models.basis import MAX_WEIGHTS, Basis
from models.basis_builder import build_basis, schema_crosses
from models.cross_choice import choose_crosses, only_crosses, with_crosses
from models.histograms import N_CELLS
from models.packed import diagonal
from models.release import Former, PersonalWeights, Release
from models.summary import ContributionKey, Part
from models.tree_checks import TreeLimits

log = logging.getLogger(__name__)

_READINESS: tuple[Part, ...] = ("moments", "statistics")
"""Parts that show a worker's basis, the later one before the earlier."""


class Scorer(NamedTuple):
    """The frozen scorer of a release, what was before it, and what members shall encode for next.

    ``personal`` and ``former`` as in `models.release.Release`.
    """

    basis: Basis | None = None
    weights: NDArray[np.float64] | None = None
    next_basis: Basis | None = None
    personal: PersonalWeights | None = None
    former: tuple[Former, ...] = ()


class _Solved(NamedTuple):
    target: Target
    stamp: Stamp
    weights: NDArray[np.float64]
    personal: PersonalWeights | None


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
        self._sums = BucketSums()
        self._solved: _Solved | None = None
        self._frauds: dict[ContributionKey, tuple[int, int]] = {}  # number, frauds
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
        scorer = _before(previous, self._config)
        known = targets(previous, self._config)
        if scorer.next_basis is not None and self._is_covered(pairs, scorer.next_basis):
            target = known[scorer.next_basis.number]
            solved = self._solve(pairs, target)
            if solved is not None:
                scorer = Scorer(target.basis, solved.weights, None, solved.personal, target.former)
        elif scorer.basis is not None and self._is_covered(pairs, scorer.basis):
            solved = self._solve(pairs, known[scorer.basis.number])
            if solved is not None:
                scorer = scorer._replace(weights=solved.weights, personal=solved.personal)
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
        of_schema = set(schema_crosses(self._config.schema))
        plain = only_crosses(due, [(a, b) for a, b in due.crosses.tolist() if (a, b) in of_schema])
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
        target = Target(basis, scorer.former)
        standing = standing_of(basis, scorer.weights, self._diagonal(pairs, target))
        trees = choose_trees(standing, proposals_of(pairs, self._config), self._config.structure)
        return replace(basis, number=basis.number + 1, trees=trees, grown=period)

    def matured(self, pairs: Pairs) -> tuple[int, int]:
        """Return the matured transactions behind histograms, and the frauds among them."""
        n, n_frauds = 0, 0
        for key, held in of_part(pairs, "histograms"):
            if self._config.weight_of(key.member) > 0.0:
                if self._frauds.get(key, (-1, 0))[0] != held.seq:
                    self._frauds[key] = (held.seq, _frauds_of(held.contribution.arrays))
                n += held.contribution.n
                n_frauds += self._frauds[key][1]
        return n, n_frauds

    def _diagonal(self, pairs: Pairs, target: Target) -> NDArray[np.float64]:
        """Return the diagonal of the summed curvature of a basis."""
        sums = self._sums.decayed(self._statistics_for(pairs, target), target, self._config)
        return diagonal(sums.curvature, target.basis.n_weights)

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

    def _solve(self, pairs: Pairs, target: Target) -> _Solved | None:
        """Return the solution for all statistics of a basis; None if there is none."""
        used = self._statistics_for(pairs, target)
        stamp, last = stamp_of(used, self._config), self._solved
        if last is not None and last.stamp == stamp and target.is_same(last.target):
            return last
        sums = self._sums.decayed(used, target, self._config)
        try:
            found = solution(sums, target.basis, self._config)
        except np.linalg.LinAlgError as error:
            log.warning("statistics of basis %d: %s", target.basis.number, error)
            self.is_indefinite = True
            return None
        personal = personal_weights(used, found, target, self._config)
        self._solved = _Solved(target, stamp, found.weights, personal)
        return self._solved

    def _statistics_for(self, pairs: Pairs, target: Target) -> Pairs:
        """Return what counts of a basis; the buckets of others would move the decay."""
        return [
            (key, held)
            for key, held in of_part(pairs, "statistics")
            if self._config.weight_of(key.member) > 0.0 and target.takes(held.contribution)
        ]


def _frauds_of(histograms: Mapping[str, NDArray[np.generic]]) -> int:
    """Return the frauds behind a member's histograms, of which a feature shows those it has."""
    count, is_fraud = np.asarray(histograms["count"]), np.asarray(histograms["is_fraud"])
    feature = np.asarray(histograms["feature"]).astype(np.int64)
    per_feature = np.bincount(feature, count * is_fraud.astype(np.uint64))
    return int(per_feature.max(initial=0))


def _before(previous: Release | None, config: FoldConfig) -> Scorer:
    """Return the scorer of the last release, as far as this fold would carry it on."""
    if previous is None:
        return Scorer()
    number = 0 if previous.basis is None else previous.basis.number
    known = targets(previous, config).get(number)
    return Scorer(
        previous.basis,
        previous.weights,
        previous.next_basis,
        previous.personal if config.kappa is not None else None,
        () if known is None else known.former,
    )
