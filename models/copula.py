"""How features vary together, per class, as whole-number sums that add over rows, banks and time.

Each feature gives a score z, the normal quantile of the middle of its bin's rank among the
feature's bins on the basis, in 64ths, and a presence p of 0 or 1; z is 0 where the feature is
absent. A feature without weights on the basis counts as absent. With x = (z of all features,
p of all features) the summary of a class is::

    n += v      sums += v x      products += v x x^T (upper triangle)

v is 1 for a fraud; of the legitimate one in 10 counts, by hash of the transaction, with v = 10.
Everything is an integer, so merged sums are those of pooled rows to the bit, in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numba as nb
import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, first_weights
from models.errors import InvalidInputError, QuarantinedError
from models.normal import quantile
from models.packed import diagonal_places

_BLOCK = 2**20  # rows, whose sums a float64 holds exactly
UNIT = 64
"""A score of 1.0 in the integers of the sums."""
THINNING = 10
_SMALLEST_RANK = 5e-4
MAX_SCORE = 4 * UNIT
MAX_ROWS = 2**40
"""Rows of a class, v counted, that one contribution may speak of: sums stay within int64."""
Arrays = Mapping[str, NDArray[Any]]


def bin_scores(basis: Basis) -> NDArray[np.int32]:
    """Return the score in 64ths of every weight that is a feature's bin, 0 for the others.

    Parameters
    ----------
    basis
        Gives the bins: one scores the normal quantile of the middle of its ends' ranks.
    """
    scores = np.zeros(basis.n_weights, np.int32)
    firsts = first_weights(basis)
    for j in basis.selected.tolist():
        n_edges, first = int(basis.n_edges[j]), int(firsts[j])
        ends = np.concatenate([[0.0], basis.fine_of(j)[1].astype(np.float64), [1.0]])
        ranks = np.clip((ends[1:] + ends[:-1]) / 2, _SMALLEST_RANK, 1.0 - _SMALLEST_RANK)
        scores[first : first + n_edges + 1] = np.rint(UNIT * quantile(ranks)).astype(np.int32)
    return scores


def is_sampled(transaction_hash: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which legitimate transactions count: one in 10, the same on every run."""
    mixed = (transaction_hash ^ np.uint64(0x5851F42D4C957F2D)) * np.uint64(0x9E3779B97F4A7C15)
    sampled: NDArray[np.bool_] = (mixed >> np.uint64(32)) % np.uint64(THINNING) == 0
    return sampled


@nb.njit(cache=True)
def _read(active, scores, z, gone):  # type: ignore[no-untyped-def]  # compiled
    """Fill in a row's scores and which features it lacks; return how many."""
    n_gone = 0
    for j in range(len(z)):
        a = active[1 + j]
        z[j] = scores[a] if a >= 0 else 0.0
        if a < 0:
            gone[n_gone] = j
            n_gone += 1
    return n_gone


@nb.njit(cache=True)
def _add(active, scores, is_fraud, sampled, totals):  # type: ignore[no-untyped-def]  # compiled
    """Sum scores z, and absences q = 1 - p, which are few: most rows cost the zz part alone.

    The sums are float64, which holds these whole numbers exactly and goes four at a time.
    """
    n, z_sums, zz, zq, qq = totals
    d = z_sums.shape[1]
    z, gone = np.empty(d), np.empty(d, np.int64)
    for i in range(active.shape[0]):
        c = 1 if is_fraud[i] else 0
        if c == 0 and not sampled[i]:
            continue
        v = 1.0 if c == 1 else float(THINNING)
        n_gone = _read(active[i], scores, z, gone)
        n[c] += v
        for j in range(d):
            value = v * z[j]
            if value != 0.0:
                z_sums[c, j] += value
                row = zz[c, j]
                for k in range(j, d):
                    row[k] += value * z[k]
        for g in gone[:n_gone]:
            for k in range(d):
                zq[c, g, k] += v * z[k]
            for h in gone[:n_gone]:
                qq[c, g, h] += v


