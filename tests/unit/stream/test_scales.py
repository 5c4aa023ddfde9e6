"""When the scale of an attribute is found, who sees it how, and what is kept of it."""

import logging

import numpy as np
import pytest

from models.basis import Basis
from models.basis_builder import build_basis
from models.histograms import add_rows, cells_of, empty_counts
from models.scales import scale_table
from models.schema import Schema, attribute_specs
from stream.pipeline import Pipeline
from stream.pipeline_state import dump, restore
from stream.scales import AttributeScales
from tests.unit.stream.small_bank import a_config, copied

SCHEMA = Schema(
    entity_kinds=(), attributes=attribute_specs({"a": "number", "b": "number", "c": "text"})
)
FIRST = SCHEMA.n_features - 3
A, B = FIRST, FIRST + 1
BOTH = frozenset({"a", "b"})


def drawn(seed: int, n: int) -> np.ndarray:
    """Return rows of numbers; the attributes are normal."""
    return np.random.default_rng(seed).normal(size=(n, SCHEMA.n_features)).astype(np.float32)


def a_basis(*, without: int | None = None) -> Basis:
    """Return a basis of drawn rows, of which a column may be absent."""
    rows, counts = drawn(1, 20_000), empty_counts(SCHEMA.n_features)
    if without is not None:
        rows[:, without] = np.nan
    add_rows(counts, rows, np.arange(len(rows)) % 50 == 0)
    return build_basis(counts, SCHEMA, 1)


def in_tens(rows: np.ndarray) -> np.ndarray:
    """Return rows whose attribute ``a`` is written in tenths of a unit."""
    written = rows.copy()
    written[:, A] *= 10.0
    return written


def test_a_pending_attribute_is_absent_for_all_but_the_own_scorecard() -> None:
    """Too few values, or no basis yet; rows themselves stay as they are written."""
    scales = AttributeScales(SCHEMA, BOTH)
    rows = in_tens(drawn(2, 499))
    before = rows.copy()
    scales.count(rows)
    assert not scales.settle(a_basis())
    scales.count(rows[:1])
    assert not scales.settle(None)
    seen = scales.in_consortium(rows)
    assert np.isnan(seen[:, [A, B]]).all()
    assert np.array_equal(np.delete(seen, [A, B], axis=1), np.delete(rows, [A, B], axis=1))
    assert np.array_equal(rows, before)
    assert scales.ways() == {"pending": 2, "ranked": 0, "own": 0}


def test_with_enough_values_it_is_read_by_rank(caplog: pytest.LogCaptureFixture) -> None:
    """By the table of what was counted; one that nobody else has is read as it is written."""
    caplog.set_level(logging.INFO)
    scales, basis = AttributeScales(SCHEMA, BOTH), a_basis(without=B)
    rows = in_tens(drawn(2, 800))
    for part in np.split(rows, [100, 101]):
        scales.count(part)
    assert scales.settle(basis)
    counts = np.bincount(cells_of(rows[:, A]), minlength=9_729)
    expected = scale_table(counts, *basis.cuts_of(A))[cells_of(rows[:, A])]
    seen = scales.in_consortium(rows)
    assert np.array_equal(seen[:, A], expected)
    assert np.abs(np.median(seen[:, A])) < 0.2  # not 2, as it is written
    assert np.array_equal(seen[:, B], rows[:, B])
    assert scales.ways() == {"pending": 0, "ranked": 1, "own": 1}
    assert "attribute a read by rank: 800 values" in caplog.text
    assert "attribute b of unknown scale: no other member has it" in caplog.text


def test_a_table_gets_better_as_values_grow_until_it_stands() -> None:
    """At 500, 700, 980 values, ...; at 1,000, which are enough, for good."""
    scales, basis = AttributeScales(SCHEMA, frozenset({"a"}), enough_n=1_000), a_basis()
    changed = []
    for i in range(20):  # a bank whose values grow
        scales.count(in_tens(drawn(i, 100)) + np.float32(i))
        changed.append(scales.settle(basis))
    assert [100 * (i + 1) for i, is_other in enumerate(changed) if is_other] == [500, 700, 1_000]


def test_rows_of_the_consortium_come_to_the_own_scorecard_without_it() -> None:
    """Its bins are in the bank's scale; an attribute that nobody else has is in the bank's too."""
    scales = AttributeScales(SCHEMA, BOTH)
    scales.count(drawn(2, 800))
    scales.settle(a_basis(without=B))
    rows = drawn(3, 10)
    seen = scales.in_own(rows)
    assert np.isnan(seen[:, A]).all()
    assert np.array_equal(np.delete(seen, A, axis=1), np.delete(rows, A, axis=1))


def test_who_reads_goes_on_with_what_was_before() -> None:
    """A thread that has begun sees old tables, not half of new ones."""
    scales, basis, rows = AttributeScales(SCHEMA, BOTH), a_basis(), in_tens(drawn(2, 600))
    scales.count(rows)
    scales.settle(basis)
    read = scales._read
    before = read.logits.copy()
    scales.count(in_tens(drawn(4, 2_000)))
    assert scales.settle(basis)
    assert np.array_equal(read.logits, before)
    assert not np.array_equal(scales._read.logits, before)
    assert np.array_equal(read.columns, scales._read.columns)


def test_its_state_goes_on_and_begins_anew_for_an_attribute_that_it_lacks() -> None:
    """Names tell which is which, so a mapping may name others."""
    held, basis = AttributeScales(SCHEMA, frozenset({"a"})), a_basis()
    rows = in_tens(drawn(2, 600))
    held.count(rows)
    held.settle(basis)
    other = AttributeScales(SCHEMA, BOTH)
    other.load({name: array.copy() for name, array in held.arrays().items()})
    assert np.array_equal(other.in_consortium(rows)[:, A], held.in_consortium(rows)[:, A])
    assert np.isnan(other.in_consortium(rows)[:, B]).all()
    assert not other.settle(basis)  # nothing was counted of the one, nothing is new of the other
    for each in (held, other):
        each.count(in_tens(drawn(5, 400)))
        assert each.settle(basis)
    assert np.array_equal(other.in_consortium(rows)[:, A], held.in_consortium(rows)[:, A])


def test_a_restored_pipeline_reads_as_the_stored_one_did() -> None:
    """Part of the state like all else; a bank that knows its scales by now lets go of it."""
    config = a_config(schema=SCHEMA, unknown_scales=frozenset({"a"}))
    pipeline, rows = Pipeline(config), in_tens(drawn(2, 600))
    pipeline.scales.count(rows)
    pipeline.scales.settle(a_basis())
    state = copied(dump(pipeline))
    found = restore(config, state).scales.in_consortium(rows)
    assert np.array_equal(found, pipeline.scales.in_consortium(rows))
    assert not np.array_equal(found, rows)
    assert restore(a_config(schema=SCHEMA), state).scales.in_consortium(rows) is rows


def test_without_such_attributes_rows_are_the_same_object() -> None:
    """Nothing is copied where everything is known, or the consortium has no such attribute."""
    rows = drawn(2, 5)
    for scales in (AttributeScales(SCHEMA), AttributeScales(SCHEMA, frozenset({"c", "z"}))):
        scales.count(rows)
        assert not scales.settle(a_basis())
        assert scales.in_consortium(rows) is rows
        assert scales.in_own(rows) is rows
        assert scales.arrays() == {}
