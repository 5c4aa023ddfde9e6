"""An index that is being moved into a larger table is the same index, and no call moves much."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from models.features import digest_index, key_index, moving, name_index
from models.features.digest_index import DigestIndex
from models.features.key_index import ABSENT, KeyIndex
from models.features.moving import Moving
from models.features.name_index import NameIndex

KEYS = st.integers(0, 60) | st.integers(0, 2**64 - 1)


@pytest.fixture(autouse=True, scope="module")
def _small_tables() -> Iterator[None]:
    """They grow again and again, and are moved a slot at a time."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (digest_index, key_index, name_index):
            patch.setattr(module, "_FIRST_CAPACITY", 4)
        patch.setattr(moving, "_LEAST", 1)
        patch.setattr(moving, "_PER_KEY", 2)
        yield


class Keys(RuleBasedStateMachine):
    """An index of keys beside a dictionary; each rule does the same to both."""

    def __init__(self) -> None:
        super().__init__()
        self.index = KeyIndex()
        self.known: dict[int, int] = {}
        self.next_number = 0

    @rule(keys=st.lists(KEYS, max_size=12))
    def add(self, keys: list[int]) -> None:
        for key in keys:
            if key not in self.known:
                self.known[key], self.next_number = self.next_number, self.next_number + 1
        found = self.index.add(np.array(keys, np.uint64))
        assert found.tolist() == [self.known[key] for key in keys]

    @rule(n=st.integers(0, 9))
    def remove(self, n: int) -> None:
        gone = sorted(self.known, key=self.known.__getitem__)[:n]
        self.index.remove_oldest(np.array(gone, np.uint64))
        for key in gone:
            del self.known[key]

    @rule(keys=st.lists(KEYS, max_size=8))
    def find(self, keys: list[int]) -> None:
        found = self.index.find(np.array(keys, np.uint64))
        assert found.tolist() == [self.known.get(key, ABSENT) for key in keys]

    @invariant()
    def has_the_same_number(self) -> None:
        assert self.index.next_number == self.next_number


TestKeys = Keys.TestCase
TestKeys.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.parametrize("kind", ["digests", "names"])
def test_what_is_asked_for_while_it_is_moved_is_found(kind: str) -> None:
    """In batches of any size, known ones among the new; every one at every time."""
    rng = np.random.default_rng(6)
    words = rng.integers(0, 2**63, (3_000, 2)).astype(np.uint64)
    digests, names, n = DigestIndex(), NameIndex(), 0
    while n < len(words):
        new, again = words[n : n + rng.integers(1, 30)], words[rng.integers(0, n + 1, 5)]
        both = np.concatenate([new, again])
        rows = np.r_[n : n + len(new), [np.flatnonzero((words == w).all(axis=1))[0] for w in again]]
        n += len(new)
        if kind == "digests":
            digests.put(both, rows)
            assert digests.find(both)[0].tolist() == rows.tolist()
            found, are_all_there = digests.find(words[:n])
            assert are_all_there
        else:
            kinds = np.zeros(len(both), np.uint8)
            assert names.rows(both.view(np.uint8), kinds).tolist() == rows.tolist()
            found = names.rows(words[:n].view(np.uint8), np.zeros(n, np.uint8))
        assert found.tolist() == list(range(n))


def test_no_call_moves_much_and_a_table_is_moved_before_the_next_is_full() -> None:
    """Twice as many slots as may be new keys, and one; the next table has room for as many."""
    held = Moving("slots", 1_000)
    spans = []
    while True:
        spans.append(held.next(10))
        if held.unless_done() is None:
            break
    assert spans[0] == (0, 21)
    assert [start for start, _ in spans[1:]] == [stop for _, stop in spans[:-1]]
    assert spans[-1][1] == 1_000
    assert 10 * len(spans) <= 1_000 // 2
