"""The made-up payment system is seeded, plausible, and its frauds cross banks."""

from pathlib import Path

import numpy as np
import pytest

from deploy.scenarios import (
    CARD_TESTING,
    CUSTOMER,
    DEVICE_FARM,
    MULE_MERCHANT,
    SCENARIOS,
    TERMINAL,
    Episode,
    FraudRates,
    Numbers,
    Payments,
    add_frauds,
    plan_episodes,
)
from deploy.simulated_files import write_days
from deploy.simulator import SimulatedDay, SimulationConfig, bank_batch, bank_parts, simulate
from models.errors import InvalidInputError
from models.mapping import load_mapping
from models.tables import read_table

DEPLOY = Path(__file__).parents[3] / "deploy"
BANKS = ("alpenkasse", "costabanco", "nordbank", "polkabank", "rhinepay")


def joined(days, name):
    """Return one column over all days."""
    return np.concatenate([getattr(day, name) for day in days])


@pytest.fixture(scope="module")
def days():
    """Return the demo's simulation."""
    return list(simulate(SimulationConfig(), np.random.default_rng(7)))


def test_same_seed_gives_the_same_payments(days):
    """And another seed others."""
    again = list(simulate(SimulationConfig(), np.random.default_rng(7)))
    for name in SimulatedDay.__dataclass_fields__:
        assert np.array_equal(joined(days, name), joined(again, name))
    (other,) = simulate(SimulationConfig(n_days=1), np.random.default_rng(8))
    assert not np.array_equal(other.customer[:50], days[0].customer[:50])


def test_size_and_fraud_rate_are_those_of_the_demo(days):
    """150,000 to 250,000 payments, about one in a hundred fraudulent."""
    assert 150_000 < sum(map(len, days)) < 250_000
    assert 0.007 < joined(days, "is_fraud").mean() < 0.015


