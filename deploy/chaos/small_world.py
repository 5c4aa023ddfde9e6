"""The consortium that is disturbed: three banks with models of several kinds, made-up payments."""

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.consortium_files import ConsortiumFiles, ConsortiumPlan, write_consortium
from deploy.local import BankStream
from deploy.replay import ReplayChunk, ReplayConfig, heard_stream, plan_replay
from deploy.scenarios import FraudRates
from deploy.simulator import SimulationConfig, bank_parts
from deploy.topics import bank_plan, consortium_plan, create_topics
from models.mapping import Mapping, load_mapping

CONSORTIUM = "chaos"
KINDS = ("terminal", "merchant", "device")
PARTITIONS = 2
HOUR_MS = 3_600_000
DELAY_MS = 36 * HOUR_MS
HORIZON_MS = 48 * HOUR_MS
CADENCE_MS = 12 * HOUR_MS
_RATES = FraudRates(terminals=4.0, customers=16.0, card_testing=4.0)  # enough for a few days
_BANKS = Path(__file__).parents[1] / "demo_banks"
_SMALL = "min_n = 200, min_frauds = 3"
FAMILIES = {
    "alpenkasse": (f"lightgbm {{n_trees = 10, refit_d = 3, {_SMALL}}}",),
    "costabanco": (f'river {{model = "river.linear_model.LogisticRegression", {_SMALL}}}',),
    "nordbank": (
        f'river {{model = "river.tree.HoeffdingAdaptiveTreeClassifier", renew_d = 4, {_SMALL}}}',
    ),
}
BANKS = tuple(FAMILIES)
_SETTINGS = {
    "tick_s": HOUR_MS / 1_000,
    "cadence_s": CADENCE_MS / 1_000,
    "statistics_s": CADENCE_MS / 1_000,
    "label_horizon_s": HORIZON_MS / 1_000,
    "alert_rate": 0.02,
    "seed": 5,
    "checkpoint_s": 0.5,
    "changelog": True,
}
_AMALGAMATOR = {"BASIS_MIN_N": "200", "BASIS_MIN_FRAUDS": "5", "DEADLINE_S": "60"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """How much is paid.

    Parameters
    ----------
    days, customers
        Of the simulation.
    seed
        Of the simulation.
    """

    days: int
    customers: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """What every run on the same data has in common.

    Parameters
    ----------
    mappings
        Bank -> its mapping.
    streams
        Bank -> what it sees, each record once.
    chunks
        Bank -> its replay.
    span_ms
        First tick, and end of the last one.
    """

    mappings: MappingOf[str, Mapping]
    streams: MappingOf[str, BankStream]
    chunks: MappingOf[str, Sequence[ReplayChunk]]
    span_ms: tuple[int, int]


def make_world(config: WorldConfig) -> World:
    """Make the payments up; the same configuration gives the same ones."""
    mappings = {bank: load_mapping(_BANKS / f"{bank}.toml") for bank in BANKS}
    simulation = SimulationConfig(
        bank_shares=(0.4, 0.35, 0.25),
        n_days=config.days,
        n_customers=config.customers,
        n_terminals=max(config.customers // 2, 60),
        n_merchants=max(config.customers // 8, 20),
        rates=_RATES,
    )
    parts = {
        bank: list(bank_parts(simulation, i, mappings[bank], seed=config.seed))
        for i, bank in enumerate(BANKS)
    }
    times = np.concatenate([one.batch.event_time_ms for each in parts.values() for one in each])
    first = int(times.min()) // CADENCE_MS * CADENCE_MS
    end = (int(times.max()) // HOUR_MS + 1) * HOUR_MS
    replay = ReplayConfig(
        tick_ms=HOUR_MS, label_delay_ms=DELAY_MS, labels="frauds", start_ms=first, end_ms=end
    )
    return World(
        mappings=mappings,
        streams={
            bank: heard_stream(parts[bank], mappings[bank], label_delay_ms=DELAY_MS)
            for bank in BANKS
        },
        chunks={bank: list(plan_replay(parts[bank], mappings[bank], replay)) for bank in BANKS},
        span_ms=(first, end),
    )


def write_world(directory: Path, bootstrap: str) -> ConsortiumFiles:
    """Write keys and settings of all, and create their topics."""
    plan = ConsortiumPlan(
        name=CONSORTIUM,
        entity_kinds=KINDS,
        mappings={bank: _BANKS / f"{bank}.toml" for bank in BANKS},
        bank_bootstrap=bootstrap,
        consortium_bootstrap=bootstrap,
        is_replay=True,
        bank_settings=_SETTINGS,
        families=FAMILIES,
    )
    files = write_consortium(directory, plan)
    for bank in BANKS:
        create_topics(bootstrap, bank_plan(bank, partitions=PARTITIONS))
    create_topics(bootstrap, consortium_plan(CONSORTIUM, BANKS))
    added = {f"AMALGAM_AMALGAMATOR_{name}": value for name, value in _AMALGAMATOR.items()}
    return ConsortiumFiles(settings=files.settings, amalgamator={**files.amalgamator, **added})
