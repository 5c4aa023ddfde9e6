"""The fold: the newest contribution of every key, summed into a release; pure and repeatable.

The result depends only on the contributions that are held and on the release before, never on the
order in which they came: every sum runs over sorted keys, and what a `Folder` remembers from one
fold to the next it remembers per input, so that it gives the same bits as folding from nothing.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from amalgamator.evidence import merge_cells
from amalgamator.nets import NetFold
from amalgamator.policy import BasisPolicy, FoldConfig
from amalgamator.probing import ProbeFold
from amalgamator.scorer import Scorer, ScorerFold
from amalgamator.state import FoldState, Pairs, by_bucket, of_part
from amalgamator.sums import Stamp
from amalgamator.target import targets
from amalgamator.trust import Trust, TrustReport
from models.entity_risk import MAX_CELLS, EvidenceCells, capped, most_telling
from models.release import Release, Source
from models.release_hashes import Digests, seal_release
from models.summary import Contribution

__all__ = ["BasisPolicy", "FoldConfig", "FoldState", "Folder", "fold"]


class Folder:
    """Folds one state after the other and remembers the sums whose inputs did not change.

    Parameters
    ----------
    config
        Must stay the same for the life of the folder.

    Attributes
    ----------
    digests
        Content hashes of the last release's parts.
    report
        What each member counted for in the last release, and why.
    """

    def __init__(self, config: FoldConfig) -> None:
        self._config = config
        self._days: dict[int, tuple[Stamp, EvidenceCells]] = {}
        self._scorers = ScorerFold(config)
        self._trust = Trust(config)
        self._asking = ProbeFold(config)
        self._nets = NetFold(config)
        self._weights: dict[str, float] = {}
        self._max_frauds = 0 if config.trust is None else config.trust.max_frauds
        self.report = TrustReport()
        self.digests = Digests()

    def fold(
        self, state: FoldState, epoch: int, previous: Release | None, created_ms: int = 0
    ) -> Release:
        """Return the sealed release of everything held, numbered after ``previous``."""
        pairs = state.pairs()
        scorer = self._weighed(pairs, previous, exact=False)
        if self._scorers.is_indefinite and self._config.trust is not None:
            scorer = self._weighed(pairs, previous, exact=True)
        asked = self._asking.fold(
            pairs,
            previous,
            scorer,
            sums=self._scorers,
            weights=self.report.answer_weights(self._config),
        )
        release = seal_release(
            Release(
                number=1 if previous is None else previous.number + 1,
                epoch=epoch,
                created_ms=created_ms,
                release_id="",
                sources=self._sources(pairs),
                basis=scorer.basis,
                weights=scorer.weights,
                next_basis=scorer.next_basis,
                evidence=self._evidence(of_part(pairs, "evidence")),
                probes=asked.probes,
                student=asked.student,
                net=self._nets.fold(
                    pairs,
                    previous,
                    scorer.basis,
                    weights=self.report.statistics_weights(self._config),
                ),
                personal=scorer.personal,
                former=scorer.former,
            ),
            self.digests,
        )
        self.digests.keep_only(release)
        return release

    def _weighed(self, pairs: Pairs, previous: Release | None, *, exact: bool) -> Scorer:
        known = targets(previous, self._config)
        self.report = self._trust.judge(pairs, exact=exact, known=known)
        self._weights = self.report.evidence_weights(self._config)
        self._scorers.reweigh(self.report.statistics_weights(self._config))
        return self._scorers.fold(pairs, previous)

    def _sources(self, pairs: Pairs) -> tuple[Source, ...]:
        newest: dict[tuple[str, str], int] = {}
        for key, held in pairs:
            worker = (key.member, key.worker)
            newest[worker] = max(newest.get(worker, 0), held.seq)
        statistics = self.report.statistics_weights(self._config)
        return tuple(
            Source(member, worker, seq, self._weights[member], statistics[member], self._max_frauds)
            for (member, worker), seq in sorted(newest.items())
        )

    def _evidence(self, pairs: Pairs) -> dict[int, EvidenceCells]:
        by_day = by_bucket([pair for pair in pairs if self._weights[pair[0].member] > 0.0])
        oldest = max(by_day, default=0) - self._config.evidence_days + 1
        recent = {day: of_day for day, of_day in by_day.items() if day >= oldest}
        self._days = {day: cached for day, cached in self._days.items() if day in recent}
        merged = {day: self._merge_day(day, of_day) for day, of_day in recent.items()}
        return {day: cells for day, cells in merged.items() if len(cells)}

    def _merge_day(self, day: int, pairs: Pairs) -> EvidenceCells:
        stamp = tuple((key, held.seq, self._weights[key.member]) for key, held in pairs)
        cached = self._days.get(day)
        if cached is not None and cached[0] == stamp:
            return cached[1]
        cells = merge_cells(
            [(self._capped(held.contribution), self._weights[key.member]) for key, held in pairs]
        )
        cells = most_telling(cells, MAX_CELLS)
        self._days[day] = (stamp, cells)
        return cells

    def _capped(self, contribution: Contribution) -> Mapping[str, NDArray[np.generic]]:
        cells = EvidenceCells(**contribution.arrays)  # type: ignore[arg-type]  # as the codec gave them
        return capped(cells, self._max_frauds).arrays()


def fold(
    state: FoldState,
    config: FoldConfig,
    epoch: int,
    previous: Release | None,
    created_ms: int = 0,
) -> Release:
    """Fold from nothing; see `Folder.fold`, which gives the same bits faster."""
    return Folder(config).fold(state, epoch, previous, created_ms)
