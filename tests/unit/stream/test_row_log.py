"""The log of scored rows: appended, settled, due in order, and forgotten from the front."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from models.features.key_index import ABSENT
from stream.row_log import FRAUD, LEGIT, PENDING, RowLog


@pytest.fixture(autouse=True, scope="module")
def _few_places() -> Iterator[None]:
    """Logs use places again soon, and have more soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.stretches.FIRST_PLACES", 16)
        yield


def a_log() -> RowLog:
    return RowLog(n_entities=2, n_features=3, n_own=2, n_experts=2)


def rows(hashes: list[int], arrival_ms: int = 0) -> dict[str, np.ndarray]:
    """Return rows whose every column follows from the hash."""
    base = np.array(hashes, np.int64)[:, None]
    return {
        "hash": np.array(hashes, np.uint64),
        "event_ms": base[:, 0] * 10,
        "arrival_ms": np.full(len(hashes), arrival_ms),
        "account": base[:, 0] + 1,
        "entity": base + np.array([2, 3]),
        "features": (base + np.array([0.25, 0.5, 0.75])).astype(np.float32),
        "own": (base + np.array([4.0, 5.0])).astype(np.float32),
        "scores": (base + np.array([6.0, np.nan])).astype(np.float32),
    }


@pytest.mark.parametrize("n", [1, 4_096, 4_097, 9_000])
def test_rows_come_back_as_they_were_given(n: int) -> None:
    """However far the columns have to grow, at once or bit by bit; outcomes are open."""
    hashes = list(range(n))
    log = a_log()
    for start in range(0, n, 1_000):
        part = hashes[start : start + 1_000]
        assert log.append(rows(part, 7)) == slice(start, start + len(part))
    whole = a_log()
    whole.append(rows(hashes, 7))
    for name, column in rows(hashes, 7).items():
        for each in (log, whole):
            assert np.array_equal(each.column(name), column, equal_nan=column.dtype.kind == "f")
            found = each.at(np.arange(n)[::-3]).column(name)
            assert np.array_equal(found, column[::-3], equal_nan=column.dtype.kind == "f")
    assert log.size == n
    assert (log.known_ms == -1).all()
    assert (log.outcome == PENDING).all()


def test_a_transaction_is_found_by_its_hash() -> None:
    """Also one of 64 bits; an unknown one is absent."""
    log = a_log()
    high = rows([1, 2])
    high["hash"] = np.array([2**64 - 1, 2**63], np.uint64)
    log.append(high)
    asked = np.array([2**64 - 1, 2**63, 1], np.uint64)
    assert log.find(asked).tolist() == [0, 1, ABSENT]


def test_rows_are_due_once_and_only_while_pending() -> None:
    """Those scored at or before the instant; a row with an outcome is passed over."""
    log = a_log()
    for arrival_ms in (10, 20, 20, 30):
        log.append(rows([log.size], arrival_ms))
    log.settle(np.array([1]), np.array([FRAUD], np.int8), np.array([25]))
    assert log.due(9).tolist() == []
    assert log.due(20).tolist() == [0, 2]
    assert log.due(20).tolist() == []
    assert log.due(5).tolist() == []
    assert log.due(100).tolist() == [3]


def test_matured_rows_are_those_known_since_an_instant() -> None:
    """A pending row is not, however early the instant."""
    log = a_log()
    log.append(rows([0, 1, 2]))
    log.settle(np.array([0, 2]), np.array([LEGIT, FRAUD], np.int8), np.array([50, 60]))
    assert log.matured_since(-10).tolist() == [0, 2]
    assert log.matured_since(51).tolist() == [2]


def test_pending_rows_are_never_forgotten() -> None:
    """However old they are."""
    log = a_log()
    for arrival_ms in range(8):
        log.append(rows([arrival_ms], arrival_ms))
    log.drop_before(100, keep_from=log.size, max_matured=1_000)
    assert log.size == 8
    log.settle(log.due(3), np.full(4, LEGIT, np.int8), np.full(4, 9))
    log.drop_before(100, keep_from=log.size, max_matured=1_000)
    assert log.hash.tolist() == [4, 5, 6, 7]
    assert log.find(np.array([3, 4], np.uint64)).tolist() == [ABSENT, 0]
    assert log.due(4).tolist() == [0]


