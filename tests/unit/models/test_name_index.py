"""The index of names behaves as a dictionary from names to rows in order of first sight."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.features.name_index import NameIndex

Name = tuple[bytes, int]
NAMES = st.tuples(
    st.sampled_from([bytes(16), bytes(15) + b"\x01", b"\x01" + bytes(15), b"\xff" * 16])
    | st.binary(min_size=16, max_size=16),
    st.sampled_from([0, 1, 255]),
)


def look_up(index: NameIndex, names: list[Name]) -> list[int]:
    """Return the rows of names given as bytes."""
    texts = np.frombuffer(b"".join(name for name, _ in names), np.uint8).reshape(-1, 16)
    return index.rows(texts, np.array([kind for _, kind in names], np.uint8)).tolist()


def held(index: NameIndex) -> list[Name]:
    """Return the names that the index says it holds, in order of rows."""
    return [
        (bytes(name), kind) for name, kind in zip(index.names, index.kinds.tolist(), strict=True)
    ]


def many(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return distinct names, far more than the index starts with room for."""
    return np.random.default_rng(seed).integers(0, 256, (n, 16)).astype(np.uint8)


@given(batches=st.lists(st.lists(NAMES, max_size=12), max_size=6))
def test_rows_are_those_of_a_dictionary(batches: list[list[Name]]) -> None:
    """Repeats within a batch and across batches, and the same name as another kind."""
    index, known = NameIndex(), {}
    for batch in batches:
        expected = [known.setdefault(name, len(known)) for name in batch]
        assert look_up(index, batch) == expected
    assert index.size == len(known)
    assert held(index) == list(known)


def test_the_kind_is_part_of_the_name() -> None:
    """One text as terminal and as merchant is two entities."""
    index = NameIndex()
    assert look_up(index, [(bytes(16), 0), (bytes(16), 1), (bytes(16), 0)]) == [0, 1, 0]


@pytest.mark.parametrize("chunk", [1, 700, 1_024, 1_025, 5_000])
def test_rows_survive_growth(chunk: int) -> None:
    """Five thousand names in batches of any size, looked up again after the table has grown."""
    index, names = NameIndex(), many(5_000)
    kinds = (np.arange(5_000) % 3).astype(np.uint8)
    got = [index.rows(names[i : i + chunk], kinds[i : i + chunk]) for i in range(0, 5_000, chunk)]
    assert np.concatenate(got).tolist() == list(range(5_000))
    assert index.rows(names[::-1], kinds[::-1]).tolist() == list(range(5_000))[::-1]
    assert index.size == 5_000
    assert index.names.tobytes() == names.tobytes()
    assert index.kinds.tobytes() == kinds.tobytes()


def test_a_known_batch_adds_nothing_however_large() -> None:
    """Room is made for names that might be new, and they are not."""
    index, names = NameIndex(), many(10)
    again = np.tile(names, (500, 1))
    rows = index.rows(again, np.zeros(5_000, np.uint8))
    assert rows.tolist() == list(range(10)) * 500
    assert index.size == 10


def test_names_that_start_at_one_slot_are_told_apart() -> None:
    """Two thousand that differ only in bits which the first slot does not depend on."""
    names = np.zeros((2_000, 16), np.uint8)
    names[:, 4:6] = np.arange(2_000, dtype=np.uint16)[:, None].view(np.uint8)
    index = NameIndex()
    kinds = np.zeros(2_000, np.uint8)
    assert index.rows(names, kinds).tolist() == list(range(2_000))
    assert index.rows(names, kinds).tolist() == list(range(2_000))


def test_names_need_not_lie_side_by_side_in_memory() -> None:
    """A view on every second row of a wider array."""
    wide = many(40).repeat(2, axis=1)
    names = wide[::2, ::2]
    index = NameIndex()
    index.rows(names, np.zeros(20, np.uint8))
    assert index.names.tolist() == names.tolist()


def test_an_empty_index_holds_nothing() -> None:
    """No name in, no row out."""
    index = NameIndex()
    assert look_up(index, []) == []
    assert index.names.shape == (0, 16)
    assert index.kinds.shape == (0,)
