"""Rows whose outcome became known: what every learner learns from."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matured:
    """Rows whose outcome became known, in that order.

    ``features`` float32 (n, n_features), ``is_fraud`` bool (n,), ``hashes`` uint64 (n,),
    ``known_ms`` int64 (n,).
    """

    features: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]
    hashes: NDArray[np.uint64]
    known_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.is_fraud)

    def take(self, index: NDArray[np.int64] | slice) -> "Matured":
        """Return the rows at ``index``."""
        return Matured(
            features=self.features[index],
            is_fraud=self.is_fraud[index],
            hashes=self.hashes[index],
            known_ms=self.known_ms[index],
        )

    def blocks(self, n: int = 50_000) -> Iterator["Matured"]:
        """Yield the rows in pieces, to bound memory."""
        for start in range(0, len(self), n):
            yield self.take(slice(start, start + n))
