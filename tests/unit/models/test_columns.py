"""A column read at once is its values read one by one, faults and all."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import columns, fields
from models.errors import DecodeError
from models.instants import FIRST_MS, LAST_MS, time_reader
from models.mapping import (
    Always,
    At,
    AttributePlace,
    Currency,
    LabelMapping,
    Mapping,
    TimeFormat,
)
from models.records import written_values
from models.verdicts import Verdicts

NAME = "field"
ODD = st.sampled_from([None, "", True, "x", [1], {}, b"x", float("nan"), float("inf"), 10**400])
TEXTS = st.text(max_size=3) | st.integers(-5, 5).map(str) | st.just("x" * 257)
MONEY = st.floats(0, 2e15) | st.integers(0, 10**15) | st.decimals(0, 10**6, places=3).map(float)
TIES = st.integers(0, 10**7).map(lambda n: n / 200)


def column_of(*kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Return lists of one kind each, and lists of all of them mixed with odd values."""
    pure = [st.lists(kind, max_size=8) for kind in kinds]
    return st.one_of(*pure, st.lists(st.one_of(*kinds, ODD), max_size=8))


def read_each(
    values: Sequence[Any], read: Callable[[Any], Any], blank: Any
) -> tuple[list[Any], dict[int, tuple[str, str]]]:
    """Return what the rule of one value gives for each, and the faults."""
    found, faults = [], {}
    for i, value in enumerate(values):
        try:
            found.append(read(value))
        except DecodeError as error:
            found.append(blank)
            faults[i] = (error.reason, error.detail)
    return found, faults


def check(
    call: Callable[[dict[int, tuple[str, str]]], Any],
    values: Sequence[Any],
    read: Callable[[Any], Any],
    blank: Any,
) -> None:
    """Compare a column function, given a place for faults, with its rule value by value."""
    faults: dict[int, tuple[str, str]] = {}
    got = list(call(faults))
    expected, expected_faults = read_each(values, read, blank)
    assert got == expected
    assert faults == expected_faults


@given(values=column_of(TEXTS, st.integers(-(2**65), 2**65)))
def test_identifiers_are_read_as_one_by_one(values: list[Any]) -> None:
    """Required and optional ones."""
    check(
        lambda faults: columns.texts(values, NAME, faults),
        values,
        lambda value: fields.text_of(value, NAME),
        "",
    )
    check(
        lambda faults: columns.optional_texts(values, NAME, faults),
        values,
        lambda value: fields.optional_text_of(value, NAME),
        None,
    )


@given(values=st.lists(st.none() | TEXTS, max_size=8))
def test_optional_identifiers_may_be_none(values: list[str | None]) -> None:
    """The usual column of an entity."""
    check(
        lambda faults: columns.optional_texts(values, NAME, faults),
        values,
        lambda value: fields.optional_text_of(value, NAME),
        None,
    )


def check_minors(values: Any, exponents: list[int], unit: Any) -> None:
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    check(
        lambda faults: columns.minors(values, np.array(exponents, np.int64), unit, faults).tolist(),
        list(enumerate(plain)),
        lambda pair: fields.minor_of(pair[1], exponents[pair[0]], unit),
        0,
    )


@given(
    values=column_of(
        MONEY,
        TIES,
        st.floats(),
        st.integers() | st.booleans(),
        MONEY.map(str),
        MONEY.map(lambda x: Decimal(str(x))),
    ),
    exponents=st.lists(st.sampled_from([0, 2, 3, 4]), min_size=8, max_size=8),
    unit=st.sampled_from(["decimal", "minor"]),
)
def test_amounts_are_read_as_one_by_one(values: list[Any], exponents: list[int], unit: str) -> None:
    """To the minor unit, ties and sizes near the limit included, each in its own currency."""
    check_minors(values, exponents[: len(values)], unit)


@given(
    values=st.lists(MONEY | TIES | st.floats(), max_size=8),
    whole=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10**15), max_size=8),
    exponent=st.sampled_from([0, 2, 3, 4]),
)
def test_amounts_of_a_table_are_read_as_one_by_one(
    values: list[float], whole: list[int], exponent: int
) -> None:
    """Columns of float64 and int64."""
    check_minors(np.array(values, np.float64), [exponent] * len(values), "decimal")
    check_minors(np.array(whole, np.int64), [exponent] * len(whole), "decimal")


