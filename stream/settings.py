"""Settings of one bank's worker: a TOML file, the environment above it, as one frozen value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from models.budget import BudgetPolicy
from models.errors import InvalidInputError, SettingsError
from models.families.registry import make_families
from models.keys import Signer, Verifier, load_signer
from models.mapping import Mapping as BankMapping
from models.schema import Schema, attribute_specs
from models.service_settings import read_service_settings
from models.toml_table import TomlTable, near_miss, read_toml
from models.tree_checks import TreeLimits
from stream.admission import AdmissionPolicy
from stream.drift_policy import DriftPolicy
from stream.judge import JudgePolicy
from stream.pipeline_config import PipelineConfig
from stream.proposals import ProposalPolicy
from stream.share import Share, worker_names

PREFIX = "AMALGAM_STREAM_"
MAX_TREES = TreeLimits().max_trees
CHECKPOINT_SHARE = 0.02
Mode = Literal["live", "replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a deployment chooses; field ``x`` may be set by ``AMALGAM_STREAM_X``.

    Parameters
    ----------
    member, worker
        The bank's name in the consortium and in its topics; the worker's among its workers.
    workers
        How many the bank has. Above 1 they are called 0, 1 and so on, and worker i reads the
        partitions p with p % workers == i.
    bank_bootstrap, consortium_bootstrap
        ``host:port`` of the bank's own cluster and of the consortium's.
    mapping_file
        TOML: where the canonical fields lie in the bank's records.
    consortium_file
        TOML: ``consortium``, ``entity_kinds``, ``amalgamator_keys`` (public, hexadecimal), perhaps
        ``uses_probes`` and ``uses_nets`` (true or false), and perhaps a table ``[attributes]`` with
        ``number`` or ``text`` for each name.
    key_file
        The bank's private Ed25519 key, mode 600.
    secret_file
        The members' pseudonym key, 32 bytes or more, mode 600.
    state_dir
        Where state and offsets are kept.
    mode
        ``live``: summaries at wall-clock cadence. ``replay``: in lockstep by event time.
    cadence_s
        Seconds between summaries; of event time in replay.
    statistics_s
        Seconds of event time between publications of the scorecard's statistics.
    tick_s
        Quantum of event time in which outcomes are learnt; divides a day.
    label_horizon_s
        After it a transaction without a label counts as legitimate.
    lateness_s
        How far an event may lie behind the newest of its partition.
    retention_s, retained_rows
        How long matured transactions are kept, and how many of them at most, 440 bytes each; what
        was learnt of those that go stays learnt.
    alert_rate
        Share of transactions that may alert, in (0, 1).
    families
        The bank's own models beside the scorecard, one of a kind, each as
        `models.families.registry.make_family` takes it.
    seed
        Of whatever families draw, in [0, 2^31).
    propose_trees
        Trees that each family proposes to the consortium every 28 days; 0: none.
    personal_weights
        Whether the consortium's releases carry personal weights, see ``kappa`` in the
        amalgamator's settings.
    runs_scorecard
        Whether the scorecards run, the bank's own and the consortium's; without, the bank has
        families.
    answers_probes
        Whether the consortium's probes are answered; only in a consortium that uses them.
    drift_watch
        Whether calibration and features are watched for drift.
    checkpoint_s
        Seconds between stores of state and offsets. A page that changes all the time is copied and
        written once in that time, and so much is answered again after a crash, under the same ids.
    checkpoint_share
        Of a core that these and the changelog may take: they come later where they would take more,
        a minute after each other at most. What is published waits for the next one.
    changelog
        Whether each of them goes to the worker's changelog on the bank's cluster, too, from which
        another host takes the worker over.
    standby
        Whether a host keeps copies of the workers that other hosts run, so that it takes them over
        sooner; they cost it disk and network.
    health_host, health_port
        Where /metrics, /healthz and /readyz are served; port 0 picks a free one.
    log_level
        Of the standard library's logging.
    """

    member: str
    worker: str = "0"
    workers: int = 1
    bank_bootstrap: str
    consortium_bootstrap: str
    mapping_file: Path
    consortium_file: Path
    key_file: Path
    secret_file: Path = field(repr=False)
    state_dir: Path
    mode: Mode = "live"
    cadence_s: float = 3_600.0
    statistics_s: float = 86_400.0
    tick_s: float = 1.0
    label_horizon_s: float = 7 * 86_400.0
    lateness_s: float = 86_400.0
    retention_s: float = 90 * 86_400.0
    retained_rows: int = 1_000_000
    alert_rate: float = 0.01
    families: tuple[str, ...] = ()
    seed: int = 0
    propose_trees: int = 32
    personal_weights: bool = False
    runs_scorecard: bool = True
    answers_probes: bool = False
    drift_watch: bool = True
    checkpoint_s: float = 5.0
    checkpoint_share: float = CHECKPOINT_SHARE
    changelog: bool = False
    standby: bool = False
    health_host: str = "127.0.0.1"
    health_port: int = 9463
    log_level: str = "INFO"

    def __post_init__(self) -> None:
        for name in ("member", "worker", "bank_bootstrap", "consortium_bootstrap"):
            _demand(bool(getattr(self, name)), name, "a non-empty text")
        _demand(self.workers >= 1, "workers", "1 or more")
        names = worker_names(self.workers, self.worker)
        _demand(self.worker in names, "worker", f"0..{self.workers - 1} where workers is above 1")
        _demand(self.mode in ("live", "replay"), "mode", "live or replay")
        for name in _DURATIONS:
            _demand(0 < getattr(self, name) < math.inf, name, "seconds above 0")
        _demand(86_400 % self.tick_s == 0, "tick_s", "a divisor of a day")
        whole = self.tick_s * 1_000 == round(self.tick_s * 1_000)
        _demand(whole, "tick_s", "whole milliseconds")
        _demand(self.retention_s > self.label_horizon_s, "retention_s", "more than label_horizon_s")
        in_steps = self.mode == "live" or self.cadence_s % self.tick_s == 0
        _demand(in_steps, "cadence_s", "a multiple of tick_s in replay")
        _demand(self.retained_rows >= 1, "retained_rows", "1 or more")
        _demand(0.0 < self.alert_rate < 1.0, "alert_rate", "a share in (0, 1)")
        _demand(0.0 < self.checkpoint_share <= 1.0, "checkpoint_share", "a share in (0, 1]")
        _demand(0 <= self.seed < 2**31, "seed", "0..2^31 - 1")
        in_all = self.propose_trees * max(len(self.families), 1)
        _demand(0 <= in_all <= MAX_TREES, "propose_trees", f"0..{MAX_TREES} over all families")
        is_able = self.runs_scorecard or bool(self.families)
        _demand(is_able, "runs_scorecard", "true for a bank without families, got false")
        _demand(0 <= self.health_port <= 65_535, "health_port", "0..65535")

    @property
    def share(self) -> Share:
        """Which partitions the worker reads."""
        return Share(int(self.worker), self.workers) if self.workers > 1 else Share()

    @property
    def group(self) -> str:
        """The worker's consumer group, in which it is alone."""
        return f"amalgam-{self.member}-{self.worker}"


