"""A mapping file is read whole or refused with its file, key and what is expected."""

from pathlib import Path

import pytest

from models.errors import SettingsError
from models.mapping import Always, At, Currency, load_mapping

GOOD = """
bank = "testbank"
[transaction]
transaction_id = "trx.ref"
event_time = "trx.at"
account_id = "card"
amount = "trx.amount"
currency = "trx.ccy"
[time]
zone = "Europe/Stockholm"
[currencies]
EUR = 1.0
JPY = 0.006
BHD = 2.4
[entities]
terminal = "pos.id"
[attributes]
channel = { path = "channel", type = "text" }
age = { path = "age", type = "number" }
[label]
transaction_id = "ref"
is_fraud = "verdict"
fraud_values = ["F"]
legit_values = ["G"]
source = "by"
sources = { CB = "chargeback" }
labelled_at = "at"
"""


def load(tmp_path: Path, text: str):
    """Write a mapping file and load it."""
    path = tmp_path / "testbank.toml"
    path.write_text(text, encoding="utf-8")
    return load_mapping(path)


def test_mapping_holds_paths_currencies_and_label_words(tmp_path):
    """Dotted paths become parts; exponents come from ISO 4217."""
    mapping = load(tmp_path, GOOD)
    assert mapping.bank == "testbank"
    assert mapping.amount == At(("trx", "amount"))
    assert mapping.amount.column == "trx.amount"
    assert mapping.currencies["JPY"] == Currency(0, 0.006)
    assert mapping.currencies["BHD"] == Currency(3, 2.4)
    assert mapping.verdicts.fraud == {"f"}
    assert mapping.verdicts.legit == {"g"}
    assert mapping.label is not None
    assert mapping.label.time.zone == "Europe/Stockholm"


def test_bank_is_named_after_the_file_when_not_named(tmp_path):
    """The stem of the file is the default."""
    assert load(tmp_path, GOOD.replace('bank = "testbank"', "")).bank == "testbank"


def test_origin_is_an_instant(tmp_path):
    """2018-04-01T00:00Z is 1522540800 s after 1970, by `date -u -d`."""
    text = GOOD.replace(
        'zone = "Europe/Stockholm"', 'format = "epoch_s"\norigin = "2018-04-01T00:00:00Z"'
    )
    assert load(tmp_path, text).time.origin_ms == 1_522_540_800_000


def test_constant_currency_stands_in_no_record(tmp_path):
    """A constant is kept as such."""
    text = GOOD.replace('currency = "trx.ccy"', 'currency = { constant = "EUR" }')
    assert load(tmp_path, text).currency == Always("EUR")


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ('account_id = "card"', 'acount_id = "card"', ["transaction.account_id", "'acount_id'"]),
        ("[entities]", "[entitys]", ["entitys", "did you mean 'entities'"]),
        ('amount = "trx.amount"', "amount = 3", ["transaction.amount", "a path", "got 3"]),
        ('amount = "trx.amount"', 'amount = "trx..a"', ["transaction.amount", "a path"]),
        ("EUR = 1.0", "EURO = 1.0", ["currencies.EURO", "did you mean 'EUR'"]),
        ("EUR = 1.0", "EUR = 0", ["currencies.EUR", "above 0"]),
        ("EUR = 1.0", "EUR = nan", ["currencies.EUR", "above 0", "nan"]),
        ("EUR = 1.0", "EUR = true", ["currencies.EUR", "above 0"]),
        ('type = "number"', 'type = "nummer"', ["attributes.age.type", "did you mean 'number'"]),
        ('zone = "Europe/Stockholm"', 'zone = "Europe/Stokholm"', ["time.zone", "IANA"]),
        ('zone = "Europe/Stockholm"', 'format = "iso"', ["time.format", "strptime"]),
        ('zone = "Europe/Stockholm"', 'origin = "2018-04-01T00:00:00Z"', ["time.origin"]),
        ("[time]", '[time]\nformat = "epoch_s"\norigin = "2018-04-01"', ["time.origin", "offset"]),
        ("[time]", "[amount]\nunit = 'cents'\n[time]", ["amount.unit", "'minor'"]),
        ('currency = "trx.ccy"', 'currency = { constant = "SEK" }', ["transaction.currency"]),
        ('CB = "chargeback"', 'CB = "bank"', ["label.sources.CB", "'chargeback'"]),
        ('source = "by"', 'source = { constant = "bank" }', ["label.source", "chargeback"]),
        ('legit_values = ["G"]', 'legit_values = ["f"]', ["label.legit_values"]),
        ('fraud_values = ["F"]', "fraud_values = 1", ["label.fraud_values", "a list"]),
        ('is_fraud = "verdict"', "", ["label.is_fraud", "nothing"]),
        ('labelled_at = "at"', 'labelled_at = "at"\ncolour = 1', ["label.colour", "unknown key"]),
        ("[transaction]", "[transaction", ["TOML"]),
    ],
)
def test_wrong_key_is_refused_with_file_key_and_expectation(tmp_path, old, new, parts):
    """Whatever is wrong, the message names it."""
    assert old in GOOD
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    for part in ("testbank.toml", *parts):
        assert part in str(caught.value)


