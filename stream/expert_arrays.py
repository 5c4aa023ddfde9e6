"""Scorecards as named arrays of a stored state, and back."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.named_arrays import under


def scorer_arrays(
    prefix: str, basis: Basis | None, weights: NDArray[np.float64] | None
) -> dict[str, NDArray[np.generic]]:
    """Return basis and weights, as far as there are any, as named arrays (views)."""
    out: dict[str, NDArray[np.generic]] = {}
    if basis is not None:
        out = {f"{prefix}/{name}": array for name, array in basis.arrays().items()}
        out[f"{prefix}/number"] = np.array([basis.number], np.int64)
        out[f"{prefix}/schema"] = np.frombuffer(basis.schema_hash.encode(), np.uint8)
    if weights is not None:
        out[f"{prefix}/weights"] = weights
    return out


def load_scorer(
    prefix: str, arrays: Mapping[str, NDArray[np.generic]]
) -> tuple[Basis | None, NDArray[np.float64] | None]:
    """Return basis and weights that `scorer_arrays` gave, None where there are none."""
    if f"{prefix}/number" not in arrays:
        return None, None
    number = int(arrays[f"{prefix}/number"][0])
    schema_hash = np.asarray(arrays[f"{prefix}/schema"]).tobytes().decode()
    of_basis = {name: np.array(array) for name, array in under(f"{prefix}/", arrays).items()}
    basis = Basis.from_arrays(number, schema_hash, of_basis)
    weights = arrays.get(f"{prefix}/weights")
    return basis, None if weights is None else np.array(weights, np.float64)


def is_same_weights(a: NDArray[np.float64] | None, b: NDArray[np.float64] | None) -> bool:
    """Return whether two scorers have the same weights, or neither has any."""
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
