"""Written instants -> milliseconds since 1970 UTC.

An instant outside the years 2000 to 2099 is refused; whether a time fits into the stream is not
judged here. Parts of a millisecond are cut off in texts and rounded in epoch numbers. A time
without offset in the hour that a zone's clocks pass twice is the earlier one.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from models.errors import DecodeError
from models.fields import decimal_of, kind_of
from models.mapping import EPOCH_UNITS_MS, TimeFormat

FIRST_MS = 946_684_800_000  # 2000-01-01
LAST_MS = 4_102_444_800_000  # 2100-01-01, not included

TimeReader = Callable[[object], int]
_TextParser = Callable[[str], datetime]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # wall-clock arithmetic before the zone is known
_MS = timedelta(milliseconds=1)
QUARTER_MS = 900_000
_MAX_EPOCH_DIGITS = 16
_DIRECTIVE = re.compile(r"%(.)|([^%]+)", re.DOTALL)
_DIRECTIVES = {
    "Y": r"(?P<Y>[0-9]{4})",
    "m": r"(?P<m>[0-9]{2})",
    "d": r"(?P<d>[0-9]{2})",
    "H": r"(?P<H>[0-9]{2})",
    "M": r"(?P<M>[0-9]{2})",
    "S": r"(?P<S>[0-9]{2})",
    "f": r"(?P<f>[0-9]{6})",
    "z": r"(?P<z>[+-][0-9]{2}:?[0-9]{2})",
}
_NEEDED = frozenset("YmdHMS")


def time_reader(time: TimeFormat, name: str) -> TimeReader:
    """Return the function from a written instant to milliseconds; it raises `DecodeError`."""
    unit_ms = EPOCH_UNITS_MS.get(time.format)
    if unit_ms is not None:
        return _epoch_reader(unit_ms, time.origin_ms, name)
    if time.format == "iso8601":
        return _text_reader(datetime.fromisoformat, time.zone, name, "an ISO 8601 time")
    parse = strptime_parser(time.format)
    return _text_reader(parse, time.zone, name, "a time in the mapping's format")


def strptime_parser(form: str) -> _TextParser:
    """Return `datetime.strptime` for one format, several times faster for the usual texts.

    A format of year, month, day, hour, minute and second in digits (with microseconds and offset,
    in any order) is read by a compiled pattern; what that does not match goes to `strptime`.
    """
    parts = _DIRECTIVE.findall(form)
    names = [directive for directive, _ in parts if directive]
    is_usual = len(names) == len(set(names)) and _NEEDED <= set(names) <= set(_DIRECTIVES)
    if not is_usual or any(
        any(each.isspace() and each != " " for each in text) for _, text in parts
    ):
        return lambda text: datetime.strptime(text, form)  # noqa: DTZ007  # zone applied by the caller
    match = re.compile(
        "".join(_DIRECTIVES[name] if name else re.escape(text) for name, text in parts)
    ).fullmatch
    tail = [name for name in ("f", "z") if name in names]

    def parse(text: str) -> datetime:
        found = match(text)
        if found is None:
            return datetime.strptime(text, form)  # noqa: DTZ007  # zone applied by the caller
        year, month, day, hour, minute, second = found.group("Y", "m", "d", "H", "M", "S")
        rest = "".join("." + found["f"] if name == "f" else found["z"] for name in tail)
        return datetime.fromisoformat(f"{year}-{month}-{day}T{hour}:{minute}:{second}{rest}")

    return parse


@lru_cache(maxsize=65536)
def zone_offset_ms(zone: str, quarter: int) -> int:
    """Return what a zone's wall clock is ahead of UTC in one quarter of an hour of wall time."""
    if not FIRST_MS <= quarter * QUARTER_MS < LAST_MS:
        return 0
    wall = _NAIVE_EPOCH + timedelta(milliseconds=quarter * QUARTER_MS)
    offset = wall.replace(tzinfo=ZoneInfo(zone)).utcoffset()
    return 0 if offset is None else offset // _MS


def _checked_ms(at_ms: int, name: str) -> int:
    if FIRST_MS <= at_ms < LAST_MS:
        return at_ms
    raise DecodeError("bad_time", f"{name}: expected a time from 2000 to 2099")


def _epoch_reader(unit_ms: int, origin_ms: int, name: str) -> TimeReader:
    def read(value: object) -> int:
        if type(value) is int:
            return _checked_ms(value * unit_ms + origin_ms, name)
        number = decimal_of(value, name)
        if number and number.adjusted() >= _MAX_EPOCH_DIGITS:
            raise DecodeError("bad_time", f"{name}: expected a time from 2000 to 2099")
        return _checked_ms(round(float(number) * unit_ms) + origin_ms, name)

    return read


def _text_reader(parse: _TextParser, zone: str | None, name: str, expected: str) -> TimeReader:
    def read(value: object) -> int:
        if type(value) is not str or not value:
            raise _not_a_text(value, name)
        try:
            moment = parse(value)
            if moment.tzinfo is not None:
                return _checked_ms((moment - _EPOCH) // _MS, name)
        except (ValueError, OverflowError) as error:
            raise DecodeError("bad_time", f"{name}: expected {expected}") from error
        if zone is None:
            raise DecodeError("bad_time", f"{name}: expected an offset, as the mapping has no zone")
        wall_ms = (moment - _NAIVE_EPOCH) // _MS
        return _checked_ms(wall_ms - zone_offset_ms(zone, wall_ms // QUARTER_MS), name)

    return read


def _not_a_text(value: object, name: str) -> DecodeError:
    if value is None or value == "":
        return DecodeError("missing_field", f"{name}: expected a time, got nothing")
    return DecodeError("wrong_type", f"{name}: expected a text, got {kind_of(value)}")
