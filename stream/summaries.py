"""What a bank publishes, and when: everything that changed, as cumulative contributions."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.entity_risk import MAX_CELLS, EvidenceCells, most_telling
from models.features.accounts import DAY_MS
from models.summary import Contribution, ContributionKey
from stream.entity_table import EntityTable
from stream.panel import Panel, Piece


class Summaries:
    """Collects a worker's contributions; evidence at every cadence, the rest at its own.

    Parameters
    ----------
    member, worker
        Who publishes.
    cadence_ms
        Event time between publications of all but evidence.

    Attributes
    ----------
    due_ms
        When all but evidence is published next.
    left_out
        Cells of evidence that the last `collect` had no room for.
    """

    def __init__(self, member: str, worker: str, cadence_ms: int) -> None:
        self._member, self._worker = member, worker
        self._cadence_ms = cadence_ms
        self._sent: dict[int, tuple[int, EvidenceCells]] = {}
        self.due_ms = -1
        self.left_out = 0

    def collect(
        self,
        panel: Panel,
        entities: EntityTable,
        *,
        epoch: int,
        now_ms: Mapping[str, int],
        is_aligned: bool,
        answers: Sequence[Piece] = (),
    ) -> list[Contribution]:
        """Return what changed since the last call, the contribution that closes the epoch last.

        Parameters
        ----------
        panel, entities
            What was learnt.
        epoch
            That is closed.
        now_ms
            ``tick`` and ``watermark``.
        is_aligned
            Whether the bank's amounts are in the consortium's unit; else evidence alone goes.
        answers
            To probes, as soon as there are any.
        """
        pieces: list[Piece] = []
        if is_aligned and now_ms["tick"] >= self.due_ms:
            self.due_ms = now_ms["tick"] + self._cadence_ms
            pieces += panel.pieces(now_ms["tick"])
        pieces += answers
        found = entities.changed_cells()
        changed = {day: most_telling(cells, MAX_CELLS) for day, cells in found.items()}
        self.left_out = sum(len(found[day]) - len(cells) for day, cells in changed.items())
        self._sent = {day: (len(pieces) + i, c) for i, (day, c) in enumerate(changed.items())}
        pieces += [
            Piece("evidence", day, 0, int(cells.n.sum()), cells.arrays())
            for day, cells in changed.items()
        ]
        closing = {
            "watermark_ms": np.array([now_ms["watermark"]], np.int64),
            "n_contributions": np.array([len(pieces)], np.int64),
        }
        n = panel.shared.n if is_aligned else 0
        pieces.append(Piece("epoch", 0, 0, n, closing))
        return [self._contribution(piece, epoch) for piece in pieces]

    def _contribution(self, piece: Piece, epoch: int) -> Contribution:
        key = ContributionKey(self._member, self._worker, piece.part, piece.bucket)
        return Contribution(key=key, epoch=epoch, basis=piece.basis, n=piece.n, arrays=piece.arrays)

    def published(self, entities: EntityTable, seqs: Sequence[int], tick_ms: int) -> None:
        """Note the sequence numbers under which the last `collect` went out, one for each."""
        cells = {day: (seqs[place], cells) for day, (place, cells) in self._sent.items()}
        entities.published(cells, open_day=tick_ms // DAY_MS)
        self._sent = {}
