"""Settings of the amalgamator: a TOML file, the environment above it, as one frozen value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from amalgamator.policy import BasisPolicy, FoldConfig, ProbePolicy
from models.errors import InvalidInputError, SettingsError
from models.release import MAX_FORMER
from models.schema import Schema
from models.service_settings import read_service_settings

PREFIX = "AMALGAM_AMALGAMATOR_"
Mode = Literal["live", "lockstep"]
_FOLD: Mapping[str, Any] = {field.name: field.default for field in fields(FoldConfig)}
_BASIS: Mapping[str, Any] = {field.name: field.default for field in fields(BasisPolicy)}
_PROBES: Mapping[str, Any] = {field.name: field.default for field in fields(ProbePolicy)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a deployment chooses; field ``x`` may be set by ``AMALGAM_AMALGAMATOR_X``.

    Parameters
    ----------
    bootstrap
        ``host:port`` of the consortium's cluster, several separated by commas.
    registry_file
        TOML of members and public keys, see `amalgamator.registry.parse_registry`.
    key_file
        The amalgamator's private key, mode 600.
    mode
        ``live``: fold every ``fold_every_s`` if something changed. ``lockstep``: fold each epoch
        once every registered worker closed it (replays).
    fold_every_s, poll_s
        Seconds between folds, and of one wait for records.
    clock_tolerance_s
        How far in the future a contribution may be dated (live mode only).
    max_days_ahead
        Days past the wall clock that evidence may lie in; -1: not checked.
    max_envelope_bytes
        Larger envelopes are refused.
    deadline_s
        How long an unreachable broker is tried, and the loop may stand still, before the service
        exits.
    health_host, health_port
        Where /metrics, /healthz and /readyz are served; port 0 picks a free one.
    ridge, half_life_d, prior_logit, bucket_days, evidence_days
        See `amalgamator.policy.FoldConfig`.
    kappa
        How many times more a member's own statistics count in its personal weights; 0: releases
        carry none. Workers need ``personal_weights``.
    n_former
        See `amalgamator.policy.FoldConfig`.
    basis_min_n, basis_min_frauds, basis_growth
        See `amalgamator.policy.BasisPolicy`.
    uses_probes, uses_nets
        Whether members are asked probes, which takes torch, and whether their nets are merged; as
        in the members' consortium.toml.
    probes_n, probes_renew_d, probes_grace_d, probes_epochs, probes_min_frauds, probes_seed
        See `amalgamator.policy.ProbePolicy`.
    log_level
        Of the standard library's logging.
    """

    bootstrap: str
    registry_file: Path
    key_file: Path
    mode: Mode = "live"
    fold_every_s: float = 10.0
    poll_s: float = 0.5
    clock_tolerance_s: float = 300.0
    max_days_ahead: int = -1
    max_envelope_bytes: int = 64 * 1024 * 1024
    deadline_s: float = 120.0
    health_host: str = "127.0.0.1"
    health_port: int = 9464
    ridge: float = _FOLD["ridge"]
    half_life_d: float = _FOLD["half_life_d"]
    prior_logit: float = _FOLD["prior_logit"]
    bucket_days: int = _FOLD["bucket_days"]
    evidence_days: int = _FOLD["evidence_days"]
    kappa: float = 0.0
    n_former: int = _FOLD["n_former"]
    basis_min_n: int = _BASIS["min_n"]
    basis_min_frauds: int = _BASIS["min_frauds"]
    basis_growth: float = _BASIS["growth"]
    uses_probes: bool = False
    uses_nets: bool = False
    probes_n: int = _PROBES["n"]
    probes_renew_d: int = _PROBES["renew_d"]
    probes_grace_d: int = _PROBES["grace_d"]
    probes_epochs: int = _PROBES["epochs"]
    probes_min_frauds: int = _PROBES["min_frauds"]
    probes_seed: int = _PROBES["seed"]
    log_level: str = "INFO"

    def __post_init__(self) -> None:
        _demand(self.mode in ("live", "lockstep"), "mode", "live or lockstep")
        _demand(bool(self.bootstrap), "bootstrap", "host:port")
        positive = ("fold_every_s", "poll_s", "deadline_s", "ridge", "half_life_d")
        for name in (*positive, "bucket_days", "evidence_days", "basis_min_n"):
            value = getattr(self, name)
            _demand(0 < value < math.inf, name, "a number above 0")
        _demand(1 < self.basis_growth < math.inf, "basis_growth", "a number above 1")
        _demand(self.deadline_s > self.poll_s, "deadline_s", "more than poll_s")
        _demand(self.clock_tolerance_s >= 0, "clock_tolerance_s", "0 or more")
        _demand(0 <= self.kappa < math.inf, "kappa", "0 or more")
        _demand(0 <= self.n_former <= MAX_FORMER, "n_former", f"0..{MAX_FORMER}")
        _demand(math.isfinite(self.prior_logit), "prior_logit", "a finite number")
        _demand(self.max_days_ahead >= -1, "max_days_ahead", "-1 or more")
        _demand(self.max_envelope_bytes >= 1_024, "max_envelope_bytes", "1024 or more")
        _demand(0 <= self.health_port <= 65_535, "health_port", "0..65535")
        try:
            self.probe_policy()
        except InvalidInputError as error:
            raise SettingsError(f"{PREFIX}PROBES_*: {error}") from error

    def probe_policy(self) -> ProbePolicy:
        """Return how members are asked, where they are."""
        names = (field.name for field in fields(ProbePolicy))
        return ProbePolicy(**{name: getattr(self, f"probes_{name}") for name in names})


def _demand(holds: bool, name: str, expectation: str) -> None:
    if not holds:
        raise SettingsError(f"{PREFIX}{name.upper()}: expected {expectation}")


def read_settings(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """Return the settings of a file and an environment, which wins.

    Raises
    ------
    SettingsError
        If a key is unknown, missing, or of another type or range; the message names it.
    """
    return read_service_settings(Settings, PREFIX, path, environment)


def fold_config(settings: Settings, schema: Schema) -> FoldConfig:
    """Return what a fold needs of them."""
    return FoldConfig(
        schema=schema,
        ridge=settings.ridge,
        half_life_d=settings.half_life_d,
        prior_logit=settings.prior_logit,
        bucket_days=settings.bucket_days,
        evidence_days=settings.evidence_days,
        kappa=settings.kappa or None,
        n_former=settings.n_former,
        basis=BasisPolicy(
            min_n=settings.basis_min_n,
            min_frauds=settings.basis_min_frauds,
            growth=settings.basis_growth,
        ),
        probes=settings.probe_policy() if settings.uses_probes else None,
        merges_nets=settings.uses_nets,
    )
