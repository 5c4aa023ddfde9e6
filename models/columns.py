"""Whole columns of written values -> canonical columns; JSON records and tables share this code.

A clean column is converted at once, a column with anything unusual value by value with the rules
of `models.fields`; both give the same values. Faulty rows are noted and hold a placeholder until
the caller drops them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.errors import DecodeError
from models.fields import (
    LARGEST,
    MAX_AMOUNT_MINOR,
    MAX_TEXT_CHARS,
    minor_of,
    number_of,
    optional_text_of,
    source_of,
    text_of,
    verdict_of,
)
from models.instant_columns import read_instants
from models.instants import FIRST_MS, LAST_MS, TimeReader, time_reader
from models.mapping import (
    EPOCH_UNITS_MS,
    SOURCES,
    Always,
    AttributePlace,
    Currency,
    LabelMapping,
    Mapping,
    TimeFormat,
    Unit,
)
from models.record_shapes import Faults
from models.records import AttributeColumn, LabelSource
from models.verdicts import Verdicts
from models.words import ABSENT, Words

Values = Sequence[object] | NDArray[np.float64] | NDArray[np.int64]

_T = TypeVar("_T")
_NUMBERS = frozenset({int, float})
_OPTIONAL_NUMBERS = frozenset({int, float, type(None)})
_OPTIONAL_TEXTS = frozenset({str, type(None)})
_WORDS = frozenset({int, bool, str})
_NEAR_A_TIE = 0.25
EXACT_CHARS = 15
"""A number written in so many characters is the same read as float64 or exactly."""


def texts(
    values: Sequence[object], name: str, faults: Faults, *, are_checked: bool = False
) -> Sequence[str]:
    """Return required identifiers; such as are ``are_checked`` are known to be good."""
    if are_checked or (set(map(type, values)) == {str} and _are_usual(values)):
        return values  # type: ignore[return-value]  # all are str
    return _each(values, lambda value: text_of(value, name), faults, "")


def optional_texts(
    values: Sequence[object], name: str, faults: Faults, *, are_checked: bool = False
) -> Sequence[str | None]:
    """Return identifiers, None where absent; such as are ``are_checked`` are known to be good."""
    if are_checked or _are_optional_texts(values):
        return values  # type: ignore[return-value]  # all are str or None
    return _each(values, lambda value: optional_text_of(value, name), faults, None)


def minors(
    values: Values, exponents: NDArray[np.int64], unit: Unit, faults: Faults
) -> NDArray[np.int64]:
    """Return amounts in minor units.

    Parameters
    ----------
    values
        Written amounts.
    exponents
        int64 of shape (n,): decimals of each row's currency.
    unit
        What they are written in.
    faults
        Takes the faulty rows.
    """
    readers = {e: partial(minor_of, exponent=e, unit=unit) for e in set(exponents.tolist())}
    number = _as_floats(values)
    if number is None:
        of_row = map(readers.__getitem__, exponents.tolist())
        found = [_one(values[i], read, faults, i, 0) for i, read in enumerate(of_row)]
        return np.array(found, np.int64)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused below
        scaled = number * 10.0**exponents if unit == "decimal" else number
        nearest = np.rint(scaled)
        is_clear = np.abs(scaled - nearest) < _NEAR_A_TIE
    is_clear &= (number >= 0) & (scaled <= MAX_AMOUNT_MINOR)
    minor = np.where(is_clear, nearest, 0).astype(np.int64)
    for i in np.flatnonzero(~is_clear).tolist():
        minor[i] = _one(_plain(values[i]), readers[int(exponents[i])], faults, i, 0)
    return minor


def instants(values: Values, time: TimeFormat, name: str, faults: Faults) -> NDArray[np.int64]:
    """Return instants in milliseconds since 1970 UTC."""
    read = time_reader(time, name)
    if time.format not in EPOCH_UNITS_MS:
        return _written_instants(values, time, read, faults)  # type: ignore[arg-type]  # texts are lists
    number = _as_floats(values)
    if number is None:
        return np.array(_each(values, read, faults, 0), np.int64)
    with np.errstate(over="ignore"):  # what is not finite is refused below
        at_ms = np.rint(number * EPOCH_UNITS_MS[time.format]) + time.origin_ms
    is_good = (at_ms >= FIRST_MS) & (at_ms < LAST_MS)
    found = np.where(is_good, at_ms, 0).astype(np.int64)
    for i in np.flatnonzero(~is_good).tolist():
        found[i] = _one(_plain(values[i]), read, faults, i, 0)
    return found


def currency_indices(codes: Sequence[object], mapping: Mapping, faults: Faults) -> NDArray[np.intp]:
    """Return which of the mapping's currencies each row is in."""
    index = {code: i for i, code in enumerate(mapping.currencies)}
    try:
        return np.array([index[code] for code in codes], np.intp)  # type: ignore[index]  # else KeyError
    except (KeyError, TypeError):
        accepted = ", ".join(index)
        return np.array(
            _each(codes, lambda code: _known_currency(code, index, accepted), faults, 0), np.intp
        )


