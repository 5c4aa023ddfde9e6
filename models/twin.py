"""The digital twin: synthetic transactions that look like the consortium's, made of sums alone.

Built from merged per-class histograms and merged moments. Per class a Gaussian copula: hidden
standard normal variables, one for each feature's value and one for its presence, correlated as
the moments say; each is turned into a value by the class's own histogram, so marginals are the
merged histograms, uniform within a cell. No number in it comes from a single record.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, encode
from models.copula import UNIT, Moments, bin_scores
from models.correlation import correlated, factor, nearest_correlation
from models.errors import InvalidInputError
from models.histograms import N_CELLS, lower_edges
from models.latent import hermite_coefficients, latent_correlations
from models.normal import cdf

_BLOCK = 20_000
_RARE = 0.01
_STRENGTHS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
_LARGEST = np.float32(2.0**24)


class Sample(NamedTuple):
    """``rows`` float32 (n, n_features), NaN is absent; ``is_fraud`` bool (n,)."""

    rows: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Twin:
    """Marginals and dependence of each class; see `build_twin`.

    Parameters
    ----------
    fraud_share
        Share of frauds among all rows, in [0, 1].
    below
        float64 of shape (2, n_features, N_CELLS): counts up to and with each cell.
    presence
        float64 of shape (2, n_features): share of the class's rows that have the feature.
    lower
        float64 of shape (2, 2 * n_features, 2 * n_features): factors of the correlations of the
        hidden variables, the values' before the presences'.
    is_whole
        bool of shape (n_features,): features whose values are whole numbers.
    """

    fraud_share: float
    below: NDArray[np.float64]
    presence: NDArray[np.float64]
    lower: NDArray[np.float64]
    is_whole: NDArray[np.bool_]

    @property
    def n_features(self) -> int:
        """Columns of a row."""
        return len(self.is_whole)

    def sample(self, n: int, rng: np.random.Generator, fraud_share: float | None = None) -> Sample:
        """Draw synthetic transactions, independent of each other; the same seed gives the same.

        Parameters
        ----------
        n
            How many, >= 0.
        rng
            Seeded by the caller.
        fraud_share
            In [0, 1]; None: as in the data. A class that was never seen gives rows without any
            feature.

        Raises
        ------
        InvalidInputError
            If a number is outside its range.
        """
        share = self.fraud_share if fraud_share is None else fraud_share
        if not (n >= 0 and 0.0 <= share <= 1.0):
            raise InvalidInputError(f"expected n >= 0 and a share in [0, 1], got {n} and {share}")
        is_fraud = rng.random(n) < share
        rows = np.empty((n, self.n_features), np.float32)
        for start in range(0, n, _BLOCK):
            block = slice(start, min(start + _BLOCK, n))
            normal = rng.standard_normal((block.stop - block.start, 2 * self.n_features))
            for which in (0, 1):
                places = np.flatnonzero(is_fraud[block] == bool(which))
                rows[start + places] = self.rows_of(which, normal[places])
        return Sample(rows, is_fraud)

    def rows_of(self, which: int, normal: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the rows of a class that belong to independent standard normal numbers.

        Parameters
        ----------
        which
            0 for legitimate, 1 for fraud.
        normal
            float64 of shape (n, 2 * n_features).
        """
        d = self.n_features
        share = cdf(correlated(normal, self.lower[which]))
        rows = np.full((len(normal), d), np.nan, np.float32)
        edges = lower_edges()
        for j in range(d):
            there = np.flatnonzero(share[:, d + j] < self.presence[which, j])
            rows[there, j] = _values(
                share[there, j], self.below[which, j], edges, is_whole=bool(self.is_whole[j])
            )
        return rows


