"""Written instants become milliseconds since 1970 UTC."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DecodeError
from models.instants import strptime_parser, time_reader
from models.mapping import TimeFormat

NOON_MS = 1_767_610_800_000  # 2026-01-05T11:00:00Z
WALL_CLOCK = st.datetimes(
    datetime(2000, 1, 2),  # noqa: DTZ001  # wall-clock time
    datetime(2099, 12, 30),  # noqa: DTZ001  # wall-clock time
)


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (TimeFormat(), "2026-01-05T11:00:00Z"),
        (TimeFormat(), "2026-01-05T12:00:00+01:00"),
        (TimeFormat(zone="Europe/Stockholm"), "2026-01-05 12:00:00"),
        (TimeFormat(zone="Europe/Stockholm"), "2026-01-05T06:00:00-05:00"),
        (TimeFormat(format="epoch_s"), 1_767_610_800),
        (TimeFormat(format="epoch_s"), "1767610800"),
        (TimeFormat(format="epoch_s"), 1_767_610_800.0001),
        (TimeFormat(format="epoch_ms"), NOON_MS),
        (TimeFormat(format="epoch_s", origin_ms=NOON_MS - 5000), 5),
        (TimeFormat(format="%d.%m.%Y %H:%M:%S", zone="Europe/Zurich"), "05.01.2026 12:00:00"),
        (TimeFormat(format="%d.%m.%Y %H:%M:%S", zone="Europe/Zurich"), "5.1.2026 12:00:00"),
        (TimeFormat(format="%Y%m%d%H%M%S%z"), "20260105120000+0100"),
        (TimeFormat(format="%d %b %Y %H:%M", zone="UTC"), "05 Jan 2026 11:00"),
    ],
)
def test_all_ways_to_write_one_instant_agree(time, written):
    """All of them mean 11:00 UTC."""
    assert time_reader(time, "event_time")(written) == NOON_MS


def test_hour_that_passes_twice_is_the_earlier_one():
    """02:30 on 2026-10-25 in Zurich is 00:30 UTC first and 01:30 UTC then."""
    read = time_reader(TimeFormat(zone="Europe/Zurich"), "event_time")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert read("2026-10-25T02:30:00") == first.timestamp() * 1000
    assert read("2026-10-25T02:30:00+01:00") == (first + timedelta(hours=1)).timestamp() * 1000


@pytest.mark.parametrize(("wall", "utc"), [("01:45", "00:45"), ("03:15", "01:15")])
def test_clock_change_takes_effect_at_its_quarter_of_an_hour(wall, utc):
    """On 2026-03-29 Zurich's clocks go from 02:00 to 03:00."""
    read = time_reader(TimeFormat(zone="Europe/Zurich"), "event_time")
    expected = datetime.fromisoformat(f"2026-03-29T{utc}:00Z")
    assert read(f"2026-03-29T{wall}:00") == expected.timestamp() * 1000


def test_time_without_offset_needs_a_zone():
    """Guessing UTC would move a bank's night."""
    with pytest.raises(DecodeError, match="zone"):
        time_reader(TimeFormat(), "event_time")("2026-01-05T11:00:00")


@given(
    WALL_CLOCK,
    st.sampled_from(["Europe/Zurich", "Australia/Lord_Howe", "America/New_York"]),
)
def test_zone_is_applied_as_the_standard_library_does(wall, zone):
    """Also around changes of the clock, by milliseconds."""
    expected = wall.replace(tzinfo=ZoneInfo(zone)) - datetime(1970, 1, 1, tzinfo=UTC)
    read = time_reader(TimeFormat(zone=zone), "event_time")
    assert read(wall.isoformat()) == expected // timedelta(milliseconds=1)


@given(
    WALL_CLOCK,
    st.sampled_from(
        ["%d.%m.%Y %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%S%M%H%d%m%Y%f", "%Y-%m-%d %H:%M"]
    ),
)
def test_fast_parser_is_strptime(moment, form):
    """A pattern is only a faster way."""
    text = moment.strftime(form)
    assert strptime_parser(form)(text) == datetime.strptime(text, form)  # noqa: DTZ007  # wall-clock times


@given(st.text("0123456789.: ", max_size=22))
def test_fast_parser_refuses_what_strptime_refuses(text):
    """Same values or the same kind of error."""
    form = "%d.%m.%Y %H:%M:%S"
    try:
        expected = datetime.strptime(text, form)  # noqa: DTZ007  # wall-clock times
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            strptime_parser(form)(text)
    else:
        assert strptime_parser(form)(text) == expected
