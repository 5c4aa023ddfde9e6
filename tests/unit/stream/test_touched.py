"""Pages that are stored because they were touched: never one too few."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.pipeline import Pipeline
from stream.pipeline_state import State, dump, restore, stored
from stream.store import StateStore
from stream.touched import TABLE_PAGE_BYTES, TouchedPages
from tests.unit.stream.small_bank import (
    Trace,
    a_config,
    a_log,
    consortium_releases,
    feed,
    payments,
)

ROWS = st.lists(st.integers(0, 60), max_size=8)


@given(row_bytes=st.sampled_from([1, 8, 832, 4_096, 5_000]), batches=st.lists(ROWS, max_size=5))
def test_every_page_of_a_touched_row_is_marked(row_bytes: int, batches: list[list[int]]) -> None:
    """Also where a row crosses pages, and no page that none of them is on."""
    pages = TouchedPages(row_bytes)
    for rows in batches:
        pages.rows(np.array(rows, np.int64))
    expected = np.zeros(61 * row_bytes, np.bool_)
    for row in {row for rows in batches for row in rows}:
        expected[row * row_bytes : (row + 1) * row_bytes] = True
    starts = range(0, len(expected), TABLE_PAGE_BYTES)
    assert pages.marks(61).tolist() == [
        bool(expected[start : start + TABLE_PAGE_BYTES].any()) for start in starts
    ]
    pages.clear()
    assert not pages.marks(61).any()


def test_a_span_marks_its_pages_and_nothing_marks_none() -> None:
    """Rows of half a page: 1 to 4 lie on the first three pages."""
    pages = TouchedPages(TABLE_PAGE_BYTES // 2)
    pages.span(3, 3)
    pages.rows(np.array([-1, -1]))
    assert not pages.marks(10).any()
    pages.span(1, 5)
    assert pages.marks(10).tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("step", [40, 311])
def test_a_store_that_is_told_what_was_touched_holds_the_whole_state(
    tmp_path: Path, step: int
) -> None:
    """Checkpoints all through a stream with labels and releases; each loads to the bit."""
    batch, labels = payments(0)
    log = a_log(batch, labels)
    releases = consortium_releases()
    store = StateStore(tmp_path / "state")
    pipeline, trace, written = Pipeline(a_config()), Trace(), []
    for i, start in enumerate(range(0, len(log), step)):
        feed(pipeline, batch, log[start : start + step], releases, trace=trace)
        state = dump(pipeline)
        written.append(store.save(state.arrays, state.meta, {("t", 0): i}, state.touched))
        stored(pipeline)
        held = store.load()
        assert held is not None
        assert held.arrays.keys() == state.arrays.keys()
        for name, array in state.arrays.items():
            assert held.arrays[name].tobytes() == np.ascontiguousarray(array).tobytes(), name
        if i % 4 == 3:
            pipeline = restore(a_config(), State(held.arrays, held.meta))
    store.close()
    assert sum(written) > 0
