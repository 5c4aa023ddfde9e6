"""Features of entities against a plain recomputation from all outcomes, own and the others'."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.features.accounts import DAY_MS, HOUR_MS, NEVER, RING
from models.features.entities import (
    N_FEATURES,
    add_others,
    clear_others_day,
    clear_others_hours,
    learn_outcomes,
    new_entities,
    read,
)
from models.schema import ENTITY_FEATURES
from tests.unit.models.test_accounts import MINUTE_MS, START_MS, windowed

START_DAY = START_MS // DAY_MS
N_ENTITIES = 3
GAP_MS = 30 * DAY_MS
NO_HOUR = 255


class Outcome(NamedTuple):
    entity: int
    paid_ms: int
    known_ms: int
    is_fraud: bool


class Cell(NamedTuple):
    entity: int
    day: int
    hour: int
    n: int
    f: int
    paid_ms: int

    @property
    def known_ms(self) -> int:
        return self.day * DAY_MS + self.hour * HOUR_MS


@st.composite
def outcome_lists(draw: st.DrawFn) -> list[Outcome]:
    """Outcomes in the order in which they became known, which is that of payment."""
    found, paid, known = [], START_MS - 10 * DAY_MS, START_MS
    steps = st.sampled_from([0, 60, 24 * 60, 7 * 24 * 60, 31 * 24 * 60]) | st.integers(0, 3_000)
    rows = st.tuples(st.integers(0, N_ENTITIES - 1), steps, steps, st.booleans())
    for entity, pause, delay, is_fraud in draw(st.lists(rows, max_size=30)):
        paid += pause * MINUTE_MS
        known = max(known, paid + delay * MINUTE_MS)
        found.append(Outcome(entity, paid, known, is_fraud))
    return found


@st.composite
def releases(draw: st.DrawFn) -> list[Cell]:
    """Cells of one release: within 31 days of the newest, frauds paid in the order of days."""
    rows = st.tuples(
        st.integers(0, N_ENTITIES - 1),
        st.integers(-30, 0),
        st.integers(0, 23),
        st.integers(0, 3),
        st.integers(0, 5),
    )
    cells = [
        Cell(entity, START_DAY + back, hour, f + more, f, (START_DAY + 2 * back - 7) * DAY_MS)
        for entity, back, hour, f, more in draw(st.lists(rows, max_size=30))
        if f + more
    ]
    return sorted(cells, key=lambda cell: cell.known_ms)


QUERIES = st.lists(
    st.tuples(
        st.integers(-1, N_ENTITIES - 1),
        st.sampled_from([0, 23, 24, 24 * 7, 24 * 30, 24 * 31]) | st.integers(0, 24 * 40),
        st.integers(0, 59),
    ),
    min_size=1,
    max_size=10,
)


def newest_run(times: Iterable[int]) -> int | None:
    """Return the first of the newest frauds between which no more than 30 days pass."""
    first = last = None
    for time in sorted(times):
        if last is None or time - last > GAP_MS:
            first = time
        last = time
    return first


def age_d(then_ms: int | None, now_ms: int) -> float:
    return 60.0 if then_ms is None else min(max(now_ms - then_ms, 0) / DAY_MS, 60.0)


def features(
    n: dict[int, float], f: dict[int, float], frauds: list[int], legit: list[int], now_ms: int
) -> list[float]:
    """Return the row of features from window counts and event times of outcomes."""
    last_fraud, last_legit = max(frauds, default=None), max(legit, default=None)
    found = {
        **{f"n_{w}d": math.log1p(n[w]) for w in (7, 30)},
        **{f"f_{w}d": math.log1p(f[w]) for w in (1, 7, 30)},
        **{f"risk_{w}d": f[w] / (n[w] + k) for w, k in ((1, 0.5), (7, 1.0), (30, 2.0))},
        "fraud_age": math.log(max(age_d(last_fraud, now_ms), 1e-3)),
        "legit_age": math.log(max(age_d(last_legit, now_ms), 1e-3)),
        "last_label_is_fraud": float((last_fraud or NEVER) > (last_legit or NEVER)),
        "episode_age": age_d(newest_run(frauds), now_ms) / 30.0,
    }
    return [found[name] for name in ENTITY_FEATURES]


def window_counts(counts: list[tuple[int, float]], now_ms: int) -> dict[int, float]:
    return {
        1: windowed(counts, now_ms, HOUR_MS, 24),
        7: windowed(counts, now_ms, DAY_MS, 7),
        30: windowed(counts, now_ms, DAY_MS, 30),
    }


def expected(
    outcomes: list[Outcome], cells: list[Cell], entity: int, now_ms: int
) -> tuple[list[float], list[float]]:
    """Return (own, shared) features of one query."""
    if entity < 0:
        return [math.nan] * N_FEATURES, [math.nan] * N_FEATURES
    mine = [outcome for outcome in outcomes if outcome.entity == entity]
    theirs = [cell for cell in cells if cell.entity == entity]
    frauds = [outcome.paid_ms for outcome in mine if outcome.is_fraud]
    legit = [outcome.paid_ms for outcome in mine if not outcome.is_fraud]
    n = [(outcome.known_ms, 1.0) for outcome in mine]
    f = [(outcome.known_ms, 1.0) for outcome in mine if outcome.is_fraud]
    own = features(window_counts(n, now_ms), window_counts(f, now_ms), frauds, legit, now_ms)
    n += [(cell.known_ms, cell.n) for cell in theirs]
    f += [(cell.known_ms, cell.f) for cell in theirs]
    frauds += [cell.paid_ms for cell in theirs if cell.f]
    legit += [cell.paid_ms for cell in theirs if cell.n > cell.f]
    shared = features(window_counts(n, now_ms), window_counts(f, now_ms), frauds, legit, now_ms)
    return own, shared


def learn(state: NDArray[np.void], outcomes: list[Outcome]) -> None:
    columns = [np.array(column) for column in zip(*outcomes, strict=True)]
    if columns:
        learn_outcomes(state, *columns)


def install(state: NDArray[np.void], days: NDArray[np.int64], cells: list[Cell]) -> None:
    """Put a release's cells in, the hours of its two newest days too."""
    everyone = np.arange(N_ENTITIES)
    for day in range(START_DAY - 30, START_DAY + 1):
        with_hours = day >= START_DAY - 1
        days[day % RING] = day
        clear_others_day(state, everyone, day)
        if with_hours:
            clear_others_hours(state, everyone, day)
        add(state, [cell for cell in cells if cell.day == day], with_hours=with_hours)


