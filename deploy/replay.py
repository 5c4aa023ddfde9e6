"""Replays a bank's transactions and their labels through the bank's topics.

`plan_replay` is pure: it merges transactions (at event time) and labels (at event time plus a
delay) into one chunk per tick of event time. `Replayer` sends the chunks. After each chunk it puts
a watermark record, without value, on every partition of both topics: header
``amalgam-watermark: MS`` says that everything before MS has been sent on that partition; the last
one says ``amalgam-end: 1`` as well. Kafka timestamps are never event time.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import numpy as np

from deploy.bank_formats import BankFormat, LabelledBatch
from deploy.local import BankStream
from models.decoding import LabelDecoder, TransactionDecoder
from models.errors import InvalidInputError
from models.mapping import Mapping
from models.records import Label, TransactionBatch, concatenate_batches

WATERMARK_HEADER = "amalgam-watermark"
END_HEADER = "amalgam-end"
WATERMARK_KEY = b"amalgam-watermark"
LabelPolicy = Literal["frauds", "all", "none"]
Headers = list[tuple[str, bytes]]

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


class KeyedRecord(NamedTuple):
    """A record as it is sent: the key is the account, so that a partition has whole accounts."""

    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayChunk:
    """What is sent for one tick: everything before ``watermark_ms`` that has not been sent yet.

    Parameters
    ----------
    watermark_ms
        End of the tick, milliseconds since 1970 UTC.
    transactions, labels
        Records in time order.
    is_last
        True when nothing follows.
    """

    watermark_ms: int
    transactions: Sequence[KeyedRecord]
    labels: Sequence[KeyedRecord]
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """How a replay is cut.

    Parameters
    ----------
    tick_ms
        Width of a tick of event time, > 0.
    label_delay_ms
        From a transaction to its label, >= 0.
    labels
        ``frauds`` as a bank would hear of them, ``all``, or ``none``.
    start_ms, end_ms
        The span of a replay in lockstep, the same for every bank: a watermark at ``start_ms`` comes
        first, and the last one is ``end_ms``, whenever this bank's own transactions begin and end.
        None: they begin and end it.

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    tick_ms: int = _HOUR_MS
    label_delay_ms: int = 7 * _DAY_MS
    labels: LabelPolicy = "frauds"
    start_ms: int | None = None
    end_ms: int | None = None

    def __post_init__(self) -> None:
        if not self.tick_ms > 0:
            raise InvalidInputError(f"tick_ms: expected above 0, got {self.tick_ms}")
        if not self.label_delay_ms >= 0:
            raise InvalidInputError(
                f"label_delay_ms: expected 0 or more, got {self.label_delay_ms}"
            )
        if self.labels not in ("frauds", "all", "none"):
            raise InvalidInputError(f"labels: expected frauds, all or none, got {self.labels!r}")


class _Pending(NamedTuple):
    """A label that waits for its time; compared by time, then transaction."""

    labelled_at_ms: int
    transaction_id: str
    account_id: str
    is_fraud: bool


def plan_replay(
    parts: Iterable[LabelledBatch], mapping: Mapping, config: ReplayConfig
) -> Iterator[ReplayChunk]:
    """Yield the chunks of a replay in order; at least one, the last one marked.

    Labels that fall due after the last transaction's tick are not sent: nobody has heard them yet.

    Parameters
    ----------
    parts
        Transactions in time order, within a part and from part to part.
    mapping
        The bank's mapping, in whose format the records are written.
    config
        How it is cut.

    Raises
    ------
    InvalidInputError
        If the transactions are not in time order.
    """
    write = BankFormat(mapping)
    waiting: list[_Pending] = []
    held: ReplayChunk | None = None
    if config.start_ms is not None:
        held = _empty(config.start_ms)
    for tick, rows, is_fraud in _ticks(parts, config.tick_ms):
        end_ms = (tick + 1) * config.tick_ms
        for each in _labels_of(rows, is_fraud, config):
            heapq.heappush(waiting, each)
        chunk = ReplayChunk(
            watermark_ms=end_ms,
            transactions=_keyed(rows, write),
            labels=[_label_record(each, write) for each in _due(waiting, end_ms)],
            is_last=False,
        )
        if held is not None and held.watermark_ms == end_ms:
            chunk = _joined([held, chunk])
        elif held is not None:
            yield held
        held = chunk
    if config.end_ms is not None and (held is None or held.watermark_ms < config.end_ms):
        if held is not None:
            yield held
        rest = [_label_record(each, write) for each in _due(waiting, config.end_ms)]
        held = replace(_empty(config.end_ms), labels=rest)
    yield _last(held)


