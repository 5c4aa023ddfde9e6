"""What a bank's pipeline needs to know before its first record."""

from dataclasses import dataclass, field

from models.errors import InvalidInputError
from models.families.registry import FamilySpec
from models.features.accounts import DAY_MS, HOUR_MS
from models.schema import Schema
from stream.admission import AdmissionPolicy
from stream.drift_policy import DriftPolicy
from stream.experts import LearningPolicy
from stream.judge import JudgePolicy
from stream.moments import MAX_FEATURES
from stream.probing import Roles
from stream.proposals import ProposalPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """What a worker needs to know.

    Parameters
    ----------
    member, worker
        Who publishes.
    workers
        How many workers the bank's accounts are dealt to.
    schema
        The consortium's.
    secret
        The members' pseudonym key.
    tick_ms
        Quantum of maturing, > 0, divides a day.
    label_horizon_ms
        After it a transaction without a label counts as legitimate.
    retention_ms
        For how long matured rows are kept (late chargebacks, re-encoding, blend).
    retained_rows
        And how many of them at most, the newest, within an eighth; >= 1.
    statistics_cadence_ms
        Event time between publications of statistics and histograms; evidence goes every epoch.
    families
        The bank's own models beside the scorecard.
    seed
        Of whatever families draw.
    learning, judging, admission, proposing
        Policies of the scorecards, of blend and alerts, of what is taken in, of proposed trees.
    drift
        How drift is watched, None: not at all.
    is_unit_known
        Whether amounts come in the reference currency; else their unit is found by rank.
    unknown_scales
        Names of numeric attributes that are not known to come in the consortium's scale; it is
        found by rank.
    runs_scorecard
        Whether scorecards are learnt and scored by; without, the bank publishes histograms,
        moments and evidence, and no statistics.
    answers_probes
        Whether the consortium's probes are answered by the bank's own experts.
    uses_probes
        Whether the consortium uses probes, so that a student is among the experts.
    uses_personal
        Whether the consortium uses personal weights, so that they are an expert where the
        scorecard runs.
    uses_nets
        Whether the consortium merges nets, so that the merged one is among the experts; a bank
        whose families have ``mlp`` trains and publishes one.

    Raises
    ------
    InvalidInputError
        If no scorecard runs and the schema has more features than moments are learnt of.
    """

    member: str
    worker: str = "0"
    workers: int = 1
    schema: Schema
    secret: bytes = field(repr=False)
    tick_ms: int = HOUR_MS
    label_horizon_ms: int = 7 * DAY_MS
    retention_ms: int = 90 * DAY_MS
    retained_rows: int = 1_000_000
    statistics_cadence_ms: int = DAY_MS
    families: tuple[FamilySpec, ...] = ()
    seed: int = 0
    learning: LearningPolicy = LearningPolicy()
    judging: JudgePolicy = JudgePolicy()
    admission: AdmissionPolicy = AdmissionPolicy()
    proposing: ProposalPolicy = ProposalPolicy()
    drift: DriftPolicy | None = None
    is_unit_known: bool = True
    unknown_scales: frozenset[str] = frozenset()
    runs_scorecard: bool = True
    answers_probes: bool = False
    uses_probes: bool = False
    uses_personal: bool = False
    uses_nets: bool = False

    def __post_init__(self) -> None:
        if not (self.runs_scorecard or self.schema.n_features <= MAX_FEATURES):
            raise InvalidInputError(
                f"runs_scorecard: expected true with more than {MAX_FEATURES} features, "
                f"got false with {self.schema.n_features}"
            )

    @property
    def roles(self) -> Roles:
        """What the bank does beside learning for itself."""
        has_personal = self.uses_personal and self.runs_scorecard
        return Roles(
            runs_scorecard=self.runs_scorecard,
            answers_probes=self.answers_probes,
            has_student=self.uses_probes,
            personal=self.member if has_personal else None,
            has_net=self.uses_nets,
        )
