"""A bank's mapping: where each canonical field is found in the bank's own records.

A mapping is one TOML file. Names are dotted paths into JSON objects, or column names of a table::

    bank = "nordbank"

    [transaction]
    transaction_id = "trx.ref"
    event_time = "trx.at"
    account_id = "card.token"
    amount = "trx.amount.value"
    currency = { constant = "SEK" }     # or a path

    [time]                              # default: iso8601, times without offset refused
    format = "iso8601"                  # or epoch_s, epoch_ms, or a strptime format
    zone = "Europe/Stockholm"           # of times without offset
    origin = "2018-04-01T00:00:00Z"     # epoch formats: what 0 means, default 1970

    [amount]
    unit = "decimal"                    # or minor

    [currencies]                        # reference currency per unit; others are refused
    EUR = 1.0
    SEK = 0.089                         # or alone: XXX = "unknown", points or no known rate

    [entities]
    terminal = "pos.id"

    [attributes]
    channel = { path = "channel", type = "text" }
    score = { path = "risk", type = "number", scale = "unknown" }   # left out: the consortium's

    [label]                             # left out: the bank sends no label records
    transaction_id = "ref"
    account_id = "card"                 # optional, not decoded: written when records are made
    is_fraud = "verdict"
    fraud_values = ["F"]                # compared as text without case; default true, 1
    legit_values = ["G"]                # default: everything else
    source = "who"                      # or { constant = "chargeback" }
    sources = { CB = "chargeback" }     # own words -> chargeback, analyst, rule
    labelled_at = "at"

    [table]                             # only for files
    label = "fraud"                     # column of the outcome; [label]'s values apply
    bank = "bank"                       # column naming the bank of a row
"""

from collections.abc import Mapping as AbstractMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast
from zoneinfo import ZoneInfo

from models.currencies import exponent_of
from models.errors import InvalidInputError
from models.records import LabelSource
from models.toml_table import TomlTable, read_toml
from models.verdicts import Verdicts, read_verdicts

Unit = Literal["decimal", "minor"]
AttributeType = Literal["number", "text"]
EPOCH_UNITS_MS = MappingProxyType({"epoch_s": 1000, "epoch_ms": 1})
SOURCES: tuple[LabelSource, ...] = ("chargeback", "analyst", "rule")
UNKNOWN = "unknown"
NO_CURRENCY = "XXX"
"""ISO 4217's code of no currency: points, miles; taken to have two decimals."""
_EXPONENT_OF_NO_CURRENCY = 2
_A_PATH = "a path such as 'card.token'"


