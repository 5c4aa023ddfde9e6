"""The consortium's scorecard at a worker: scored by, learnt for the others, solved elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis, encode
from models.families.scorecard import is_kept, logits
from models.features.accounts import DAY_MS
from models.histograms import add_rows, empty_counts
from models.matured import Matured, MaturedRows
from models.named_arrays import under
from models.schema import Schema
from stream.expert_arrays import load_scorer, scorer_arrays
from stream.moments import MomentLearner
from stream.stored_statistics import StoredStatistics
from stream.touched import TouchedPages


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningPolicy:
    """How scorecards are learnt; the same for own and merged ones.

    Parameters
    ----------
    prior_logit
        Log-odds of fraud before any data.
    ridge
        Pull towards the prior, in units of curvature, > 0.
    half_life_d
        Days after which a transaction counts half, > 0.
    bucket_d
        Days per time bucket of published statistics.
    first_n, first_frauds
        Matured transactions and frauds before the first basis.
    growth
        A new basis is made when the matured transactions have grown by this factor.
    solve_growth
        And new weights of the bank's own scorecard, at the end of a day: a solution costs the same
        however little has come since the last.
    moments
        Whether moments of the features are learnt and published with the statistics.
    """

    prior_logit: float = -4.5
    ridge: float = 2.0
    half_life_d: float = 138.0
    bucket_d: int = 28
    first_n: int = 3_000
    first_frauds: int = 30
    growth: float = 1.4
    solve_growth: float = 1.02
    moments: bool = False


class SharedExpert:
    """The consortium's scorecard: scores by the release in force, learns for the basis asked for.

    Parameters
    ----------
    schema, policy
        The consortium's.
    learns_statistics
        Whether statistics are learnt; without them moments are, which show the basis instead.

    Attributes
    ----------
    basis, weights
        In force, None before a release holds them.
    personal
        The bank's own weights on that basis, None where a release brings none.
    collecting
        The basis that statistics and moments are learnt for, None before a release asks.
    moments
        Learnt from the same rows.
    """

    def __init__(
        self, schema: Schema, policy: LearningPolicy, *, learns_statistics: bool = True
    ) -> None:
        self._schema, self._policy = schema, policy
        self._learns_statistics = learns_statistics
        self.counts = empty_counts(len(schema.feature_names))
        self.basis: Basis | None = None
        self.weights: NDArray[np.float64] | None = None
        self.personal: NDArray[np.float64] | None = None
        self.collecting: Basis | None = None
        self.moments = MomentLearner(is_on=policy.moments or not learns_statistics)
        self._open: dict[int, StoredStatistics] = {}
        self._changed: set[int] = set()

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return log-odds, NaN before there are weights."""
        if self.basis is None or self.weights is None:
            return np.full(len(rows), np.nan)
        return logits(encode(self.basis, rows), self.weights)

    def score_both(
        self, rows: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return log-odds by the merged and by the personal weights; rows are encoded once.

        Without statistics of its own a bank's personal weights are the merged ones, so these speak
        where a release brings no others.
        """
        if self.personal is None or self.basis is None or self.weights is None:
            merged = self.score(rows)
            return merged, merged
        active = encode(self.basis, rows)
        return logits(active, self.weights), logits(active, self.personal)

    @property
    def n(self) -> int:
        """Transactions that have matured."""
        return int(self.counts[0].sum())

    def learn(self, matured: Matured) -> None:
        """Add outcomes to histograms and to the statistics of their time bucket."""
        add_rows(self.counts, matured.features, matured.is_fraud)
        self._add(matured)

    def _add(self, matured: Matured) -> None:
        if self.collecting is None:
            return
        bucket = matured.known_ms // DAY_MS // self._policy.bucket_d
        for one in np.unique(bucket).tolist():
            rows = matured.take(np.flatnonzero(bucket == one))
            active = encode(self.collecting, rows.features)
            self.moments.add(rows, active)
            if self._learns_statistics:
                z = self._reference(rows, active)
                kept = is_kept(rows.hashes)
                self._statistics(one).add(active, rows.is_fraud, z, kept=kept)
                self._changed.add(one)

    def _statistics(self, bucket: int) -> StoredStatistics:
        if bucket not in self._open:
            self._open[bucket] = StoredStatistics(
                self.collecting.n_weights if self.collecting else 0
            )
        return self._open[bucket]

    def _reference(self, rows: Matured, active: NDArray[np.int32]) -> NDArray[np.float64]:
        if self.basis is None or self.weights is None:
            return np.full(len(rows), self._policy.prior_logit)
        if self.basis.is_same(self.collecting):
            return logits(active, self.weights)
        return self.score(rows.features)

    def restart(self) -> None:
        """Drop counts, statistics and moments: they are of another unit."""
        self.counts[:] = 0
        self._open.clear()
        self._changed.clear()
        self.moments.begin(self.collecting)

    def untaught(self) -> "SharedExpert":
        """Return one that learns as this does, of nothing yet."""
        return SharedExpert(self._schema, self._policy, learns_statistics=self._learns_statistics)

    def needs_rows(self, collecting: Basis | None) -> bool:
        """Return whether a release's basis is one that rows must be encoded for afresh."""
        if collecting is None:
            return False
        return not collecting.is_same(self.collecting)

    def install(
        self,
        basis: Basis | None,
        weights: NDArray[np.float64] | None,
        collecting: Basis | None,
        retained: MaturedRows | None,
        *,
        personal: NDArray[np.float64] | None = None,
    ) -> None:
        """Swap the scorer in; where another basis is asked for, encode the retained rows for it.

        Parameters
        ----------
        basis, weights
            The scorer now in force.
        collecting
            The basis that statistics are now asked for.
        retained
            Matured rows still held, in order; given when `needs_rows`.
        personal
            The bank's own weights on ``basis``.
        """
        self.basis, self.weights, self.personal = basis, weights, personal
        if retained is not None:
            self.collecting = collecting
            self._open.clear()
            self._changed.clear()
            self.moments.begin(collecting)
            for block in retained.blocks():
                self._add(block)

    def take_over(self, encoded: "SharedExpert", newer: Matured) -> None:
        """Go on with sums that another expert has made for a new basis; counts stay.

        Parameters
        ----------
        encoded
            Has the retained rows in it, by the scorer that is now in force.
        newer
            Outcomes since, in order.
        """
        self.collecting, self.moments = encoded.collecting, encoded.moments
        self._open, self._changed = encoded._open, encoded._changed  # noqa: SLF001  # one of us
        self._add(newer)

    def recount(self, retained: MaturedRows) -> None:
        """Count rows whose features have changed anew: what was made of them before is replaced."""
        self.install(self.basis, self.weights, self.collecting, retained, personal=self.personal)

    def contributions(
        self, now_ms: int
    ) -> Mapping[int, tuple[int, Callable[[], dict[str, NDArray[np.generic]]]]]:
        """Return bucket -> (n, what gives its arrays in any thread) of those that changed.

        A bucket that is over is published once more, let go, and then lives on the topic alone.
        """
        if self.collecting is None:
            return {}
        now_weights = np.zeros(self.collecting.n_weights)
        is_in_force = self.collecting.is_same(self.basis)
        if self.weights is not None and is_in_force:
            now_weights = self.weights
        out = {}
        for bucket in sorted(self._changed):
            statistics = self._open[bucket]
            out[bucket] = (statistics.n, partial(statistics.copied().published, now_weights))
        self._changed.clear()
        current = now_ms // DAY_MS // self._policy.bucket_d
        for over in [b for b in self._open if b < current]:
            del self._open[over]
        return out

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out: dict[str, NDArray[np.generic]] = {"counts": self.counts}
        out |= scorer_arrays("basis", self.basis, self.weights)
        if self.personal is not None:
            out["personal"] = self.personal
        out |= scorer_arrays("collecting", self.collecting, None)
        for bucket, statistics in self._open.items():
            out |= {f"open/{bucket}/{k}": a for k, a in statistics.arrays().items()}
        out["changed"] = np.array(sorted(self._changed), np.int64)
        out |= {f"moments/{name}": array for name, array in self.moments.arrays().items()}
        return out

    def touched(self) -> dict[str, TouchedPages]:
        """Return of large arrays: name -> pages that may have changed since they were copied."""
        return {f"open/{bucket}/pairs": held.pages for bucket, held in self._open.items()}

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave."""
        self.counts = np.array(arrays["counts"], np.uint32)
        self.basis, self.weights = load_scorer("basis", arrays)
        personal = arrays.get("personal")
        self.personal = None if personal is None else np.array(personal, np.float64)
        self.collecting, _ = load_scorer("collecting", arrays)
        buckets = {int(name.split("/")[1]) for name in arrays if name.startswith("open/")}
        self._open = {b: StoredStatistics.of(under(f"open/{b}/", arrays)) for b in sorted(buckets)}
        self._changed = set(np.asarray(arrays["changed"]).tolist())
        self.moments.load(self.collecting, under("moments/", arrays))
