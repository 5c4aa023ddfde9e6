"""Structure that a bank proposes to the consortium: trees grown on its own matured rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.errors import InvalidInputError
from models.families.base import Family, Grower
from models.matured import Matured
from models.summary import proposal_arrays
from models.trees import TreeList, together

_NEVER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalPolicy:
    """When trees are proposed, and on how much.

    Parameters
    ----------
    period_d
        Days between proposals, > 0; the consortium's members share it.
    n_trees
        Trees that each family proposes each time, >= 0.
    min_n, min_frauds
        Retained transactions and frauds below which nothing is proposed.
    """

    period_d: int = 28
    n_trees: int = 32
    min_n: int = 3_000
    min_frauds: int = 50

    def __post_init__(self) -> None:
        if not (self.period_d >= 1 and self.n_trees >= 0 and self.min_frauds >= 1):
            raise InvalidInputError(
                "proposals: expected period_d >= 1, n_trees >= 0, min_frauds >= 1"
            )


class Proposer:
    """Has the families grow trees once a period, on what the consortium's scorer leaves over.

    Parameters
    ----------
    families
        The bank's; those without trees propose nothing.
    policy
        When and how many.

    Attributes
    ----------
    trees, period, basis
        The newest proposal, its period (day // period_d; -1 for none), and the basis whose edges
        its thresholds are.
    """

    def __init__(self, families: Sequence[Family], policy: ProposalPolicy) -> None:
        self.families = tuple(families)
        self._policy = policy
        self.trees: TreeList = together([])
        self.period = _NEVER
        self.basis = 0
        self.is_changed = False

    def due(self, day: int, basis: Basis | None) -> list[Grower]:
        """Return what grows trees, if a period has begun and there is a scorer to improve on."""
        policy = self._policy
        if basis is None or day // policy.period_d == self.period or policy.n_trees == 0:
            return []
        growers = [f.propose(basis, n_trees=policy.n_trees, day=day) for f in self.families]
        return [grower for grower in growers if grower is not None]

    def grown(self, growers: Sequence[Grower], matured: Matured) -> list[TreeList]:
        """Return the trees that are grown where enough has matured; safe in another thread."""
        n, frauds = len(matured), int(np.count_nonzero(matured.is_fraud))
        enough = n >= self._policy.min_n and self._policy.min_frauds <= frauds < n
        grown = [grow(matured) for grow in growers if enough]  # at first frauds alone mature
        return [trees for trees in grown if trees is not None and len(trees)]

    def take_up(self, found: Sequence[TreeList], day: int, basis: Basis | None) -> None:
        """Propose what was grown on a basis at a day's end."""
        if found and basis is not None:
            self.trees, self.period = together(found), day // self._policy.period_d
            self.basis, self.is_changed = basis.number, True

    def take(self) -> dict[str, NDArray[np.generic]] | None:
        """Return the arrays of a ``trees`` contribution if there is a new one."""
        if not self.is_changed:
            return None
        self.is_changed = False
        return proposal_arrays(self.trees, self.period)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays."""
        scalars = np.array([self.period, self.basis, int(self.is_changed)], np.int64)
        return {**self.trees.arrays("trees"), "scalars": scalars}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self.period, self.basis, is_changed = np.asarray(arrays["scalars"]).tolist()
        self.is_changed = bool(is_changed)
        self.trees = TreeList.load("trees", arrays) or together([])
