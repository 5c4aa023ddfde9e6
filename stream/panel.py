"""A bank's experts: its own scorecard, the consortium's, and its own families of models."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.families.base import Family
from models.histograms import to_cells
from models.matured import Matured
from models.release import Release
from models.schema import Schema
from models.summary import Part
from stream.experts import LearningPolicy, OwnExpert, SharedExpert
from stream.proposals import ProposalPolicy, Proposer

Arrays = Mapping[str, NDArray[np.generic]]


class Piece(NamedTuple):
    """What a contribution holds beside who sends it and when."""

    part: Part
    bucket: int
    basis: int
    n: int
    arrays: Arrays


class Panel:
    """Scores by every expert, and teaches them.

    Parameters
    ----------
    schema, policy
        The consortium's.
    families
        The bank's own models beside the scorecards.
    proposing
        When and how many trees are proposed.

    Attributes
    ----------
    names
        The experts, in the order of the columns of scores: ``own``, ``merged``, the families.
    cold
        bool of shape (n_experts,): the consortium's experts, on which a cold bank relies.
    """

    def __init__(
        self,
        schema: Schema,
        policy: LearningPolicy,
        families: Sequence[Family],
        proposing: ProposalPolicy,
    ) -> None:
        self._schema, self._policy = schema, policy
        self.own = OwnExpert(schema, policy)
        self.shared = SharedExpert(schema, policy)
        self.families = tuple(families)
        self.proposer = Proposer(families, proposing)
        self.names = ("own", "merged", *(family.name for family in families))
        self.cold = np.array([name == "merged" for name in self.names])

    def score(self, own: NDArray[np.float32], shared: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds of shape (n, n_experts), NaN where an expert has none.

        Parameters
        ----------
        own, shared
            float32 of shape (n, n_features): rows with own evidence alone, and with all.
        """
        scores = [self.own.score(own), self.shared.score(shared)]
        scores += [family.score(shared) for family in self.families]
        return np.column_stack(scores)

    def learn(self, own: Matured, shared: Matured, shareable: Matured) -> None:
        """Add outcomes.

        Parameters
        ----------
        own, shared
            The rows with own evidence alone, and with all.
        shareable
            Those of ``shared`` that the consortium may learn from.
        """
        self.own.learn(own)
        self.shared.learn(shareable)
        for family in self.families:
            family.learn(shared)

    def end_day(
        self,
        day: int,
        retained: Callable[[], tuple[Matured, Matured]],
        *,
        forgetting: float = 1.0,
    ) -> None:
        """Solve, refit and propose at the end of a UTC day of event time.

        Parameters
        ----------
        day
            The day that begins, days since 1970.
        retained
            Gives the matured rows still held, as the own and as the consortium's expert sees them.
        forgetting
            Days that the own scorecard forgets, >= 1: more than one where it drifts.
        """
        if self.own.wants_basis:
            self.own.rebase(retained()[0])
        self.own.end_day(forgetting)
        for family in self.families:
            family.end_day(day, lambda: retained()[1])
        self.proposer.end_day(day, self.shared.basis, lambda: retained()[1])

    def realign(self, retained: Matured, families: Sequence[Family]) -> None:
        """Begin anew in another unit of amounts; the consortium's scorer stays.

        Parameters
        ----------
        retained
            The matured rows still held, as the own expert sees them, in the new unit.
        families
            Untrained, in the place of the old ones.
        """
        self.own = OwnExpert(self._schema, self._policy)
        self.own.learn(retained)
        self.shared.restart()
        self.families = tuple(families)
        self.proposer.families = self.families
        for family in self.families:
            if self.shared.basis is not None:
                family.install(self.shared.basis)

    def install(self, release: Release, retained: Callable[[], Matured]) -> bool:
        """Swap a release in; return whether rows were encoded for another basis."""
        collecting = release.next_basis or release.basis
        is_new = self.shared.needs_rows(collecting)
        self.shared.install(
            release.basis, release.weights, collecting, retained() if is_new else None
        )
        if release.basis is not None:
            for family in self.families:
                family.install(release.basis)
        return is_new

    def pieces(self, now_ms: int) -> list[Piece]:
        """Return what changed of all but evidence, cumulative."""
        basis = 0 if self.shared.collecting is None else self.shared.collecting.number
        pieces = [
            Piece("statistics", bucket, basis, n, {"curvature": packed, "gradient": gradient})
            for bucket, (n, packed, gradient) in self.shared.contributions(now_ms).items()
        ]
        pieces.append(Piece("histograms", 0, 0, self.shared.n, to_cells(self.shared.counts)))
        trees = self.proposer.take()
        if trees is not None:
            pieces.append(Piece("trees", 0, self.proposer.basis, self.shared.n, trees))
        return pieces

    def scorers(self) -> dict[int, tuple[Basis, NDArray[np.float64]]]:
        """Return the scorecards that alerts may be explained by, by position in ``names``."""
        held: dict[int, OwnExpert | SharedExpert] = {0: self.own, 1: self.shared}
        return {
            i: (expert.basis, expert.weights)
            for i, expert in held.items()
            if expert.basis is not None and expert.weights is not None
        }

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        return {
            f"{part}/{name}": array
            for part, holder in self._parts().items()
            for name, array in holder.arrays().items()
        }

    def load(self, arrays: Arrays) -> None:
        """Replace the state by what `arrays` gave."""
        for part, holder in self._parts().items():
            prefix = f"{part}/"
            holder.load(
                {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            )

    def _parts(self) -> dict[str, OwnExpert | SharedExpert | Family | Proposer]:
        families = {f"family/{family.name}": family for family in self.families}
        return {"own": self.own, "shared": self.shared, "proposer": self.proposer, **families}
