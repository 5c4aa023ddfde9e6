"""How soon drift is seen and how often it is cried: injected into simulated streams, seed by seed.

One bank of the simulator runs through the real pipeline with labels seven days late, quiet for ten
weeks; from that state several futures are tried, each with one thing changed, and one without. The
watch sees what a worker's would: features of scored payments and scores of matured ones. Two
attributes, which the simulator has not, are drawn beside: an amount-like and one often absent.
The simulator's own slow drift (habits, growth, mix of frauds) goes on in every future and is no
drift to be found.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from deploy.bank_formats import LabelledBatch
from deploy.scenarios import FraudRates
from deploy.simulator import SimulationConfig, bank_parts
from models.errors import InvalidInputError
from models.features.accounts import DAY_MS
from models.features.accounts import N_FEATURES as N_ACCOUNT
from models.mapping import Mapping as BankMapping
from models.mapping import load_mapping
from models.records import Label
from models.schema import Schema
from stream.drift import DriftWatch
from stream.drift_policy import DETECTORS, DriftAlarm, DriftPolicy, Kind, watched_columns
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.pipeline_state import State, dump, restore

QUIET_D = 77
"""Days before the change; comparisons begin on the 52nd."""
AFTER_D = 42
_FIRST_COMPARED_D = 51
_LABEL_DELAY_D = 7
_SPENDING = 1.6
_GRADUAL_D = 28
_UNIT = 100.0
_HIDDEN = 0.6
_MORE_FRAUD = 3.0
_N_ATTRIBUTES = 2
_MAPPING = Path(__file__).parent / "mappings" / "simulated.toml"
_SCHEMA = Schema(entity_kinds=("terminal",))
_N_ROWS = len(_SCHEMA.feature_names)
_COLUMNS = np.r_[watched_columns(_SCHEMA), _N_ROWS : _N_ROWS + _N_ATTRIBUTES]
_CONFIG = PipelineConfig(member="bank", schema=_SCHEMA, secret=b"drift bench" * 3)
_SIMULATION = SimulationConfig(
    bank_shares=(1.0,), n_days=QUIET_D + AFTER_D, n_customers=800, n_terminals=400, n_merchants=80
)

Day = tuple[LabelledBatch, NDArray[np.float32]]
"""Payments, and their two attributes."""
Change = Callable[[Day, int, np.random.Generator], Day]


@dataclass(frozen=True, slots=True)
class Injected:
    """One change: what kind of alarm must find it, in which features, and how it is made."""

    kind: Kind
    features: frozenset[int] | None
    change: Change
    rates: FraudRates | None = None


def _scaled(day: Day, factor: float) -> Day:
    batch = day[0].batch
    scaled = replace(
        batch,
        amount=batch.amount * factor,
        amount_minor=np.rint(batch.amount_minor * factor).astype(np.int64),
    )
    return LabelledBatch(batch=scaled, is_fraud=day[0].is_fraud), day[1]


def _abrupt(day: Day, _: int, __: np.random.Generator) -> Day:
    return _scaled(day, _SPENDING)


def _gradual(day: Day, age_d: int, _: np.random.Generator) -> Day:
    return _scaled(day, 1.0 + (_SPENDING - 1.0) * min((age_d + 1) / _GRADUAL_D, 1.0))


def _with_attribute(day: Day, column: int, values: NDArray[np.float32] | float) -> Day:
    attributes = day[1].copy()
    attributes[:, column] = values
    return day[0], attributes


def _unit(day: Day, _: int, __: np.random.Generator) -> Day:
    return _with_attribute(day, 0, day[1][:, 0] * np.float32(_UNIT))


def _constant(day: Day, _: int, __: np.random.Generator) -> Day:
    return _with_attribute(day, 0, 1.0)


def _missing(day: Day, _: int, __: np.random.Generator) -> Day:
    return _with_attribute(day, 1, np.nan)


def _pattern(day: Day, _: int, rng: np.random.Generator) -> Day:
    """Let most frauds look like any payment: they go, and as many plain payments are fraud."""
    labelled = day[0]
    hidden = labelled.is_fraud & (rng.random(len(labelled.is_fraud)) < _HIDDEN)
    plain = np.flatnonzero(~labelled.is_fraud)
    is_fraud = labelled.is_fraud.copy()
    is_fraud[rng.choice(plain, size=int(hidden.sum()), replace=False)] = True
    kept = np.flatnonzero(~hidden)
    batch = labelled.batch.take(kept)
    return LabelledBatch(batch=batch, is_fraud=is_fraud[kept]), day[1][kept]


def _same(day: Day, _: int, __: np.random.Generator) -> Day:
    return day


def _times(rates: FraudRates, factor: float) -> FraudRates:
    return FraudRates(**{name: getattr(rates, name) * factor for name in rates.__slots__})


_AMOUNTS = frozenset({0, 8})  # log_amount, log_mean_30d
DRIFTS: Mapping[str, Injected] = {
    "spending x1.6": Injected("feature", _AMOUNTS, _abrupt),
    "spending x1.6 in 28 d": Injected("feature", _AMOUNTS, _gradual),
    "attribute x100": Injected("feature", frozenset({_N_ROWS}), _unit),
    "attribute constant": Injected("feature", frozenset({_N_ROWS}), _constant),
    "attribute missing": Injected("feature", frozenset({_N_ROWS + 1}), _missing),
    "fraud pattern": Injected("calibration", None, _pattern),
    "fraud rate x3": Injected("calibration", None, _same, _times(FraudRates(), _MORE_FRAUD)),
}


@dataclass(slots=True)
class _Run:
    """A pipeline and the watches beside it; one watch per detector, so none starves another."""

    pipeline: Pipeline
    watches: dict[str, DriftWatch]
    due: dict[int, list[Label]]

    def day(self, day: Day) -> dict[str, list[DriftAlarm]]:
        """Run a day; return the alarms at its end, by detector."""
        batch, number = day[0].batch, int(day[0].batch.event_time_ms[0]) // DAY_MS
        self._note_labels(day[0])
        self.pipeline.learn(self.due.pop(number, []))
        self.pipeline.score(batch)
        held = self.pipeline.log
        new = slice(held.size - len(batch), held.size)
        rows = np.column_stack([held.features[new, :N_ACCOUNT], held.own[new], day[1]])
        self.pipeline.advance((number + 1) * DAY_MS)
        is_matured = (held.known_ms > number * DAY_MS) & (held.known_ms <= (number + 1) * DAY_MS)
        matured = np.flatnonzero(is_matured)
        for watch in self.watches.values():
            watch.observe_scored(rows)
            scores = held.scores[matured, :1].astype(np.float64)
            watch.observe_matured(scores, held.outcome[matured] == 2)
        return {name: watch.end_day(number) for name, watch in self.watches.items()}

    def _note_labels(self, day: LabelledBatch) -> None:
        for row in np.flatnonzero(day.is_fraud).tolist():
            at_ms = int(day.batch.event_time_ms[row]) + _LABEL_DELAY_D * DAY_MS
            self.due.setdefault(at_ms // DAY_MS, []).append(
                Label(
                    transaction_id=day.batch.transaction_id[row],
                    is_fraud=True,
                    source="chargeback",
                    labelled_at_ms=at_ms,
                )
            )


def _policy(detector: str) -> DriftPolicy:
    return DriftPolicy(calibration_detectors=(detector,), feature_detectors=(detector,))


def _watch(detector: str) -> DriftWatch:
    return DriftWatch(_policy(detector), _COLUMNS, ("own",))


def _branch(run: _Run) -> _Run:
    """Return a copy that goes its own way."""
    state = dump(run.pipeline)
    copied = State({name: array.copy() for name, array in state.arrays.items()}, state.meta)
    watches = {name: _watch(name) for name in run.watches}
    for name, watch in watches.items():
        watch.load(run.watches[name].arrays())
    due = {day: list(labels) for day, labels in run.due.items()}
    return _Run(restore(_CONFIG, copied), watches, due)


def _days(mapping: BankMapping, seed: int, rates: FraudRates | None, prefix: str) -> Iterator[Day]:
    config = _SIMULATION if rates is None else replace(_SIMULATION, rates=rates)
    rng = np.random.default_rng([seed, 9])
    for labelled in bank_parts(config, 0, mapping, seed=seed):
        ids = [prefix + one for one in labelled.batch.transaction_id]
        batch = replace(labelled.batch, transaction_id=ids)
        yield (
            LabelledBatch(batch=batch, is_fraud=labelled.is_fraud),
            _attributes(batch.event_time_ms, rng),
        )


def _attributes(event_ms: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw two attributes with weekends, nights and days that differ a little by chance."""
    n = len(event_ms)
    weekend = (event_ms // DAY_MS + 4) % 7 % 6 == 0
    night = event_ms % DAY_MS < DAY_MS // 4
    level = 0.5 * weekend - 0.4 * night + rng.normal(0.0, 0.05)
    basket = rng.lognormal(1.0 + level, 0.8)
    tenure = np.where(rng.random(n) < 0.3 + rng.normal(0.0, 0.02), np.nan, rng.gamma(2.0, 3.0, n))
    return np.column_stack([basket, tenure]).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFigures:
    """What one seed showed.

    Parameters
    ----------
    delays
        (drift, detector) -> days from the change to the end of the day of the first alarm, None
        for a miss.
    false_alarms
        (kind, detector) -> alarms where nothing was injected.
    quiet_d
        Days behind ``false_alarms``.
    """

    delays: Mapping[tuple[str, str], int | None]
    false_alarms: Mapping[tuple[str, str], int]
    quiet_d: int


def measure_seed(mapping: BankMapping, seed: int, drifts: Sequence[str]) -> DriftFigures:
    """Run one seed: the quiet weeks once, then each future.

    Parameters
    ----------
    mapping
        Of the simulated bank.
    seed
        >= 0.
    drifts
        Names in ``DRIFTS``.
    """
    run = _Run(Pipeline(_CONFIG), {name: _watch(name) for name in DETECTORS}, {})
    false = {(kind, detector): 0 for kind in ("calibration", "feature") for detector in DETECTORS}
    delays: dict[tuple[str, str], int | None] = {}
    usual = list(_days(mapping, seed, None, ""))
    for day in usual[:QUIET_D]:
        _count(false, run.day(day))
    quiet = _branch(run)
    for day in usual[QUIET_D:]:
        _count(false, quiet.day(day))
    for name in drifts:
        injected = DRIFTS[name]
        days = usual
        if injected.rates is not None:
            days = list(_days(mapping, seed, injected.rates, "x"))
        delays |= _delays(name, _branch(run), days[QUIET_D:], np.random.default_rng([seed, 8]))
    return DriftFigures(
        delays=delays, false_alarms=false, quiet_d=QUIET_D + AFTER_D - _FIRST_COMPARED_D
    )


def _count(false: dict[tuple[str, str], int], alarms: Mapping[str, Sequence[DriftAlarm]]) -> None:
    for detector, found in alarms.items():
        for alarm in found:
            false[alarm.kind, detector] += 1


def _delays(
    name: str, run: _Run, days: Sequence[Day], rng: np.random.Generator
) -> dict[tuple[str, str], int | None]:
    injected = DRIFTS[name]
    delays: dict[tuple[str, str], int | None] = {(name, detector): None for detector in DETECTORS}
    for age_d, day in enumerate(days):
        for detector, alarms in run.day(injected.change(day, age_d, rng)).items():
            if delays[name, detector] is None and any(_finds(injected, one) for one in alarms):
                delays[name, detector] = age_d + 1
        if None not in delays.values():
            break
    return delays


def _finds(injected: Injected, alarm: DriftAlarm) -> bool:
    if alarm.kind != injected.kind:
        return False
    return injected.features is None or alarm.subject in injected.features


def measure_drift(
    n_seeds: int, drifts: Sequence[str], done: Callable[[], object]
) -> dict[str, float]:
    """Return the figures of seeds 1 to ``n_seeds``; ``done`` is called after each.

    Raises
    ------
    InvalidInputError
        If there is no seed, or a drift that nobody knows.
    """
    unknown = sorted(set(drifts) - set(DRIFTS))
    if unknown or not n_seeds >= 1:
        known = ", ".join(repr(name) for name in DRIFTS)
        raise InvalidInputError(
            f"drift: expected 1 seed or more and drifts of {known}, got {n_seeds} and {unknown}"
        )
    mapping, found = load_mapping(_MAPPING), []
    for seed in range(1, n_seeds + 1):
        found.append(measure_seed(mapping, seed, drifts))
        done()
    return summarise(found)


def summarise(seeds: Sequence[DriftFigures]) -> dict[str, float]:
    """Return named figures: median and 90 % delays over all seeds, a miss counting as never."""
    figures: dict[str, float] = {"seeds": float(len(seeds))}
    quiet_d = sum(seed.quiet_d for seed in seeds)
    for key in seeds[0].delays:
        name = f"{key[0]}, {key[1]}"
        found = [delay for seed in seeds if (delay := seed.delays[key]) is not None]
        waited = np.array([*found, *[AFTER_D] * (len(seeds) - len(found))], np.float64)
        figures[f"delay_d_median, {name}"] = float(np.median(waited))
        figures[f"delay_d_90, {name}"] = float(np.quantile(waited, 0.9, method="higher"))
        figures[f"missed_share, {name}"] = 1.0 - len(found) / len(seeds)
    for key in seeds[0].false_alarms:
        n = sum(seed.false_alarms[key] for seed in seeds)
        figures[f"false_alarms_100d, {key[0]}, {key[1]}"] = 100.0 * n / quiet_d
    return figures


def drift_table(figures: Mapping[str, float]) -> Table:
    """Return the figures as a table: for each detector median / 90 % days of delay, and misses."""
    table = Table(box=SIMPLE_HEAD, title="days until an alarm: median / 90 %, (missed)")
    table.add_column("")
    for detector in DETECTORS:
        table.add_column(detector.replace("_", "-"), justify="right")
    for name in DRIFTS:
        if f"delay_d_median, {name}, {DETECTORS[0]}" in figures:
            table.add_row(name, *(_cell(figures, f"{name}, {detector}") for detector in DETECTORS))
    for kind in ("calibration", "feature"):
        counts = (figures[f"false_alarms_100d, {kind}, {detector}"] for detector in DETECTORS)
        table.add_row(f"false in 100 days: {kind}", *(f"{count:.2f}" for count in counts))
    return table


def _cell(figures: Mapping[str, float], name: str) -> str:
    median, late = figures[f"delay_d_median, {name}"], figures[f"delay_d_90, {name}"]
    return f"{median:.0f} / {late:.0f} ({figures[f'missed_share, {name}']:.0%})"
