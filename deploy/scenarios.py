"""Frauds for the simulator: when and where they are planned, and what they do to a day's payments.

The first three scenarios are those of the Fraud Detection Handbook [1]_, the others are our own;
all cross banks, because terminals, merchants and devices are shared:

1. high amount: single payments far above what anybody spends;
2. terminal: for 28 days every payment at a compromised terminal is fraudulent;
3. customer: for 14 days a third of the payments of a compromised account are fraudulent, 5 times
   as high;
4. card testing: one device tries stolen accounts with tiny payments at one terminal, and within
   the day spends much with the same accounts elsewhere;
5. mule merchant: a new merchant with a new terminal that collects from accounts of all banks;
6. device farm: one device pays with many accounts for some days.

References
----------
.. [1] Le Borgne, Siblini, Lebichot & Bontempi (2022), Reproducible Machine Learning for Credit
   Card Fraud Detection, Universite Libre de Bruxelles, section 3.2.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400
SCENARIOS = (
    "none",
    "high_amount",
    "terminal",
    "customer",
    "card_testing",
    "mule_merchant",
    "device_farm",
)
HIGH_AMOUNT, TERMINAL, CUSTOMER, CARD_TESTING, MULE_MERCHANT, DEVICE_FARM = range(1, 7)

_TERMINAL_DAYS = 28
_CUSTOMER_DAYS = 14
_MULE_DAYS = 18
_FARM_DAYS = 10
_CUSTOMER_FACTOR = 5.0
_CUSTOMER_SHARE = 1 / 3
_HIGH_PER_PAYMENT = 0.0005

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


class Payments(NamedTuple):
    """Payments of one day as columns of equal length.

    ``second`` is that of the day, ``amount`` in the reference currency, ``device`` -1 for a payment
    at a till, ``scenario`` an index into `SCENARIOS`, above 0 for fraud.
    """

    customer: IntArray
    second: IntArray
    amount: FloatArray
    terminal: IntArray
    device: IntArray
    scenario: IntArray

    def joined(self, more: "Payments") -> "Payments":
        """Return these and more."""
        return Payments._make(np.concatenate(pair) for pair in zip(self, more, strict=True))

    def ordered(self) -> "Payments":
        """Return these by second of the day."""
        order = np.argsort(self.second, kind="stable")
        return Payments._make(column[order] for column in self)


class Episode(NamedTuple):
    """What one fraudster does from ``first_day`` until before ``end_day``."""

    scenario: int
    target: int
    first_day: int
    end_day: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FraudRates:
    """New episodes per day for each 1,000 customers; `plan_episodes` lets the mix drift.

    The defaults make about one payment in a hundred fraudulent.
    """

    terminals: float = 0.16
    customers: float = 0.5
    card_testing: float = 0.12
    mule_merchants: float = 0.035
    device_farms: float = 0.035


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Counts that ids are drawn from; spare ids belong to fraudsters and are used once each."""

    customers: int
    terminals: int
    spare_terminals: int
    devices: int
    spare_devices: int
    days: int


def plan_episodes(
    numbers: Numbers, rates: FraudRates, rng: np.random.Generator
) -> tuple[Episode, ...]:
    """Draw all episodes of a simulation.

    Compromised terminals become rarer and card testing more frequent over time (from 1.3 to 0.7
    times their rate and the reverse), so that what was learnt ages.
    """
    thousands = numbers.customers / 1000
    fading = np.linspace(1.3, 0.7, numbers.days) * thousands
    rising = fading[::-1]
    terminal_days = _draw_days(rates.terminals * fading, rng)
    customer_days = _draw_days(rates.customers * fading, rng)
    testing_days = _draw_days(rates.card_testing * rising, rng)
    mule_days = _draw_days(rates.mule_merchants * rising, rng)[: numbers.spare_terminals]
    farm_days = _draw_days(rates.device_farms * rising, rng)
    devices = iter(range(numbers.devices, numbers.devices + numbers.spare_devices))
    return (
        *_episodes(TERMINAL, rng.integers(numbers.terminals, size=len(terminal_days)),
                   terminal_days, _TERMINAL_DAYS),
        *_episodes(CUSTOMER, rng.integers(numbers.customers, size=len(customer_days)),
                   customer_days, _CUSTOMER_DAYS),
        *_episodes(MULE_MERCHANT, numbers.terminals + np.arange(len(mule_days)),
                   mule_days, _MULE_DAYS),
        *(Episode(CARD_TESTING, device, day, day + 1)
          for day, device in zip(testing_days.tolist(), devices, strict=False)),
        *(Episode(DEVICE_FARM, device, day, day + _FARM_DAYS)
          for day, device in zip(farm_days.tolist(), devices, strict=False)),
    )  # fmt: skip


