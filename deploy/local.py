"""The whole consortium in one process, without a broker: the same cores, called in the same order.

At every tick T each bank 1 takes the labels that were said by T, 2 learns what fell due, and scores
the transactions in [T, T + tick). Where T closes an epoch, between 2 and the transactions every
bank publishes, the amalgamator folds, and every bank installs the release. Workers on Kafka in
replay mode keep to this order, so that both give the same scores to the bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amalgamator.core import Amalgamator
from models.errors import InvalidInputError
from models.records import Label, TransactionBatch
from models.release import Release
from models.summary import Contribution
from stream.pipeline import Pipeline
from stream.scored import Scored


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BankStream:
    """What one bank sees, in order.

    Parameters
    ----------
    transactions
        Sorted by event time.
    labels
        Sorted by ``labelled_at_ms``.

    Raises
    ------
    InvalidInputError
        If either is not in order.
    """

    transactions: TransactionBatch
    labels: Sequence[Label]

    def __post_init__(self) -> None:
        said = np.array([label.labelled_at_ms for label in self.labels], np.int64)
        if (np.diff(self.transactions.event_time_ms) < 0).any() or (np.diff(said) < 0).any():
            raise InvalidInputError("bank stream: expected transactions and labels in time order")


Absence = tuple[int, int]
"""From and to when a member is away, event time in milliseconds."""

OnScored = Callable[[str, slice, Scored], None]
OnRelease = Callable[[Release], None]
Tamper = Callable[[Contribution], Sequence[Contribution]]
"""What a member that lies publishes in place of one of its contributions."""


class LocalConsortium:
    """Banks and amalgamator in lockstep.

    Parameters
    ----------
    pipelines
        Member -> its pipeline.
    amalgamator
        In lockstep mode; None for banks that stay alone.
    cadence_ms
        Length of an epoch in event time, a multiple of the pipelines' tick.
    away
        Member -> when it neither publishes nor takes releases.
    tampers
        Member -> what becomes of its contributions on their way.
    """

    def __init__(
        self,
        pipelines: Mapping[str, Pipeline],
        amalgamator: Amalgamator | None,
        *,
        cadence_ms: int,
        away: Mapping[str, Absence] | None = None,
        tampers: Mapping[str, Tamper] | None = None,
    ) -> None:
        ticks = {pipeline.config.tick_ms for pipeline in pipelines.values()}
        if len(ticks) != 1 or cadence_ms % next(iter(ticks)):
            raise InvalidInputError(
                f"cadence_ms: expected a multiple of one common tick, got {cadence_ms} and {ticks}"
            )
        self._pipelines = dict(sorted(pipelines.items()))
        self._amalgamator = amalgamator
        self._cadence_ms = cadence_ms
        self._tick_ms = ticks.pop()
        self._away = dict(away or {})
        self._seq = dict.fromkeys(self._pipelines, 0)
        self._tampers = {} if tampers is None else dict(tampers)

    def run(
        self,
        streams: Mapping[str, BankStream],
        *,
        on_scored: OnScored,
        on_release: OnRelease | None = None,
        on_tick: Callable[[int], None] | None = None,
    ) -> None:
        """Run all streams to their end.

        Parameters
        ----------
        streams
            Member -> stream.
        on_scored
            Called with the member, the rows of its transactions and what came of them.
        on_release
            Called with each release.
        on_tick
            Called with each tick's time, for a progress bar.
        """
        cursors = {member: _Cursor(streams[member]) for member in self._pipelines}
        for tick_ms in self._ticks(streams):
            for member, pipeline in self._pipelines.items():
                pipeline.learn(cursors[member].labels_until(tick_ms))
                pipeline.advance(tick_ms)
            if tick_ms % self._cadence_ms == 0:
                self._exchange(tick_ms // self._cadence_ms - 1, on_release)
            for member, pipeline in self._pipelines.items():
                rows = cursors[member].transactions_before(tick_ms + self._tick_ms)
                if rows.stop > rows.start:
                    on_scored(member, rows, pipeline.score(streams[member].transactions.rows(rows)))
            if on_tick is not None:
                on_tick(tick_ms)

    def _ticks(self, streams: Mapping[str, BankStream]) -> Iterator[int]:
        times = [s.transactions.event_time_ms for s in streams.values() if len(s.transactions)]
        if times:
            first = min(int(t[0]) for t in times) // self._cadence_ms * self._cadence_ms
            yield from range(first, max(int(t[-1]) for t in times) + 1, self._tick_ms)

    def _exchange(self, epoch: int, on_release: OnRelease | None) -> None:
        if self._amalgamator is None:
            return
        there = {m: p for m, p in self._pipelines.items() if not self._is_away(m, epoch)}
        for member, pipeline in there.items():
            sent = pipeline.contributions(epoch)
            pipeline.published([self._send(member, one, self._amalgamator) for one in sent])
        release = self._amalgamator.close_epoch(epoch)
        if release is None:
            return
        for pipeline in there.values():
            pipeline.install(release)
        if on_release is not None:
            on_release(release)

    def _is_away(self, member: str, epoch: int) -> bool:
        since_ms, until_ms = self._away.get(member, (0, 0))
        return since_ms <= (epoch + 1) * self._cadence_ms < until_ms

    def _send(self, member: str, contribution: Contribution, amalgamator: Amalgamator) -> int:
        """Hand a contribution over, or what is made of it; return its sequence number."""
        tamper = self._tampers.get(member)
        for one in [contribution] if tamper is None else tamper(contribution):
            self._seq[member] += 1
            amalgamator.accept(one, self._seq[member])
        return self._seq[member]


class _Cursor:
    """How far a stream has been handed on."""

    def __init__(self, stream: BankStream) -> None:
        self._stream = stream
        self._said: NDArray[np.int64] = np.array(
            [label.labelled_at_ms for label in stream.labels], np.int64
        )
        self._label = 0
        self._transaction = 0

    def labels_until(self, time_ms: int) -> Sequence[Label]:
        """Return the labels said by ``time_ms`` that were not handed on yet."""
        first = self._label
        self._label = int(np.searchsorted(self._said, time_ms, side="right"))
        return self._stream.labels[first : self._label]

    def transactions_before(self, time_ms: int) -> slice:
        """Return the rows before ``time_ms`` that were not handed on yet."""
        first = self._transaction
        event_ms = self._stream.transactions.event_time_ms
        self._transaction = int(np.searchsorted(event_ms, time_ms, side="left"))
        return slice(first, self._transaction)