def test_time_and_numbers_rise(days):
    """Over all banks; each day lies within its 24 hours."""
    assert np.all(np.diff(joined(days, "event_time_ms")) >= 0)
    assert np.array_equal(joined(days, "number"), np.arange(sum(map(len, days))))
    start_ms = SimulationConfig().start_ms
    for i, day in enumerate(days):
        assert np.all(day.event_time_ms // 86_400_000 == start_ms // 86_400_000 + i)


def test_bank_shares_are_those_asked_for(days):
    """Standard error of a share over 2,000 customers is below .011; five of them."""
    shares = np.bincount(joined(days, "bank"), minlength=5) / sum(map(len, days))
    assert shares == pytest.approx(SimulationConfig().bank_shares, abs=0.055)


def test_every_scenario_happens_and_most_cross_banks(days):
    """A compromised terminal, device or merchant is met by at least two banks."""
    scenario, bank = joined(days, "scenario"), joined(days, "bank")
    assert set(scenario.tolist()) == set(range(len(SCENARIOS)))
    for which, entity in ((TERMINAL, "terminal"), (CARD_TESTING, "device"),
                          (MULE_MERCHANT, "merchant"), (DEVICE_FARM, "device")):  # fmt: skip
        column = joined(days, entity)
        hit = [set(bank[(scenario == which) & (column == each)].tolist())
               for each in set(column[scenario == which].tolist())]  # fmt: skip
        assert np.mean([len(banks) > 1 for banks in hit]) > 0.8


def test_each_terminal_belongs_to_one_merchant(days):
    """Whoever pays there."""
    pairs = set(
        zip(joined(days, "terminal").tolist(), joined(days, "merchant").tolist(), strict=True)
    )
    assert len(pairs) == len({terminal for terminal, _ in pairs})


def test_spending_drifts_and_customers_join(days):
    """Legitimate amounts rise by the drift of .2, and more customers pay at the end."""
    usual = [day.amount[~day.is_fraud] for day in days]
    first, last = np.concatenate(usual[:10]).mean(), np.concatenate(usual[-10:]).mean()
    assert last / first == pytest.approx(1 + 0.2 * 50 / 59, rel=0.05)
    assert len(set(joined(days[-10:], "customer"))) > len(set(joined(days[:10], "customer"))) * 1.05


NUMBERS = Numbers(
    customers=50, terminals=10, spare_terminals=2, devices=50, spare_devices=50, days=100
)


def payments(n=1000):
    """Return plain payments at tills."""
    rng = np.random.default_rng(3)
    zeros = np.zeros(n, np.int64)
    return Payments(
        rng.integers(50, size=n),
        np.arange(n),
        np.full(n, 10.0),
        rng.integers(10, size=n),
        zeros - 1,
        zeros,
    )


def test_all_payments_at_a_compromised_terminal_are_fraud_while_it_lasts():
    """From the first day until before the end; amounts stay as they are."""
    episode = (Episode(TERMINAL, 3, 5, 33),)
    for day, is_on in ((4, False), (5, True), (32, True), (33, False)):
        found = add_frauds(payments(), episode, day, NUMBERS, np.random.default_rng(1))
        assert np.array_equal(found.scenario == TERMINAL, (found.terminal == 3) & is_on)


def test_a_third_of_a_compromised_customers_payments_are_five_times_as_high():
    """Amount 10 becomes 50, for about 1/3 of 20 payments."""
    found = add_frauds(
        payments(5000), (Episode(CUSTOMER, 7, 0, 14),), 0, NUMBERS, np.random.default_rng(1)
    )
    own = found.customer == 7
    assert set(found.customer[found.scenario == CUSTOMER].tolist()) == {7}
    assert 0.2 < np.mean(found.scenario[own] == CUSTOMER) < 0.5
    assert set(found.amount[found.scenario == CUSTOMER].tolist()) == {50.0}


def test_card_testing_is_tiny_payments_then_big_ones_on_one_device():
    """Each stolen account: two below 3, then one of 120 or more, later."""
    found = add_frauds(
        payments(0), (Episode(CARD_TESTING, 60, 0, 1),), 0, NUMBERS, np.random.default_rng(1)
    )
    assert set(found.device.tolist()) == {60}
    for account in set(found.customer.tolist()):
        amount, second = (
            found.amount[found.customer == account],
            found.second[found.customer == account],
        )
        assert sorted(amount > 100) == [False, False, True]
        assert second[amount > 100] > second[amount < 3].max()


def test_fraud_mix_drifts():
    """Compromised terminals become rarer, card testing more frequent: 1.15 to .85 by halves."""
    rates = FraudRates(terminals=1000.0, card_testing=1000.0)
    found = plan_episodes(NUMBERS, rates, np.random.default_rng(1))
    days = np.array([each.first_day for each in found if each.scenario == TERMINAL])
    assert (days < 50).mean() == pytest.approx(0.575, abs=0.03)


def test_bank_batch_speaks_the_banks_language(days):
    """Only mapped entities, currencies of the mapping, amounts within half a minor unit."""
    mapping = load_mapping(DEPLOY / "demo_banks" / "polkabank.toml")
    found = bank_batch(days[0], 1, mapping, np.random.default_rng(1))
    assert found.batch.entities.keys() == {"terminal", "merchant"}
    assert set(found.batch.currency) == {"PLN", "EUR"}
    own = days[0].amount[days[0].bank == 1]
    assert np.abs(found.batch.amount - own).max() <= 0.005 + 1e-9
    assert found.is_fraud.tolist() == days[0].is_fraud[days[0].bank == 1].tolist()


def test_banks_parts_of_one_seed_are_one_world():
    """Each bank can be simulated by itself: together they are all payments."""
    config = SimulationConfig(n_days=2, n_customers=200, n_terminals=50)
    mapping = load_mapping(DEPLOY / "demo_banks" / "costabanco.toml")
    ids = [
        each
        for bank in range(5)
        for part in bank_parts(config, bank, mapping, seed=4)
        for each in part.batch.transaction_id
    ]
    n = sum(len(day) for day in simulate(config, np.random.default_rng(4)))
    assert sorted(ids) == [f"P{i:09d}" for i in range(n)]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_file_is_read_by_the_mapping_that_belongs_to_it(tmp_path, suffix):
    """All rows, banks and frauds come back; the scenario is not mapped."""
    config = SimulationConfig(n_days=3, n_customers=200, n_terminals=50)
    made = list(simulate(config, np.random.default_rng(4)))
    path = tmp_path / f"days.{suffix}"
    assert write_days(made, BANKS, path) == sum(map(len, made))
    mapping = load_mapping(DEPLOY / "mappings" / "simulated.toml")
    table = read_table(path, mapping)
    assert table.errors == []
    assert table.bank == [BANKS[i] for i in joined(made, "bank")]
    assert table.is_fraud is not None
    assert np.array_equal(table.is_fraud, joined(made, "is_fraud"))
    assert np.array_equal(table.batch.event_time_ms, joined(made, "event_time_ms"))
    assert "scenario" not in {*table.batch.entities, *table.batch.attributes}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bank_shares", ()),
        ("bank_shares", (0.5, 0.6)),
        ("bank_shares", (1.5, -0.5)),
        ("n_days", 0),
        ("payments_per_day", float("nan")),
        ("growth", 1.0),
        ("spending_drift", float("nan")),
    ],
)
def test_wrong_configuration_is_refused(name, value):
    """NaN too."""
    with pytest.raises(InvalidInputError, match=name):
        SimulationConfig(**{name: value})
