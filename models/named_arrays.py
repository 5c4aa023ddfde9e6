"""State as named arrays: what stands under one part of a name."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def under(prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays whose names begin with ``prefix``, which is taken off.

    Examples
    --------
    >>> under("net/", {"net/flat": np.array([1]), "day": np.array([2])})
    {'flat': array([1])}
    """
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
