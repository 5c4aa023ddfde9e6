"""Texts get the rows that their table gives, which is asked once for each."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.text_rows import TextRows, seed_of


class Table:
    """Rows in order of first sight, and what was asked."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.asked: list[str] = []

    def add(self, texts: list[str]) -> NDArray[np.int64]:
        self.asked += texts
        return np.array([self.rows.setdefault(text, len(self.rows)) for text in texts], np.int64)


NAMES = st.text(max_size=3) | st.sampled_from("abcdefghij") | st.none()


@given(chunks=st.lists(st.lists(NAMES, max_size=8), max_size=12))
def test_rows_are_the_tables(chunks: list[list[str | None]]) -> None:
    """In order of first sight; -1 for none; no text is asked for twice."""
    table, known = Table(), dict[str, int]()
    rows_of = TextRows(table.add, seed_of(b"secret"))
    for chunk in chunks:
        expected = [-1 if text is None else known.setdefault(text, len(known)) for text in chunk]
        assert rows_of.rows(chunk).tolist() == expected
    assert table.asked == list(known)


def test_rows_that_have_changed_are_asked_for_anew() -> None:
    """After a state was loaded."""
    table = Table()
    rows_of = TextRows(table.add, 7)
    rows_of.rows(["a", "b"])
    table.rows = {"b": 0, "a": 1}
    rows_of.forget()
    assert rows_of.rows(["a", "b", None]).tolist() == [1, 0, -1]


def test_the_seed_is_the_secrets_and_tells_nothing_of_it() -> None:
    """Others get other digests."""
    assert seed_of(b"a" * 32) == seed_of(b"a" * 32)
    assert seed_of(b"a" * 32) != seed_of(b"b" * 32)