def test_of_too_many_rows_the_oldest_matured_go() -> None:
    """However young; what is pending stays."""
    log = a_log()
    for arrival_ms in range(80):
        log.append(rows([arrival_ms], arrival_ms))
    log.settle(log.due(59), np.full(60, LEGIT, np.int8), np.full(60, 99))
    log.drop_before(0, keep_from=80, max_matured=60)
    assert log.size == 80
    log.drop_before(0, keep_from=80, max_matured=50)
    assert log.hash.tolist() == list(range(10, 80))
    assert log.first_pending == 50
    log.drop_before(0, keep_from=12, max_matured=1)
    assert log.hash.tolist() == list(range(22, 80))


@dataclass
class Row:
    """What a list would hold of a row."""

    key: int
    arrival_ms: int
    outcome: int = PENDING
    known_ms: int = -1
    passed: bool = field(default=False)


class Machine(RuleBasedStateMachine):
    """A log beside a plain list of rows; each rule does the same to both."""

    def __init__(self) -> None:
        super().__init__()
        self.log = a_log()
        self.list: list[Row] = []
        self.now_ms = 0
        self.next_key = 0

    @rule(n=st.integers(0, 20), gap_ms=st.integers(0, 5))
    def append(self, n: int, gap_ms: int) -> None:
        self.now_ms += gap_ms
        keys = list(range(self.next_key, self.next_key + n))
        self.next_key += n
        self.log.append(rows(keys, self.now_ms))
        self.list += [Row(key, self.now_ms) for key in keys]

    @rule(key=st.integers(0, 100), outcome=st.sampled_from([LEGIT, FRAUD]))
    def settle(self, key: int, outcome: int) -> None:
        index = int(self.log.find(np.array([key], np.uint64))[0])
        held = [i for i, row in enumerate(self.list) if row.key == key]
        assert (held or [ABSENT]) == [index]
        if index != ABSENT:
            self.log.settle(
                np.array([index]), np.array([outcome], np.int8), np.array([self.now_ms])
            )
            self.list[index].outcome, self.list[index].known_ms = outcome, self.now_ms

    @rule(back_ms=st.integers(-2, 12))
    def mature(self, back_ms: int) -> None:
        until_ms = self.now_ms - back_ms
        due = [
            i
            for i, row in enumerate(self.list)
            if row.arrival_ms <= until_ms and not row.passed and row.outcome == PENDING
        ]
        for row in self.list:
            row.passed |= row.arrival_ms <= until_ms
        found = self.log.due(until_ms)
        assert found.tolist() == due
        self.log.settle(found, np.full(len(due), LEGIT, np.int8), np.full(len(due), self.now_ms))
        for i in due:
            self.list[i].outcome, self.list[i].known_ms = LEGIT, self.now_ms

    @rule(back_ms=st.integers(0, 12))
    def drop(self, back_ms: int) -> None:
        old = [row for row in self.list if row.arrival_ms < self.now_ms - back_ms and row.passed]
        before = self.log.size
        self.log.drop_before(self.now_ms - back_ms, keep_from=self.log.size, max_matured=1_000)
        assert before - self.log.size == len(old)
        del self.list[: len(old)]

    @rule()
    def restart(self) -> None:
        arrays = {name: array.copy() for name, array in self.log.arrays().items()}
        first_pending, self.log = self.log.first_pending, a_log()
        self.log.load(arrays)
        self.log.first_pending = first_pending

    @invariant()
    def holds_the_same(self) -> None:
        keys = [row.key for row in self.list]
        assert self.log.hash.tolist() == keys
        assert self.log.outcome.tolist() == [row.outcome for row in self.list]
        assert self.log.known_ms.tolist() == [row.known_ms for row in self.list]
        assert self.log.arrival_ms.tolist() == [row.arrival_ms for row in self.list]
        assert self.log.entity.tolist() == [[key + 2, key + 3] for key in keys]


TestAnyOrderOfCalls = Machine.TestCase
TestAnyOrderOfCalls.settings = settings(max_examples=30, stateful_step_count=30)
