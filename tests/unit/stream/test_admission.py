"""Admission: each transaction once, and none whose time would lead the stream astray."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features.accounts import DAY_MS
from stream.admission import AdmissionPolicy, admit
from stream.row_log import RowLog

POLICY = AdmissionPolicy(lateness_ms=100, ahead_ms=20, jump_ms=1_000)
T = 1_000 * DAY_MS


def a_log(*hashes: int) -> RowLog:
    """Return a log that holds these transactions."""
    log = RowLog(n_entities=0, n_features=0, n_own=0, n_experts=0)
    n = len(hashes)
    log.append(
        {
            "hash": np.array(hashes, np.uint64),
            **{name: np.zeros(n, np.int64) for name in ("event_ms", "arrival_ms", "account")},
            "entity": np.zeros((n, 0), np.int64),
            **{name: np.zeros((n, 0), np.float32) for name in ("features", "own", "scores")},
        }
    )
    return log


def outcome(
    times_ms: list[int],
    hashes: list[int] | None = None,
    *,
    log: RowLog | None = None,
    watermark_ms: int = -1,
    newest_ms: int = -1,
    clock_ms: int | None = None,
) -> tuple[list[int], list[int], list[tuple[int, str]]]:
    """Return (rows taken, watermark at each, (row, reason) of the others)."""
    taken, arrival, rejected = admit(
        np.array(times_ms, np.int64),
        np.array(hashes or range(1, len(times_ms) + 1), np.uint64),
        log if log is not None else a_log(),
        watermark_ms=watermark_ms,
        newest_ms=newest_ms,
        clock_ms=clock_ms,
        policy=POLICY,
    )
    return taken.tolist(), arrival.tolist(), [(r.row, r.reason) for r in rejected]


def test_a_transaction_held_already_is_a_duplicate() -> None:
    """Whatever its time; the others of the batch are taken."""
    found = outcome([T, T, T], [7, 8, 9], log=a_log(8))
    assert found == ([0, 2], [T, T], [(1, "duplicate_transaction")])


def test_a_transaction_twice_in_a_batch_is_taken_once() -> None:
    """The first one."""
    found = outcome([T, T + 1, T + 2, T + 3], [5, 6, 5, 5])
    assert found == (
        [0, 1],
        [T, T + 1],
        [(2, "duplicate_transaction"), (3, "duplicate_transaction")],
    )


def test_the_watermark_never_falls() -> None:
    """A late event is scored at the newest instant so far."""
    assert outcome([T, T - 50, T + 3, T + 1]) == ([0, 1, 2, 3], [T, T, T + 3, T + 3], [])


@pytest.mark.parametrize(("behind_ms", "is_late"), [(100, False), (101, True)])
def test_lateness_is_measured_from_the_newest_of_the_source(behind_ms: int, is_late: bool) -> None:
    """Of this batch or of one before."""
    reasons = [(0, "late_event")] if is_late else []
    assert outcome([T - behind_ms], watermark_ms=T, newest_ms=T)[2] == reasons
    reasons = [(1, "late_event")] if is_late else []
    assert outcome([T, T - behind_ms])[2] == reasons


def test_a_source_that_is_behind_another_is_not_late() -> None:
    """Its first event may lie anywhere behind the other source's."""
    assert outcome([T - 5_000, T - 4_990], watermark_ms=T) == ([0, 1], [T, T], [])
    with_one_late = outcome([T - 5_000, T - 4_990, T - 6_000], watermark_ms=T)
    assert with_one_late == ([0, 1], [T, T], [(2, "late_event")])
    assert outcome([T - 4_950], watermark_ms=T, newest_ms=T - 5_000)[2] == []
    assert outcome([T - 5_101], watermark_ms=T, newest_ms=T - 5_000)[2] == [(0, "late_event")]


@pytest.mark.parametrize(("ahead_ms", "is_future"), [(20, False), (21, True)])
def test_no_event_lies_after_a_live_clock(ahead_ms: int, is_future: bool) -> None:
    """Not even the first one; a little for clocks that disagree."""
    expected = [(0, "future_event")] if is_future else []
    assert outcome([T + ahead_ms], clock_ms=T)[2] == expected
    assert outcome([T + ahead_ms], watermark_ms=T, clock_ms=T)[2] == expected


