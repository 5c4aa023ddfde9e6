"""One merge, pushed back to every member: frozen scorers, the next basis, evidence, probes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.entity_risk import EvidenceCells
from models.errors import InvalidInputError
from models.families.mlp_parameters import MlpSummary
from models.probes import check_probes

MAX_FORMER = 8
"""Former scorers of a release, at most."""


class Age(NamedTuple):
    """Epoch and number of a release; the later one replaces the earlier one. First: before any."""

    epoch: int = -1
    number: int = 0


class Source(NamedTuple):
    """What a release was folded from: the newest ``seq`` of a member's worker, and how it counted.

    ``weight`` is the factor on its evidence and ``max_frauds`` the cap on it, see
    `models.entity_risk.capped`, so that the member can take its own out again;
    ``statistics_weight`` is the factor on its statistics and histograms.
    """

    member: str
    worker: str
    seq: int
    weight: float
    statistics_weight: float = 1.0
    max_frauds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProbeSet:
    """Synthetic transactions that members are asked about.

    Parameters
    ----------
    number
        The UTC day (days since 1970) on which they were drawn, >= 1; a later set replaces it.
    rows
        float32 of shape (n, n_features), NaN is absent.

    Raises
    ------
    InvalidInputError
        If the number is below 1 or the rows are not probes, see `models.probes.check_probes`.
    """

    number: int
    rows: NDArray[np.float32]

    def __post_init__(self) -> None:
        if not self.number >= 1:
            raise InvalidInputError(f"probes: expected number >= 1, got {self.number}")
        check_probes(self.rows, self.rows.shape[1])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the rows by name."""
        return {"rows": self.rows}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudentNetwork:
    """The numbers of a student, and what it was taught.

    Parameters
    ----------
    number
        Of the set of probes whose answers it learnt, >= 1.
    answers
        uint8 of shape (32,): a digest of which answers those were.
    parameters
        float32, flat, see `models.families.network`.
    """

    number: int
    answers: NDArray[np.uint8]
    parameters: NDArray[np.float32]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return all but the number by name."""
        return {"answers": self.answers, "parameters": self.parameters}

    def is_same(self, other: "StudentNetwork | None") -> bool:
        """Return whether another was taught the same."""
        return other is self or (
            other is not None
            and other.number == self.number
            and np.array_equal(other.answers, self.answers)
            and np.array_equal(other.parameters, self.parameters)
        )


class Student(NamedTuple):
    """A distilled expert: a network and the basis whose bins it reads, in force or not any more."""

    basis: Basis
    network: StudentNetwork


class MergedNet(NamedTuple):
    """The mean of members' nets, and the basis whose bins it reads, in force or not any more."""

    basis: Basis
    summary: MlpSummary

    def is_same(self, other: "MergedNet | None") -> bool:
        """Return whether another has the same numbers on the same basis."""
        return other is self or (
            other is not None
            and other.basis.number == self.basis.number
            and np.array_equal(other.summary.flat, self.summary.flat)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PersonalWeights:
    """A solution for each member on the release's basis, in which its own statistics weigh more.

    Parameters
    ----------
    members
        Sorted, each once.
    weights
        float64 of shape (n_members, basis.n_weights), finite.

    Raises
    ------
    InvalidInputError
        If members are not sorted or the weights are of another shape or not finite.
    """

    members: tuple[str, ...]
    weights: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not all(a < b for a, b in pairwise(self.members)):
            raise InvalidInputError("personal weights: expected sorted members, each once")
        if not (self.weights.ndim == 2 and len(self.weights) == len(self.members)):
            raise InvalidInputError(
                f"personal weights: expected {len(self.members)} rows, got {self.weights.shape}"
            )
        if not bool(np.isfinite(self.weights).all()):
            raise InvalidInputError("personal weights: expected finite numbers")

    def of(self, member: str) -> NDArray[np.float64] | None:
        """Return the weights of one member, None where there are none."""
        if member not in self.members:
            return None
        weights: NDArray[np.float64] = self.weights[self.members.index(member)]
        return weights


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FormerWeights:
    """The last solution on a basis that is not in force any more.

    Parameters
    ----------
    number
        Of the basis, >= 1.
    weights
        float64 of shape (basis.n_weights,).
    """

    number: int
    weights: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the weights by name."""
        return {"weights": self.weights}


class Former(NamedTuple):
    """A scorer that was in force: statistics that were published for its basis still count."""

    basis: Basis
    last: FormerWeights


def check_former(former: Sequence[Former]) -> None:
    """Check that former scorers are what a release may carry.

    Raises
    ------
    InvalidInputError
        If there are more than `MAX_FORMER`, bases do not ascend, or weights are of another basis.
    """
    numbers = [one.basis.number for one in former]
    if not (len(former) <= MAX_FORMER and all(a < b for a, b in pairwise(numbers))):
        raise InvalidInputError(f"former scorers: expected at most {MAX_FORMER}, ascending")
    for basis, last in former:
        if not (last.number == basis.number and last.weights.shape == (basis.n_weights,)):
            raise InvalidInputError("former scorers: expected one weight per weight of the basis")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Release:
    """A frozen scorer and the consortium's evidence as of one fold.

    Parameters
    ----------
    number
        Position in the consortium's sequence of releases, >= 1, which begins anew where the topic
        of releases was lost.
    epoch
        Cadence index that the fold closed.
    created_ms
        Wall clock of the fold; not part of ``release_id``.
    release_id
        32 hexadecimal digits: hash of everything here but ``number`` and ``created_ms``.
    sources
        Sorted; exactly what was folded, with the weight of each.
    basis, weights
        The scorer in force, None before there is one. ``weights``: float64 of shape
        (basis.n_weights,).
    next_basis
        A basis that members shall encode for; None if ``basis`` stays.
    evidence
        UTC day (days since 1970) -> merged cells of all members, own evidence included.
    probes, student
        Where a consortium uses probes: those that members shall answer, and what was learnt from
        the answers to them or to the set before.
    personal
        Where a consortium uses them: weights of ``basis`` for each member.
    former
        Scorers before ``basis``, the newest last, at most `MAX_FORMER`.
    net
        Where a consortium merges nets: the mean of its members', None before there is one.
    """

    number: int
    epoch: int
    created_ms: int
    release_id: str
    sources: tuple[Source, ...]
    basis: Basis | None
    weights: NDArray[np.float64] | None
    next_basis: Basis | None
    evidence: Mapping[int, EvidenceCells]
    probes: ProbeSet | None = None
    student: Student | None = None
    personal: PersonalWeights | None = None
    former: tuple[Former, ...] = ()
    net: MergedNet | None = None

    @property
    def asked_basis(self) -> Basis | None:
        """The basis for which statistics are expected."""
        return self.next_basis or self.basis

    @property
    def age(self) -> Age:
        """By which the newer of two is told; no loss of the consortium's topic sets it back."""
        return Age(self.epoch, self.number)
