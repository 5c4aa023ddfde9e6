"""Aligning amounts in an unknown unit with the consortium by rank.

A bank may not know what its amounts are worth: points, a currency without a rate. If it pays for
the same sort of things as the others, its quantiles are theirs but for one factor, and in logs the
factor is a shift. `estimate_factor` takes the mean of the middle half of that shift over the
quantiles.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.families.scorecard import thinned
from models.features.accounts import rescale_rows
from models.histograms import N_CELLS, lower_edges
from models.matured import Matured

MIN_N = 2_000
MAX_SPREAD = 0.5
"""A larger spread of the shift, in logs, means that the shapes differ and one factor is no help."""
_MIN_QUANTILES = 12
_MIN_FRAUDS = 30
_SHIFTS = np.linspace(-0.1, 0.1, 41)
_CLEAR_NATS = 2.0
_MAD_TO_SD = 1.4826
_MEDIAN_TO_MEAN = 1.2533
_QUARTILES_TO_SD = 1.349


Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFactor:
    """What one unit of a bank is worth.

    Parameters
    ----------
    factor
        Units of the reference currency per unit, > 0.
    spread
        Standard deviation of the log of the factor over the quantiles, robust: how unlike the two
        distributions are after the shift.
    standard_error
        Of the log of the factor: of a middle over the quantiles, plus that of the own middle, which
        all quantiles share.
    n
        Transactions behind it.
    """

    factor: float
    spread: float
    standard_error: float
    n: int


def estimate_factor(
    own_counts: NDArray[np.integer],
    edges: NDArray[np.float32],
    ranks: NDArray[np.float32],
    *,
    min_n: int = MIN_N,
    max_spread: float = MAX_SPREAD,
) -> UnitFactor:
    """Return the factor that brings a bank's amounts to the reference currency.

    Parameters
    ----------
    own_counts
        Integers of shape (N_CELLS,) or (2, N_CELLS): the bank's histogram of ``log_amount``, which
        is log(1 + amount), in its own unit.
    edges, ranks
        float32, ascending: the consortium's, see `models.basis.Basis.fine_of`.
    min_n, max_spread
        Refused with less data or more spread, both > 0.

    Raises
    ------
    InvalidInputError
        If there are too few transactions, too few distinct quantiles on either side, as where all
        amounts are equal, or the shapes differ too much.

    Notes
    -----
    Cells are up to .8 % of a log wide, so a quantile is read at the middle of its cell and the
    mean over quantiles is right to about 1 %. A quantile counts by the share of transactions
    around it: edges lie close together where frauds are.
    """
    counts = _of_classes(own_counts)
    n = int(counts.sum())
    if not n >= min_n:
        raise InvalidInputError(f"alignment: expected {min_n} transactions or more, got {n}")
    if len(edges) != len(ranks):
        raise InvalidInputError(
            f"edges: expected {len(ranks)} as there are ranks, got {len(edges)}"
        )
    own = _log_amounts(_quantiles(counts, ranks))
    theirs = _log_amounts(edges.astype(np.float64))
    for whose, values in (("the consortium's", theirs), ("own", own)):
        n_distinct = len(np.unique(values[np.isfinite(values)]))
        if n_distinct < _MIN_QUANTILES:
            raise InvalidInputError(
                f"alignment: expected {_MIN_QUANTILES} distinct quantiles or more of {whose} "
                f"amounts, got {n_distinct}"
            )
    shift = theirs - own
    weights = np.where(np.isfinite(shift), _shares_around(ranks), 0.0)
    middle = _middle_half(shift, weights)
    spread = _MAD_TO_SD * _weighted_median(np.abs(shift - middle), weights)
    if not spread <= max_spread:
        raise InvalidInputError(
            f"alignment: expected a spread of {max_spread} or less between the quantiles, "
            f"got {spread:.2f}: these amounts are not the consortium's in another unit"
        )
    n_effective = float(weights.sum() ** 2 / np.sum(weights**2))
    return UnitFactor(
        factor=float(np.exp(middle)),
        spread=spread,
        standard_error=_MEDIAN_TO_MEAN
        * float(np.hypot(spread / np.sqrt(n_effective), _sd(counts) / np.sqrt(n))),
        n=n,
    )


def correction_by_outcomes(score: Score, matured: Matured) -> float | None:
    """Return the factor on amounts under which the consortium's scorer fits the outcomes best.

    By rank alone a bank whose customers spend more than others' is taken to write smaller units.
    Outcomes tell these apart, since frauds begin at the same amounts everywhere.

    Parameters
    ----------
    score
        The consortium's scorer: float32 rows of shape (n, n_features) -> log-odds of shape (n,).
    matured
        The bank's rows, in the unit in force.

    Returns
    -------
    float or None
        Within 10 % of 1; None where there are few frauds, where the outcomes hardly care, or where
        the best lies at the end of that range: then it is another change than that of a unit.
    """
    rows, weights = thinned(matured)
    if int(rows.is_fraud.sum()) < _MIN_FRAUDS:
        return None
    losses = []
    for shift in _SHIFTS.tolist():
        features = rows.features.copy()
        rescale_rows(features, float(np.exp(shift)))
        z = score(features)
        if bool(np.isnan(z).any()):
            return None
        losses.append(float(np.sum(weights * np.logaddexp(0.0, np.where(rows.is_fraud, -z, z)))))
    best = int(np.argmin(losses))
    is_clear = losses[len(losses) // 2] - losses[best] > _CLEAR_NATS
    is_inside = 0 < best < len(losses) - 1
    return float(np.exp(_SHIFTS[best])) if is_clear and is_inside else None


def _shares_around(ranks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return half of the share of transactions between the neighbours of each rank."""
    ends = np.concatenate([[0.0], ranks.astype(np.float64), [1.0]])
    shares: NDArray[np.float64] = (ends[2:] - ends[:-2]) / 2
    return shares


