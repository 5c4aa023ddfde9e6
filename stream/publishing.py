"""What was learnt, put into the outbox: in three steps, of which the long one needs no lock."""

from typing import NamedTuple

from stream.exchange import Exchange
from stream.outbox import Outbox
from stream.pipeline import Pipeline
from stream.summaries import Draft, Written


class Sealed(NamedTuple):
    """Contributions that are in the outbox, and under which numbers."""

    written: Written
    seqs: list[int]
    is_anew: bool


class Publisher:
    """Publishes what a worker has learnt.

    Between `draft` and `settle` the pipeline's state and the outbox must not be stored: neither
    holds all of what the other lacks.

    Parameters
    ----------
    pipeline, outbox, exchange
        The worker's.
    worker
        Its name.
    """

    def __init__(
        self, pipeline: Pipeline, outbox: Outbox, exchange: Exchange, *, worker: str
    ) -> None:
        self._pipeline, self._outbox, self._exchange = pipeline, outbox, exchange
        self._worker = worker

    def draft(self, epoch: int) -> Draft:
        """Return what was learnt since the last time."""
        return self._pipeline.draft(epoch)

    def seal(self, draft: Draft) -> Sealed:
        """Write, number and sign it: slow, safe in another thread while decisions are made."""
        written = self._pipeline.summaries.written(draft)
        is_anew = self._outbox.is_anew
        if is_anew:  # first, so that nothing counts twice in between
            keys = [one.key for one in written.contributions]
            published = self._exchange.published
            self._outbox.put(published.retractions(self._worker, keys, draft.epoch))
        return Sealed(written, self._outbox.put(written.contributions), is_anew)

    def settle(self, sealed: Sealed) -> None:
        """Let the pipeline know what was published; then both may be stored."""
        self._pipeline.summaries.hold(self._pipeline.entities, sealed.written)
        self._pipeline.published(sealed.seqs)
        if sealed.is_anew:
            self._outbox.settle(sealed.seqs[-1] - 1)  # a release names no number that closes one