def test_missing_file_is_a_settings_error(tmp_path):
    """An operator sees which file."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_mapping(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("folder", ["demo_banks", "mappings"])
def test_mappings_in_the_product_are_valid(folder):
    """Each file loads and each demo bank can write labels."""
    paths = sorted((Path(__file__).parents[3] / "deploy" / folder).glob("*.toml"))
    assert paths
    assert all(load_mapping(path).label is not None for path in paths)


def test_an_unknown_rate_stands_alone_and_counts_as_one(tmp_path):
    """Points have no ISO code but XXX; a rate of 1 is taken until amounts are aligned."""
    known = GOOD[GOOD.index("EUR") : GOOD.index("[entities]")]
    mapping = load(tmp_path, GOOD.replace(known, 'XXX = "unknown"\n'))
    assert mapping.currencies["XXX"] == Currency(2, 1.0, is_known=False)
    assert not mapping.is_unit_known
    yen = load(tmp_path, GOOD.replace(known, 'JPY = "unknown"\n'))
    assert yen.currencies["JPY"] == Currency(0, 1.0, is_known=False)
    assert load(tmp_path, GOOD).is_unit_known
    assert load(tmp_path, GOOD.replace(known, "XXX = 0.01\n")).is_unit_known


def test_attributes_of_unknown_scale_are_told(tmp_path):
    """All others are taken to be in the consortium's scale."""
    place = 'x = { path = "a.x", type = "number"'
    mapping = load(tmp_path, GOOD.replace("[attributes]", f"[attributes]\n{place} }}"))
    assert mapping.unknown_scales == frozenset()
    text = GOOD.replace("[attributes]", f'[attributes]\n{place}, scale = "unknown" }}')
    assert load(tmp_path, text).unknown_scales == {"x"}


@pytest.mark.parametrize(
    "place",
    [
        '{ path = "a.x", type = "text", scale = "unknown" }',
        '{ path = "a.x", type = "number", scale = "log" }',
        '{ path = "a.x", type = "number", scale = 2 }',
    ],
)
def test_another_scale_is_refused(tmp_path, place):
    """A text has none, and nothing but that it is unknown can be said of a number's."""
    with pytest.raises(SettingsError, match=r"attributes.x.scale: expected 'unknown' for a number"):
        load(tmp_path, GOOD.replace("[attributes]", f"[attributes]\nx = {place}"))


def test_an_unknown_rate_beside_a_known_one_is_refused(tmp_path):
    """One histogram cannot hold two units."""
    with pytest.raises(SettingsError, match=r"currencies.JPY: expected no other currency"):
        load(tmp_path, GOOD.replace("JPY = 0.006", 'JPY = "unknown"'))
    with pytest.raises(SettingsError, match=r"currencies.JPY: expected .* above 0, or 'unknown'"):
        load(tmp_path, GOOD.replace("JPY = 0.006", 'JPY = "unknwon"'))
