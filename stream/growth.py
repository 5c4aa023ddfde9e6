"""Room for more rows in arrays that grow while decisions are made."""

from collections.abc import MutableMapping
from typing import Any

import numpy as np


def grow(arrays: MutableMapping[str, Any], name: str, n_rows: int) -> None:
    """Give an array room for so many rows; what lies in new ones means nothing.

    In place where nobody else looks at the array, since a copy of a large one would hold decisions
    up. For this it is named and not handed over: every further reference counts as a look.
    """
    shape = (n_rows, *arrays[name].shape[1:])
    try:
        arrays[name].resize(shape)
    except ValueError:  # somebody looks
        arrays[name] = np.resize(arrays[name], shape)
