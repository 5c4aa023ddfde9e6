"""Whole columns of written times at once: fixed-width texts by a compiled kernel.

A column whose texts share one length and one layout of digits and signs (ISO 8601 as most systems
write it, or a mapping's format of two-digit fields) is read from its bytes. A row that does not
fit is left to `models.instants`, which gives the same value for every row that does.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.instants import QUARTER_MS, zone_offset_ms
from models.mapping import TimeFormat

UNREAD = -(2**63)
_WIDTHS = {"Y": 4, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "f": 6}
_NEEDED = frozenset("YmdHMS")
_ISO_TAIL = re.compile(r"(?:[.,](\d{3}|\d{6}))?(Z|[+-]\d\d:?\d\d)?")
_DIRECTIVE = re.compile(r"%(.)|([^%]+)", re.DOTALL)
_DIGIT, _SIGN = 1, 2  # marks in a layout beside the bytes that must stand there


class Layout(NamedTuple):
    """Where fields stand in texts of one length.

    ``expected`` is uint8 of shape (length,): a byte that must stand there, 1 for a digit, 2 for a
    sign; ``at`` int64 of shape (8,): first position of year, month, day, hour, minute, second,
    fraction, offset, -1 for none; ``n_fraction`` digits of the fraction.
    """

    expected: NDArray[np.uint8]
    at: NDArray[np.int64]
    n_fraction: int


def read_instants(values: Sequence[str], time: TimeFormat) -> NDArray[np.int64] | None:
    """Return milliseconds since 1970, ``UNREAD`` for rows to be read one by one.

    None where the whole column is to be read one by one.
    """
    length = len(values[0])
    layout = _layout(values[0], time.format)
    if layout is None or len(layout.expected) != length:
        return None
    if set(map(len, values)) != {length}:
        return None
    try:
        raw = "".join(values).encode("ascii")
    except UnicodeEncodeError:
        return None
    found = np.empty(len(values), np.int64)
    _read(np.frombuffer(raw, np.uint8).reshape(-1, length), *layout, found)
    if layout.at[7] >= 0 or values[0][-1] == "Z":
        return found
    return None if time.zone is None else _to_utc(found, time.zone)


def _to_utc(wall_ms: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    quarters, of_row = np.unique(wall_ms // QUARTER_MS, return_inverse=True)
    offset_ms = np.array([zone_offset_ms(zone, int(q)) for q in quarters], np.int64)
    return np.where(wall_ms == UNREAD, UNREAD, wall_ms - offset_ms[of_row])


def _layout(text: str, form: str) -> Layout | None:
    if form == "iso8601":
        tail = _ISO_TAIL.fullmatch(text, 19)
        if len(text) < 19 or tail is None or text[10] not in "T ":
            return None
        parts = f"%Y-%m-%d{text[10]}%H:%M:%S"
        parts += f"{text[19]}%f" if tail[1] else ""
        parts += "%z" if tail[2] and tail[2] != "Z" else tail[2] or ""
        return _laid_out(parts, len(tail[1] or ""), ":" in (tail[2] or ""))
    has_colon = text[-3:-2] == ":" and form.endswith("%z")
    return _laid_out(form, 6, has_colon)


def _laid_out(form: str, n_fraction: int, has_colon: bool) -> Layout | None:
    expected: list[int] = []
    colon = [ord(":")] if has_colon else []
    at = dict.fromkeys("YmdHMSfz", -1)
    for name, literal in _DIRECTIVE.findall(form):
        if not name:
            expected += [ord(each) for each in literal]
        elif name in at and at[name] < 0:
            at[name] = len(expected)
            width = n_fraction if name == "f" else _WIDTHS.get(name, 0)
            expected += [_DIGIT] * width
            if name == "z":
                expected += [_SIGN, _DIGIT, _DIGIT, *colon, _DIGIT, _DIGIT]
        else:
            return None
    usual = all(at[name] >= 0 for name in _NEEDED) and max(expected) < 128 and 0 not in expected
    if not usual:
        return None
    return Layout(np.array(expected, np.uint8), np.array(list(at.values()), np.int64), n_fraction)


@nb.njit(cache=True)
def _number(row, first, width):  # type: ignore[no-untyped-def]  # compiled
    total = 0
    for k in range(first, first + width):
        total = 10 * total + row[k] - 48
    return total


@nb.njit(cache=True)
def _fits(row, expected):  # type: ignore[no-untyped-def]  # compiled
    for k in range(len(expected)):
        if expected[k] == _DIGIT:
            if row[k] < 48 or row[k] > 57:
                return False
        elif expected[k] == _SIGN:
            if row[k] != 43 and row[k] != 45:
                return False
        elif row[k] != expected[k]:
            return False
    return True


@nb.njit(cache=True)
def _days(year, month, day):  # type: ignore[no-untyped-def]  # compiled
    """Return days since 1970-01-01 of a date of the Gregorian calendar, -1 for no such date."""
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = 31 - (month == 4 or month == 6 or month == 9 or month == 11)  # noqa: PLR1714  # compiled
    if month == 2:
        length = 29 if is_leap else 28
    if year < 1970 or month < 1 or month > 12 or day < 1 or day > length:
        return -1
    shifted = year - 1 if month < 3 else year
    before = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400 + before - 719468


@nb.njit(cache=True)
def _read(rows, expected, at, n_fraction, found):  # type: ignore[no-untyped-def]  # compiled
    for i in range(rows.shape[0]):
        row = rows[i]
        found[i] = UNREAD
        if not _fits(row, expected):
            continue
        days = _days(_number(row, at[0], 4), _number(row, at[1], 2), _number(row, at[2], 2))
        hour, minute = _number(row, at[3], 2), _number(row, at[4], 2)
        second = _number(row, at[5], 2)
        if days < 0 or hour > 23 or minute > 59 or second > 59:
            continue
        ms = _number(row, at[6], 3) if at[6] >= 0 else 0
        if at[7] >= 0:
            minutes_at = at[7] + (4 if row[at[7] + 3] == 58 else 3)
            ahead_h, ahead_min = _number(row, at[7] + 1, 2), _number(row, minutes_at, 2)
            if ahead_h > 23 or ahead_min > 59:
                continue
            ahead = ahead_h * 60 + ahead_min
            minute -= ahead if row[at[7]] == 43 else -ahead
        found[i] = ((days * 24 + hour) * 60 + minute) * 60_000 + second * 1_000 + ms
