"""A bank that writes its numeric attributes in scales of its own."""

from dataclasses import replace
from itertools import cycle
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.records import AttributeColumn, TransactionBatch
from models.words import Words

Numbers = NDArray[np.float64]


def in_other_scales(batch: TransactionBatch) -> TransactionBatch:
    """Return the payments with every number among the attributes in another scale; NaN stays.

    Scales take turns: a straight line, a power, a logarithm; all rise.
    """
    scales = cycle((_line, _power, _logarithm))
    written: dict[str, AttributeColumn] = {
        name: column if isinstance(column, Words) else scale(column.astype(np.float64))
        for scale, (name, column) in zip(scales, batch.attributes.items(), strict=False)
    }
    return replace(batch, attributes=MappingProxyType(written))


def _line(values: Numbers) -> Numbers:
    return 3.7 * values + 11.0


def _power(values: Numbers) -> Numbers:
    return 2.0 * np.sign(values) * np.abs(values) ** 1.7


def _logarithm(values: Numbers) -> Numbers:
    return 50.0 * np.arcsinh(values) - 5.0