@nb.njit(cache=True)
def _assemble(totals, sums, products):  # type: ignore[no-untyped-def]  # compiled
    """Turn absences into presences p = 1 - q, and pack."""
    n, z_sums, zz, zq, qq = totals
    d = z_sums.shape[1]
    for c in range(2):
        place = 0
        for i in range(d):
            sums[c, i] += np.int64(z_sums[c, i])
            sums[c, d + i] += np.int64(n[c] - qq[c, i, i])
            for j in range(i, d):
                products[c, place] += np.int64(zz[c, i, j])
                place += 1
            for j in range(d):
                products[c, place] += np.int64(z_sums[c, i] - zq[c, j, i])
                place += 1
        for i in range(d):
            for j in range(i, d):
                both = n[c] - qq[c, i, i] - qq[c, j, j] + qq[c, i, j]
                products[c, place] += np.int64(both)
                place += 1


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums of both classes on one basis; class 1 is fraud.

    Parameters
    ----------
    n
        int64 of shape (2,).
    sums
        int64 of shape (2, 2 * n_features): of z in 64ths, then of p.
    products
        int64 of shape (2, m * (m + 1) / 2), m = 2 * n_features: upper triangles row by row.
    """

    n: NDArray[np.int64]
    sums: NDArray[np.int64]
    products: NDArray[np.int64]

    @classmethod
    def empty(cls, n_features: int) -> Self:
        """Return the identity of merging."""
        m = 2 * n_features
        return cls(
            np.zeros(2, np.int64),
            np.zeros((2, m), np.int64),
            np.zeros((2, m * (m + 1) // 2), np.int64),
        )

    @property
    def n_features(self) -> int:
        """Features of a row."""
        return int(self.sums.shape[1]) // 2

    def add(
        self,
        active: NDArray[np.int32],
        scores: NDArray[np.int32],
        is_fraud: NDArray[np.bool_],
        *,
        sampled: NDArray[np.bool_],
    ) -> None:
        """Add matured rows in place; O(n_features ** 2) for each row that is not thinned.

        Parameters
        ----------
        active
            Result of `models.basis.feature_weights`.
        scores
            Result of `bin_scores` for the same basis.
        is_fraud
            bool of shape (n,).
        sampled
            Result of `is_sampled`.
        """
        d = self.n_features
        shapes = ((2,), (2, d), (2, d, d), (2, d, d), (2, d, d))
        for start in range(0, len(active), _BLOCK):
            block = slice(start, start + _BLOCK)
            added = tuple(np.zeros(shape) for shape in shapes)
            _add(active[block], scores, is_fraud[block], sampled[block], added)
            _assemble(added, self.sums, self.products)
            self.n[:] += added[0].astype(np.int64)

    def merged(self, other: "Moments") -> "Moments":
        """Return the sums of both; the operands stay as they are.

        Raises
        ------
        InvalidInputError
            If the other has another number of features.
        """
        if other.n_features != self.n_features:
            raise InvalidInputError(
                f"moments: expected {self.n_features} features, got {other.n_features}"
            )
        return Moments(self.n + other.n, self.sums + other.sums, self.products + other.products)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of a ``moments`` contribution (views)."""
        return {"n": self.n, "sums": self.sums, "products": self.products}

    @classmethod
    def load(cls, arrays: Arrays) -> Self:
        """Return what `arrays` gave, copied."""
        return cls(*(np.array(arrays[name], np.int64) for name in ("n", "sums", "products")))


def check_moments(arrays: Arrays, n_features: int) -> None:
    """Check a foreign ``moments`` part whose dtypes have been checked.

    Parameters
    ----------
    arrays
        ``n``, ``sums``, ``products``, see `Moments`.
    n_features
        Of the schema.

    Raises
    ------
    QuarantinedError
        Reason ``shape`` or ``range``: sums that no rows can have.
    """
    m = 2 * n_features
    n, sums, products = arrays["n"], arrays["sums"], arrays["products"]
    shapes = (n.shape, sums.shape, products.shape)
    if shapes != ((2,), (2, m), (2, m * (m + 1) // 2)):
        raise QuarantinedError("shape", f"moments: expected arrays for {n_features} features")
    if not bool(np.all((n >= 0) & (n <= MAX_ROWS))):
        raise QuarantinedError("range", f"n: expected 0 to {MAX_ROWS}")
    z, present = sums[:, :n_features], sums[:, n_features:]
    diagonal = products[:, diagonal_places(m)]
    squares, again = diagonal[:, :n_features], diagonal[:, n_features:]
    is_possible = (
        (present >= 0)
        & (present <= n[:, None])
        & (again == present)
        & (squares >= 0)
        & (squares <= MAX_SCORE**2 * present)
        & (np.abs(z) <= MAX_SCORE * present)
    )
    if not bool(is_possible.all()):
        raise QuarantinedError("range", "sums: expected |z| <= 4 and presence of at most n rows")
    _check_products(products, diagonal)


def _check_products(products: NDArray[np.int64], diagonal: NDArray[np.int64]) -> None:
    """Check Cauchy's inequality row by row, in floating point with room for its rounding."""
    roots = np.sqrt(diagonal.astype(np.float64))
    m, start = diagonal.shape[1], 0
    for j in range(m):
        row = np.abs(products[:, start : start + m - j].astype(np.float64))
        if not bool(np.all(row <= roots[:, j : j + 1] * roots[:, j:] * (1 + 1e-9) + 0.5)):
            raise QuarantinedError("range", "products: expected |a_ij| <= sqrt(a_ii a_jj)")
        start += m - j


def unpacked(packed: NDArray[np.int64], m: int) -> NDArray[np.float64]:
    """Return the symmetric float64 matrix of a packed upper triangle."""
    square = np.zeros((m, m))
    upper = np.triu_indices(m)
    square[upper] = packed
    square.T[upper] = packed
    return square
