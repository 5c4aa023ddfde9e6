"""One value of a bank's record -> one canonical value; shared by records and tables.

Each function takes what stands in the record (text, whole number, `Decimal`, float) and returns
the canonical value or raises `DecodeError` with a reason out of `REASONS`. Rules:

- None and ``""`` are absent.
- A number may be written as text, in ASCII digits.
- A boolean is never a number.
- An amount with more decimals than its currency has is rounded half to even to whole minor units.
- No message repeats the value.
"""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal

from models.errors import DecodeError
from models.mapping import Unit
from models.records import LabelSource
from models.verdicts import Verdicts

REASONS = (
    "malformed_json",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "unknown_currency",
    "negative_amount",
    "not_finite",
    "bad_time",
    "too_large",
    "unknown_verdict",
    "unknown_source",
)
"""Why a record may be refused; fit for a metric label."""

MAX_TEXT_CHARS = 256
MAX_NUMBER_CHARS = 64
LARGEST = 1e308
"""Bound on an attribute, just under the largest float64."""
_LARGEST = Decimal("1e308")
MAX_AMOUNT_MINOR = 10**15

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
_EXACT = Context(prec=2 * MAX_NUMBER_CHARS, rounding=ROUND_HALF_EVEN)


def text_of(value: object, name: str) -> str:
    """Return a required identifier as text; whole numbers become their digits."""
    if type(value) is int and -(2**63) <= value < 2**64:
        return str(value)
    if type(value) is str and 0 < len(value) <= MAX_TEXT_CHARS:
        return value
    if value is None or value == "":
        raise DecodeError("missing_field", f"{name}: expected a text or whole number, got nothing")
    if isinstance(value, str | int) and not isinstance(value, bool):
        raise DecodeError("too_large", f"{name}: expected at most {MAX_TEXT_CHARS} characters")
    raise DecodeError(
        "wrong_type", f"{name}: expected a text or whole number, got {kind_of(value)}"
    )


def optional_text_of(value: object, name: str) -> str | None:
    """Return an identifier that may be absent."""
    return None if value is None or value == "" else text_of(value, name)


def decimal_of(value: object, name: str) -> Decimal:
    """Return a required finite number exactly."""
    if type(value) is Decimal:
        number = value
    elif type(value) is int:
        number = Decimal(value)
    elif isinstance(value, str):
        number = _decimal_of_text(value.strip(), name)
    elif isinstance(value, float):
        number = Decimal(repr(value))
    elif value is None:
        raise DecodeError("missing_field", f"{name}: expected a number, got nothing")
    else:
        raise DecodeError("wrong_type", f"{name}: expected a number, got {kind_of(value)}")
    if not number.is_finite():
        raise DecodeError("not_finite", f"{name}: expected a finite number")
    return number


def _decimal_of_text(text: str, name: str) -> Decimal:
    if not text:
        raise DecodeError("missing_field", f"{name}: expected a number, got nothing")
    if len(text) > MAX_NUMBER_CHARS:
        raise DecodeError("too_large", f"{name}: expected at most {MAX_NUMBER_CHARS} characters")
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    if _NOT_FINITE.fullmatch(text):
        raise DecodeError("not_finite", f"{name}: expected a finite number")
    raise DecodeError("wrong_type", f"{name}: expected a number, got another text")


def minor_of(value: object, exponent: int, unit: Unit) -> int:
    """Return an amount in minor units, >= 0, rounded half to even."""
    number = decimal_of(value, "amount")
    if not number:
        return 0
    if number < 0:
        raise DecodeError("negative_amount", "amount: expected 0 or more")
    shift = exponent if unit == "decimal" else 0
    if number.adjusted() + shift > 15:  # digits of MAX_AMOUNT_MINOR
        raise DecodeError("too_large", "amount: expected at most 10**15 minor units")
    minor = int(_EXACT.to_integral_value(_EXACT.scaleb(number, shift)))
    if minor > MAX_AMOUNT_MINOR:
        raise DecodeError("too_large", "amount: expected at most 10**15 minor units")
    return minor


def number_of(value: object, name: str) -> float | None:
    """Return a finite number that may be absent."""
    if value is None or value == "":
        return None
    number = decimal_of(value, name)
    if abs(number) >= _LARGEST:
        raise DecodeError("too_large", f"{name}: expected a number within float64")
    return float(number)


def verdict_of(value: object, verdicts: Verdicts) -> bool:
    """Return True for fraud; values are compared as text without case."""
    if value is None or value == "":
        raise DecodeError("missing_field", "is_fraud: expected a verdict, got nothing")
    if isinstance(value, float | Decimal) and value in (0, 1):
        value = int(value)
    if not isinstance(value, str | int):
        raise DecodeError("wrong_type", f"is_fraud: expected a verdict, got {kind_of(value)}")
    word = str(value).lower() if isinstance(value, str) or abs(value) < 2**63 else ""
    if word in verdicts.fraud:
        return True
    if verdicts.legit is not None and word not in verdicts.legit:
        raise DecodeError("unknown_verdict", "is_fraud: expected one of the mapping's values")
    return False


def source_of(value: object, sources: Mapping[str, LabelSource]) -> LabelSource:
    """Return who said it, out of the bank's own words."""
    if value is None or value == "":
        raise DecodeError("missing_field", "source: expected who said it, got nothing")
    if not isinstance(value, str):
        raise DecodeError("wrong_type", f"source: expected a text, got {kind_of(value)}")
    if value not in sources:
        raise DecodeError("unknown_source", f"source: expected one of {', '.join(sources)}")
    return sources[value]


def kind_of(value: object) -> str:
    """Return what a value is, in words, without the value."""
    names = {dict: "an object", list: "a list", bool: "a boolean", str: "a text"}
    return names.get(type(value), "a number" if isinstance(value, int | float | Decimal) else "?")