def add(
    state: NDArray[np.void], cells: list[Cell], sign: int = 1, *, with_hours: bool = True
) -> None:
    """Add cells of one day; with a negative sign take counts out again."""
    if not cells:
        return
    entity, _, hour, n, f, paid = (np.array(column) for column in zip(*cells, strict=True))
    nothing = np.full(len(cells), NEVER)
    add_others(
        state,
        entity,
        cells[0].day,
        hour.astype(np.uint8) if with_hours else np.full(len(cells), NO_HOUR, np.uint8),
        (sign * n).astype(np.float32),
        (sign * f).astype(np.float32),
        np.where(f > 0, paid, NEVER) if sign > 0 else nothing,
        np.where(f > 0, paid, NEVER) if sign > 0 else nothing,
        np.where(n > f, paid, NEVER) if sign > 0 else nothing,
    )


def ask(
    state: NDArray[np.void], days: NDArray[np.int64], queries: list[tuple[int, int]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    own, shared = (np.full((len(queries), N_FEATURES), 7.0, np.float32) for _ in range(2))
    row, time = (np.array(column) for column in zip(*queries, strict=True))
    read(state, days, row, time, own, shared)
    return own, shared


def times(queries: list[tuple[int, int, int]], since_ms: int = START_MS) -> list[tuple[int, int]]:
    """Return (entity, instant) of queries given by hours and minutes since a moment."""
    return [(e, since_ms + hours * HOUR_MS + minute * MINUTE_MS) for e, hours, minute in queries]


def never_installed() -> NDArray[np.int64]:
    return np.full(RING, NEVER, np.int64)


def assert_rows(got: NDArray[np.float32], rows: Iterable[list[float]]) -> None:
    """Compare; counts are whole, so that only the last rounding to float32 is left."""
    for k, (name, column) in enumerate(zip(ENTITY_FEATURES, zip(*rows, strict=True), strict=True)):
        np.testing.assert_allclose(got[:, k], column, 2e-7, 1e-7, err_msg=name)


@given(outcomes=outcome_lists(), queries=QUERIES)
def test_own_features_are_those_of_all_outcomes(
    outcomes: list[Outcome], queries: list[tuple[int, int, int]]
) -> None:
    """Without others, own and shared are the same; an entity that is not named is all NaN."""
    state = new_entities(N_ENTITIES)
    learn(state, outcomes)
    wanted = times(queries, outcomes[-1].known_ms if outcomes else START_MS)
    own, shared = ask(state, never_installed(), wanted)
    assert own.tobytes() == shared.tobytes()
    assert_rows(own, [expected(outcomes, [], *query)[0] for query in wanted])


@given(cells=releases(), queries=QUERIES)
def test_the_others_evidence_counts_in_shared_features_alone(
    cells: list[Cell], queries: list[tuple[int, int, int]]
) -> None:
    """By the same windows as if the outcomes were own; own features know nothing of them."""
    state, days = new_entities(N_ENTITIES), never_installed()
    install(state, days, cells)
    # asked on the release's newest day or later
    wanted = times(queries)
    own, shared = ask(state, days, wanted)
    both = [expected([], cells, *query) for query in wanted]
    assert_rows(own, [row for row, _ in both])
    assert_rows(shared, [row for _, row in both])


@given(outcomes=outcome_lists(), cells=releases(), queries=QUERIES)
def test_own_and_the_others_evidence_add_up(
    outcomes: list[Outcome], cells: list[Cell], queries: list[tuple[int, int, int]]
) -> None:
    """Every window and age as of the outcomes of both, the episode's start left out."""
    state, days = new_entities(N_ENTITIES), never_installed()
    learn(state, outcomes)
    install(state, days, cells)
    wanted = times(queries, max([START_MS, *(outcome.known_ms for outcome in outcomes)]))
    shared = ask(state, days, wanted)[1]
    rows = np.array([expected(outcomes, cells, *query)[1] for query in wanted])
    # two runs of frauds are known by their ends alone: see the test on two sides' episodes
    shared[:, -1] = rows[:, -1] = 0.0
    assert ENTITY_FEATURES[-1] == "episode_age"
    assert_rows(shared, rows.tolist())


@given(
    own=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    theirs=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    pause=st.integers(-80, 80),
)
def test_an_episode_of_two_sides_is_the_newest_run_of_both(
    own: list[int], theirs: list[int], pause: int
) -> None:
    """Each side has one run, with at most 30 days between its frauds; they may meet or not."""
    ours = (np.cumsum(own) + START_DAY).tolist()
    others = (np.cumsum(theirs) + START_DAY + pause).tolist()
    state = new_entities(1)
    learn(state, [Outcome(0, day * DAY_MS, day * DAY_MS, True) for day in ours])
    for day in others:
        add(state, [Cell(0, day, 0, 1, 1, day * DAY_MS)])
    now = max(ours[-1], others[-1]) * DAY_MS
    shared = ask(state, never_installed(), [(0, now)])[1]
    start = newest_run(day * DAY_MS for day in ours + others)
    assert shared[0, -1] == pytest.approx(age_d(start, now) / 30, rel=1e-6)


def test_evidence_of_earlier_frauds_moves_the_episode_s_start() -> None:
    """Another bank's frauds of day 70 and then 45 join those of day 100; of day 10 they do not."""
    state = new_entities(1)
    for paid, start in ((100, 100), (70, 70), (45, 45), (10, 45)):
        add(state, [Cell(0, START_DAY, 0, 1, 1, paid * DAY_MS)])
        shared = ask(state, never_installed(), [(0, 101 * DAY_MS)])[1]
        assert shared[0, -1] == pytest.approx((101 - start) / 30, rel=1e-6)


@given(cells=releases(), more=releases(), queries=QUERIES)
def test_counts_taken_out_again_leave_the_rest(
    cells: list[Cell], more: list[Cell], queries: list[tuple[int, int, int]]
) -> None:
    """Own cells in a release, subtracted, leave the windows as the others alone make them."""
    days, other_days = never_installed(), never_installed()
    state, alone = new_entities(N_ENTITIES), new_entities(N_ENTITIES)
    install(state, days, sorted(cells + more, key=lambda cell: cell.known_ms))
    for cell in more:
        add(state, [cell], -1, with_hours=cell.day >= START_DAY - 1)
    install(alone, other_days, cells)
    counts = slice(0, ENTITY_FEATURES.index("fraud_age"))
    got = ask(state, days, times(queries))[1][:, counts]
    assert got.tobytes() == ask(alone, other_days, times(queries))[1][:, counts].tobytes()


@given(outcomes=outcome_lists(), cells=releases(), cuts=st.sets(st.integers(1, 30)))
def test_batches_cut_anywhere_give_the_same_bits(
    outcomes: list[Outcome], cells: list[Cell], cuts: set[int]
) -> None:
    """Learning in pieces leaves the same state, and reading row by row the same features."""
    days = never_installed()
    whole, pieces = new_entities(N_ENTITIES), new_entities(N_ENTITIES)
    learn(whole, outcomes)
    for start, stop in pairwise([0, *sorted(cuts), len(outcomes)]):
        learn(pieces, outcomes[start:stop])
    assert pieces.tobytes() == whole.tobytes()
    install(whole, days, cells)
    queries = [(o.entity, o.known_ms) for o in outcomes] or [(0, START_MS)]
    for k, features_of_all in enumerate(ask(whole, days, queries)):
        one_by_one = [ask(whole, days, [query])[k] for query in queries]
        assert np.concatenate(one_by_one).tobytes() == features_of_all.tobytes()


def test_outcomes_of_no_entity_are_skipped() -> None:
    """Row -1 is nobody, not the last one."""
    state = new_entities(2)
    learn(state, [Outcome(-1, START_MS, START_MS, True)])
    assert state.tobytes() == new_entities(2).tobytes()


@pytest.mark.parametrize("hour", [0, 12, 23])
def test_an_hour_leaves_the_last_day_by_its_share(hour: int) -> None:
    """Frauds of one hour, asked 24 hours later: all are left, then a quarter, then none."""
    state, days = new_entities(N_ENTITIES), never_installed()
    install(state, days, [Cell(0, START_DAY, hour, 8, 8, START_MS)])
    queries = times([(0, hour + 24, 0), (0, hour + 24, 45), (0, hour + 25, 0)])
    shared = ask(state, days, queries)[1]
    frauds = np.expm1(shared[:, ENTITY_FEATURES.index("f_1d")])
    assert frauds == pytest.approx([8.0, 2.0, 0.0], rel=1e-6)


@pytest.mark.parametrize("hour", [0, 12, 23])
@pytest.mark.parametrize("day", [START_DAY, START_DAY + 1])
def test_a_day_is_replaced_by_clearing_and_adding(day: int, hour: int) -> None:
    """The newer version of a day's cells stands in place of the older, for the given rows only."""
    state, days = new_entities(2), never_installed()
    old, new = Cell(0, day, hour, 9, 0, START_MS), Cell(0, day, hour, 2, 0, START_MS)
    bystander = Cell(1, day, hour, 4, 0, START_MS)
    days[day % RING] = day
    add(state, [old, bystander])
    clear_others_day(state, np.array([0]), day)
    clear_others_hours(state, np.array([0]), day)
    add(state, [new])
    shared = ask(state, days, [(0, (day + 1) * DAY_MS - 1), (1, (day + 1) * DAY_MS - 1)])[1]
    assert np.expm1(shared[:, 0]) == pytest.approx([2.0, 4.0], rel=1e-6)
    hours = np.flatnonzero(state["others_hour_n"][0])
    assert state["others_hour_n"][0][hours].tolist() == [2.0]


def test_a_slot_that_holds_another_day_is_not_read() -> None:
    """Evidence of 32 days ago stands where today's will."""
    state, days = new_entities(1), never_installed()
    days[START_DAY % RING] = START_DAY
    add(state, [Cell(0, START_DAY, 0, 5, 0, START_MS)])
    shared = ask(state, days, [(0, START_MS), (0, START_MS + RING * DAY_MS)])[1]
    counts = np.expm1(shared[:, ENTITY_FEATURES.index("n_30d")])
    assert counts == pytest.approx([5.0, 0.0], rel=1e-6)