def _written_instants(
    values: Sequence[object], time: TimeFormat, read: TimeReader, faults: Faults
) -> NDArray[np.int64]:
    is_text = len(values) > 0 and set(map(type, values)) == {str} and bool(values[0])
    found = read_instants(values, time) if is_text else None  # type: ignore[arg-type]  # all are str
    if found is None:
        return np.array(_each(values, read, faults, 0), np.int64)
    for i in np.flatnonzero((found < FIRST_MS) | (found >= LAST_MS)).tolist():
        found[i] = _one(values[i], read, faults, i, 0)
    return found


def attributes(
    values: Sequence[object],
    name: str,
    place: AttributePlace,
    faults: Faults,
    *,
    are_checked: bool = False,
) -> AttributeColumn:
    """Return the values of one attribute; texts as in `optional_texts`."""
    if place.type == "text":
        return Words.of(optional_texts(values, name, faults, are_checked=are_checked))
    return optional_numbers(values, name, faults)


def optional_numbers(values: Sequence[object], name: str, faults: Faults) -> NDArray[np.float64]:
    """Return numbers, NaN where absent."""
    if set(map(type, values)) <= _OPTIONAL_NUMBERS:
        try:
            found = np.array(values, np.float64)
        except OverflowError:
            pass
        else:
            if are_bounded(found, n_absent=list(values).count(None)):
                return found
    each = _each(values, lambda value: number_of(value, name), faults, None)
    return np.array(each, np.float64)


def are_bounded(numbers: NDArray[np.float64] | NDArray[np.float32], *, n_absent: int) -> bool:
    """Return whether all but the absent ones are finite and in bounds; NaN is no written value."""
    n_good = int(np.count_nonzero(np.abs(numbers) < np.float64(LARGEST)))
    return n_good + n_absent == len(numbers)


def coded_texts(
    codes: NDArray[np.int32], words: Sequence[object], name: str, faults: Faults
) -> Words:
    """Return texts that are coded already, by the rules of `optional_texts`.

    Parameters
    ----------
    codes
        int32 of shape (n,): index into ``words``, -1 where absent.
    words
        Written values.
    name
        The field, for messages.
    faults
        Takes the faulty rows.
    """
    of_word: Faults = {}
    clean = Words.of(optional_texts(words, name, of_word))
    for row in np.flatnonzero(np.isin(codes, list(of_word))).tolist():
        faults.setdefault(row, of_word[int(codes[row])])
    return Words(np.append(clean.codes, np.int32(ABSENT))[codes], clean.words)


def verdicts(values: Sequence[object], rules: Verdicts, faults: Faults) -> NDArray[np.bool_]:
    """Return True for fraud."""
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= _WORDS:
        try:
            known = {word: verdict_of(word, rules) for word in set(values)}
            return np.array([known[value] for value in values], np.bool_)
        except DecodeError:
            pass
    return np.array(_each(values, lambda value: verdict_of(value, rules), faults, False), np.bool_)


def sources(values: Sequence[object], label: LabelMapping, faults: Faults) -> list[LabelSource]:
    """Return who said it."""
    known: dict[str, LabelSource] = dict(label.sources) or {each: each for each in SOURCES}
    if isinstance(label.source, Always):
        return [known.get(label.source.value, "chargeback")] * len(values)
    return _each(values, lambda value: source_of(value, known), faults, "rule")


def exponents_of(currencies: Sequence[Currency], index: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return the decimals of each row's currency."""
    return np.array([each.exponent for each in currencies], np.int64)[index]


def reference_amounts(
    minor: NDArray[np.int64], currencies: Sequence[Currency], index: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return amounts in the reference currency; the one place where this is computed.

    Parameters
    ----------
    minor
        int64 of shape (n,): minor units.
    currencies
        The distinct currencies.
    index
        intp of shape (n,): which of them each row is in.
    """
    scale = np.array([10.0**each.exponent for each in currencies])
    rate = np.array([each.reference_rate for each in currencies])
    amounts: NDArray[np.float64] = minor.astype(np.float64) / scale[index] * rate[index]
    return amounts


def _known_currency(code: object, index: dict[str, int], accepted: str) -> int:
    if code is None or code == "":
        raise DecodeError("missing_field", "currency: expected a code, got nothing")
    if not isinstance(code, str):
        raise DecodeError("wrong_type", "currency: expected a text")
    if code not in index:
        raise DecodeError("unknown_currency", f"currency: expected one of {accepted}")
    return index[code]


def _are_optional_texts(values: Sequence[object]) -> bool:
    is_of_texts = set(map(type, values)) <= _OPTIONAL_TEXTS
    return is_of_texts and _are_usual([value for value in values if value is not None])


def _are_usual(values: Sequence[object]) -> bool:
    lengths = set(map(len, values))  # type: ignore[arg-type]  # all are str
    return not lengths or (min(lengths) > 0 and max(lengths) <= MAX_TEXT_CHARS)


def _as_floats(values: Values) -> NDArray[np.float64] | None:
    """Return numbers as float64, None when some are not numbers."""
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    if not set(map(type, values)) <= _NUMBERS:
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _each(values: Values, read: Callable[[object], _T], faults: Faults, blank: _T) -> list[_T]:
    try:
        return [read(value) for value in values]
    except DecodeError:
        return [_one(value, read, faults, i, blank) for i, value in enumerate(values)]


def _one(value: object, read: Callable[[object], _T], faults: Faults, row: int, blank: _T) -> _T:
    try:
        return read(value)
    except DecodeError as error:
        faults.setdefault(row, (error.reason, error.detail))
        return blank
