"""Categories as numbers that histograms can count: each text becomes the edge of a cell.

A text has no order, and the grid of `models.histograms` has only numbers. So a text is hashed,
together with the name of its attribute, to one of the grid's positive cells, and its value is that
cell's lower edge: the same at every bank without any list of texts, and counted apart from the
others. Two texts share a cell with probability 1 / `N_CATEGORY_CELLS`; they then count as one
category. The order of the values means nothing.
"""

from functools import lru_cache

import numpy as np
import xxhash
from numpy.typing import NDArray

from models.histograms import N_CELLS, lower_edges
from models.words import Words

_REMEMBERED = 65_536
_VALUES = lower_edges()[N_CELLS // 2 + 1 :]
N_CATEGORY_CELLS = len(_VALUES)


def category_values(attribute: str, column: Words) -> NDArray[np.float32]:
    """Return the feature of a text attribute; each distinct text is hashed once.

    Parameters
    ----------
    attribute
        Its name, so that equal texts of two attributes do not always meet.
    column
        One text per row, or none.

    Returns
    -------
    ndarray of shape (n,), float32
        A lower edge of `models.histograms.lower_edges` above 0; NaN where absent.

    Examples
    --------
    >>> category_values("channel", Words.of(["web", None, "web"])).tolist()
    [0.0001811981201171875, nan, 0.0001811981201171875]
    """
    values = np.full(len(column.words) + 1, np.nan, np.float32)
    for code in np.unique(column.codes[column.codes >= 0]).tolist():
        values[code] = category_value(attribute, column.words[code])
    return values[column.codes]


@lru_cache(maxsize=_REMEMBERED)
def category_value(attribute: str, text: str) -> np.float32:
    """Return the feature of one text."""
    digest = xxhash.xxh64_intdigest(f"{attribute}\0{text}".encode("utf-8", "surrogatepass"))
    value: np.float32 = _VALUES[digest % N_CATEGORY_CELLS]
    return value
