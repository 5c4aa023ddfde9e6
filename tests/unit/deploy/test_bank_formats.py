"""What a bank's format writes, its mapping reads back."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deploy.bank_formats import BankFormat, time_writer
from deploy.simulator import SimulationConfig, bank_batch, simulate
from models.decoding import LabelDecoder, TransactionDecoder
from models.errors import InvalidInputError
from models.instants import time_reader
from models.mapping import TimeFormat, load_mapping
from models.records import Label, written_values

DEPLOY = Path(__file__).parents[3] / "deploy"
MAPPINGS = sorted([*(DEPLOY / "demo_banks").glob("*.toml"), *(DEPLOY / "mappings").glob("*.toml")])


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_transactions_come_back_as_they_were(path):
    """Ids, milliseconds, minor units, currency, entities and attributes, for every bank."""
    mapping = load_mapping(path)
    config = SimulationConfig(n_days=2, n_customers=100, n_terminals=50)
    for day in simulate(config, np.random.default_rng(5)):
        batch = bank_batch(day, 0, mapping, np.random.default_rng(6)).batch
        decoded = TransactionDecoder(mapping).decode(BankFormat(mapping).transactions(batch))
        assert decoded.errors == []
        assert list(decoded.batch.transaction_id) == list(batch.transaction_id)
        assert list(decoded.batch.account_id) == list(batch.account_id)
        assert list(decoded.batch.currency) == list(batch.currency)
        assert np.array_equal(decoded.batch.event_time_ms, batch.event_time_ms)
        assert np.array_equal(decoded.batch.amount_minor, batch.amount_minor)
        assert np.array_equal(decoded.batch.amount, batch.amount)
        for kind, column in batch.entities.items():
            assert list(decoded.batch.entities[kind]) == list(column)
        for name, column in batch.attributes.items():
            assert written_values(decoded.batch.attributes[name]) == written_values(column)


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("is_fraud", [True, False])
def test_labels_come_back_as_they_were(path, is_fraud):
    """The verdict in the bank's own words, the instant to the second."""
    mapping = load_mapping(path)
    label = Label(
        transaction_id="P1",
        is_fraud=is_fraud,
        source="chargeback",
        labelled_at_ms=1_767_610_801_000,
    )
    decoded = LabelDecoder(mapping).decode([BankFormat(mapping).label(label, "A1")])
    assert decoded.errors == []
    assert decoded.labels == [label]


def test_nothing_is_written_for_what_is_absent():
    """A payment at a till has no device key at all."""
    mapping = load_mapping(DEPLOY / "demo_banks" / "nordbank.toml")
    config = SimulationConfig(n_days=1, n_customers=50, n_terminals=20)
    (day,) = simulate(config, np.random.default_rng(1))
    batch = bank_batch(day, 0, mapping, np.random.default_rng(2)).batch
    till = list(batch.entities["device"]).index(None)
    assert "client" not in json.loads(BankFormat(mapping).transactions(batch)[till])


@given(
    at_ms=st.integers(946_684_800_000 + 86_400_000, 4_102_444_800_000 - 86_400_001),
    time=st.sampled_from(
        [
            TimeFormat(),
            TimeFormat(zone="Europe/Stockholm"),
            TimeFormat(zone="Australia/Lord_Howe"),
            TimeFormat(format="epoch_ms"),
            TimeFormat(format="epoch_s", origin_ms=1_522_540_800_000),
            TimeFormat(format="%d.%m.%Y %H:%M:%S.%f %z", zone="Europe/Zurich"),
        ]
    ),
)
@example(at_ms=1_792_891_800_000, time=TimeFormat(zone="Europe/Stockholm"))  # 02:30 again
def test_written_instants_are_read_back(at_ms, time):
    """To the millisecond, in the hour that passes twice too."""
    assert time_reader(time, "event_time")(time_writer(time)(at_ms)) == at_ms


@pytest.mark.parametrize(
    ("form", "at_ms", "hint"),
    [
        ("%d.%m.%Y %H:%M:%S", 1_767_610_800_001, "%f"),
        ("%d.%m.%Y %H:%M:%S", 1_792_891_800_000, "%z"),  # 2026-10-25T01:30Z, 02:30 again
    ],
)
def test_instant_that_a_format_cannot_express_is_refused(form, at_ms, hint):
    """Rather than to replay at another time."""
    with pytest.raises(InvalidInputError, match=hint):
        time_writer(TimeFormat(format=form, zone="Europe/Zurich"))(at_ms)
