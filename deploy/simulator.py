"""A made-up payment system: several banks, shared terminals, customers with habits, frauds, drift.

Every random number comes from the generator passed in, so a seed gives the same payments again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from deploy.bank_formats import LabelledBatch
from deploy.scenarios import (
    DAY_S,
    SCENARIOS,
    Episode,
    FraudRates,
    Numbers,
    Payments,
    add_frauds,
    plan_episodes,
)
from models.columns import exponents_of, reference_amounts
from models.errors import InvalidInputError
from models.mapping import Always, AttributePlace, Mapping
from models.records import AttributeColumn, TransactionBatch
from models.words import Words

DEFAULT_START_MS = 1_767_571_200_000
"""2026-01-05 00:00 UTC, a Monday."""

_HOME_SHARE = 0.9
_ONLINE_SHARE = 0.35
_ABROAD_SHARE = 0.05
_MAX_NEAR = 60
_NOON_S = 43_200
_SPREAD_S = 20_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationConfig:
    """What to make up; the defaults give about 200,000 payments, one in a hundred fraudulent.

    Parameters
    ----------
    bank_shares
        Share of the customers of each bank; they sum to 1.
    start_ms
        Midnight of the first day, milliseconds since 1970 UTC.
    n_days, n_customers, n_terminals, n_merchants
        Sizes, all >= 1.
    payments_per_day
        Mean payments of a customer and day.
    growth
        Share of the customers who join only in the course of the simulation, in [0, 1).
    spending_drift
        Relative change of all amounts from the first to the last day, above -1.
    rates
        How often frauds begin.

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    bank_shares: tuple[float, ...] = (0.40, 0.25, 0.15, 0.12, 0.08)
    start_ms: int = DEFAULT_START_MS
    n_days: int = 60
    n_customers: int = 2_000
    n_terminals: int = 1_500
    n_merchants: int = 300
    payments_per_day: float = 1.8
    growth: float = 0.15
    spending_drift: float = 0.2
    rates: FraudRates = field(default_factory=FraudRates)

    def __post_init__(self) -> None:
        _require(
            len(self.bank_shares) > 0
            and all(share > 0 for share in self.bank_shares)
            and abs(sum(self.bank_shares) - 1.0) < 1e-6,  # rounding of a sum
            "bank_shares: expected positive shares that sum to 1",
        )
        for name in ("n_days", "n_customers", "n_terminals", "n_merchants"):
            _require(getattr(self, name) >= 1, f"{name}: expected 1 or more")
        _require(
            0.0 < self.payments_per_day < 1000.0, "payments_per_day: expected in (0, 1000)"
        )  # sane
        _require(0.0 <= self.growth < 1.0, "growth: expected in [0, 1)")
        _require(
            -1.0 < self.spending_drift < 100.0, "spending_drift: expected in (-1, 100)"
        )  # sane


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """Who there is; arrays are indexed by customer or terminal number.

    Parameters
    ----------
    bank
        Customer -> bank.
    rate, mean_amount
        Customer -> payments a day, mean amount in the reference currency.
    first_day
        Customer -> day of joining.
    near, n_near
        Customer -> terminals nearby, padded, and how many.
    merchant
        Terminal -> merchant, those of the spare terminals included.
    numbers
        Counts.
    """

    bank: NDArray[np.int64]
    rate: NDArray[np.float64]
    mean_amount: NDArray[np.float64]
    first_day: NDArray[np.int64]
    near: NDArray[np.int64]
    n_near: NDArray[np.int64]
    merchant: NDArray[np.int64]
    numbers: Numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulatedDay:
    """Payments of one day by time; columns of equal length, all integers but ``amount``.

    ``amount`` is in the reference currency; ``device`` is -1 for a payment at a till;
    ``scenario`` indexes `deploy.scenarios.SCENARIOS` and is for analysis only, never a feature.
    """

    number: NDArray[np.int64]
    bank: NDArray[np.int64]
    event_time_ms: NDArray[np.int64]
    customer: NDArray[np.int64]
    amount: NDArray[np.float64]
    terminal: NDArray[np.int64]
    merchant: NDArray[np.int64]
    device: NDArray[np.int64]
    scenario: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def is_fraud(self) -> NDArray[np.bool_]:
        """True for fraud."""
        return self.scenario > 0

    def rows(self, chosen: NDArray[np.bool_]) -> "SimulatedDay":
        """Return some of the rows."""
        return SimulatedDay(
            **{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__}
        )


