"""A bank's replay, disturbed: partitions at paces of their own, records out of order and repeated.

All of it is what Kafka and careless senders do: two partitions are read at different paces; within
a tick records come in any order; a record is sent twice, at once or up to a day late. What a replay
promises stays true: before a partition's watermark stands everything that is new before it.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from deploy.replay import KeyedRecord, ReplayChunk

Topic = Literal["labels", "transactions"]
_TOPICS: tuple[Topic, ...] = ("labels", "transactions")
_LATE_TICKS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedPolicy:
    """How much a feed is disturbed; the defaults are those of a chaos run, all 0 is none.

    Parameters
    ----------
    repeated_share
        Of the records, sent again within the same tick.
    late_share
        Of the records, sent again up to a day later.
    max_lag_ticks
        How far one partition may fall behind the others.
    """

    repeated_share: float = 0.02
    late_share: float = 0.02
    max_lag_ticks: int = 12


class LanePiece(NamedTuple):
    """What goes to one partition of one topic: records, then the watermark of a chunk."""

    topic: Topic
    partition: int
    records: Sequence[KeyedRecord]
    mark: ReplayChunk


@dataclass(slots=True)
class Slot:
    """What is sent before the next pause.

    Attributes
    ----------
    pieces
        In order.
    repeated, late
        Records among them that were sent before, in the same tick or an earlier one.
    """

    pieces: list[LanePiece] = field(default_factory=list)
    repeated: int = 0
    late: int = 0


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of an account, the same in both topics."""
    return zlib.crc32(key) % partitions


def plan_feed(
    chunks: Sequence[ReplayChunk],
    partitions: int,
    policy: FeedPolicy,
    rng: np.random.Generator,
) -> list[Slot]:
    """Return the slots of a bank's feed, at least one for each chunk."""
    n_slots = len(chunks) + policy.max_lag_ticks
    slots = [Slot() for _ in range(n_slots)]
    for topic in _TOPICS:
        for partition in range(partitions):
            lags = _lags(len(chunks), policy.max_lag_ticks, rng)
            late: dict[int, list[KeyedRecord]] = {}
            for i, chunk in enumerate(chunks):
                own = [r for r in _of(chunk, topic) if partition_of(r.key, partitions) == partition]
                again = _drawn(own, policy.repeated_share, rng)
                for record in _drawn(own, policy.late_share, rng):
                    due = min(i + int(rng.integers(1, _LATE_TICKS + 1)), len(chunks) - 1)
                    if due > i:
                        late.setdefault(due, []).append(record)
                overdue = late.pop(i, [])
                records = [*own, *again, *overdue]
                mixed = [records[j] for j in rng.permutation(len(records)).tolist()]
                slot = slots[i + lags[i]]
                slot.pieces.append(LanePiece(topic, partition, mixed, chunk))
                slot.repeated += len(again)
                slot.late += len(overdue)
    return slots


def _of(chunk: ReplayChunk, topic: Topic) -> Sequence[KeyedRecord]:
    return chunk.labels if topic == "labels" else chunk.transactions


def _drawn(
    records: Sequence[KeyedRecord], share: float, rng: np.random.Generator
) -> list[KeyedRecord]:
    chosen = np.flatnonzero(rng.random(len(records)) < share)
    return [records[i] for i in chosen.tolist()]


def _lags(n: int, highest: int, rng: np.random.Generator) -> list[int]:
    """Return how many slots late each chunk goes out: it changes now and then, never overtaking."""
    lags: list[int] = []
    lag = 0
    for _ in range(n):
        if highest and rng.random() < 1.0 / highest:
            lag = int(rng.integers(0, highest + 1))
        before = lags[-1] if lags else 0
        lags.append(max(lag, before - 1))  # catching up, it is never sent before the last one
    return lags
