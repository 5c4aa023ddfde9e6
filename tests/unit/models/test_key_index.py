"""The index of keys behaves as a dictionary from keys to numbers in order of first sight."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.features.key_index import ABSENT, KeyIndex

KEYS = st.sampled_from([0, 1, 2**63, 2**64 - 1, 1 << 11, 1 << 12]) | st.integers(0, 2**64 - 1)


def some(*keys: int) -> np.ndarray:
    return np.array(keys, np.uint64)


@given(batches=st.lists(st.lists(KEYS, max_size=12), max_size=6), asked=st.lists(KEYS, max_size=8))
def test_numbers_are_those_of_a_dictionary(batches: list[list[int]], asked: list[int]) -> None:
    """Repeats within a batch and across batches, keys that fall on one slot, unknown ones."""
    index, known = KeyIndex(), {}
    for batch in batches:
        expected = [known.setdefault(key, len(known)) for key in batch]
        assert index.add(some(*batch)).tolist() == expected
    assert index.next_number == len(known)
    assert index.find(some(*asked)).tolist() == [known.get(key, ABSENT) for key in asked]


@pytest.mark.parametrize("chunk", [1, 1_023, 1_024, 1_025, 5_000])
def test_numbers_survive_growth(chunk: int) -> None:
    """Five thousand keys in batches of any size, of which many share their low bits."""
    keys = np.arange(5_000, dtype=np.uint64) << np.uint64(8)
    index = KeyIndex()
    got = [index.add(keys[i : i + chunk]) for i in range(0, 5_000, chunk)]
    assert np.concatenate(got).tolist() == list(range(5_000))
    assert index.find(keys).tolist() == list(range(5_000))


CROWDED = st.builds(
    lambda slot, turn: slot % 2_048 + 2_048 * turn, st.integers(2_044, 2_052), st.integers(0, 9)
)


@given(steps=st.lists(st.tuples(st.lists(CROWDED, max_size=12), st.integers(0, 12)), max_size=8))
def test_the_oldest_keys_can_go(steps: list[tuple[list[int], int]]) -> None:
    """Of keys that crowd around the table's end too; one that comes again is numbered anew."""
    index, known, next_number = KeyIndex(), {}, 0
    for batch, n_gone in steps:
        for key in batch:
            if key not in known:
                known[key], next_number = next_number, next_number + 1
        assert index.add(some(*batch)).tolist() == [known[key] for key in batch]
        gone = sorted(known, key=known.__getitem__)[:n_gone]
        index.remove_oldest(some(*reversed(gone)))
        known = {key: number for key, number in known.items() if key not in gone}
        assert index.find(some(*known, *gone)).tolist() == [*known.values()] + [ABSENT] * len(gone)


def test_growth_goes_on_after_keys_have_gone() -> None:
    """The numbers stay those of rows whose front has gone."""
    index = KeyIndex()
    keys = np.arange(10, 5_010, dtype=np.uint64)
    index.add(keys)
    index.remove_oldest(keys[:3_000])
    assert index.find(keys).tolist() == [ABSENT] * 3_000 + list(range(3_000, 5_000))
    more = np.arange(9_000, 13_000, dtype=np.uint64)
    assert index.add(more).tolist() == list(range(5_000, 9_000))
    assert index.find(keys[3_000:]).tolist() == list(range(3_000, 5_000))
