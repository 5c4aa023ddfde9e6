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
from models.features.moving import Growing
from models.features.name_index import NameIndex

Table = tuple[np.ndarray, ...]
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
    """Twice as many slots as may be new keys, and one; a table has room for however many come."""
    moved: list[int] = []

    def make(n_slots: int) -> Table:
        return (np.zeros(n_slots, np.int64),)

    def move(new: Table, old: Table, first: int, last: int) -> None:
        assert len(new[0]) >= 2 * len(old[0])
        moved.append(last - first)

    slots = Growing(make=make, move=move, n_slots=4, fill=(1, 2))
    for n_held in range(0, 8_180, 10):
        slots.reserve(n_held, 10)
        assert len(slots.table[0]) >= 2 * (n_held + 10)
    assert max(moved[10:]) <= 21
    assert slots.old is None
    slots.reserve(8_180, 100_000)
    assert len(slots.table[0]) == 1 << 18


def test_the_next_table_is_all_there_before_it_is_needed() -> None:
    """Its memory was written to, page by page, and it is the one that is used."""
    made: list[Table] = []

    def make(n_slots: int) -> Table:
        made.append((np.ones(n_slots, np.int64), np.ones((n_slots, 2), np.int64)))
        return made[-1]

    slots = Growing(make=make, move=lambda *_: None, n_slots=1 << 16, fill=(3, 4))
    for n_held in range((1 << 15) * 3 // 2 - 2_000, (1 << 15) * 3 // 2 + 1_000, 10):
        slots.reserve(n_held, 10)
    assert len(made) == 2
    assert slots.table is made[1]
    for array in made[1]:
        assert not array.reshape(-1)[:: 4_096 // 8].any()
