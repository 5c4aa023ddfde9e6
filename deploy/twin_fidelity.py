"""How close a twin is to the rows whose sums it was made of, and what models learn from it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.table import Table

from models.basis import Basis, encode
from models.copula import Moments, bin_scores
from models.evaluation import average_precision
from models.families.scorecard import Statistics, logits
from models.families.solver import solve_square
from models.histograms import add_rows, empty_counts
from models.latent import score_correlations

_PASSES = 4
_RIDGE = 2.0
_PRIOR_LOGIT = -4.5
_BLOCK = 50_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fidelity:
    """Distances between synthetic and real rows, and what a scorecard learns from either.

    Parameters
    ----------
    distance
        float64 of shape (n_features, 2): Kolmogorov-Smirnov distance of a feature's values by
        class, on the histograms' grid; NaN where a class has none.
    correlation_error
        float64 of shape (2,): mean absolute difference of the score correlations of pairs.
    worst_correlation
        float64 of shape (2,): the largest.
    ap_synthetic, ap_real
        Average precision on later real rows of a scorecard trained on the twin, on real rows;
        None without a fraud among them.
    """

    distance: NDArray[np.float64]
    correlation_error: NDArray[np.float64]
    worst_correlation: NDArray[np.float64]
    ap_synthetic: float | None
    ap_real: float | None

    def figures(self) -> dict[str, float]:
        """Return the figures for a results file."""
        out = {}
        for c, name in enumerate(("legit", "fraud")):
            out[f"ks_{name}_mean"] = float(np.nanmean(self.distance[:, c]))
            out[f"ks_{name}_worst"] = float(np.nanmax(self.distance[:, c]))
            out[f"correlation_error_{name}_mean"] = float(self.correlation_error[c])
            out[f"correlation_error_{name}_worst"] = float(self.worst_correlation[c])
        if self.ap_synthetic is not None and self.ap_real is not None:
            out["ap_trained_on_twin"] = self.ap_synthetic
            out["ap_trained_on_real"] = self.ap_real
        return out


def distances(real: NDArray[np.integer], synthetic: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the greatest difference of cumulative shares of each feature and class.

    Parameters
    ----------
    real, synthetic
        Counts of shape (n_features, 2, N_CELLS).
    """
    shares = []
    for counts in (real, synthetic):
        below = np.cumsum(counts, axis=2, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            shares.append(below / below[:, :, -1:])
    gap: NDArray[np.float64] = np.max(np.abs(shares[0] - shares[1]), axis=2)
    return gap


def correlation_errors(
    real: Moments, synthetic: Moments
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and largest absolute difference over pairs of features, by class."""
    pairs = np.triu_indices(real.n_features, 1)
    errors = [
        np.abs(score_correlations(real, c) - score_correlations(synthetic, c))[pairs]
        for c in (0, 1)
    ]
    if not len(pairs[0]):
        return np.zeros(2), np.zeros(2)
    return np.array([e.mean() for e in errors]), np.array([e.max() for e in errors])


def fitted_scorecard(
    basis: Basis, rows: NDArray[np.float32], is_fraud: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the weights of a scorecard fitted to rows in a few Newton steps."""
    weights = np.zeros(basis.n_weights)
    weights[0] = _PRIOR_LOGIT
    tenth = np.arange(len(rows)) % 10 == 0  # which carry the curvature of the dull
    for _ in range(_PASSES):
        statistics = Statistics(basis.n_weights)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            active = encode(basis, rows[block])
            z = logits(active, weights)
            statistics.add(active, is_fraud[block], z, kept=tenth[block])
        weights = solve_square(
            statistics.curvature(), statistics.gradient, ridge=_RIDGE, prior_logit=_PRIOR_LOGIT
        )
    return weights


def scored(
    basis: Basis, weights: NDArray[np.float64], rows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the log-odds of rows, in blocks to bound memory."""
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    return np.concatenate([logits(encode(basis, block), weights) for block in blocks])


def measure(
    basis: Basis,
    real: tuple[NDArray[np.float32], NDArray[np.bool_]],
    synthetic: tuple[NDArray[np.float32], NDArray[np.bool_]],
    later: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> Fidelity:
    """Compare synthetic rows with the real rows behind the twin, and on later real rows.

    Parameters
    ----------
    basis
        Of the twin.
    real, synthetic, later
        Rows float32 (n, n_features) and their classes bool (n,); ``later`` may be empty.
    """
    counts, moments, scores = [], [], bin_scores(basis)
    for rows, is_fraud in (real, synthetic):
        counts.append(empty_counts(basis.n_features))
        add_rows(counts[-1], rows, is_fraud)
        moments.append(Moments.empty(basis.n_features))
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            active = encode(basis, rows[block])
            moments[-1].add(active, scores, is_fraud[block], sampled=np.ones(len(active), np.bool_))
    mean, worst = correlation_errors(*moments)
    ap: list[float | None] = [None, None]
    if len(later[0]):
        ap = [
            average_precision(later[1], scored(basis, fitted_scorecard(basis, *of), later[0]))
            for of in (synthetic, real)
        ]
    return Fidelity(
        distance=distances(counts[0], counts[1]),
        correlation_error=mean,
        worst_correlation=worst,
        ap_synthetic=ap[0],
        ap_real=ap[1],
    )


def fidelity_table(names: tuple[str, ...], fidelity: Fidelity) -> Table:
    """Return the console table: per feature the distance of its values by class."""
    table = Table(
        title="distance of synthetic from real values (Kolmogorov-Smirnov)",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("feature")
    for name in ("legitimate", "fraud"):
        table.add_column(name, justify="right")
    for name, row in zip(names, fidelity.distance.tolist(), strict=True):
        table.add_row(name, *("-" if one != one else f"{one:.4f}" for one in row))  # noqa: PLR0124
    return table
