"""A small frozen network in plain compiled loops: the same scores to the bit on every machine.

Two hidden layers of 64 and 32 rectified units and one output. Its weights are one flat array of
float32: for each layer its matrix, input after input, then its biases. Sums run over the inputs in
order, one at a time for all units, so vector width and library do not matter.
"""

from itertools import pairwise

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError

HIDDEN = (64, 32)
Layers = tuple[NDArray[np.float32], ...]
"""Matrix and biases of each layer, six arrays in all."""
MAX_WEIGHT = 1e4
"""Largest magnitude that is taken from outside."""


def shapes(n_inputs: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes in the order of the flat array: matrix (inputs, units), biases, ...

    Parameters
    ----------
    n_inputs
        Columns of the input, >= 1.
    """
    widths = (n_inputs, *HIDDEN, 1)
    return tuple(shape for a, b in pairwise(widths) for shape in ((a, b), (b,)))


def n_parameters(n_inputs: int) -> int:
    """Return the length of the flat array.

    Examples
    --------
    >>> n_parameters(64)
    6273
    """
    return sum(int(np.prod(shape)) for shape in shapes(n_inputs))


def check_parameters(flat: NDArray[np.float32], n_inputs: int) -> None:
    """Check a network from outside.

    Raises
    ------
    InvalidInputError
        If its length is not that of ``n_inputs`` or a number is not finite and within 10,000.
    """
    expected = n_parameters(n_inputs)
    if flat.dtype != np.float32 or flat.shape != (expected,):
        raise InvalidInputError(
            f"network: expected {expected} float32, got {flat.dtype} of shape {flat.shape}"
        )
    if not bool(np.all(np.abs(flat) <= MAX_WEIGHT)):
        raise InvalidInputError(f"network: expected finite weights within +-{MAX_WEIGHT:g}")


@nb.njit(cache=True)
def _layer(x, weights, biases, out):  # type: ignore[no-untyped-def]  # compiled
    n_units = biases.shape[0]
    for k in range(n_units):
        out[k] = biases[k]
    for j in range(x.shape[0]):
        value = x[j]
        if value != 0.0:
            row = weights[j]
            for k in range(n_units):
                out[k] += value * row[k]


@nb.njit(cache=True)
def _forward(x, w1, b1, w2, b2, w3, b3, out):  # type: ignore[no-untyped-def]  # compiled
    first, second, last = np.empty_like(b1), np.empty_like(b2), np.empty_like(b3)
    zero = np.float32(0.0)
    for i in range(x.shape[0]):
        _layer(x[i], w1, b1, first)
        for k in range(first.shape[0]):
            first[k] = max(first[k], zero)
        _layer(first, w2, b2, second)
        for k in range(second.shape[0]):
            second[k] = max(second[k], zero)
        _layer(second, w3, b3, last)
        out[i] = last[0]


def split(flat: NDArray[np.float32], n_inputs: int) -> Layers:
    """Return the arrays that a flat array of the right length holds, in order."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes(n_inputs)])
    parts = zip(np.split(flat, ends[:-1]), shapes(n_inputs), strict=True)
    return tuple(np.ascontiguousarray(part).reshape(shape) for part, shape in parts)


def run(layers: Layers, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the output of each row, float32 of shape (n,).

    Parameters
    ----------
    layers
        Result of `split`.
    x
        float32 of shape (n, n_inputs), finite.
    """
    out = np.empty(len(x), np.float32)
    w1, b1, w2, b2, w3, b3 = layers
    _forward(np.ascontiguousarray(x), w1, b1, w2, b2, w3, b3, out)
    return out


def forward(flat: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Check a flat array, as `check_parameters` does, and return the output of each row."""
    check_parameters(flat, x.shape[1])
    return run(split(flat, x.shape[1]), x)
