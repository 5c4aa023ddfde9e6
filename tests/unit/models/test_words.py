"""Coded texts are the list of the same texts, cut and joined alike."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.words import Words, concatenate_words

TEXTS = st.lists(st.none() | st.sampled_from(["web", "till", "", "é"]), max_size=8)


@given(texts=TEXTS)
def test_a_column_is_the_list_that_it_was_made_of(texts: list[str | None]) -> None:
    """Row by row, as a whole, and at four bytes a row with each text once."""
    column = Words.of(texts)
    assert len(column) == len(texts)
    assert [column[i] for i in range(len(texts))] == texts
    assert column.tolist() == list(column) == texts
    assert column.codes.dtype == np.int32
    assert list(column.words) == list(dict.fromkeys(text for text in texts if text is not None))


@given(texts=TEXTS, start=st.integers(-9, 9), stop=st.integers(-9, 9))
def test_a_slice_is_the_slice_of_the_list(texts: list[str | None], start: int, stop: int) -> None:
    """The words are shared, not copied."""
    column = Words.of(texts)
    part = column[start:stop]
    assert part.tolist() == texts[start:stop]
    assert part.words is column.words


@given(data=st.data(), texts=TEXTS.filter(bool))
def test_taken_rows_come_in_the_order_asked(data: st.DataObject, texts: list[str | None]) -> None:
    """Repeated, backwards, none at all."""
    index = data.draw(st.lists(st.integers(0, len(texts) - 1)))
    taken = Words.of(texts)[np.array(index, np.int64)]
    assert taken.tolist() == [texts[i] for i in index]


@given(lists=st.lists(TEXTS, max_size=4), cut=st.integers(0, 8))
def test_joined_columns_are_the_rows_one_after_the_other(
    lists: list[list[str | None]], cut: int
) -> None:
    """Of columns with words of their own, and of parts of one column; no word comes twice."""
    parts = [Words.of(texts) for texts in lists]
    joined = concatenate_words(parts)
    assert joined.tolist() == [text for texts in lists for text in texts]
    assert len(set(joined.words)) == len(joined.words)
    again = concatenate_words([joined[:cut], joined[cut:]])
    assert again.tolist() == joined.tolist()
    assert again.words is joined.words
