"""Pages that are stored because they were touched: never one too few."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.pipeline import Pipeline
from stream.pipeline_state import State, dump, restore
from stream.store import StateStore
from stream.touched import TABLE_PAGE_BYTES, OwedPages, TouchedPages
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
    assert pages.marks(len(starts)).tolist() == [
        bool(expected[start : start + TABLE_PAGE_BYTES].any()) for start in starts
    ]
    pages.clear()
    assert not pages.marks(len(starts)).any()


def test_a_span_marks_its_pages_and_nothing_marks_none() -> None:
    """Rows of half a page: 1 to 4 lie on the first three pages."""
    pages = TouchedPages(TABLE_PAGE_BYTES // 2)
    pages.span(3, 3)
    pages.rows(np.array([-1, -1]))
    assert not pages.marks(5).any()
    pages.span(1, 5)
    assert pages.marks(5).tolist() == [True, True, True, False, False]


STEPS = st.lists(
    st.tuples(st.sampled_from(["rows", "span", "pay"]), st.lists(st.integers(-1, 29), max_size=4)),
    max_size=12,
)


@given(row_bytes=st.sampled_from([7, 64, 200]), touched=st.sets(st.integers(0, 29)), steps=STEPS)
def test_a_copy_is_of_the_instant_at_which_it_was_begun(
    row_bytes: int, touched: set[int], steps: list[tuple[str, list[int]]]
) -> None:
    """Whatever is written to before it is whole, and however it is paid off."""
    table = np.arange(30 * row_bytes, dtype=np.uint64).astype(np.uint8).reshape(30, row_bytes)
    pages = TouchedPages(row_bytes, 64)
    pages.rows(np.array(sorted(touched), np.int64))
    wanted = np.flatnonzero(pages.marks(-(-table.nbytes // 64)))
    before = table.tobytes()
    out = np.zeros(64 * len(wanted), np.uint8)
    owed = OwedPages(table.reshape(-1), 64, wanted, out)
    pages.copied(owed)
    for what, rows in steps:
        if what == "pay":
            owed.pay(64 * len(rows))
        elif what == "rows":
            pages.rows(np.array(rows, np.int64))
            table[[row for row in rows if row >= 0]] += 1
        elif rows:
            first, last = max(min(rows), 0), max(rows) + 1
            pages.span(first, last)
            table[first:last] += 1
    owed.pay_all()
    assert not owed.is_owing
    copied = b"".join(before[64 * page : 64 * page + 64] for page in wanted.tolist())
    assert out.tobytes()[: len(copied)] == copied


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
        held = store.load()
        assert held is not None
        assert held.arrays.keys() == state.arrays.keys()
        for name, array in state.arrays.items():
            assert held.arrays[name].tobytes() == np.ascontiguousarray(array).tobytes(), name
        if i % 4 == 3:
            pipeline = restore(a_config(), State(held.arrays, held.meta))
    store.close()
    assert sum(written) > 0


@pytest.mark.parametrize("step", [60, 311])
def test_a_state_is_of_the_instant_at_which_its_copy_was_begun(tmp_path: Path, step: int) -> None:
    """Though the pipeline scores, learns and installs before the copy is whole."""
    batch, labels = payments(0)
    log, releases = a_log(batch, labels), consortium_releases()
    store = StateStore(tmp_path / "state")
    pipeline, trace, n_owing = Pipeline(a_config()), Trace(), 0
    for start in range(0, len(log), step):
        state = dump(pipeline)
        expected = {n: np.ascontiguousarray(a).tobytes() for n, a in state.arrays.items()}
        copied = store.pages.copy(state.arrays, state.meta, {}, state.touched, state.versions)
        copied.pay(TABLE_PAGE_BYTES)
        feed(pipeline, batch, log[start : start + step], releases, trace=trace)
        n_owing += any(owed.is_owing for owed in copied.owed)
        store.write(store.pages.finish(copied))
        held = store.load()
        assert held is not None
        assert {n: a.tobytes() for n, a in held.arrays.items()} == expected
    store.close()
    assert n_owing
