"""The cache of rows gives what its table gives, asks it rarely, and stays bounded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.recent_rows import RecentRows


class Table:
    """Rows in order of first sight, and what was asked."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.asked: list[list[str]] = []

    def add(self, texts: list[str]) -> NDArray[np.int64]:
        self.asked.append(texts)
        return np.array([self.rows.setdefault(text, len(self.rows)) for text in texts], np.int64)


NAMES = st.sampled_from("abcdefghij")


@given(
    chunks=st.lists(st.lists(NAMES | st.none(), max_size=8), max_size=12),
    max_young=st.integers(1, 12),
)
def test_rows_are_the_tables(chunks: list[list[str | None]], max_young: int) -> None:
    """Whatever has been forgotten in between; no text is asked for twice at a time."""
    table, known = Table(), dict[str, int]()
    cache = RecentRows(table.add, {None: -1}, max_young=max_young)
    for chunk in chunks:
        expected = [-1 if text is None else known.setdefault(text, len(known)) for text in chunk]
        assert cache.rows(chunk).tolist() == expected
    assert all(len(set(asked)) == len(asked) for asked in table.asked)


def test_what_is_asked_for_again_stays_and_the_rest_goes() -> None:
    """Two generations of two: a regular is asked of the table once, a passer-by each time."""
    table = Table()
    cache = RecentRows(table.add, max_young=2)
    for i in range(9):
        cache.rows(["regular", f"passer-by {i}"])
    cache.rows(["passer-by 0"])
    asked = [text for texts in table.asked for text in texts]
    assert asked.count("regular") == 1
    assert asked.count("passer-by 0") == 2


def test_rows_that_have_changed_are_asked_for_anew() -> None:
    """After a state was loaded."""
    table = Table()
    cache = RecentRows(table.add, {None: -1})
    cache.rows(["a", "b"])
    table.rows = {"b": 0, "a": 1}
    cache.forget()
    assert cache.rows(["a", "b", None]).tolist() == [1, 0, -1]
