"""Attributes as feature columns: numbers, categories, and what is absent."""

import numpy as np
import pytest

from models.categories import category_value
from models.errors import InvalidInputError
from models.features.attributes import attribute_rows, check_attribute_types
from models.mapping import At, AttributePlace
from models.records import AttributeColumn, TransactionBatch
from models.schema import AttributeSpec, Schema
from models.words import Words

SCHEMA = Schema(
    entity_kinds=("terminal",),
    attributes=(
        AttributeSpec("age", "number"),
        AttributeSpec("channel", "text"),
        AttributeSpec("lacking", "number"),
    ),
)
NAN = np.nan


def batch_of(n: int, **attributes: AttributeColumn) -> TransactionBatch:
    return TransactionBatch(
        transaction_id=[f"T{i}" for i in range(n)],
        account_id=["A"] * n,
        event_time_ms=np.arange(n, dtype=np.int64),
        amount_minor=np.ones(n, np.int64),
        amount=np.ones(n),
        currency=["EUR"] * n,
        attributes=attributes,
    )


def test_columns_are_those_of_the_schema_in_its_order() -> None:
    """One that the mapping lacks is absent everywhere, one that the schema lacks is left out."""
    batch = batch_of(
        3,
        other=np.ones(3),
        channel=Words.of(["web", None, "till"]),
        age=np.array([0.1, NAN, -3.0]),
    )
    rows = attribute_rows(SCHEMA, batch)
    assert rows.dtype == np.float32
    web, till = (category_value("channel", text) for text in ("web", "till"))
    expected = [[0.1, web, NAN], [NAN, NAN, NAN], [-3.0, till, NAN]]
    np.testing.assert_array_equal(rows, np.array(expected, np.float32))


def test_no_number_becomes_infinite() -> None:
    """What float32 cannot hold is its largest, of either sign; float32 comes as it is."""
    largest = np.finfo(np.float32).max
    rows = attribute_rows(SCHEMA, batch_of(4, age=np.array([1e300, -1e39, 3.4e38, NAN])))
    expected = np.array([largest, -largest, 3.4e38, NAN], np.float32)
    np.testing.assert_array_equal(rows[:, 0], expected)
    short = np.array([1 / 3, -largest], np.float32)
    np.testing.assert_array_equal(attribute_rows(SCHEMA, batch_of(2, age=short))[:, 0], short)


def test_without_attributes_there_is_no_column() -> None:
    """Also where the records have some."""
    rows = attribute_rows(Schema(entity_kinds=()), batch_of(2, age=np.ones(2)))
    assert rows.shape == (2, 0)


@pytest.mark.parametrize("name", ["age", "channel"])
def test_a_column_of_another_type_is_refused(name: str) -> None:
    """By its name and by what was agreed; in a mapping before any record comes."""
    column = Words.of(["x"]) if name == "age" else np.ones(1)
    with pytest.raises(InvalidInputError, match=f"attributes.{name}: expected a"):
        attribute_rows(SCHEMA, batch_of(1, **{name: column}))
    place = AttributePlace(At(("a",)), "text" if name == "age" else "number")
    with pytest.raises(InvalidInputError, match=f"attributes.{name}: expected a"):
        check_attribute_types(SCHEMA, {name: place})


def test_a_mapping_may_have_fewer_and_more_attributes() -> None:
    """Types count where both name one."""
    places = {"age": AttributePlace(At(("a",)), "number"), "x": AttributePlace(At(("x",)), "text")}
    check_attribute_types(SCHEMA, places)
    check_attribute_types(SCHEMA, {})