def _values(
    share: NDArray[np.float64],
    below: NDArray[np.float64],
    edges: NDArray[np.float32],
    *,
    is_whole: bool,
) -> NDArray[np.float32]:
    """Return the values below which the shares of a histogram lie."""
    if not below[-1] > 0.0:
        return np.full(len(share), np.nan, np.float32)
    wanted = np.minimum(share, 1.0 - 2.0**-53) * below[-1]
    cell = np.minimum(np.searchsorted(below, wanted, side="right"), N_CELLS - 1)
    count = np.diff(below, prepend=0.0)[cell]
    before = below[cell] - count
    part = np.where(
        count > 0.0, np.clip((wanted - before) / np.where(count > 0, count, 1), 0, 1), 0
    )
    low, high = cell_ends(edges)
    values = low[cell] + part * (high[cell] - low[cell])
    if is_whole:
        values = np.floor(values) + (np.floor(values) < low[cell])
    out = np.clip(values, low[cell], high[cell]).astype(np.float32)
    return np.where(cell == N_CELLS // 2, np.float32(0.0), out)


def cell_ends(edges: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the greatest value drawn from each cell; the outer cells are closed.

    Parameters
    ----------
    edges
        Result of `models.histograms.lower_edges`.
    """
    low = edges.astype(np.float64)
    low[0] = -float(_LARGEST)
    above = np.nextafter(np.append(edges[1:], _LARGEST), np.float32(-np.inf))
    return low, above.astype(np.float64)


def build_twin(counts: NDArray[np.integer], moments: Moments, basis: Basis) -> Twin:
    """Return the twin of merged summaries.

    Parameters
    ----------
    counts
        Integers of shape (n_features, 2, N_CELLS): merged histograms of all matured rows.
    moments
        Merged, on this basis; empty ones give independent features.
    basis
        Whose bins the moments' scores are of.

    Raises
    ------
    InvalidInputError
        If the shapes do not fit each other.
    """
    d = basis.n_features
    if counts.shape != (d, 2, N_CELLS) or moments.n_features != d:
        raise InvalidInputError(
            f"expected counts of shape {(d, 2, N_CELLS)} and moments of {d} features, "
            f"got {counts.shape} and {moments.n_features}"
        )
    of_class = np.ascontiguousarray(counts.transpose(1, 0, 2)).astype(np.float64)
    seen = of_class.sum(axis=2)
    n = seen.max(axis=1, initial=0.0)  # the amount is never absent
    presence = seen / np.maximum(n, 1.0)[:, None]
    lower = np.stack([_factor(of_class[c], presence[c], moments, basis, which=c) for c in (0, 1)])
    return Twin(
        fraud_share=float(n[1] / max(n.sum(), 1.0)),
        below=np.cumsum(of_class, axis=2),
        presence=presence,
        lower=lower,
        is_whole=_whole(of_class.sum(axis=0)),
    )


def _factor(
    counts: NDArray[np.float64],
    presence: NDArray[np.float64],
    moments: Moments,
    basis: Basis,
    *,
    which: int,
) -> NDArray[np.float64]:
    """Return the factor of a class's hidden correlations."""
    steps = _bins(counts, basis)
    coefficients = [hermite_coefficients(*step) for step in steps]
    coefficients += [
        hermite_coefficients(np.array([1.0 - p, p]), np.array([0.0, 1.0]))
        for p in presence.tolist()
    ]
    pairs = latent_correlations(moments, which, np.array(coefficients))
    return _factor_of(pairs, presence)


def _factor_of(pairs: NDArray[np.float64], presence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the factor of a matrix made positive definite: values and presences each by itself.

    What links a presence with values is kept where both outcomes are common enough to tell, and
    then shrunk until the whole is positive definite: rare absences never bend the values.
    """
    d = len(presence)
    is_rare = np.minimum(presence, 1.0 - presence) < _RARE
    # presence is drawn as share < p, so its hidden variable counts downwards
    cross = np.where(is_rare, 0.0, -pairs[:d, d:])
    whole = np.zeros_like(pairs)
    whole[:d, :d] = nearest_correlation(pairs[:d, :d])
    whole[d:, d:] = nearest_correlation(pairs[d:, d:])
    for strength in _STRENGTHS:
        whole[:d, d:] = strength * cross
        whole[d:, :d] = whole[:d, d:].T
        try:
            return factor(whole)
        except np.linalg.LinAlgError:
            continue
    raise np.linalg.LinAlgError("two positive definite blocks are not one")


def _bins(
    counts: NDArray[np.float64], basis: Basis
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return for each feature the probability and the score of its bins."""
    scores, offsets = bin_scores(basis).astype(np.float64) / UNIT, basis.offsets
    low = lower_edges().astype(np.float64)
    low[0] = -np.inf
    representative = np.repeat(lower_edges()[:, None], basis.n_features, axis=1)
    bins = (
        encode(basis, representative)[:, 1 : 1 + basis.n_features]
        - offsets[1:-1][: basis.n_features]
    )
    out = []
    for j in range(basis.n_features):
        width = int(basis.n_edges[j]) + 1
        mass = np.bincount(bins[:, j], counts[j], minlength=width)
        total = mass.sum()
        share = mass / total if total > 0.0 else np.full(width, 1.0 / width)
        first = int(offsets[1 + j])
        out.append((share, scores[first : first + width]))
    return out


def _whole(counts: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which features were only ever in cells that begin or end at a whole number.

    Below 128 every such cell holds exactly one; cells further out hold some at any rate.
    """
    low, high = cell_ends(lower_edges())
    holds = np.where(low >= 0.0, np.ceil(low) == low, np.floor(high) == high) | (np.abs(low) >= 128)
    holds[N_CELLS // 2] = True
    return np.array([bool(np.all(holds[of_feature > 0.0])) for of_feature in counts])
