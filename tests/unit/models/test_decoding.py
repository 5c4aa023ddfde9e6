"""A bank's JSON becomes canonical columns; a bad record becomes an error and stops nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.decoding import LabelDecoder, TransactionDecoder
from models.fields import REASONS
from models.mapping import load_mapping
from tests.unit.models.test_mapping import GOOD

NOON_MS = 1_767_610_800_000  # 2026-01-05T11:00:00Z, noon in Stockholm


@pytest.fixture(scope="module")
def mapping(tmp_path_factory):
    """Return the mapping of the mapping tests."""
    path = Path(tmp_path_factory.mktemp("mapping")) / "testbank.toml"
    path.write_text(GOOD, encoding="utf-8")
    return load_mapping(path)


def record(**changes):
    """Return a good record with some of its inner values replaced."""
    trx = {"ref": "T1", "at": "2026-01-05T12:00:00", "amount": 12.34, "ccy": "EUR"}
    whole = {"trx": trx, "card": "C1", "pos": {"id": 7}, "channel": "web", "age": 30}
    for name, value in changes.items():
        (trx if name in trx else whole)[name] = value
    return json.dumps(whole).encode()


def decode_one(mapping, value):
    """Return the only row of a batch."""
    decoded = TransactionDecoder(mapping).decode([value])
    assert decoded.errors == []
    return decoded.batch


def test_record_becomes_a_row(mapping):
    """Each field is found at its path."""
    batch = decode_one(mapping, record())
    assert list(batch.transaction_id) == ["T1"]
    assert list(batch.account_id) == ["C1"]
    assert batch.event_time_ms.tolist() == [NOON_MS]
    assert batch.amount_minor.tolist() == [1234]
    assert batch.amount.tolist() == [12.34]
    assert list(batch.currency) == ["EUR"]
    assert list(batch.entities["terminal"]) == ["7"]
    assert list(batch.attributes["channel"]) == ["web"]
    assert list(batch.attributes["age"]) == [30.0]


def test_unmapped_and_null_are_absent(mapping):
    """Null, empty text and a missing parent are all None, not 0."""
    for absent in ({}, None, {"id": None}, {"id": ""}):
        batch = decode_one(mapping, record(pos=absent, channel=None, age=None))
        assert batch.entities["terminal"][0] is None
        assert batch.attributes["channel"][0] is None
        assert np.isnan(batch.attributes["age"][0])


@pytest.mark.parametrize(
    ("amount", "ccy", "minor", "reference"),
    [
        (100, "EUR", 10_000, 100.0),
        ("0.10", "EUR", 10, 0.1),
        (100, "JPY", 100, 100 * 0.006),
        ("1.234", "BHD", 1234, 1.234 * 2.4),
        (12.345, "EUR", 1234, 12.34),  # a tie, to even
        (12.355, "EUR", 1236, 12.36),  # a tie, to even, though 12.355 * 100 < 1235.5 in float64
        (1.015, "EUR", 102, 1.02),
        ("12.3450000000000000000000001", "EUR", 1235, 12.35),
        (0, "EUR", 0, 0.0),
        (-0.0, "EUR", 0, 0.0),
        (9_007_199_254_740.93, "EUR", 900_719_925_474_093, 9_007_199_254_740.93),
        (" 5 ", "EUR", 500, 5.0),
    ],
)
def test_amount_is_exact_in_minor_units(mapping, amount, ccy, minor, reference):
    """Decimals of the currency decide; ties go to even; the reference amount follows."""
    batch = decode_one(mapping, record(amount=amount, ccy=ccy))
    assert batch.amount_minor.tolist() == [minor]
    assert batch.amount.tolist() == [reference]


@given(minor=st.integers(0, 10**15), as_text=st.booleans())
def test_every_amount_of_two_decimals_is_exact(mapping, minor, as_text):
    """Whatever the size up to the limit, number or text, no cent is lost."""
    text = f"{minor // 100}.{minor % 100:02d}"
    value = record(amount="AMOUNT").replace(
        b'"AMOUNT"', f'"{text}"'.encode() if as_text else text.encode()
    )
    assert decode_one(mapping, value).amount_minor.tolist() == [minor]


BAD = [
    (b"", "malformed_json"),
    (b"{", "malformed_json"),
    (b"\xff\xfe", "malformed_json"),
    (b'{"card": "\xff"}', "malformed_json"),
    (b'{"card": "\\ud800"}', "malformed_json"),
    (b"[" * 100_000, "malformed_json"),
    (b"NaN", "malformed_json"),
    (record(amount=float("nan")), "malformed_json"),
    (None, "not_an_object"),
    (b"null", "not_an_object"),
    (b"[1]", "not_an_object"),
    (b"3", "not_an_object"),
    (b"{}", "missing_field"),
    (record(ref=None), "missing_field"),
    (record(ref=""), "missing_field"),
    (record(card=""), "missing_field"),
    (record(amount=None), "missing_field"),
    (record(amount=""), "missing_field"),
    (record(at=None), "missing_field"),
    (record(at=""), "missing_field"),
    (record(ccy=None), "missing_field"),
    (record(ref=True), "wrong_type"),
    (record(ref=1.5), "wrong_type"),
    (record(ref=["T"]), "wrong_type"),
    (record(trx=3), "wrong_type"),
    (record(pos="7"), "wrong_type"),
    (record(pos={"id": {"id": {}}}), "wrong_type"),
    (record(amount=True), "wrong_type"),
    (record(amount="12,50"), "wrong_type"),
    (record(amount="1_000"), "wrong_type"),
    (record(amount="٣"), "wrong_type"),
    (record(amount={"value": 1}), "wrong_type"),
    (record(at=1_767_610_800), "wrong_type"),
    (record(ccy=978), "wrong_type"),
    (record(ccy=["EUR"]), "wrong_type"),
    (record(age="old"), "wrong_type"),
    (record(age=False), "wrong_type"),
    (record(channel={}), "wrong_type"),
    (record(ccy="XXX"), "unknown_currency"),
    (record(ccy="eur"), "unknown_currency"),
    (record(ccy="USD"), "unknown_currency"),
    (record(amount=-0.01), "negative_amount"),
    (record(amount="-1e-9"), "negative_amount"),
    (record(amount="NaN"), "not_finite"),
    (record(amount="-Infinity"), "not_finite"),
    (record(age="inf"), "not_finite"),
    (record(at="yesterday"), "bad_time"),
    (record(at="2026-13-01"), "bad_time"),
    (record(at="0001-01-01T00:00:00+23:59"), "bad_time"),
    (record(at="1999-12-31T23:59:59Z"), "bad_time"),
    (record(at="2100-01-01T00:00:00Z"), "bad_time"),
    (record(at="9999-12-31T23:59:59"), "bad_time"),
    (record(ref="T" * 257), "too_large"),
    (record(ref=10**30), "too_large"),
    (record(amount=1e300), "too_large"),
    (record(amount=10_000_000_000_000.01), "too_large"),
    (record(amount=10**400), "too_large"),
    (record(amount="AMOUNT").replace(b'"AMOUNT"', b"1e400"), "too_large"),
    (record(amount="1e400"), "too_large"),
    (record(amount="1" * 65), "too_large"),
    (record(amount="AMOUNT").replace(b'"AMOUNT"', b"1" * 5000), "too_large"),
    (record(age="1e309"), "too_large"),
    (b" " * 300_000, "too_large"),
]


@pytest.mark.parametrize(("value", "reason"), BAD)
def test_bad_record_is_an_error_with_its_reason(mapping, value, reason):
    """The reason is of a closed set and the good neighbours come through."""
    decoded = TransactionDecoder(mapping).decode([record(ref="A"), value, record(ref="B")])
    assert [(row, why) for row, why, _ in decoded.errors] == [(1, reason)]
    assert reason in REASONS
    assert list(decoded.batch.transaction_id) == ["A", "B"]
    assert decoded.source_rows.tolist() == [0, 2]


@pytest.mark.parametrize("name", ["ref", "card", "amount", "at", "ccy", "age"])
def test_detail_never_holds_the_value(mapping, name):
    """What an operator reads names the field, not what stood there."""
    for value in ("4929secret", "4929" * 80, -4929, [4929]):
        for _, _, detail in TransactionDecoder(mapping).decode([record(**{name: value})]).errors:
            assert "4929" not in detail


@given(values=st.lists(st.binary(max_size=40) | st.sampled_from([v for v, _ in BAD] + [record()])))
def test_nothing_that_comes_in_raises(mapping, values):
    """Every input is either a row or an error, never both."""
    decoded = TransactionDecoder(mapping).decode(values)
    bad = {row for row, _, _ in decoded.errors}
    assert bad.isdisjoint(decoded.source_rows.tolist())
    assert len(bad) + len(decoded.source_rows) == len(values)
    assert len(decoded.batch) == len(decoded.source_rows)


@given(values=st.lists(st.sampled_from([v for v, _ in BAD[12:]] + [record(), record(amount=3)])))
def test_a_record_means_the_same_alone_or_in_a_chunk(mapping, values):
    """Columns of a chunk are the columns of its records one by one."""
    decoder = TransactionDecoder(mapping)
    alone = [decoder.decode([value]) for value in values]
    together = decoder.decode(values)
    assert [e[1:] for e in together.errors] == [e[1:] for each in alone for e in each.errors]
    minors = [m for each in alone for m in each.batch.amount_minor.tolist()]
    assert together.batch.amount_minor.tolist() == minors


def test_empty_chunk_gives_empty_columns(mapping):
    """No record, no row, every entity and attribute still there."""
    decoded = TransactionDecoder(mapping).decode([])
    assert len(decoded.batch) == 0
    assert decoded.batch.entities.keys() == {"terminal"}
    assert decoded.batch.amount.dtype == np.float64


def label_record(**changes):
    """Return a good label record with some values replaced."""
    return json.dumps(
        {"ref": "T1", "verdict": "F", "by": "CB", "at": "2026-01-05T12:00:00"} | changes
    ).encode()


def test_label_record_becomes_a_label(mapping):
    """The bank's own words become the canonical ones, without regard to case of the verdict."""
    decoded = LabelDecoder(mapping).decode([label_record(), label_record(verdict="g")])
    assert decoded.errors == []
    first, second = decoded.labels
    assert (first.transaction_id, first.is_fraud, first.source) == ("T1", True, "chargeback")
    assert first.labelled_at_ms == NOON_MS
    assert second.is_fraud is False


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (label_record(verdict="maybe"), "unknown_verdict"),
        (label_record(verdict=None), "missing_field"),
        (label_record(verdict=[1]), "wrong_type"),
        (label_record(by="ANYBODY"), "unknown_source"),
        (label_record(by=None), "missing_field"),
        (label_record(by=1), "wrong_type"),
        (label_record(ref=None), "missing_field"),
        (label_record(at="soon"), "bad_time"),
        (b"{]", "malformed_json"),
        (b"[]", "not_an_object"),
    ],
)
def test_bad_label_is_an_error_with_its_reason(mapping, value, reason):
    """As for transactions; the good neighbours come through."""
    decoded = LabelDecoder(mapping).decode([value, label_record()])
    assert [(row, why) for row, why, _ in decoded.errors] == [(0, reason)]
    assert [label.transaction_id for label in decoded.labels] == ["T1"]
    assert decoded.source_rows.tolist() == [1]


def test_bank_without_label_mapping_refuses_label_records(tmp_path):
    """Nothing is guessed."""
    path = tmp_path / "bank.toml"
    path.write_text(GOOD.split("[label]", maxsplit=1)[0], encoding="utf-8")
    decoded = LabelDecoder(load_mapping(path)).decode([label_record()])
    assert [reason for _, reason, _ in decoded.errors] == ["missing_field"]
