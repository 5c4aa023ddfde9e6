"""A consortium's cluster in memory: the same topics and compaction, without a broker."""

import threading
from collections.abc import Sequence

from amalgamator.ports import QuarantineEntry, SourceRecord
from models.fragments import FragmentRecord


class MemoryBus:
    """Topics of records with offsets; thread-safe, lost with the process."""

    def __init__(self) -> None:
        self._topics: dict[str, list[tuple[int, FragmentRecord]]] = {}
        self._ends: dict[str, int] = {}
        self._lock = threading.Lock()

    def append(self, topic: str, records: Sequence[FragmentRecord]) -> None:
        """Append records to a topic, which comes into being by it."""
        with self._lock:
            log = self._topics.setdefault(topic, [])
            for record in records:
                end = self._ends.get(topic, 0)
                log.append((end, record))
                self._ends[topic] = end + 1

    def read(self, topic: str, offset: int) -> list[tuple[int, FragmentRecord]]:
        """Return (offset, record) of everything from ``offset`` on."""
        with self._lock:
            return [pair for pair in self._topics.get(topic, []) if pair[0] >= offset]

    def end_offset(self, topic: str) -> int:
        """Return the offset that the next record will have."""
        with self._lock:
            return self._ends.get(topic, 0)

    def compact(self, topic: str) -> None:
        """Keep the newest record of each key, at its offset, and drop deleted keys."""
        with self._lock:
            newest = {record.key: offset for offset, record in self._topics.get(topic, [])}
            self._topics[topic] = [
                (offset, record)
                for offset, record in self._topics.get(topic, [])
                if newest[record.key] == offset and record.value is not None
            ]


class MemorySummarySource:
    """`amalgamator.ports.SummarySource` on a `MemoryBus`."""

    def __init__(self, bus: MemoryBus, topics: Sequence[str]) -> None:
        self._bus = bus
        self._next = dict.fromkeys(topics, 0)
        self._ends = {topic: bus.end_offset(topic) for topic in topics}

    def poll(self, timeout_s: float) -> Sequence[SourceRecord]:
        """Return everything new, at once."""
        del timeout_s
        found = []
        for topic, start in self._next.items():
            end = self._bus.end_offset(topic)
            new = [pair for pair in self._bus.read(topic, start) if pair[0] < end]
            found += [SourceRecord(topic, 0, offset, record) for offset, record in new]
            self._next[topic] = end
        return found

    def is_caught_up(self) -> bool:
        """Return whether everything that was there at the start has been given out."""
        return all(self._next[topic] >= end for topic, end in self._ends.items())

    def close(self) -> None:
        """Do nothing."""


class MemoryReleaseSink:
    """`amalgamator.ports.ReleaseSink` on a `MemoryBus`."""

    def __init__(self, bus: MemoryBus, topic: str) -> None:
        self._bus = bus
        self._topic = topic

    def history(self) -> Sequence[FragmentRecord]:
        """Return all records that the topic holds."""
        return [record for _, record in self._bus.read(self._topic, 0)]

    def publish(self, records: Sequence[FragmentRecord]) -> None:
        """Append records."""
        self._bus.append(self._topic, records)


class MemoryQuarantineSink:
    """`amalgamator.ports.QuarantineSink` that keeps its entries.

    Attributes
    ----------
    entries
        In the order in which they came.
    """

    def __init__(self) -> None:
        self.entries: list[QuarantineEntry] = []

    def put(self, entries: Sequence[QuarantineEntry]) -> None:
        """Keep entries."""
        self.entries.extend(entries)
