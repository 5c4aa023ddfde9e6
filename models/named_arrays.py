"""State as named arrays: what stands under one part of a name; a hash of all."""

from collections.abc import Mapping

import numpy as np
import xxhash
from numpy.typing import NDArray


def under(prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Return the arrays whose names begin with ``prefix``, which is taken off.

    Examples
    --------
    >>> under("net/", {"net/flat": np.array([1]), "day": np.array([2])})
    {'flat': array([1])}
    """
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def digest_of(arrays: Mapping[str, NDArray[np.generic]]) -> int:
    """Return a 64-bit hash of names, types, shapes and bytes, whatever the order of names."""
    digest = xxhash.xxh3_64()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.intdigest()
