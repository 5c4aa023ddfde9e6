"""Columns of written times mean what `datetime` says, whatever their layout."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.instant_columns import UNREAD, read_instants
from models.instants import time_reader
from models.mapping import TimeFormat

MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31))  # noqa: DTZ001  # wall times
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@given(
    moments=st.lists(MOMENTS, min_size=1, max_size=20),
    offset=OFFSETS,
    precision=st.sampled_from(["seconds", "milliseconds", "microseconds"]),
    separator=st.sampled_from(["T", " "]),
)
def test_iso_times_with_an_offset_are_those_of_datetime(
    moments: list[datetime], offset: timezone, precision: str, separator: str
) -> None:
    """To the millisecond, parts of one cut off."""
    aware = [moment.replace(tzinfo=offset) for moment in moments]
    texts = [moment.isoformat(separator, precision) for moment in aware]
    found = read_instants(texts, TimeFormat())
    assert found is not None
    assert found.tolist() == [milliseconds(datetime.fromisoformat(text)) for text in texts]


@given(moments=st.lists(MOMENTS, min_size=1, max_size=20))
def test_wall_times_of_a_zone_are_those_of_zoneinfo(moments: list[datetime]) -> None:
    """Clock changes included; an hour that comes twice is the earlier one."""
    zone = ZoneInfo("Europe/Zurich")
    form = "%d.%m.%Y %H:%M:%S"
    texts = [moment.strftime(form) for moment in moments]
    found = read_instants(texts, TimeFormat(format=form, zone="Europe/Zurich"))
    assert found is not None
    whole = [moment.replace(microsecond=0, tzinfo=zone) for moment in moments]
    assert found.tolist() == [milliseconds(moment) for moment in whole]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%Y%m%d%H%M%S%z", "20260105120000+0100"),
        ("%Y%m%d%H%M%S%z", "20260105120000-05:30"),
        ("%d/%m/%Y %H:%M:%S.%f %z", "05/01/2026 12:00:00.123456 +0000"),
        ("iso8601", "2026-01-05T12:00:00,250Z"),
        ("iso8601", "2026-01-05T12:00:00+0100"),
    ],
)
def test_every_layout_is_read_as_one_by_one(form: str, text: str) -> None:
    """Offsets with and without a colon, fractions after a point or comma."""
    time = TimeFormat(format=form)
    found = read_instants([text] * 3, time)
    assert found is not None
    assert found.tolist() == [time_reader(time, "t")(text)] * 3


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T12:00:00Z",
        "2026-13-01T12:00:00Z",
        "2026-00-01T12:00:00Z",
        "2026-04-31T12:00:00Z",
        "2026-01-05T24:00:00Z",
        "2026-01-05T12:60:00Z",
        "2026-01-05T12:00:60Z",
        "2026-01-05T12:00:0xZ",
        "2026-01-05T12.00:00Z",
    ],
)
def test_what_is_no_time_is_left_to_the_careful_reader(text: str) -> None:
    """Its neighbours are read all the same."""
    good = "2024-02-29T23:59:59Z"
    found = read_instants([good, text, good], TimeFormat())
    assert found is not None
    expected = milliseconds(datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC))
    assert found.tolist() == [expected, UNREAD, expected]


@pytest.mark.parametrize(
    ("texts", "time"),
    [
        (["2026-01-05T12:00:00Z", "2026-01-05T12:00Z"], TimeFormat()),
        (["2026-01-05T12:00:00"], TimeFormat()),
        (["soon"], TimeFormat()),
        (["2026-01-05T12:00:0\u0660Z"], TimeFormat()),
        (["05 Jan 2026 11:00:00"], TimeFormat(format="%d %b %Y %H:%M:%S", zone="UTC")),
    ],
)
def test_a_column_without_one_layout_is_read_one_by_one(texts: list[str], time: TimeFormat) -> None:
    """Mixed lengths, no offset and no zone, other digits, names of months."""
    assert read_instants(texts, time) is None


def test_every_day_of_the_century_is_counted() -> None:
    """Leap years by the calendar's rule."""
    days = [datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(36_525)]
    found = read_instants([f"{day:%Y-%m-%d}T00:00:00Z" for day in days], TimeFormat())
    assert found is not None
    assert np.array_equal(np.diff(found), np.full(36_524, 86_400_000))
    assert found[0] == milliseconds(days[0])