def test_every_tie_goes_to_the_even_cent() -> None:
    """Halves of a cent up to 500, though many products with 100 are just beside the half."""
    halves = np.arange(1, 100_000, 2)
    faults: dict[int, tuple[str, str]] = {}
    cents = columns.minors(halves / 200, np.full(len(halves), 2), "decimal", faults)
    assert cents.tolist() == [half // 2 + (half // 2) % 2 for half in halves.tolist()]
    assert faults == {}


ENDS_MS = st.sampled_from([FIRST_MS - 1, FIRST_MS, LAST_MS - 1, LAST_MS])
INSTANTS_MS = st.integers(FIRST_MS, LAST_MS) | ENDS_MS


@given(
    values=column_of(
        INSTANTS_MS,
        INSTANTS_MS.map(lambda ms: ms / 1000),
        ENDS_MS,
        st.integers() | st.booleans(),
        st.floats(),
        INSTANTS_MS.map(str),
    ),
    form=st.sampled_from(["epoch_s", "epoch_ms"]),
    origin_ms=st.sampled_from([0, 1_522_540_800_000, -(10**12)]),
)
def test_epoch_instants_are_read_as_one_by_one(
    values: list[Any], form: str, origin_ms: int
) -> None:
    """Whole and with parts, in and out of the years 2000 to 2099."""
    time = TimeFormat(format=form, origin_ms=origin_ms)
    check(
        lambda faults: columns.instants(values, time, NAME, faults).tolist(),
        values,
        time_reader(time, NAME),
        0,
    )


@given(values=column_of(st.datetimes().map(lambda moment: moment.isoformat()), st.text(max_size=4)))
def test_written_instants_are_read_as_one_by_one(values: list[Any]) -> None:
    """Texts are not numbers in a format of texts."""
    time = TimeFormat(zone="Europe/Zurich")
    check(
        lambda faults: columns.instants(values, time, NAME, faults).tolist(),
        values,
        time_reader(time, NAME),
        0,
    )


@given(
    values=column_of(
        st.floats(-1e307, 1e307),
        st.integers(-(10**30), 10**30) | st.booleans(),
        st.none() | st.floats(-9, 9),
        st.floats(-9, 9).map(str),
    )
)
def test_number_attributes_are_read_as_one_by_one(values: list[Any]) -> None:
    """None is absent, whatever is not finite is refused."""
    place = AttributePlace(At(("age",)), "number")
    check(
        lambda faults: list(written_values(columns.attributes(values, NAME, place, faults))),
        values,
        lambda value: fields.number_of(value, NAME),
        None,
    )


def test_attributes_are_floats_or_texts_as_the_mapping_says() -> None:
    """A whole number becomes a float in one and digits in the other."""
    number, text = (AttributePlace(At(("a",)), kind) for kind in ("number", "text"))
    found = columns.attributes([3, None], NAME, number, {})
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float64
    assert written_values(found) == [3.0, None]
    assert written_values(columns.attributes([3, None], NAME, text, {})) == ["3", None]


@pytest.mark.parametrize("legit", [None, frozenset({"g", "0", "false"})])
@given(
    values=column_of(
        st.sampled_from(["F", "f", "G", "other"]),
        st.integers(-1, 2),
        st.integers(0, 1) | st.booleans(),
        st.sampled_from([0.0, 1.0, 0.5]),
    )
)
def test_verdicts_are_read_as_one_by_one(legit: frozenset[str] | None, values: list[Any]) -> None:
    """With and without words for legitimate; 1 and True are different words."""
    rules = Verdicts(fraud=frozenset({"f", "1"}), legit=legit)
    check(
        lambda faults: columns.verdicts(values, rules, faults).tolist(),
        values,
        lambda value: fields.verdict_of(value, rules),
        False,
    )


def label(source: At | Always, sources: dict[str, Any]) -> LabelMapping:
    place = At(("x",))
    return LabelMapping(
        transaction_id=place, is_fraud=place, source=source, labelled_at=place, sources=sources
    )


def test_sources_are_the_bank_s_words_the_canonical_ones_or_one_constant() -> None:
    """Words of the mapping take the place of the canonical ones; a constant looks at no value."""
    faults: dict[int, tuple[str, str]] = {}
    own = label(At(("by",)), {"CB": "chargeback"})
    assert columns.sources(["CB", "analyst"], own, faults) == ["chargeback", "rule"]
    assert {i: reason for i, (reason, _) in faults.items()} == {1: "unknown_source"}
    assert columns.sources(["analyst", "rule"], label(At(("by",)), {}), {}) == ["analyst", "rule"]
    assert columns.sources([None, 7], label(Always("analyst"), {}), {}) == ["analyst"] * 2


def mapping() -> Mapping:
    place = At(("x",))
    return Mapping(
        bank="b",
        transaction_id=place,
        event_time=place,
        account_id=place,
        amount=place,
        currency=place,
        currencies={"EUR": Currency(2, 1.0), "JPY": Currency(0, 0.006), "BHD": Currency(3, 2.4)},
    )


@pytest.mark.parametrize(
    ("code", "reason"),
    [("USD", "unknown_currency"), ("eur", "unknown_currency"), (None, "missing_field"),
     ("", "missing_field"), (978, "wrong_type"), (["EUR"], "wrong_type")],
)  # fmt: skip
def test_a_currency_is_one_of_the_mapping_s(code: object, reason: str) -> None:
    """Its place among them; the neighbours of a bad one come through."""
    faults: dict[int, tuple[str, str]] = {}
    assert columns.currency_indices(["BHD", "EUR"], mapping(), faults).tolist() == [2, 0]
    assert faults == {}
    assert columns.currency_indices(["BHD", code, "JPY"], mapping(), faults).tolist() == [2, 0, 1]
    assert {i: why for i, (why, _) in faults.items()} == {1: reason}


def test_reference_amounts_are_minor_units_over_their_scale_times_the_rate() -> None:
    """12.34 EUR at 1, 500 JPY at .006 and 1.234 BHD at 2.4."""
    known = list(mapping().currencies.values())
    index: NDArray[np.intp] = np.array([0, 1, 2])
    assert columns.exponents_of(known, index[::-1]).tolist() == [3, 0, 2]
    amounts = columns.reference_amounts(np.array([1234, 500, 1234]), known, index)
    assert amounts == pytest.approx([12.34, 500 * 0.006, 1.234 * 2.4], rel=1e-15)


def test_the_first_fault_of_a_row_stays() -> None:
    """A later column does not put its own in place."""
    faults = {1: ("missing_field", "first")}
    columns.texts(["a", None, None], NAME, faults)
    assert faults[1] == ("missing_field", "first")
    assert faults[2][1].startswith(NAME)


def test_a_number_is_bounded_alike_whatever_stands_beside_it() -> None:
    """A clean column and one that is read value by value refuse the same numbers."""
    place = AttributePlace(At(("a",)), "number")
    for neighbour in (3, "3"):
        faults: columns.Faults = {}
        found = columns.attributes([1e308, neighbour], "a", place, faults)
        assert written_values(found) == [None, 3.0]
        assert faults[0][0] == "too_large"
