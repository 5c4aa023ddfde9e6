"""Rows whose outcome became known: what every learner learns from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matured:
    """Rows whose outcome became known, in that order.

    Parameters
    ----------
    features
        float32 of shape (n, n_features), NaN is absent.
    is_fraud
        bool of shape (n,).
    hashes
        uint64 of shape (n,), of the transactions.
    known_ms
        int64 of shape (n,), when the outcome became known.
    accounts
        int64 of shape (n,), any number that tells the bank's accounts apart; None where nobody
        asks. It stays at home.
    base_logits
        float64 of shape (n,), log-odds by the consortium's scorer, NaN where it gave none; None
        where nobody asks.
    """

    features: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]
    hashes: NDArray[np.uint64]
    known_ms: NDArray[np.int64]
    accounts: NDArray[np.int64] | None = None
    base_logits: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.is_fraud)

    def take(self, index: NDArray[np.int64] | slice) -> "Matured":
        """Return the rows at ``index``."""
        return self._of_each(lambda column: column[index])

    def _of_each(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> "Matured":
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        there = {name: change(c) for name, c in columns.items() if c is not None}
        return replace(self, **there)

    def room_for(self, n: int) -> "Matured":
        """Return room for ``n`` rows like these, to be filled by `put`."""
        return self._of_each(lambda column: np.empty((n, *column.shape[1:]), column.dtype))

    def put(self, start: int, rows: "Matured") -> None:
        """Copy rows to places from ``start`` on."""
        for field in fields(self):
            column, given = getattr(self, field.name), getattr(rows, field.name)
            if column is not None:
                column[start : start + len(rows)] = given

    def blocks(self, n: int = 50_000) -> Iterator["Matured"]:
        """Yield the rows in pieces, to bound memory."""
        for start in range(0, len(self), n):
            yield self.take(slice(start, start + n))


class MaturedRows(Protocol):
    """Rows that are gone through in pieces; they need not all be there at once."""

    def blocks(self, n: int = 50_000) -> Iterator[Matured]:
        """Yield the rows in order, at most ``n`` at a time."""
        ...
