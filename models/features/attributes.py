"""The attributes of a schema as feature columns: numbers as they are, texts as categories."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.categories import category_values
from models.errors import InvalidInputError
from models.mapping import AttributePlace
from models.records import AttributeColumn, TransactionBatch
from models.schema import AttributeSpec, Schema
from models.words import Words

_LARGEST = float(np.finfo(np.float32).max)


def attribute_rows(schema: Schema, batch: TransactionBatch) -> NDArray[np.float32]:
    """Return the attribute columns of all rows.

    Returns
    -------
    ndarray of shape (n, schema.n_attributes), float32
        Numbers beyond float32 are its largest; NaN where absent, and in all rows of an attribute
        that the batch lacks. What the batch has and the schema lacks is left out.

    Raises
    ------
    InvalidInputError
        If a column is of another type than the schema's.
    """
    rows = np.full((len(batch), schema.n_attributes), np.nan, np.float32)
    for j, spec in enumerate(schema.attributes):
        column = batch.attributes.get(spec.name)
        if column is not None:
            rows[:, j] = _values(spec, column)
    return rows


def check_attribute_types(schema: Schema, places: Mapping[str, AttributePlace]) -> None:
    """Refuse a mapping whose attributes are of other types than the schema's.

    Raises
    ------
    InvalidInputError
        The message names the attribute.
    """
    for spec in schema.attributes:
        place = places.get(spec.name)
        if place is not None and place.type != spec.type:
            raise _wrong_type(spec, place.type)


def _values(spec: AttributeSpec, column: AttributeColumn) -> NDArray[np.float32]:
    if isinstance(column, Words):
        if spec.type != "text":
            raise _wrong_type(spec, "text")
        return category_values(spec.name, column)
    if spec.type != "number":
        raise _wrong_type(spec, "number")
    return np.clip(column, -_LARGEST, _LARGEST).astype(np.float32)


def _wrong_type(spec: AttributeSpec, got: str) -> InvalidInputError:
    return InvalidInputError(
        f"attributes.{spec.name}: expected a {spec.type}, as the consortium agreed, got a {got}"
    )
