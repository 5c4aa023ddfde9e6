"""The basis that statistics are summed for, and those before it whose statistics still count; pure.

A key of the log names no basis: what a worker published for a bucket under basis n stays held until
it publishes that bucket for n + 1, which replaces it. So a transaction counts for one basis at a
time, and what is still of an older one is there to be embedded, for the transforms that both have
(`models.families.embedding`): of a member that is away, of one that is slow, of buckets that lie
before what a member retains.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.policy import FoldConfig
from models.basis import Basis
from models.basis_overlap import places_in
from models.families.embedding import embed
from models.release import Former, FormerWeights, Release
from models.summary import Contribution


class SumArrays(NamedTuple):
    """Packed A, float32, and b, float64, of one contribution."""

    curvature: NDArray[np.float32]
    gradient: NDArray[np.float64]


def plain_arrays(contribution: Contribution) -> SumArrays:
    """Return statistics as they were published."""
    arrays = contribution.arrays
    return SumArrays(
        np.asarray(arrays["curvature"], np.float32), np.asarray(arrays["gradient"], np.float64)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A basis and the scorers before it, ascending, on whose bases statistics still count."""

    basis: Basis
    former: tuple[Former, ...] = ()

    def takes(self, contribution: Contribution) -> bool:
        """Return whether statistics count for this basis, as they are or embedded."""
        return self._shape(contribution.basis) == len(contribution.arrays["gradient"])

    def _shape(self, number: int) -> int | None:
        bases = (self.basis, *(one.basis for one in self.former))
        return next((basis.n_weights for basis in bases if basis.number == number), None)

    def arrays(self, contribution: Contribution) -> SumArrays:
        """Return statistics that this basis `takes`, embedded where they are of an older one."""
        plain = plain_arrays(contribution)
        for basis, last in self.former:
            if basis.number == contribution.basis:
                embedded = embed(
                    *plain,
                    weights=last.weights,
                    places=places_in(basis, self.basis),
                    n_weights=self.basis.n_weights,
                )
                return SumArrays(*embedded)
        return plain

    def is_same(self, other: "Target | None") -> bool:
        """Return whether another sums the same: the very bases, and weights of the same values."""
        return (
            other is not None
            and other.basis is self.basis
            and len(other.former) == len(self.former)
            and all(
                a.basis is b.basis and np.array_equal(a.last.weights, b.last.weights)
                for a, b in zip(self.former, other.former, strict=True)
            )
        )


def is_same_target(target: Target | None, other: Target | None) -> bool:
    """Return whether two sum the same, none at all included."""
    return other is None if target is None else target.is_same(other)


def targets(previous: Release | None, config: FoldConfig) -> dict[int, Target]:
    """Return the targets of a fold after a release: the basis in force, and the next one.

    To the next one, the scorer in force is the newest former one. A release that brought it into
    force carries just those, so that a fold after it sums the same.
    """
    if previous is None:
        return {}
    out: dict[int, Target] = {}
    former = _newest(previous.former, config.n_former)
    if previous.basis is not None and previous.weights is not None:
        out[previous.basis.number] = Target(previous.basis, former)
        last = FormerWeights(number=previous.basis.number, weights=previous.weights)
        former = _newest((*former, Former(previous.basis, last)), config.n_former)
    if previous.next_basis is not None:
        out[previous.next_basis.number] = Target(previous.next_basis, former)
    return out


def _newest(former: Iterable[Former], n: int) -> tuple[Former, ...]:
    every = tuple(former)
    return every[max(len(every) - n, 0) :]
