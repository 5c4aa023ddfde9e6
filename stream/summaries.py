"""What a bank publishes, and when: everything that changed, as cumulative contributions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.entity_risk import MAX_CELLS, EvidenceCells, added, most_telling
from models.features.accounts import DAY_MS
from models.summary import Contribution, ContributionKey
from stream.entity_table import EntityTable
from stream.new_cells import NewCells
from stream.panel import Panel, Piece


class Draft(NamedTuple):
    """What is to be published, as it is at an instant.

    Parameters
    ----------
    epoch
        That is closed.
    pieces
        All but evidence.
    outcomes
        Day -> cells as last published, and the outcomes since.
    n
        Transactions that the consortium learns from.
    watermark_ms
        Up to which everything is in it.
    """

    epoch: int
    pieces: Sequence[Piece]
    outcomes: Mapping[int, tuple[EvidenceCells, NewCells]]
    n: int
    watermark_ms: int


class Written(NamedTuple):
    """A draft's contributions, the one that closes the epoch last.

    Parameters
    ----------
    contributions
        In order.
    whole
        Day -> all its cells.
    sent
        Day -> which of the contributions holds its cells, and those that there was room for.
    """

    contributions: list[Contribution]
    whole: Mapping[int, EvidenceCells]
    sent: Mapping[int, tuple[int, EvidenceCells]]


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
        Cells of evidence that the last summaries had no room for.
    """

    def __init__(self, member: str, worker: str, cadence_ms: int) -> None:
        self._member, self._worker = member, worker
        self._cadence_ms = cadence_ms
        self._sent: dict[int, tuple[int, EvidenceCells]] = {}  # day -> place in the last, cells
        self.due_ms = -1
        self.left_out = 0

    def draft(
        self,
        panel: Panel,
        entities: EntityTable,
        *,
        epoch: int,
        now_ms: Mapping[str, int],
        is_aligned: bool,
        answers: Sequence[Piece] = (),
    ) -> Draft:
        """Return what changed since the last call; nothing of it changes any more.

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
        n = panel.shared.n if is_aligned else 0
        return Draft(epoch, pieces, entities.unpublished(), n, now_ms["watermark"])

    def written(self, draft: Draft) -> Written:
        """Return a draft's contributions: slow, safe in another thread."""
        whole = {day: added(known, new.all()) for day, (known, new) in draft.outcomes.items()}
        changed = {day: most_telling(cells, MAX_CELLS) for day, cells in whole.items()}
        pieces = [
            *draft.pieces,
            *(
                Piece.of("evidence", day, 0, int(cells.n.sum()), cells.arrays())
                for day, cells in changed.items()
            ),
        ]
        closing = {
            "watermark_ms": np.array([draft.watermark_ms], np.int64),
            "n_contributions": np.array([len(pieces)], np.int64),
        }
        pieces.append(Piece.of("epoch", 0, 0, draft.n, closing))
        first = len(draft.pieces)
        return Written(
            contributions=[self._contribution(piece, draft.epoch) for piece in pieces],
            whole=whole,
            sent={day: (first + i, cells) for i, (day, cells) in enumerate(changed.items())},
        )

    def hold(self, entities: EntityTable, written: Written) -> None:
        """Take note of what is about to be published."""
        entities.hold(written.whole)
        self._sent = dict(written.sent)
        self.left_out = sum(
            len(written.whole[day]) - len(cells) for day, (_, cells) in written.sent.items()
        )

    def _contribution(self, piece: Piece, epoch: int) -> Contribution:
        key = ContributionKey(self._member, self._worker, piece.part, piece.bucket)
        return Contribution(
            key=key, epoch=epoch, basis=piece.basis, n=piece.n, arrays=piece.arrays()
        )

    def published(self, entities: EntityTable, seqs: Sequence[int], tick_ms: int) -> None:
        """Note the sequence numbers under which what is held went out, one for each."""
        cells = {day: (seqs[place], cells) for day, (place, cells) in self._sent.items()}
        entities.published(cells, open_day=tick_ms // DAY_MS)
        self._sent = {}
