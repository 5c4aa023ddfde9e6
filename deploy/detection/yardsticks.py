"""LightGBM on all that has matured, refitted every two weeks: what data in one place would give.

Rows are scored before their outcome is known to the model, as in the consortium. What
stands for a category is drawn anew at each refit, as bins are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.basis_builder import build_basis
from models.families.batch import BatchFamily, BatchOptions
from models.histograms import add_rows, empty_counts
from models.matured import Matured
from models.schema import Schema

DAY_MS = 86_400_000
OPTIONS = BatchOptions(refit_d=14, n_trees=300, num_leaves=31, learning_rate=0.05, min_n=1_000)


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
            family.install(_basis_of(matured, schema, number=1 + day - days.start))
        family.end_day(day, lambda matured=matured: matured)  # type: ignore[misc]  # bound now
        today = slice(*np.searchsorted(rows.event_ms, [day * DAY_MS, (day + 1) * DAY_MS]))
        scores[today] = family.score(rows.features[today])
        on_day()
    return scores


def _basis_of(matured: Matured, schema: Schema, *, number: int) -> Basis:
    counts = empty_counts(len(schema.feature_names))
    for block in matured.blocks():
        add_rows(counts, block.features, block.is_fraud)
    return build_basis(counts, schema, number)
