"""One written value becomes one canonical value or an error with a reason and without the value."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DecodeError
from models.fields import (
    MAX_AMOUNT_MINOR,
    MAX_NUMBER_CHARS,
    MAX_TEXT_CHARS,
    REASONS,
    decimal_of,
    kind_of,
    minor_of,
    number_of,
    optional_text_of,
    source_of,
    text_of,
    verdict_of,
)
from models.verdicts import Verdicts

CLOSED = Verdicts(fraud=frozenset({"f", "1"}), legit=frozenset({"g", "0"}))
SOURCES = {"CB": "chargeback", "desk": "analyst"}
DIGITS = st.decimals(0, 10**9, allow_nan=False, places=None)


def reason_of(read: Callable[..., Any], *args: Any) -> str:
    """Return the reason of the error, which is one of the closed set."""
    with pytest.raises(DecodeError) as caught:
        read(*args)
    assert caught.value.reason in REASONS
    return caught.value.reason


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("C1", "C1"),
        (" C1 ", " C1 "),
        (0, "0"),
        (-7, "-7"),
        (2**64 - 1, "18446744073709551615"),
        (-(2**63), "-9223372036854775808"),
        ("x" * MAX_TEXT_CHARS, "x" * MAX_TEXT_CHARS),
        ("日本", "日本"),
    ],
)
def test_identifiers_are_texts_or_digits(value: object, text: str) -> None:
    """As they are written, up to 256 characters and 64 bits."""
    assert text_of(value, "id") == text
    assert optional_text_of(value, "id") == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x" * (MAX_TEXT_CHARS + 1), "too_large"),
        (2**64, "too_large"),
        (-(2**63) - 1, "too_large"),
        (True, "wrong_type"),
        (1.0, "wrong_type"),
        (Decimal(1), "wrong_type"),
        (["C1"], "wrong_type"),
        ({}, "wrong_type"),
    ],
)
def test_other_values_are_no_identifiers(value: object, reason: str) -> None:
    """Whether it is required or not."""
    assert reason_of(text_of, value, "id") == reason
    assert reason_of(optional_text_of, value, "id") == reason


@pytest.mark.parametrize("absent", [None, ""])
def test_none_and_empty_text_are_absent(absent: object) -> None:
    """An error where something is required, None where it is not."""
    assert optional_text_of(absent, "id") is None
    assert number_of(absent, "age") is None
    assert reason_of(text_of, absent, "id") == "missing_field"
    assert reason_of(decimal_of, absent, "amount") == "missing_field"
    assert reason_of(minor_of, absent, 2, "decimal") == "missing_field"
    assert reason_of(verdict_of, absent, CLOSED) == "missing_field"
    assert reason_of(source_of, absent, SOURCES) == "missing_field"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, "3"),
        (0.1, "0.1"),
        (1e22, "1e22"),
        (Decimal("1.10"), "1.1"),
        ("12.50", "12.5"),
        (" +1. ", "1"),
        (".5", "0.5"),
        ("-2E3", "-2000"),
        ("1e-7", "0.0000001"),
    ],
)
def test_numbers_are_read_exactly(value: object, number: str) -> None:
    """A float by its shortest digits, a text with blanks around it."""
    assert decimal_of(value, "amount") == Decimal(number)
    assert number_of(value, "age") == float(number)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("12,50", "wrong_type"),
        ("1_000", "wrong_type"),
        ("٣", "wrong_type"),
        ("0x10", "wrong_type"),
        (".", "wrong_type"),
        ("1e", "wrong_type"),
        ("1e1234567", "wrong_type"),
        ("--1", "wrong_type"),
        ("1 2", "wrong_type"),
        ("  ", "missing_field"),
        (True, "wrong_type"),
        ([1], "wrong_type"),
        (float("nan"), "not_finite"),
        (-math.inf, "not_finite"),
        (Decimal("sNaN"), "not_finite"),
        ("+Infinity", "not_finite"),
        ("nan", "not_finite"),
        ("1" * (MAX_NUMBER_CHARS + 1), "too_large"),
    ],
)
def test_other_values_are_no_numbers(value: object, reason: str) -> None:
    """ASCII digits only, finite, never a boolean."""
    assert reason_of(decimal_of, value, "amount") == reason
    assert reason_of(number_of, value, "age") == reason
    assert reason_of(minor_of, value, 2, "decimal") == reason


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e999999", Decimal("1e400"), 10**400])
def test_numbers_beyond_float64_are_refused(value: object) -> None:
    """From 1e308 on, and not turned into infinity."""
    assert reason_of(number_of, value, "age") == "too_large"


def test_numbers_near_the_ends_of_float64_are_kept() -> None:
    """The largest power of ten that is taken, and what is too small to be told from 0."""
    assert number_of("9e307", "age") == 9e307
    assert number_of("1e-999999", "age") == 0.0


@given(
    number=DIGITS | st.floats(0, 1e9).map(lambda value: Decimal(repr(value))),
    exponent=st.sampled_from([0, 2, 3, 4]),
    as_text=st.booleans(),
)
def test_amounts_are_rounded_half_to_even(number: Decimal, exponent: int, as_text: bool) -> None:
    """As exact fractions round, whatever the number of decimals."""
    text = str(number)
    value = text if as_text and len(text) <= MAX_NUMBER_CHARS else number
    assert minor_of(value, exponent, "decimal") == round(Fraction(number) * 10**exponent)
    assert minor_of(value, exponent, "minor") == round(Fraction(number))


@pytest.mark.parametrize(
    ("value", "minor"),
    [("0.125", 12), ("0.135", 14), (0.145, 14), ("0.1250000000000000000000000000000001", 13)],
)
def test_ties_go_to_the_even_cent(value: object, minor: int) -> None:
    """And what is over by any digit goes up."""
    assert minor_of(value, 2, "decimal") == minor


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, "0", "-0.00", "0e999999", "1e-999999"])
def test_nothing_is_no_minor_unit(zero: object) -> None:
    """Zero of any sign and size, and what rounds to it."""
    assert minor_of(zero, 2, "decimal") == 0


@pytest.mark.parametrize(
    ("value", "exponent", "unit"),
    [
        (MAX_AMOUNT_MINOR, 2, "minor"),
        ("10000000000000.00", 2, "decimal"),
        ("10000000000000.004", 2, "decimal"),
        ("1e11", 4, "decimal"),
    ],
)
def test_the_largest_amount_is_taken(value: object, exponent: int, unit: Any) -> None:
    """1e15 minor units, after rounding."""
    assert minor_of(value, exponent, unit) == 10**15


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (10**13 + 1, "too_large"),
        ("10000000000000.006", "too_large"),
        ("1e999999", "too_large"),
        (-0.001, "negative_amount"),
        ("-1e-999999", "negative_amount"),
        (-(10**400), "negative_amount"),
    ],
)
def test_amounts_out_of_range_are_refused(value: object, reason: str) -> None:
    """Below 0 by however little, or beyond 1e15 minor units."""
    assert reason_of(minor_of, value, 2, "decimal") == reason


@pytest.mark.parametrize(
    ("value", "is_fraud"),
    [("F", True), ("f", True), (1, True), (1.0, True), (Decimal(1), True), ("1", True),
     ("G", False), (0, False), (0.0, False), ("0", False)],
)  # fmt: skip
def test_verdicts_are_the_mapping_s_words(value: object, is_fraud: bool) -> None:
    """As text without case; a whole 0 or 1 may be written as a decimal."""
    assert verdict_of(value, CLOSED) is is_fraud


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("maybe", "unknown_verdict"),
        (2, "unknown_verdict"),
        (True, "unknown_verdict"),
        (0.5, "wrong_type"),
        (float("nan"), "wrong_type"),
        ([1], "wrong_type"),
    ],
)
def test_other_verdicts_are_refused(value: object, reason: str) -> None:
    """Where the mapping names the words of both."""
    assert reason_of(verdict_of, value, CLOSED) == reason


def test_a_number_too_long_to_be_written_out_is_no_known_word() -> None:
    """Python refuses to make a text of more than 4300 digits."""
    assert reason_of(verdict_of, 10**5000, CLOSED) == "unknown_verdict"
    assert verdict_of(10**5000, Verdicts()) is False


def test_without_words_for_legitimate_everything_else_is() -> None:
    """The mapping's default: true and 1 are fraud."""
    for value, is_fraud in ((True, True), ("TRUE", True), (1, True), (False, False), ("no", False)):
        assert verdict_of(value, Verdicts()) is is_fraud


