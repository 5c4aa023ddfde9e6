"""The fold: the newest contribution of every key, summed into a release; pure and repeatable.

The result depends only on the contributions that are held and on the release before, never on the
order in which they came: every sum runs over sorted keys, and what a `Folder` remembers from one
fold to the next it remembers per input, so that it gives the same bits as folding from nothing.
"""

from amalgamator.evidence import merge_cells
from amalgamator.policy import BasisPolicy, FoldConfig
from amalgamator.scorer import ScorerFold, Stamp, stamp_of
from amalgamator.state import FoldState, Pairs, by_bucket, of_part
from models.entity_risk import EvidenceCells
from models.release import Release, Source
from models.release_codec import Digests, seal_release

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
    """

    def __init__(self, config: FoldConfig) -> None:
        self._config = config
        self._days: dict[int, tuple[Stamp, EvidenceCells]] = {}
        self._scorers = ScorerFold(config)
        self.digests = Digests()

    def fold(
        self, state: FoldState, epoch: int, previous: Release | None, created_ms: int = 0
    ) -> Release:
        """Return the sealed release of everything held, numbered after ``previous``."""
        pairs = state.pairs()
        scorer = self._scorers.fold(pairs, previous)
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
            ),
            self.digests,
        )
        self.digests.keep_only(release)
        return release

    def _sources(self, pairs: Pairs) -> tuple[Source, ...]:
        newest: dict[tuple[str, str], int] = {}
        for key, held in pairs:
            worker = (key.member, key.worker)
            newest[worker] = max(newest.get(worker, 0), held.seq)
        return tuple(
            Source(member, worker, seq, self._config.weight_of(member))
            for (member, worker), seq in sorted(newest.items())
        )

    def _evidence(self, pairs: Pairs) -> dict[int, EvidenceCells]:
        by_day = by_bucket(pairs)
        oldest = max(by_day, default=0) - self._config.evidence_days + 1
        recent = {day: of_day for day, of_day in by_day.items() if day >= oldest}
        self._days = {day: cached for day, cached in self._days.items() if day in recent}
        merged = {day: self._merge_day(day, of_day) for day, of_day in recent.items()}
        return {day: cells for day, cells in merged.items() if len(cells)}

    def _merge_day(self, day: int, pairs: Pairs) -> EvidenceCells:
        stamp = stamp_of(pairs, self._config)
        cached = self._days.get(day)
        if cached is not None and cached[0] == stamp:
            return cached[1]
        cells = merge_cells(
            [(held.contribution.arrays, self._config.weight_of(key.member)) for key, held in pairs]
        )
        self._days[day] = (stamp, cells)
        return cells


def fold(
    state: FoldState,
    config: FoldConfig,
    epoch: int,
    previous: Release | None,
    created_ms: int = 0,
) -> Release:
    """Fold from nothing; see `Folder.fold`, which gives the same bits faster."""
    return Folder(config).fold(state, epoch, previous, created_ms)