@pytest.mark.parametrize(("jump_ms", "is_future"), [(1_000, False), (1_001, True)])
def test_no_event_jumps_far_ahead_of_the_stream(jump_ms: int, is_future: bool) -> None:
    """In replay, where no clock vouches for it; what is refused does not move the watermark."""
    taken, arrival, rejected = outcome([T + jump_ms, T + 950], watermark_ms=T, newest_ms=T)
    assert rejected == ([(0, "future_event")] if is_future else [])
    assert taken == ([1] if is_future else [0, 1])
    assert arrival == ([T + 950] if is_future else [T + 1_000, T + 1_000])


def test_the_clock_vouches_for_a_jump_after_a_long_silence() -> None:
    """A live bank that comes back after weeks goes on at once; an event far from the clock not."""
    clock_ms = T + 50 * DAY_MS
    assert outcome([clock_ms], watermark_ms=T, newest_ms=T, clock_ms=clock_ms)[2] == []
    middle = outcome([T + 25 * DAY_MS], watermark_ms=T, newest_ms=T, clock_ms=clock_ms)
    assert middle[2] == [(0, "future_event")]


def by_hand(
    rows: list[tuple[int, int]],
    held: set[int],
    high: int,
    newest: int,
    clock_ms: int | None,
) -> tuple[list[int], list[int], list[tuple[int, str]]]:
    """Return what the rules say, row by row."""
    taken, arrival, rejected = [], [], []
    for i, (time_ms, key) in enumerate(rows):
        is_ahead = clock_ms is not None and time_ms > clock_ms + 20
        is_vouched = clock_ms is not None and abs(clock_ms - time_ms) <= DAY_MS
        if key in held:
            rejected.append((i, "duplicate_transaction"))
        elif is_ahead or (high >= 0 and time_ms > high + 1_000 and not is_vouched):
            rejected.append((i, "future_event"))
        elif high >= 0 and newest >= 0 and time_ms < newest - 100:
            rejected.append((i, "late_event"))
        else:
            high, newest = max(high, time_ms), max(newest, time_ms)
            taken.append(i)
            arrival.append(high)
    return taken, arrival, rejected


@given(
    st.lists(
        st.tuples(st.integers(0, 3_000) | st.integers(900, 1_000), st.integers(1, 1_000)),
        max_size=12,
        unique_by=lambda row: row[1],
    ),
    st.sets(st.integers(1, 1_000), max_size=100),
    st.sampled_from([(-1, -1), (0, 0), (500, 500), (1_500, 1_500), (1_500, 950), (1_500, -1)]),
    st.sampled_from([None, 0, 980, 2_500]),
)
def test_any_batch_is_taken_in_as_the_rules_say(
    rows: list[tuple[int, int]], held: set[int], marks: tuple[int, int], clock_ms: int | None
) -> None:
    """Compared with the rules applied by hand; sources may lag behind the watermark."""
    found = outcome(
        [time_ms for time_ms, _ in rows],
        [key for _, key in rows],
        log=a_log(*sorted(held)),
        watermark_ms=marks[0],
        newest_ms=marks[1],
        clock_ms=clock_ms,
    )
    assert found == by_hand(rows, held, *marks, clock_ms)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_id_that_was_refused_before_is_not_a_duplicate(cut: int) -> None:
    """The late first x was never taken, wherever the batch is cut."""
    times, hashes = [T + 500, T, T + 501], [1, 2, 2]
    log = a_log(*hashes[:0])
    whole = outcome(times, hashes)
    assert whole == ([0, 2], [T + 500, T + 501], [(1, "late_event")])
    taken, _, refused = outcome(times[:cut], hashes[:cut], log=log)
    rest, _, _ = outcome(
        times[cut:],
        hashes[cut:],
        log=a_log(*(hashes[i] for i in taken)),
        watermark_ms=T + 500,
        newest_ms=T + 500,
    )
    assert [*taken, *(row + cut for row in rest)] == [0, 2]
    assert len(refused) == (cut > 1)
