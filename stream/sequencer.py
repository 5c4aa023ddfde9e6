"""Replay: puts transactions and labels of all partitions in event-time order before they are used.

The replayer writes watermark records into every partition: "everything before this instant has been
sent here". Records wait here until the least watermark has passed their tick, and are then handed
on sorted by (time, transaction id); so what the pipeline sees does not depend on how Kafka
interleaved partitions and topics. In-process runs hand on the same steps without waiting.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.records import Label, TransactionBatch, concatenate_batches

Partition = tuple[str, int]
Place = tuple[Partition, int]
_UNKNOWN_MS = -1


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One tick's work, to be done in this order.

    Parameters
    ----------
    tick_ms
        First the labels said by this instant are learnt and what is due matures;
    labels
        those that were not handed on before;
    transactions
        then those in [tick_ms, tick_ms + tick) are scored. None if there are none.
    label_places, transaction_places
        Partition and offset of each.
    """

    tick_ms: int
    labels: Sequence[Label]
    transactions: TransactionBatch | None
    label_places: Sequence[Place] = ()
    transaction_places: Sequence[Place] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    batch: TransactionBatch
    partition: Partition
    offsets: NDArray[np.int64]


@dataclass(slots=True)
class Sequencer:
    """Holds records back until their order is known.

    Parameters
    ----------
    partitions
        All that must have spoken before anything is handed on.
    tick_ms
        Length of a tick.
    next_tick_ms
        First tick to hand on; -1: the first watermark says.
    is_begun
        Whether the first half of the next step (labels, what is due) is done already.
    """

    partitions: frozenset[Partition]
    tick_ms: int
    next_tick_ms: int = _UNKNOWN_MS
    is_begun: bool = False
    _has_moved: bool = False
    _steps: deque[Step] = field(default_factory=deque)
    _marks: dict[Partition, int] = field(default_factory=dict)
    _first_marks: dict[Partition, int] = field(default_factory=dict)
    _watermarks: dict[Partition, int] = field(default_factory=dict)
    _held: list[_Held] = field(default_factory=list)
    _labels: list[tuple[Label, *Place]] = field(default_factory=list)
    _seen: dict[Partition, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._has_moved = self.next_tick_ms >= 0

    def add_transactions(
        self, partition: Partition, batch: TransactionBatch, offsets: NDArray[np.int64]
    ) -> None:
        """Hold a batch back; ``offsets`` int64 of shape (n,)."""
        if len(batch):
            self._held.append(_Held(batch, partition, offsets))

    def add_labels(
        self, partition: Partition, labels: Sequence[Label], offsets: Sequence[int]
    ) -> None:
        """Hold labels back."""
        self._labels.extend((x, partition, o) for x, o in zip(labels, offsets, strict=True))

    def watermark(self, partition: Partition, time_ms: int, offset: int) -> None:
        """Take note that everything before ``time_ms`` of a partition has been added."""
        self._marks[partition] = offset
        self._first_marks.setdefault(partition, offset)
        before = self._watermarks.get(partition, _UNKNOWN_MS)
        self._watermarks[partition] = max(before, time_ms)
        if self.next_tick_ms < 0:
            self.next_tick_ms = time_ms // self.tick_ms * self.tick_ms

    def seen(self, partition: Partition, offset: int) -> None:
        """Take note of the last offset that was read of a partition."""
        self._seen[partition] = offset

    def positions(self) -> dict[Partition, int]:
        """Return where to read on after a crash: at what is not handed on, or the last watermark.

        The replayer sends each partition in time order, so nothing behind is unused.
        """
        positions = {partition: offset + 1 for partition, offset in self._seen.items()}
        waiting = [(held.partition, int(held.offsets.min())) for held in self._held]
        waiting += [(partition, offset) for _, partition, offset in self._labels]
        # the first marks say where the ticks begin, which nothing else remembers until one is taken
        waiting += list((self._marks if self._has_moved else self._first_marks).items())
        for i, step in enumerate(self._steps):
            waiting += step.transaction_places
            waiting += () if i == 0 and self.is_begun else step.label_places
        for partition, offset in waiting:
            positions[partition] = min(positions.get(partition, offset), offset)
        return positions

    def step(self) -> Step | None:
        """Return the step that is to be taken now, None while its records are not all here."""
        if not self._steps:
            self._steps.extend(self._ready())
        return self._steps[0] if self._steps else None

    def begun(self) -> None:
        """Take note that the first half of the step is done."""
        self._has_moved = True
        self.is_begun = True

    def finished(self) -> None:
        """Take note that the step is done."""
        self._steps.popleft()
        self.is_begun = False

    def _ready(self) -> Iterator[Step]:
        """Yield the steps whose records are all here."""
        if not self.partitions <= self._watermarks.keys() or self.next_tick_ms < 0:
            return
        safe_ms = min(self._watermarks[p] for p in self.partitions)
        until_ms = safe_ms // self.tick_ms * self.tick_ms
        if until_ms <= self.next_tick_ms:
            return
        batch, places = self._take_transactions(until_ms)
        labels, label_places = self._take_labels(until_ms - self.tick_ms)
        said = np.array([label.labelled_at_ms for label in labels], np.int64)
        ticks = range(self.next_tick_ms, until_ms, self.tick_ms)
        edges = np.array([*ticks, until_ms], np.int64)
        row = np.searchsorted(batch.event_time_ms, edges, side="left") if batch else None
        row_of_label = np.searchsorted(said, edges, side="right")
        first_label = 0
        for i, tick_ms in enumerate(ticks):
            said_now = slice(first_label, int(row_of_label[i]))
            rows, paid_now = None, slice(0, 0)
            if batch is not None and row is not None:
                paid_now = slice(0 if i == 0 else int(row[i]), int(row[i + 1]))
                rows = batch.rows(paid_now) if paid_now.stop > paid_now.start else None
            self.next_tick_ms = tick_ms + self.tick_ms
            yield Step(tick_ms, labels[said_now], rows, label_places[said_now], places[paid_now])
            first_label = said_now.stop

    def _take_transactions(self, until_ms: int) -> tuple[TransactionBatch | None, list[Place]]:
        if not self._held:
            return None, []
        batch = concatenate_batches([held.batch for held in self._held])
        offsets = np.concatenate([held.offsets for held in self._held])
        source = np.repeat(np.arange(len(self._held)), [len(held.offsets) for held in self._held])
        due = batch.event_time_ms < until_ms
        partitions = [held.partition for held in self._held]
        self._held = []
        for i, partition in enumerate(partitions):
            rest = np.flatnonzero(~due & (source == i))
            if len(rest):
                self._held.append(_Held(batch.take(rest), partition, offsets[rest]))
        rows = np.flatnonzero(due).tolist()
        times = batch.event_time_ms.tolist()
        rows.sort(key=lambda i: (times[i], batch.transaction_id[i]))
        places = [(partitions[int(source[i])], int(offsets[i])) for i in rows]
        return (batch.take(np.array(rows, np.int64)) if rows else None), places

    def _take_labels(self, until_ms: int) -> tuple[list[Label], list[Place]]:
        due = [held for held in self._labels if held[0].labelled_at_ms <= until_ms]
        self._labels = [held for held in self._labels if held[0].labelled_at_ms > until_ms]
        due.sort(key=lambda held: (held[0].labelled_at_ms, held[0].transaction_id))
        return [held[0] for held in due], [held[1:] for held in due]
