"""Aligning amounts in an unknown unit with the consortium by rank.

A bank may not know what its amounts are worth: points, a currency without a rate. If it pays for
the same sort of things as the others, its quantiles are theirs but for one factor, and in logs the
factor is a shift. `estimate_factor` takes the median of that shift over the quantiles.
`QuantileMap` is the general case: an attribute of unknown scale through its own quantiles to the
consortium's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.basis_builder import FINE_QUANTILES
from models.errors import InvalidInputError
from models.histograms import N_CELLS, lower_edges

MIN_N = 2_000
MAX_SPREAD = 0.5
"""A larger spread of the shift, in logs, means that the shapes differ and one factor is no help."""
_MIN_QUANTILES = 12
_MAX_ROUNDS = 20
_MAD_TO_SD = 1.4826
_MEDIAN_TO_MEAN = 1.2533
_QUARTILES_TO_SD = 1.349


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
        Of the log of the factor: of a median over the quantiles, plus that of the own median, which
        all quantiles share.
    n
        Transactions behind it.
    """

    factor: float
    spread: float
    standard_error: float
    n: int


def feature_edges(basis: Basis, feature: int) -> NDArray[np.float32]:
    """Return the fine edges of one feature: the consortium's merged quantiles."""
    first = int(basis.n_edges[:feature].sum())
    return basis.edges[first : first + int(basis.n_edges[feature])]