@dataclass(frozen=True, slots=True)
class At:
    """Where a value stands: the keys from the outermost object inwards."""

    path: tuple[str, ...]

    @property
    def column(self) -> str:
        """The name of the same field in a table."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Always:
    """A value that is the same in every record and stands in none."""

    value: str


Place = At | Always


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeFormat:
    """How instants are written.

    Parameters
    ----------
    format
        ``iso8601``, ``epoch_s``, ``epoch_ms`` or a format of ``strptime``.
    zone
        IANA zone of times without offset; None refuses them.
    origin_ms
        What 0 means in an epoch format, milliseconds since 1970 UTC.
    """

    format: str = "iso8601"
    zone: str | None = None
    origin_ms: int = 0


@dataclass(frozen=True, slots=True)
class Currency:
    """Decimals of the minor unit, and units of the consortium's reference currency per unit.

    Where the rate is not known it stands at 1 until the stream has been aligned by rank.
    """

    exponent: int
    reference_rate: float
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class AttributePlace:
    """Where an attribute stands and what it is.

    Where its scale is not known it is shared by rank, see `stream.scales`.
    """

    at: At
    type: AttributeType
    is_scale_known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMapping:
    """Where the fields of a label stand; see the module's example."""

    transaction_id: At
    is_fraud: At
    source: Place
    labelled_at: At
    account_id: At | None = None
    time: TimeFormat = field(default_factory=TimeFormat)
    sources: AbstractMapping[str, LabelSource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Everything needed to read a bank's records; made by `load_mapping`."""

    bank: str
    transaction_id: At
    event_time: At
    account_id: At
    amount: At
    currency: Place
    currencies: AbstractMapping[str, Currency]
    time: TimeFormat = field(default_factory=TimeFormat)
    unit: Unit = "decimal"
    entities: AbstractMapping[str, At] = field(default_factory=dict)
    attributes: AbstractMapping[str, AttributePlace] = field(default_factory=dict)
    label: LabelMapping | None = None
    verdicts: Verdicts = field(default_factory=Verdicts)
    table_label: str | None = None
    table_bank: str | None = None

    @property
    def is_unit_known(self) -> bool:
        """Whether amounts can be brought to the reference currency."""
        return all(currency.is_known for currency in self.currencies.values())

    @property
    def unknown_scales(self) -> frozenset[str]:
        """Attributes that are not known to be in the consortium's scale."""
        return frozenset(name for name, at in self.attributes.items() if not at.is_scale_known)


def load_mapping(path: Path) -> Mapping:
    """Read and validate a mapping file.

    Raises
    ------
    SettingsError
        If the file is not TOML, or a key is missing, unknown or of another type or range.
    """
    return parse_mapping(read_toml(path), default_bank=path.stem)


def parse_mapping(root: TomlTable, *, default_bank: str) -> Mapping:
    """Validate the root table of a mapping.

    Raises
    ------
    SettingsError
        As `load_mapping`.
    """
    bank = root.optional_text("bank") or default_bank
    transaction = root.required_table("transaction")
    time = _time(root.table("time"))
    currencies = _currencies(root.required_table("currencies"))
    amount = root.table("amount")
    tables = root.table("table")
    label_table = root.table("label")
    mapping = Mapping(
        bank=bank,
        transaction_id=_at(transaction, "transaction_id"),
        event_time=_at(transaction, "event_time"),
        account_id=_at(transaction, "account_id"),
        amount=_at(transaction, "amount"),
        currency=_currency_place(transaction, currencies),
        currencies=currencies,
        time=time,
        unit=cast("Unit", amount.choice("unit", ("decimal", "minor"), "decimal")),
        entities=_entities(root.table("entities")),
        attributes=_attributes(root.table("attributes")),
        verdicts=read_verdicts(label_table),
        label=_label(label_table, time),
        table_label=tables.optional_text("label", "a column name"),
        table_bank=tables.optional_text("bank", "a column name"),
    )
    for table in (transaction, amount, tables, label_table, root):
        table.finish()
    return mapping


def _at(table: TomlTable, key: str) -> At:
    return _split(table, key, table.text(key, _A_PATH))


def _split(table: TomlTable, key: str, text: str) -> At:
    path = tuple(text.split("."))
    if not all(path):
        raise table.error(key, _A_PATH, repr(text))
    return At(path)


def _place(table: TomlTable, key: str) -> Place:
    if isinstance(table.value(key), dict):
        inner = table.table(key)
        constant = inner.text("constant")
        inner.finish()
        return Always(constant)
    return _at(table, key)


def _currency_place(table: TomlTable, currencies: AbstractMapping[str, Currency]) -> Place:
    place = _place(table, "currency")
    if isinstance(place, Always) and place.value not in currencies:
        raise table.error(
            "currency", f"one of [currencies]: {', '.join(currencies)}", repr(place.value)
        )
    return place


def _time(table: TomlTable) -> TimeFormat:
    written = table.optional_text("format", "iso8601, epoch_s, epoch_ms or a strptime format")
    form = written or "iso8601"
    if form not in ("iso8601", *EPOCH_UNITS_MS) and "%" not in form:
        raise table.error("format", "iso8601, epoch_s, epoch_ms or a strptime format", repr(form))
    zone = table.optional_text("zone", "an IANA zone such as 'Europe/Zurich'")
    if zone is not None:
        _check_zone(table, zone)
    found = TimeFormat(format=form, zone=zone, origin_ms=_origin_ms(table, form))
    table.finish()
    return found


def _check_zone(table: TomlTable, zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError) as error:
        raise table.error("zone", "an IANA zone such as 'Europe/Zurich'", repr(zone)) from error


def _origin_ms(table: TomlTable, form: str) -> int:
    expected = "an instant with offset such as '2018-04-01T00:00:00Z'"
    text = table.value("origin")
    if text is None:
        return 0
    if form not in EPOCH_UNITS_MS:
        raise table.error("origin", "no origin unless format is epoch_s or epoch_ms", repr(text))
    try:
        moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    except ValueError as error:
        raise table.error("origin", expected, repr(text)) from error
    if moment.tzinfo is None:
        raise table.error("origin", expected, repr(text))
    return round(moment.astimezone(UTC).timestamp() * 1000)


def _currencies(table: TomlTable) -> AbstractMapping[str, Currency]:
    if not table.values:
        raise table.error("EUR", "at least one currency with its reference rate", "nothing")
    found = {code: _currency(table, code) for code in table.values}
    unknown = [code for code, currency in found.items() if not currency.is_known]
    if unknown and len(found) > 1:
        raise table.error(unknown[0], "no other currency beside one of unknown rate", "several")
    return MappingProxyType(found)


def _currency(table: TomlTable, code: str) -> Currency:
    is_known = table.value(code) != UNKNOWN
    expected = f"units of the reference currency per unit, above 0, or {UNKNOWN!r}"
    rate = table.positive(code, expected) if is_known else 1.0
    if code == NO_CURRENCY:
        return Currency(_EXPONENT_OF_NO_CURRENCY, rate, is_known)
    try:
        return Currency(exponent_of(code), rate, is_known)
    except InvalidInputError as error:
        got = str(error).rpartition("got ")[2]
        raise table.error(code, f"an ISO 4217 code or {NO_CURRENCY}", got) from error


def _entities(table: TomlTable) -> AbstractMapping[str, At]:
    return MappingProxyType({kind: _at(table, kind) for kind in table.values})


def _attributes(table: TomlTable) -> AbstractMapping[str, AttributePlace]:
    found = {}
    for name in table.values:
        inner = table.required_table(name)
        kind = cast("AttributeType", inner.choice("type", ("number", "text")))
        is_known = inner.value("scale") is None
        if not is_known and (kind != "number" or inner.value("scale") != UNKNOWN):
            expected = f"{UNKNOWN!r} for a number, or nothing"
            raise inner.error("scale", expected, repr(inner.value("scale")))
        found[name] = AttributePlace(_at(inner, "path"), kind, is_known)
        inner.finish()
    return MappingProxyType(found)


def _label(table: TomlTable, time: TimeFormat) -> LabelMapping | None:
    paths = ("transaction_id", "account_id", "is_fraud", "source", "sources", "labelled_at", "time")
    if not any(table.value(key) is not None for key in paths):
        return None
    sources = table.table("sources")
    return LabelMapping(
        transaction_id=_at(table, "transaction_id"),
        is_fraud=_at(table, "is_fraud"),
        source=_source(table),
        labelled_at=_at(table, "labelled_at"),
        account_id=None if table.value("account_id") is None else _at(table, "account_id"),
        time=time if table.value("time") is None else _time(table.table("time")),
        sources=MappingProxyType(
            {word: cast("LabelSource", sources.choice(word, SOURCES)) for word in sources.values}
        ),
    )


def _source(table: TomlTable) -> Place:
    place = _place(table, "source")
    if isinstance(place, Always) and place.value not in SOURCES:
        raise table.error("source", "a constant of " + ", ".join(SOURCES), repr(place.value))
    return place
