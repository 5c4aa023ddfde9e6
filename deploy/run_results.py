"""What a run of a consortium gave: for each row, each release, each day."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNote:
    """A release that brought a basis, from ``since_ms`` on (event time)."""

    since_ms: int
    number: int
    basis: int
    n_weights: int
    n_trees: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendNote:
    """How a bank weighed its experts, which are named in the same order, on a day."""

    day_ms: int
    bank: int
    experts: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustNote:
    """What a member's evidence and statistics counted for on a day, factors in [0, 1]."""

    day_ms: int
    member: str
    evidence: float
    statistics: float


@dataclass(slots=True, kw_only=True, eq=False)
class RunResult:
    """What a run gave for each row of the file, NaN where nothing was scored.

    Attributes
    ----------
    own, merged, blend
        float64 of shape (n,): log-odds.
    families
        Name of a family -> float64 of shape (n,): log-odds by the banks' own models; likewise
        ``student`` where the consortium uses probes, ``personal`` where it uses personal weights,
        ``mlp_merged`` where it merges nets.
    alert
        bool of shape (n,).
    is_scored
        bool of shape (n,): rows that a bank took in.
    releases, n_releases, release_id
        The first release of each basis; how many came; the hash of the last.
    blends, trust
        Once a day and bank.
    reasons, bank_reasons
        How often a transform was a reason towards fraud in an alert, and of each bank's alerts.
    refused
        Reason -> rows that were not scored.
    """

    own: NDArray[np.float64]
    merged: NDArray[np.float64]
    blend: NDArray[np.float64]
    alert: NDArray[np.bool_]
    is_scored: NDArray[np.bool_]
    releases: list[ReleaseNote] = field(default_factory=list)
    n_releases: int = 0
    release_id: str = ""
    blends: list[BlendNote] = field(default_factory=list)
    trust: list[TrustNote] = field(default_factory=list)
    families: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    bank_reasons: dict[str, Counter[str]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
