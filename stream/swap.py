"""What a release changes of a worker, found out in a thread while decisions are made."""

from models.evidence_changes import Changes
from models.matured import Matured
from models.release import Release, Source
from stream.entity_table import EntityTable
from stream.experts import SharedExpert
from stream.fixed_rows import FixedRows


class Swap:
    """A release made ready.

    Parameters
    ----------
    release
        To be installed.
    entities, own
        Of the worker, and what the release says of it, None for nothing.
    encoding
        An expert like the worker's, and the rows that it is to encode for the release's basis; None
        where that is the worker's already.
    """

    def __init__(
        self,
        release: Release,
        entities: EntityTable,
        own: Source | None,
        encoding: tuple[SharedExpert, FixedRows] | None,
    ) -> None:
        self._release, self._entities, self._own = release, entities, own
        self._encoding = encoding
        self.days: Changes = {}

    def encoded(self) -> tuple[SharedExpert, Matured] | None:
        """Return the expert and the outcomes that came since; None where it serves no more."""
        if self._encoding is None:
            return None
        expert, rows = self._encoding
        newer = rows.newer()
        return None if newer is None else (expert, newer)

    def find_out(self) -> None:
        """Do the slow part; safe in another thread."""
        release, own = self._release, self._own
        self.days = self._entities.changes_of(
            release.evidence,
            seq=own.seq if own else -1,
            max_frauds=own.max_frauds if own else 0,
        )
        if self._encoding is not None:
            expert, rows = self._encoding
            collecting = release.asked_basis
            expert.install(release.basis, release.weights, collecting, rows)