def add_frauds(
    payments: Payments,
    episodes: tuple[Episode, ...],
    day: int,
    numbers: Numbers,
    rng: np.random.Generator,
) -> Payments:
    """Return a day's payments with what the fraudsters of that day do."""
    active = [each for each in episodes if each.first_day <= day < each.end_day]
    found = _high_amounts(payments, rng)
    found = _at_terminals(found, [each.target for each in active if each.scenario == TERMINAL])
    found = _by_customers(found, [each.target for each in active if each.scenario == CUSTOMER], rng)
    for episode in active:
        if episode.scenario == CARD_TESTING:
            found = found.joined(_card_testing(episode.target, numbers, rng))
        elif episode.scenario == MULE_MERCHANT:
            found = found.joined(_mule(episode.target, numbers, rng))
        elif episode.scenario == DEVICE_FARM:
            found = found.joined(_device_farm(episode.target, numbers, rng))
    return found


def _draw_days(rates: FloatArray, rng: np.random.Generator) -> IntArray:
    return np.repeat(np.arange(len(rates)), rng.poisson(rates))


def _episodes(scenario: int, targets: IntArray, days: IntArray, n_days: int) -> list[Episode]:
    return [
        Episode(scenario, target, day, day + n_days)
        for target, day in zip(targets.tolist(), days.tolist(), strict=True)
    ]


def _high_amounts(payments: Payments, rng: np.random.Generator) -> Payments:
    chosen = rng.random(len(payments.customer)) < _HIGH_PER_PAYMENT
    high = rng.uniform(220.0, 900.0, len(chosen))
    return payments._replace(
        amount=np.where(chosen, high, payments.amount),
        scenario=np.where(chosen, HIGH_AMOUNT, payments.scenario),
    )


def _at_terminals(payments: Payments, terminals: list[int]) -> Payments:
    chosen = np.isin(payments.terminal, terminals)
    return payments._replace(scenario=np.where(chosen, TERMINAL, payments.scenario))


def _by_customers(payments: Payments, customers: list[int], rng: np.random.Generator) -> Payments:
    is_thief = rng.random(len(payments.customer)) < _CUSTOMER_SHARE
    chosen = np.isin(payments.customer, customers) & is_thief
    return payments._replace(
        amount=np.where(chosen, payments.amount * _CUSTOMER_FACTOR, payments.amount),
        scenario=np.where(chosen, CUSTOMER, payments.scenario),
    )


def _card_testing(device: int, numbers: Numbers, rng: np.random.Generator) -> Payments:
    """Two tiny payments per stolen account within the hour, then a big one within six hours."""
    stolen = rng.choice(numbers.customers, rng.integers(8, 16), replace=False)
    start = rng.integers(DAY_S - 8 * 3600)
    tests = _payments(
        customer=np.repeat(stolen, 2),
        second=start + rng.integers(3600, size=2 * len(stolen)),
        amount=rng.uniform(0.5, 3.0, 2 * len(stolen)),
        terminal=np.full(2 * len(stolen), rng.integers(numbers.terminals)),
        device=device,
        scenario=CARD_TESTING,
    )
    spent = _payments(
        customer=stolen,
        second=start + 3600 + rng.integers(6 * 3600, size=len(stolen)),
        amount=rng.uniform(120.0, 600.0, len(stolen)),
        terminal=rng.integers(numbers.terminals, size=len(stolen)),
        device=device,
        scenario=CARD_TESTING,
    )
    return tests.joined(spent)


def _mule(terminal: int, numbers: Numbers, rng: np.random.Generator) -> Payments:
    n = rng.poisson(4.0)
    return _payments(
        customer=rng.integers(numbers.customers, size=n),
        second=rng.integers(DAY_S, size=n),
        amount=rng.uniform(60.0, 300.0, n),
        terminal=np.full(n, terminal),
        device=-1,
        scenario=MULE_MERCHANT,
    )


def _device_farm(device: int, numbers: Numbers, rng: np.random.Generator) -> Payments:
    n = rng.poisson(4.0)
    return _payments(
        customer=rng.integers(numbers.customers, size=n),
        second=rng.integers(DAY_S, size=n),
        amount=rng.uniform(30.0, 150.0, n),
        terminal=rng.integers(numbers.terminals, size=n),
        device=device,
        scenario=DEVICE_FARM,
    )


def _payments(  # one argument per column
    *,
    customer: IntArray,
    second: IntArray,
    amount: FloatArray,
    terminal: IntArray,
    device: int,
    scenario: int,
) -> Payments:
    n = len(customer)
    return Payments(
        customer, second, amount, terminal,
        np.full(n, device, np.int64), np.full(n, scenario, np.int64),
    )  # fmt: skip