def _middle_half(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return the mean of the middle half: as robust as it takes, and cells even out."""
    order = np.argsort(values)  # NaN last, of weight 0
    reached = np.cumsum(weights[order])
    ends = np.clip(np.concatenate([[0.0], reached]) / reached[-1], 0.25, 0.75)
    inner = np.diff(ends)
    return float(np.sum(np.where(inner > 0.0, values[order], 0.0) * inner) / np.sum(inner))


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)  # NaN last, of weight 0
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


def _sd(counts: NDArray[np.int64]) -> float:
    """Return a standard deviation of log amounts from their quartiles."""
    low, high = _log_amounts(_quantiles(counts, np.array([0.25, 0.75], np.float32)))
    return float(high - low) / _QUARTILES_TO_SD


def _of_classes(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    if counts.shape not in ((N_CELLS,), (2, N_CELLS)):
        raise InvalidInputError(
            f"own_counts: expected shape ({N_CELLS},) or (2, {N_CELLS}), got {counts.shape}"
        )
    pooled: NDArray[np.int64] = counts.reshape(-1, N_CELLS).sum(axis=0, dtype=np.int64)
    return pooled


def _quantiles(counts: NDArray[np.int64], ranks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the values below which those shares lie, the middles of their cells."""
    below = np.cumsum(counts)
    cells = np.searchsorted(below, ranks.astype(np.float64) * below[-1], side="right")
    return _middles(lower_edges()[np.minimum(cells, N_CELLS - 1)])


def _middles(edges: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the middle of the cell that begins at each edge."""
    grid = lower_edges().astype(np.float64)
    cell = np.searchsorted(grid, edges.astype(np.float64), side="right") - 1
    upper = grid[np.minimum(cell + 1, len(grid) - 1)]
    middle: NDArray[np.float64] = (edges + upper) / 2
    return middle


def _log_amounts(log1p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(amount) of log(1 + amount), NaN where the amount is nothing."""
    amount = np.expm1(log1p)
    return np.log(np.where(amount > 0.0, amount, np.nan))