def _empty(watermark_ms: int) -> ReplayChunk:
    return ReplayChunk(watermark_ms=watermark_ms, transactions=(), labels=(), is_last=False)


def joined_ticks(chunks: Iterable[ReplayChunk], n_ticks: int) -> Iterator[ReplayChunk]:
    """Join every ``n_ticks`` chunks into one, for a replay as fast as it goes."""
    group: list[ReplayChunk] = []
    for chunk in chunks:
        group.append(chunk)
        if len(group) == n_ticks or chunk.is_last:
            yield _joined(group)
            group = []


class Sender(Protocol):
    """What a replay needs of a Kafka producer; `deploy.replay_kafka` has the real one."""

    def partitions(self, topic: str) -> Sequence[int]:
        """Return the partitions of a topic."""

    def send(
        self,
        topic: str,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        partition: int | None,
    ) -> None:
        """Hand over one record; a record with a key and no partition goes to the key's."""

    def flush(self) -> None:
        """Return once everything handed over is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How many records a replay sent, watermarks not counted."""

    transactions: int
    labels: int


class Replayer:
    """Sends chunks; per chunk: 1 wait until it is time, 2 labels, 3 transactions, 4 watermarks.

    Parameters
    ----------
    sender
        Where records go.
    transactions_topic, labels_topic
        The bank's topics.
    speed
        Seconds of event time per second of wall clock; 0 is as fast as possible.
    clock, sleep
        Monotonic seconds, and how to wait.
    """

    def __init__(  # keyword-only
        self,
        sender: Sender,
        *,
        transactions_topic: str,
        labels_topic: str,
        speed: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        if not 0.0 <= speed < float("inf"):
            raise InvalidInputError(f"speed: expected 0 or more, got {speed}")
        self._sender = sender
        self._transactions_topic = transactions_topic
        self._labels_topic = labels_topic
        self._speed = speed
        self._clock = clock
        self._sleep = sleep

    def run(
        self, chunks: Iterable[ReplayChunk], progress: Callable[[ReplayChunk], None] | None = None
    ) -> Sent:
        """Send all chunks; ``progress`` hears of each one sent."""
        started_s = self._clock()
        first_ms: int | None = None
        n_transactions = n_labels = 0
        for chunk in chunks:
            if first_ms is None:
                first_ms = chunk.watermark_ms
            self._wait(started_s, chunk.watermark_ms - first_ms)
            self._send(chunk)
            n_transactions += len(chunk.transactions)
            n_labels += len(chunk.labels)
            if progress is not None:
                progress(chunk)
        self._sender.flush()
        return Sent(transactions=n_transactions, labels=n_labels)

    def _wait(self, started_s: float, elapsed_ms: int) -> None:
        if self._speed > 0.0:
            due_s = started_s + elapsed_ms / 1000.0 / self._speed
            wait_s = due_s - self._clock()
            if wait_s > 0.0:
                self._sender.flush()
                self._sleep(wait_s)

    def _send(self, chunk: ReplayChunk) -> None:
        topics = (
            (self._labels_topic, chunk.labels),
            (self._transactions_topic, chunk.transactions),
        )
        for topic, records in topics:
            for key, value in records:
                self._sender.send(topic, key=key, value=value, headers=[], partition=None)
        headers = watermark_headers(chunk)
        for topic, _ in topics:
            for partition in self._sender.partitions(topic):
                self._sender.send(
                    topic, key=WATERMARK_KEY, value=None, headers=headers, partition=partition
                )


def watermark_headers(chunk: ReplayChunk) -> Headers:
    """Return the headers of the record that follows a chunk."""
    headers = [(WATERMARK_HEADER, str(chunk.watermark_ms).encode())]
    return [*headers, (END_HEADER, b"1")] if chunk.is_last else headers


def _ticks(
    parts: Iterable[LabelledBatch], tick_ms: int
) -> Iterator[tuple[int, TransactionBatch, Sequence[bool]]]:
    """Yield (tick, rows, is_fraud) for every tick in order, empty ones between included.

    A tick may come several times when parts share it; its rows are still in order.
    """
    last_ms = -1
    tick: int | None = None
    for part in parts:
        times = part.batch.event_time_ms
        if len(times) == 0:
            continue
        if np.any(np.diff(times) < 0) or times[0] < last_ms:
            raise InvalidInputError("transactions: expected rows by event time, got another order")
        last_ms = int(times[-1])
        of_row = times // tick_ms
        starts = np.flatnonzero(np.r_[True, of_row[1:] != of_row[:-1]]).tolist()
        for first, end in zip(starts, [*starts[1:], len(times)], strict=True):
            current = int(of_row[first])
            nothing = part.batch.rows(slice(0, 0))
            for between in range(current if tick is None else tick + 1, current):
                yield between, nothing, ()
            tick = current
            yield current, part.batch.rows(slice(first, end)), part.is_fraud[first:end].tolist()


def _labels_of(
    rows: TransactionBatch, is_fraud: Sequence[bool], config: ReplayConfig
) -> Iterator[_Pending]:
    if config.labels == "none":
        return
    times = rows.event_time_ms.tolist()
    for i, fraud in enumerate(is_fraud):
        if fraud or config.labels == "all":
            at_ms = times[i] + config.label_delay_ms
            yield _Pending(at_ms, rows.transaction_id[i], rows.account_id[i], fraud)


def _due(waiting: list[_Pending], end_ms: int) -> list[_Pending]:
    found = []
    while waiting and waiting[0].labelled_at_ms < end_ms:
        found.append(heapq.heappop(waiting))
    return found


def _keyed(rows: TransactionBatch, write: BankFormat) -> list[KeyedRecord]:
    values = write.transactions(rows)
    return [
        KeyedRecord(account.encode(), value)
        for account, value in zip(rows.account_id, values, strict=True)
    ]


def _label_record(each: _Pending, write: BankFormat) -> KeyedRecord:
    label = Label(
        transaction_id=each.transaction_id,
        is_fraud=each.is_fraud,
        source="chargeback",
        labelled_at_ms=each.labelled_at_ms,
    )
    return KeyedRecord(each.account_id.encode(), write.label(label, each.account_id))


def _joined(group: Sequence[ReplayChunk]) -> ReplayChunk:
    return ReplayChunk(
        watermark_ms=group[-1].watermark_ms,
        transactions=[record for each in group for record in each.transactions],
        labels=[record for each in group for record in each.labels],
        is_last=group[-1].is_last,
    )


def _last(held: ReplayChunk | None) -> ReplayChunk:
    if held is None:
        return ReplayChunk(watermark_ms=0, transactions=[], labels=[], is_last=True)
    return replace(held, is_last=True)


def heard_stream(
    parts: Iterable[LabelledBatch], mapping: Mapping, *, label_delay_ms: int
) -> BankStream:
    """Return what a worker hears of a replay of frauds' labels, decoded from the bank's format."""
    write, decoder, labels = BankFormat(mapping), TransactionDecoder(mapping), LabelDecoder(mapping)
    batches: list[TransactionBatch] = []
    said: list[Label] = []
    for part in parts:
        batches.append(decoder.decode(write.transactions(part.batch)).batch)
        for i in np.flatnonzero(part.is_fraud).tolist():
            label = Label(
                transaction_id=part.batch.transaction_id[i],
                is_fraud=True,
                source="chargeback",
                labelled_at_ms=int(part.batch.event_time_ms[i]) + label_delay_ms,
            )
            said += labels.decode([write.label(label, part.batch.account_id[i])]).labels
    batch = concatenate_batches(batches)
    order = sorted(
        range(len(batch)), key=lambda i: (int(batch.event_time_ms[i]), batch.transaction_id[i])
    )
    said.sort(key=lambda label: (label.labelled_at_ms, label.transaction_id))
    return BankStream(transactions=batch.take(np.array(order, np.int64)), labels=said)