def test_sources_are_the_bank_s_own_words() -> None:
    """With case, and only those that the mapping has."""
    assert source_of("desk", SOURCES) == "analyst"
    assert reason_of(source_of, "cb", SOURCES) == "unknown_source"
    assert reason_of(source_of, 1, SOURCES) == "wrong_type"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "an object"),
        ([], "a list"),
        (True, "a boolean"),
        ("x", "a text"),
        (1, "a number"),
        (1.5, "a number"),
        (Decimal(1), "a number"),
        (None, "?"),
    ],
)
def test_kinds_are_named_in_words(value: object, words: str) -> None:
    """For messages, without the value."""
    assert kind_of(value) == words


@pytest.mark.parametrize(
    "value", ["secret4929" * 30, "secret4929", -4929, {"4929": 1}, [4929], 4929 * 10**90, -4929.5]
)
def test_no_message_repeats_the_value(value: object) -> None:
    """Whichever rule it breaks."""
    readers: list[Callable[[object], object]] = [
        lambda v: text_of(v, "id"),
        lambda v: decimal_of(v, "amount"),
        lambda v: minor_of(v, 2, "decimal"),
        lambda v: number_of(v, "age"),
        lambda v: verdict_of(v, CLOSED),
        lambda v: source_of(v, SOURCES),
    ]
    refusals = []
    for read in readers:
        try:
            read(value)
        except DecodeError as error:
            refusals.append(str(error))
    assert refusals
    assert not any("4929" in text for text in refusals)