def of_worker(settings: Settings, worker: str) -> Settings:
    """Return the settings of one of the workers that a host runs: its name, its own folder.

    Raises
    ------
    SettingsError
        If the bank has no such worker.
    """
    return replace(settings, worker=worker, state_dir=settings.state_dir / worker)


_DURATIONS = (
    "cadence_s",
    "statistics_s",
    "tick_s",
    "label_horizon_s",
    "lateness_s",
    "retention_s",
    "checkpoint_s",
)


def _demand(holds: bool, name: str, expectation: str) -> None:
    if not holds:
        raise SettingsError(f"{name} ({PREFIX}{name.upper()}): expected {expectation}")


def read_settings(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a file and an environment, which wins.

    Raises
    ------
    SettingsError
        If a key is unknown, missing, or of another type or range; the message names it.
    """
    return read_service_settings(Settings, PREFIX, path, environment)


_CONSORTIUM_KEYS = (
    "consortium",
    "entity_kinds",
    "amalgamator_keys",
    "attributes",
    "uses_probes",
    "uses_nets",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What the files that settings name hold: the consortium's agreement and the bank's keys.

    Parameters
    ----------
    consortium, schema
        Name, and meaning of numbers.
    amalgamator
        Its public keys.
    signer
        The bank's.
    secret
        The members' pseudonym key.
    uses_probes, uses_nets
        Whether releases may bring a student, and a merged net, which are experts then.
    """

    consortium: str
    schema: Schema
    amalgamator: tuple[Verifier, ...]
    signer: Signer = field(repr=False)
    secret: bytes = field(repr=False)
    uses_probes: bool = False
    uses_nets: bool = False


def read_membership(settings: Settings) -> Membership:
    """Read the consortium's file and the keys.

    Raises
    ------
    SettingsError
        If a file is absent or holds something else.
    """
    table = read_toml(settings.consortium_file)
    name = table.text("consortium")
    kinds = _texts(table, "entity_kinds")
    keys = _texts(table, "amalgamator_keys")
    attributes = table.table("attributes").values
    unknown = set(table.values) - set(_CONSORTIUM_KEYS)
    if unknown:
        hint = near_miss(min(unknown), _CONSORTIUM_KEYS)
        raise SettingsError(f"{settings.consortium_file}: {min(unknown)}: unknown key{hint}")
    try:
        schema = Schema(entity_kinds=kinds, attributes=attribute_specs(attributes))
    except InvalidInputError as error:
        raise SettingsError(f"{settings.consortium_file}: {error}") from error
    return Membership(
        consortium=name,
        schema=schema,
        amalgamator=tuple(_verifier(settings.consortium_file, key) for key in keys),
        signer=load_signer(settings.key_file),
        secret=_secret(settings.secret_file),
        uses_probes=_truth(table, "uses_probes"),
        uses_nets=_truth(table, "uses_nets"),
    )


def _verifier(path: Path, key: str) -> Verifier:
    try:
        return Verifier.from_hex(key)
    except InvalidInputError as error:
        raise SettingsError(f"{path}: amalgamator_keys: {error}") from error


def _truth(table: TomlTable, key: str) -> bool:
    found = table.values.get(key, False)
    if not isinstance(found, bool):
        raise table.error(key, "true or false", repr(found))
    return found


def _texts(table: TomlTable, key: str) -> tuple[str, ...]:
    found = table.value(key)
    if not isinstance(found, list) or not found or not all(isinstance(x, str) for x in found):
        raise table.error(key, "a list of texts", repr(found))
    return tuple(found)


def _secret(path: Path) -> bytes:
    try:
        text = path.read_text(encoding="ascii").strip()
        secret = bytes.fromhex(text)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: expected a pseudonym key in hexadecimal") from error
    if len(secret) < 32:
        raise SettingsError(f"{path}: expected 32 bytes or more, got {len(secret)}")
    return secret


def pipeline_config(
    settings: Settings, membership: Membership, mapping: BankMapping
) -> PipelineConfig:
    """Return what the pipeline needs of them.

    Raises
    ------
    SettingsError
        If a family cannot be made, or what the bank does fits neither schema nor consortium.
    """
    if settings.answers_probes and not membership.uses_probes:
        raise SettingsError(
            f"answers_probes ({PREFIX}ANSWERS_PROBES): expected false in a consortium that uses no "
            f"probes; {settings.consortium_file} says uses_probes = true where it does"
        )
    try:  # once here, so that a wrong one stops the service before it connects
        make_families(settings.families, seed=settings.seed)
    except SettingsError as error:
        raise SettingsError(f"families ({PREFIX}FAMILIES): {error}") from error
    return PipelineConfig(
        member=settings.member,
        worker=settings.worker,
        workers=settings.workers,
        schema=membership.schema,
        secret=membership.secret,
        tick_ms=round(settings.tick_s * 1_000),
        label_horizon_ms=round(settings.label_horizon_s * 1_000),
        retention_ms=round(settings.retention_s * 1_000),
        retained_rows=settings.retained_rows,
        statistics_cadence_ms=round(settings.statistics_s * 1_000),
        families=settings.families,
        seed=settings.seed,
        judging=JudgePolicy(budget=BudgetPolicy(rate=settings.alert_rate)),
        admission=AdmissionPolicy(lateness_ms=round(settings.lateness_s * 1_000)),
        proposing=ProposalPolicy(n_trees=settings.propose_trees),
        drift=DriftPolicy() if settings.drift_watch else None,
        uses_personal=settings.personal_weights,
        is_unit_known=mapping.is_unit_known,
        unknown_scales=mapping.unknown_scales,
        runs_scorecard=settings.runs_scorecard,
        answers_probes=settings.answers_probes,
        uses_probes=membership.uses_probes,
        uses_nets=membership.uses_nets,
    )
