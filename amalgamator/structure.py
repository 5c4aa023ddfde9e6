"""Which of the members' trees become transforms of the next basis; pure.

A new choice is due once a period of proposals is a day old: whoever proposed by then is heard,
whoever is late is heard next time. Old trees stay while they carry weight: the curvature of a leaf
times the square of its weight, summed, is by how much the log-loss would rise without the tree, to
second order. New ones take turns by member, each member as often as the square root of its matured
transactions says (small members see what others do not), each in the order of its own gains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amalgamator.policy import FoldConfig, StructurePolicy
from amalgamator.state import Pairs, of_part
from models.basis import Basis
from models.summary import proposed_trees
from models.tree_checks import tree_hashes
from models.trees import TreeList, bare_trees, take_trees, together


class Proposal(NamedTuple):
    """What one worker proposed last, with the matured transactions behind it times its weight."""

    worker: tuple[str, str]
    period: int
    trees: TreeList
    n: float


def due_period(pairs: Pairs, basis: Basis, config: FoldConfig) -> int | None:
    """Return the period whose proposals the next basis should be made of, None if none is due."""
    periods = [
        int(np.asarray(held.contribution.arrays["period"])[0])
        for key, held in of_part(pairs, "trees")
        if config.weight_of(key.member) > 0.0
    ]
    newest = max(periods, default=-1)
    days = [key.bucket for key, _ in of_part(pairs, "evidence")]
    policy = config.structure
    if newest <= basis.grown or not days:
        return None
    is_old_enough = max(days) >= newest * policy.period_d + policy.grace_d
    return newest if is_old_enough else None


def proposals_of(pairs: Pairs, config: FoldConfig) -> list[Proposal]:
    """Return the newest proposal of each worker that counts, sorted by worker."""
    found = []
    for key, held in of_part(pairs, "trees"):
        n = config.weight_of(key.member) * held.contribution.n
        if n > 0.0:
            trees, period = proposed_trees(held.contribution.arrays)
            found.append(Proposal((key.member, key.worker), period, trees, n))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What the trees in force are worth: importance, float64 of shape (n_trees,)."""

    trees: TreeList
    importance: NDArray[np.float64]


def standing_of(
    basis: Basis, weights: NDArray[np.float64], diagonal: NDArray[np.float64]
) -> Standing:
    """Return how much each tree of a basis carries.

    Parameters
    ----------
    basis
        In force.
    weights, diagonal
        float64 of shape (n_weights,): the solution, and the diagonal of the summed curvature.
    """
    first = basis.offsets[basis.n_transforms - len(basis.trees) :]
    carried = diagonal * weights**2
    importance = [float(carried[a:b].sum()) for a, b in pairwise(first.tolist())]
    return Standing(basis.trees, np.array(importance))


def choose_trees(
    standing: Standing, proposals: Sequence[Proposal], policy: StructurePolicy
) -> TreeList:
    """Return the trees of the next basis: the best of the old, then new ones by share."""
    n_kept = policy.max_trees - policy.max_new
    ranked = sorted(range(len(standing.trees)), key=lambda t: (-standing.importance[t], t))
    kept = [t for t in ranked if standing.importance[t] >= policy.min_importance][:n_kept]
    old = take_trees(standing.trees, sorted(kept))
    seen = set(tree_hashes(old))
    new: list[TreeList] = []
    for tree in _by_turns(proposals):
        (digest,) = tree_hashes(tree)
        if digest not in seen and len(new) < policy.max_new:
            seen.add(digest)
            new.append(tree)
    return bare(together([old, *new]))


def _by_turns(proposals: Sequence[Proposal]) -> list[TreeList]:
    """Return single trees, members taking turns by the square roots of their transactions."""
    ranked = {
        p.worker: sorted(range(len(p.trees)), key=lambda t, p=p: (-float(p.trees.gain[t]), t))  # type: ignore[misc]  # bound now
        for p in proposals
    }
    turns = [
        ((place + 0.5) / sqrt(proposal.n), proposal.worker, tree)
        for proposal in proposals
        for place, tree in enumerate(ranked[proposal.worker])
    ]
    of_worker: Mapping[tuple[str, str], TreeList] = {p.worker: p.trees for p in proposals}
    return [take_trees(of_worker[worker], [tree]) for _, worker, tree in sorted(turns)]


def bare(trees: TreeList) -> TreeList:
    """Return the trees without what they say of their growers."""
    return bare_trees(
        n_nodes=trees.n_nodes,
        feature=trees.feature,
        threshold=trees.threshold,
        absent_left=trees.absent_left,
        left=trees.left,
        right=trees.right,
    )
