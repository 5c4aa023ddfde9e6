"""The index of digests behaves as a dictionary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.features.digest_index import ABSENT, DigestIndex

CROWDED = st.tuples(st.integers(2_044, 2_052), st.integers(0, 3))
DIGESTS = CROWDED | st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


def some(digests: list[tuple[int, int]]) -> np.ndarray:
    return np.array(digests, np.uint64).reshape(-1, 2)


@given(
    puts=st.lists(st.dictionaries(DIGESTS, st.integers(0, 2**40), max_size=12), max_size=6),
    asked=st.lists(DIGESTS, max_size=8),
)
def test_rows_are_those_of_a_dictionary(
    puts: list[dict[tuple[int, int], int]], asked: list[tuple[int, int]]
) -> None:
    """Of digests that share a half too, or crowd around the table's end; rows may change."""
    index, known = DigestIndex(), dict[tuple[int, int], int]()
    for rows in puts:
        index.put(some(list(rows)), np.array(list(rows.values()), np.int64))
        known |= rows
        assert index.find(some(list(known)))[0].tolist() == list(known.values())
    found, are_all_there = index.find(some(asked))
    assert found.tolist() == [known.get(digest, ABSENT) for digest in asked]
    assert are_all_there == all(digest in known for digest in asked)


def test_rows_survive_growth() -> None:
    """Five thousand digests that share their high halves, in batches."""
    digests = np.column_stack([np.arange(5_000) << 8, np.zeros(5_000)]).astype(np.uint64)
    index = DigestIndex()
    for start in range(0, 5_000, 700):
        part = slice(start, start + 700)
        index.put(digests[part], np.arange(5_000)[part])
    assert index.find(digests)[0].tolist() == list(range(5_000))
