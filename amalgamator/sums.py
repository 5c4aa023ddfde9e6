"""Sums of members' statistics: over sorted members in a bucket, then over buckets, oldest first."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.policy import FoldConfig
from amalgamator.state import Pairs, by_bucket
from amalgamator.target import Target
from models.basis import Basis
from models.families.solver import Solver, unpack
from models.packed import add_scaled
from models.summary import ContributionKey

Stamp = tuple[tuple[ContributionKey, int, float], ...]
"""What a sum was made of: the key, seq and weight of each contribution."""


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Packed curvature and gradient, float64."""

    curvature: NDArray[np.float64]
    gradient: NDArray[np.float64]

    @classmethod
    def zero(cls, n_weights: int) -> "Sums":
        """Return the sum of nothing."""
        return cls(np.zeros(n_weights * (n_weights + 1) // 2), np.zeros(n_weights))

    def add(self, factor: float, other: "Sums") -> None:
        """Add another times a factor, in place."""
        add_scaled(self.curvature, factor, other.curvature)
        self.gradient[:] += factor * other.gradient


def stamp_of(pairs: Pairs, config: FoldConfig) -> Stamp:
    """Return what identifies the weighted sum of these contributions."""
    return tuple((key, held.seq, config.weight_of(key.member)) for key, held in pairs)


def bucket_decay(bucket: int, newest: int, config: FoldConfig) -> float:
    """Return the factor on a bucket's sums when the newest bucket is another."""
    return float(0.5 ** ((newest - bucket) * config.bucket_days / config.half_life_d))


def weighted_sums(pairs: Pairs, target: Target, config: FoldConfig) -> Sums:
    """Return the sum over contributions, in their order, each times its member's weight."""
    sums = Sums.zero(target.basis.n_weights)
    for key, held in pairs:
        weight = config.weight_of(key.member)
        arrays = target.arrays(held.contribution)
        add_scaled(sums.curvature, weight, arrays.curvature)
        sums.gradient[:] += np.multiply(arrays.gradient, weight, dtype=np.float64)
    return sums


class BucketSums:
    """Sums buckets and remembers each while what it is made of stays, which gives the same bits."""

    def __init__(self) -> None:
        self._target: Target | None = None
        self._buckets: dict[int, tuple[Stamp, Sums]] = {}

    def decayed(self, used: Pairs, target: Target, config: FoldConfig) -> Sums:
        """Return the sum of all buckets, older ones decayed.

        Parameters
        ----------
        used
            Statistics that ``target`` takes, sorted by key.
        target
            The basis.
        config
            Weights and half-life.
        """
        if not target.is_same(self._target):
            self._target, self._buckets = target, {}
        buckets = by_bucket(used)
        self._buckets = {k: cached for k, cached in self._buckets.items() if k in buckets}
        newest = max(buckets, default=0)
        total = Sums.zero(target.basis.n_weights)
        for bucket, pairs in buckets.items():
            stamp, cached = stamp_of(pairs, config), self._buckets.get(bucket)
            if cached is None or cached[0] != stamp:
                cached = (stamp, weighted_sums(pairs, target, config))
                self._buckets[bucket] = cached
            total.add(bucket_decay(bucket, newest, config), cached[1])
        return total


def ridge_of(basis: Basis, config: FoldConfig) -> NDArray[np.float64]:
    """Return each weight's pull towards the prior: that of leaves is another."""
    ridge = np.full(basis.n_weights, config.ridge)
    ridge[basis.offsets[basis.n_transforms - len(basis.trees)] :] = config.leaf_ridge
    return ridge


class Solution(NamedTuple):
    """The weights of a basis that sums give, read-only, and the factored sums."""

    weights: NDArray[np.float64]
    solver: Solver


def solution(sums: Sums, basis: Basis, config: FoldConfig) -> Solution:
    """Return the solution of sums.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the sums are not positive definite, or the solution is not finite.
    """
    solver = Solver(
        unpack(sums.curvature, basis.n_weights),
        ridge=ridge_of(basis, config),
        prior_logit=config.prior_logit,
    )
    weights = solver.solve(sums.gradient)
    if not bool(np.isfinite(weights).all()):
        raise np.linalg.LinAlgError("the solution is not finite")
    weights.flags.writeable = False
    return Solution(weights, solver)