def simulate(config: SimulationConfig, rng: np.random.Generator) -> Iterator[SimulatedDay]:
    """Yield the days in order; transaction numbers rise with time over all banks."""
    world = make_world(config, rng)
    episodes = plan_episodes(world.numbers, config.rates, rng)
    number = 0
    for day in range(config.n_days):
        made = _day(config, world, episodes, day, rng)
        yield _finished(config, world, made, day=day, first_number=number)
        number += len(made.customer)


def make_world(config: SimulationConfig, rng: np.random.Generator) -> World:
    """Draw customers, terminals and merchants."""
    n, n_terminals = config.n_customers, config.n_terminals
    near, n_near = _near(rng.random((n, 2)), rng.random((n_terminals, 2)), rng)
    joins_late = rng.random(n) < config.growth
    spare = max(4, n // 100)
    owner = rng.integers(config.n_merchants, size=n_terminals)
    return World(
        bank=rng.choice(len(config.bank_shares), size=n, p=config.bank_shares),
        rate=rng.uniform(0.1, 2 * config.payments_per_day - 0.1, n).clip(0.01),
        mean_amount=rng.uniform(5.0, 100.0, n),
        first_day=np.where(joins_late, rng.integers(config.n_days, size=n), 0),
        near=near,
        n_near=n_near,
        merchant=np.concatenate((owner, config.n_merchants + np.arange(spare))),
        numbers=Numbers(
            customers=n,
            terminals=n_terminals,
            spare_terminals=spare,
            devices=n,
            spare_devices=10 * n,
            days=config.n_days,
        ),
    )


def bank_batch(
    day: SimulatedDay, bank: int, mapping: Mapping, rng: np.random.Generator
) -> LabelledBatch:
    """Return one bank's payments of a day as its mapping would read them.

    Most are in the mapping's first currency, some in its others; only entities and attributes that
    the mapping names are there. Attribute ``channel`` is ``online`` or ``till``.
    """
    own = day.rows(day.bank == bank)
    codes = list(mapping.currencies)
    currencies = list(mapping.currencies.values())
    index = _currency_index(mapping, len(own), rng)
    rate = np.array([each.reference_rate for each in currencies])[index]
    minor = np.rint(own.amount / rate * 10.0 ** exponents_of(currencies, index)).astype(np.int64)
    columns = _text_columns(own)
    batch = TransactionBatch(
        transaction_id=_transaction_ids(own),
        account_id=_account_ids(own),
        event_time_ms=own.event_time_ms,
        amount_minor=minor,
        amount=reference_amounts(minor, currencies, index),
        currency=[codes[i] for i in index.tolist()],
        entities={kind: columns.get(kind, [None] * len(own)) for kind in mapping.entities},
        attributes={
            name: _attribute(name, place, columns, len(own))
            for name, place in mapping.attributes.items()
        },
    )
    return LabelledBatch(batch=batch, is_fraud=own.is_fraud)


def bank_parts(
    config: SimulationConfig, bank: int, mapping: Mapping, *, seed: int
) -> Iterator[LabelledBatch]:
    """Yield one bank's days; the banks' parts of one seed belong to the same world."""
    if seed < 0:
        raise InvalidInputError(f"seed: expected 0 or more, got {seed}")
    own = np.random.default_rng([seed, bank])
    for day in simulate(config, np.random.default_rng(seed)):
        yield bank_batch(day, bank, mapping, own)


def canonical_columns(
    day: SimulatedDay, banks: Sequence[str]
) -> dict[str, Sequence[object] | NDArray[np.generic]]:
    """Return a day as the columns of a canonical file, which ``mappings/simulated.toml`` reads."""
    texts = _text_columns(day)
    return {
        "transaction_id": _transaction_ids(day),
        "bank": [banks[i] for i in day.bank.tolist()],
        "event_time_ms": day.event_time_ms,
        "account_id": _account_ids(day),
        "amount": np.rint(day.amount * 100) / 100,
        "currency": ["EUR"] * len(day),
        "terminal": texts["terminal"],
        "merchant": texts["merchant"],
        "device": texts["device"],
        "channel": texts["channel"],
        "fraud": day.is_fraud.astype(np.int8),
        "scenario": [SCENARIOS[i] for i in day.scenario.tolist()],
    }


def _near(
    homes: NDArray[np.float64], places: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return up to `_MAX_NEAR` nearest terminals of each home, and how many each customer uses."""
    k = min(_MAX_NEAR, len(places))
    _, near = KDTree(places).query(homes, k=np.arange(1, k + 1))
    return near, rng.integers(min(5, k), k + 1, size=len(homes))


def _day(
    config: SimulationConfig,
    world: World,
    episodes: tuple[Episode, ...],
    day: int,
    rng: np.random.Generator,
) -> Payments:
    is_there = world.first_day <= day
    customer = np.repeat(np.arange(len(is_there)), rng.poisson(world.rate * is_there))
    n = len(customer)
    mean = world.mean_amount[customer] * _level(config, day)
    amount = np.abs(rng.normal(mean, mean / 2)).clip(0.5)
    place = (rng.random(n) * world.n_near[customer]).astype(np.int64)
    is_abroad = rng.random(n) < _ABROAD_SHARE
    elsewhere = rng.integers(config.n_terminals, size=n)
    usual = Payments(
        customer=customer,
        second=rng.normal(_NOON_S, _SPREAD_S, n).astype(np.int64) % DAY_S,
        amount=amount,
        terminal=np.where(is_abroad, elsewhere, world.near[customer, place]),
        device=np.where(rng.random(n) < _ONLINE_SHARE, customer, -1),
        scenario=np.zeros(n, np.int64),
    )
    return add_frauds(usual, episodes, day, world.numbers, rng).ordered()


def _level(config: SimulationConfig, day: int) -> float:
    return 1.0 + config.spending_drift * day / max(1, config.n_days - 1)


def _finished(
    config: SimulationConfig, world: World, made: Payments, *, day: int, first_number: int
) -> SimulatedDay:
    return SimulatedDay(
        number=first_number + np.arange(len(made.customer)),
        bank=world.bank[made.customer],
        event_time_ms=config.start_ms + (day * DAY_S + made.second) * 1000,
        customer=made.customer,
        amount=made.amount,
        terminal=made.terminal,
        merchant=world.merchant[made.terminal],
        device=made.device,
        scenario=made.scenario,
    )


def _currency_index(mapping: Mapping, n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    codes = list(mapping.currencies)
    if isinstance(mapping.currency, Always):
        return np.full(n, codes.index(mapping.currency.value), np.intp)
    others = rng.integers(1, max(2, len(codes)), size=n).clip(max=len(codes) - 1)
    return np.where(rng.random(n) < _HOME_SHARE, 0, others)


def _transaction_ids(day: SimulatedDay) -> list[str]:
    return [f"P{i:09d}" for i in day.number.tolist()]


def _account_ids(day: SimulatedDay) -> list[str]:
    return [f"A{i:07d}" for i in day.customer.tolist()]


def _text_columns(day: SimulatedDay) -> dict[str, list[str | None]]:
    device = day.device.tolist()
    return {
        "terminal": [f"T{i:06d}" for i in day.terminal.tolist()],
        "merchant": [f"M{i:06d}" for i in day.merchant.tolist()],
        "device": [None if i < 0 else f"D{i:07d}" for i in device],
        "channel": ["till" if i < 0 else "online" for i in device],
    }


def _attribute(
    name: str, place: AttributePlace, columns: dict[str, list[str | None]], n: int
) -> AttributeColumn:
    if place.type == "number":
        return np.full(n, np.nan)
    return Words.of(columns[name] if name == "channel" else [None] * n)


def _require(is_met: bool, message: str) -> None:  # reads as an assertion
    if not is_met:
        raise InvalidInputError(message)