def estimate_factor(
    own_counts: NDArray[np.integer],
    edges: NDArray[np.float32],
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
    edges
        float32, ascending: the consortium's, see `feature_edges`.
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
    median over quantiles is right to about 1 %. Where quantiles of the consortium fall into one
    cell its basis has one edge for all of them; which edges those are is found together with the
    shift, by matching in order.
    """
    counts = _of_classes(own_counts)
    n = int(counts.sum())
    if not n >= min_n:
        raise InvalidInputError(f"alignment: expected {min_n} transactions or more, got {n}")
    if len(edges) > len(FINE_QUANTILES):
        raise InvalidInputError(f"edges: expected {len(FINE_QUANTILES)} or fewer, got {len(edges)}")
    own = _log_amounts(_quantiles(counts))
    theirs = _log_amounts(_middles(edges))
    for whose, values in (("own", own), ("the consortium's", theirs)):
        n_distinct = len(np.unique(values[np.isfinite(values)]))
        if n_distinct < _MIN_QUANTILES:
            raise InvalidInputError(
                f"alignment: expected {_MIN_QUANTILES} distinct quantiles or more of {whose} "
                f"amounts, got {n_distinct}"
            )
    shift = _matched_shift(own, theirs)
    shift = shift[np.isfinite(shift)]
    middle = float(np.median(shift))
    spread = _MAD_TO_SD * float(np.median(np.abs(shift - middle)))
    if not spread <= max_spread:
        raise InvalidInputError(
            f"alignment: expected a spread of {max_spread} or less between the quantiles, "
            f"got {spread:.2f}: these amounts are not the consortium's in another unit"
        )
    return UnitFactor(
        factor=float(np.exp(middle)),
        spread=spread,
        standard_error=_MEDIAN_TO_MEAN
        * float(np.hypot(spread / np.sqrt(len(shift)), _sd(own) / np.sqrt(n))),
        n=n,
    )


def _sd(values: NDArray[np.float64]) -> float:
    """Return a standard deviation from the quartiles of quantiles."""
    low, high = np.nanquantile(values, [0.25, 0.75])
    return float(high - low) / _QUARTILES_TO_SD


def _of_classes(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    if counts.shape not in ((N_CELLS,), (2, N_CELLS)):
        raise InvalidInputError(
            f"own_counts: expected shape ({N_CELLS},) or (2, {N_CELLS}), got {counts.shape}"
        )
    pooled: NDArray[np.int64] = counts.reshape(-1, N_CELLS).sum(axis=0, dtype=np.int64)
    return pooled


def _quantiles(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the values at `FINE_QUANTILES`, the middles of their cells."""
    below = np.cumsum(counts)
    cells = np.searchsorted(below, np.ceil(FINE_QUANTILES * below[-1]), side="left")
    return _middles(lower_edges()[cells])


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


def _matched_shift(own: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return theirs - own at each quantile, edges that stand for several quantiles found.

    The own median is tried at every edge; from each start matching and shift are improved in turn,
    and the closest fit counts.
    """
    if len(own) == len(theirs):
        return theirs - own
    fits = [_improved(own, theirs, start) for start in theirs - own[np.argsort(own)[len(own) // 2]]]
    costs = [float(np.nansum(np.abs(shift - np.nanmedian(shift)))) for shift in fits]
    return fits[int(np.argmin(costs))]


def _improved(
    own: NDArray[np.float64], theirs: NDArray[np.float64], start: float
) -> NDArray[np.float64]:
    shift, middle = theirs[:1] - own, start
    for _ in range(_MAX_ROUNDS):
        distance = np.abs(own[:, None] + middle - theirs[None, :])
        shift = theirs[_in_order(np.nan_to_num(distance))] - own
        if float(np.nanmedian(shift)) == middle:
            break
        middle = float(np.nanmedian(shift))
    return shift


def _in_order(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cheapest column of each row where columns never fall and none is skipped."""
    n, m = cost.shape
    total = np.full((n, m), np.inf)
    total[0, 0] = cost[0, 0]
    came_up = np.zeros((n, m), np.bool_)
    for i in range(1, n):
        step = np.concatenate([[np.inf], total[i - 1, :-1]])
        came_up[i] = step < total[i - 1]
        total[i] = np.minimum(step, total[i - 1]) + cost[i]
    column = np.empty(n, np.int64)
    column[-1] = m - 1
    for i in range(n - 1, 0, -1):
        column[i - 1] = column[i] - int(came_up[i, column[i]])
    return column


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantileMap:
    """A monotone map from a bank's scale of an attribute to the consortium's.

    Parameters
    ----------
    own, theirs
        float64 of shape (n_knots,), n_knots >= 2, both ascending, finite: values of the same rank.
    """

    own: NDArray[np.float64]
    theirs: NDArray[np.float64]

    def __post_init__(self) -> None:
        own, theirs = self.own, self.theirs
        is_fit = own.ndim == 1 and own.shape == theirs.shape and len(own) >= 2
        if not is_fit or not bool(np.all(np.diff(own) > 0) and np.all(np.diff(theirs) >= 0)):
            raise InvalidInputError("quantile map: expected two or more ascending pairs of values")
        for array in (own, theirs):
            array.setflags(write=False)

    @classmethod
    def fit(
        cls,
        own_counts: NDArray[np.integer],
        consortium_edges: NDArray[np.float32],
        *,
        min_n: int = MIN_N,
    ) -> "QuantileMap":
        """Return the map that takes own quantiles to the consortium's.

        Parameters
        ----------
        own_counts
            Integers of shape (N_CELLS,) or (2, N_CELLS).
        consortium_edges
            float32, ascending: one for each of `models.basis.FINE_QUANTILES`.
        min_n
            Refused with less data.

        Raises
        ------
        InvalidInputError
            If there is too little data, the consortium has an edge for several quantiles (ranks
            are then not known), or own values are all equal.
        """
        counts = _of_classes(own_counts)
        n = int(counts.sum())
        if not n >= min_n:
            raise InvalidInputError(f"quantile map: expected {min_n} values or more, got {n}")
        if len(consortium_edges) != len(FINE_QUANTILES):
            raise InvalidInputError(
                f"quantile map: expected {len(FINE_QUANTILES)} edges, got {len(consortium_edges)}"
            )
        values, rank = np.unique(_quantiles(counts), return_inverse=True)
        theirs = _middles(consortium_edges)
        sums = np.bincount(rank, weights=theirs)
        return cls(own=values, theirs=sums / np.bincount(rank))

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return values on the consortium's scale: linear between knots, and on beyond the ends.

        Parameters
        ----------
        values
            Of any shape, on the bank's scale; NaN, which is absent, stays NaN.
        """
        x = values.astype(np.float64)
        segment = np.clip(np.searchsorted(self.own, x, side="right") - 1, 0, len(self.own) - 2)
        slope = np.diff(self.theirs) / np.diff(self.own)
        mapped: NDArray[np.float64] = self.theirs[segment] + slope[segment] * (
            x - self.own[segment]
        )
        return mapped
