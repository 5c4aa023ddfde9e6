"""What the members agreed on about merging: rates, windows, weights, and when a basis changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from models.basis_builder import BasisShape
from models.errors import InvalidInputError
from models.probes import MAX_PROBES
from models.release import MAX_FORMER
from models.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class BasisPolicy:
    """When a new basis is due, and when it takes over.

    Basis ``k`` is due once the merged histograms hold ``min_n * growth ** (k - 1)`` matured
    transactions with ``min_frauds`` frauds among them: a rule without memory, so that a restart
    decides alike. It takes over once workers with ``switch_coverage`` of those transactions have
    published statistics for it.
    """

    min_n: int = 3_000
    min_frauds: int = 30
    growth: float = 1.4
    switch_coverage: float = 0.8

    def __post_init__(self) -> None:
        if not (self.min_n >= 1 and self.growth > 1.0 and 0.0 < self.switch_coverage <= 1.0):
            raise InvalidInputError(
                "basis policy: expected min_n >= 1, growth > 1, switch_coverage in (0, 1]"
            )

    def number_due(self, n: int, n_frauds: int) -> int:
        """Return the number of the basis that so much data deserves, 0 for none."""
        if n_frauds < self.min_frauds:
            return 0
        number, threshold = 0, float(self.min_n)
        while n >= threshold:
            number += 1
            threshold *= self.growth
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class StructurePolicy:
    """How members' trees enter the basis.

    Parameters
    ----------
    period_d
        Days of a period of proposals; as the members' own.
    grace_d
        Days of event time into a period after which its proposals are taken.
    max_trees, max_new
        Trees in a basis, and those of them that may be new each time.
    min_importance
        Rise of the summed log-loss below which an old tree is dropped.
    """

    period_d: int = 28
    grace_d: int = 1
    max_trees: int = 128
    max_new: int = 96
    min_importance: float = 1.0

    def __post_init__(self) -> None:
        if not (self.period_d >= 1 and 0 <= self.grace_d < self.period_d):
            raise InvalidInputError("structure: expected period_d >= 1, grace_d within it")
        if not (0 <= self.max_new <= self.max_trees and self.min_importance >= 0.0):
            raise InvalidInputError("structure: expected 0 <= max_new <= max_trees")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """When a member's contributions count less, or not at all.

    Parameters
    ----------
    max_frauds
        Cap on a sender's frauds of one entity and day, see `models.entity_risk.capped`; 0: none.
    window_d
        Days of evidence that are judged, the newest one, which is not over, left out.
    flag_d
        Days for which an entity counts as flagged after a fraud there.
    prior_frauds
        Frauds that a sender is taken to have got right before anything is known of it, > 0: so
        many must be missing before it loses half of its weight.
    full_ratio
        Share of the expected frauds from which on a sender counts in full, in (0, 1]; below half
        of it nothing of its evidence counts.
    max_harm
        A sender's statistics are left out if most others lose more than this share of what they
        could learn at best by its presence, > 0.
    prior_gain
        Nats of log-loss added to what a member could learn, > 0: one that has seen little feels
        less harm.
    max_norm_ratio
        Statistics are scaled down to this multiple of the members' median norm, >= 1.
    max_jurors
        Members at most that have a voice on a sender's statistics, >= 3: of more, always the same
        ones, so that what judging costs grows with the members and not with their square.

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    max_frauds: int = 8
    window_d: int = 28
    flag_d: int = 7
    prior_frauds: float = 10.0
    full_ratio: float = 0.3
    max_harm: float = 0.12
    prior_gain: float = 50.0
    max_norm_ratio: float = 3.0
    max_jurors: int = 64

    def __post_init__(self) -> None:
        if not (self.max_frauds >= 0 and self.window_d >= 1 and self.flag_d >= 1):
            raise InvalidInputError(
                "trust: expected max_frauds >= 0, window_d >= 1 and flag_d >= 1, got "
                f"{self.max_frauds}, {self.window_d} and {self.flag_d}"
            )
        if not (0.0 < self.prior_frauds < inf and 0.0 < self.full_ratio <= 1.0):
            raise InvalidInputError(
                "trust: expected prior_frauds > 0 and full_ratio in (0, 1], got "
                f"{self.prior_frauds} and {self.full_ratio}"
            )
        is_positive = 0.0 < self.max_harm < inf and 0.0 < self.prior_gain < inf
        if not (is_positive and 1.0 <= self.max_norm_ratio < inf):
            raise InvalidInputError(
                "trust: expected max_harm > 0, prior_gain > 0 and max_norm_ratio >= 1, got "
                f"{self.max_harm}, {self.prior_gain} and {self.max_norm_ratio}"
            )
        if not self.max_jurors >= 3:
            raise InvalidInputError(f"trust: expected max_jurors >= 3, got {self.max_jurors}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePolicy:
    """How a consortium asks its members and teaches a student what they answer.

    Parameters
    ----------
    n
        Probes of a set.
    renew_d
        Days of event time after which another set is drawn, >= 1.
    grace_d
        Days after which a student is taught by whoever has answered, in [1, renew_d); who answers
        later is heard as soon as it does.
    epochs
        Passes of the training over the probes, >= 1.
    min_frauds
        Matured frauds below which nothing is asked, >= 1: the twin would know no fraud.
    seed
        Of probes and training, >= 0; the same in every set.

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    n: int = 40_000
    renew_d: int = 14
    grace_d: int = 1
    epochs: int = 40
    min_frauds: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if not (1 <= self.n <= MAX_PROBES and 1 <= self.grace_d < self.renew_d):
            raise InvalidInputError(
                f"probes: expected n in 1..{MAX_PROBES} and 1 <= grace_d < renew_d, "
                f"got {self.n}, {self.grace_d} and {self.renew_d}"
            )
        if not (self.epochs >= 1 and self.min_frauds >= 1 and self.seed >= 0):
            raise InvalidInputError(
                "probes: expected epochs, min_frauds >= 1 and seed >= 0, "
                f"got {self.epochs}, {self.min_frauds} and {self.seed}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldConfig:
    """What a fold needs beside the state.

    Parameters
    ----------
    schema
        The consortium's.
    ridge, prior_logit
        See `models.families.scorecard.solve`; the ridge of bins and crosses.
    leaf_ridge
        That of the leaves of trees, which are many and alike.
    half_life_d
        Days after which a statistics bucket counts half.
    bucket_days
        Length of a statistics bucket.
    evidence_days
        Newest days of evidence that a release carries.
    weights
        Member -> factor on its counts and sums, >= 0; 1 if absent.
    basis
        When to change the basis.
    structure
        How trees enter it.
    shape
        How large it gets.
    trust
        When a member counts less; None: all count as they come.
    probes
        How members are asked; None: not at all, and nothing of torch is loaded.
    kappa
        How many times more a member's own statistics count in its personal solution, > 0; None:
        releases carry no personal weights.
    n_former
        Scorers before the one in force whose statistics still count where a member has published
        none since, 0 to 8.
    merges_nets
        Whether the nets that members publish are merged and released.
    """

    schema: Schema
    ridge: float = 2.0
    leaf_ridge: float = 16.0
    half_life_d: float = 138.0
    prior_logit: float = -4.5
    bucket_days: int = 28
    evidence_days: int = 32
    weights: Mapping[str, float] = field(default_factory=dict)
    basis: BasisPolicy = BasisPolicy()
    structure: StructurePolicy = StructurePolicy()
    shape: BasisShape = BasisShape()
    trust: TrustPolicy | None = TrustPolicy()
    probes: ProbePolicy | None = None
    kappa: float | None = None
    n_former: int = 2
    merges_nets: bool = False

    def __post_init__(self) -> None:
        if not (self.ridge > 0.0 and self.leaf_ridge > 0.0 and self.half_life_d > 0.0):
            raise InvalidInputError("fold: expected ridges > 0 and half_life_d > 0")
        if not (self.bucket_days >= 1 and self.evidence_days >= 1):
            raise InvalidInputError("fold: expected bucket_days >= 1 and evidence_days >= 1")
        if not (self.kappa is None or 0.0 < self.kappa < inf):
            raise InvalidInputError(f"fold: expected kappa > 0 or none, got {self.kappa}")
        if not 0 <= self.n_former <= MAX_FORMER:
            raise InvalidInputError(f"fold: expected n_former in 0..{MAX_FORMER}")

    def weight_of(self, member: str) -> float:
        """Return the factor on a member's contributions."""
        return self.weights.get(member, 1.0)
