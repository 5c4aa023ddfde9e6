"""One merge, pushed back to every member: a frozen scorer, the next basis, and evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.entity_risk import EvidenceCells


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
class Release:
    """A frozen scorer and the consortium's evidence as of one fold.

    Parameters
    ----------
    number
        Position in the consortium's sequence of releases, >= 1; higher replaces lower.
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
        A basis that members shall encode for; None if ``basis`` stays. Statistics are expected for
        ``next_basis or basis``.
    evidence
        UTC day (days since 1970) -> merged cells of all members, own evidence included.
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
