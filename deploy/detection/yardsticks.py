"""LightGBM on all that has matured, refitted every two weeks: what data in one place would give.

Rows are scored before their outcome is known to the model, as in the consortium. Bins are finer
than the consortium's: up to 253 of a feature, drawn anew at each refit.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.basis_builder import build_basis
from models.families.batch import BatchFamily, BatchOptions
from models.families.ordinals import MAX_EDGES
from models.histograms import add_rows, empty_counts, lower_edges, quantile_edges
from models.matured import Matured
from models.schema import Schema
from models.trees import together

DAY_MS = 86_400_000
OPTIONS = BatchOptions(refit_d=14, n_trees=300, num_leaves=31, learning_rate=0.05, min_n=1_000)
_QUANTILES = np.linspace(0, 1, MAX_EDGES + 2)[1:-1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class YardstickRows:
    """What the model sees, in order of time.

    Parameters
    ----------
    features
        float32 of shape (n, n_features), NaN is absent.
    is_fraud
        bool of shape (n,).
    event_ms
        int64 of shape (n,), ascending.
    """

    features: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]
    event_ms: NDArray[np.int64]

    def until(self, event_ms: int, delay_ms: int) -> Matured:
        """Return the rows up to an instant, which are known ``delay_ms`` after it."""
        end = int(np.searchsorted(self.event_ms, event_ms, side="right"))
        return Matured(
            features=self.features[:end],
            is_fraud=self.is_fraud[:end],
            hashes=np.zeros(end, np.uint64),  # they would thin, which needs base_logits too
            known_ms=self.event_ms[:end] + delay_ms,
        )


def score_prequentially(
    rows: YardstickRows,
    schema: Schema,
    *,
    days: range,
    delay_ms: int,
    options: BatchOptions = OPTIONS,
    on_day: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Return log-odds of shape (n,), NaN outside ``days`` and before the first fit.

    Parameters
    ----------
    rows
        Of one bank or of all.
    schema
        Of the features.
    days
        Days since 1970 that are scored; the first fit is at the start of the first.
    delay_ms
        After it an outcome is known.
    options
        Of the model.
    on_day
        Called after each day.
    """
    family = BatchFamily(options, seed=0)
    scores = np.full(len(rows.event_ms), np.nan)
    for day in days:
        matured = rows.until(day * DAY_MS - delay_ms, delay_ms)
        if (day - days.start) % options.refit_d == 0:
            family.install(fine_bins(matured, schema, number=1 + day - days.start))
        family.end_day(day, lambda matured=matured: matured)  # type: ignore[misc]  # bound now
        today = slice(*np.searchsorted(rows.event_ms, [day * DAY_MS, (day + 1) * DAY_MS]))
        scores[today] = family.score(rows.features[today])
        on_day()
    return scores


def fine_bins(matured: Matured, schema: Schema, *, number: int) -> Basis:
    """Return a basis of bins alone, as fine as a byte allows, with numbers for categories."""
    counts = empty_counts(len(schema.feature_names))
    for block in matured.blocks():
        add_rows(counts, block.features, block.is_fraud)
    basis = build_basis(counts, schema, number)
    n_of = np.cumsum(basis.n_categories)
    grid = lower_edges()
    edges = [
        _between(basis.category_logits[n_of[j] - basis.n_categories[j] : n_of[j]])
        if is_category
        else quantile_edges(counts[j].sum(axis=0, dtype=np.int64), _QUANTILES, edges=grid)
        for j, is_category in enumerate(schema.is_category.tolist())
    ]
    return replace(
        basis,
        edges=np.concatenate(edges),
        n_edges=np.array([len(each) for each in edges], np.int32),
        ranks=np.empty(0, np.float32),
        cuts=np.empty(0, np.float32),
        n_cuts=np.empty(0, np.int32),
        selected=np.empty(0, np.int32),
        crosses=np.empty((0, 2), np.int32),
        trees=together([]),
    )


def _between(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return edges that tell the numbers of categories apart, thinned evenly to what fits."""
    edges = np.unique(np.append(logits, np.float32(0.0)))[1:]
    if len(edges) > MAX_EDGES:
        edges = edges[np.linspace(0, len(edges) - 1, MAX_EDGES).astype(np.int64)]
    return edges
