"""The ports on Apache Kafka; the one module that touches kafka-python, which has no types."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from amalgamator.ports import QuarantineEntry, SourceRecord
from models.errors import UnavailableError
from models.fragments import FragmentRecord

FETCH_BYTES = 16 * 1024 * 1024
REQUEST_BYTES = 4 * 1024 * 1024
MAX_POLL_RECORDS = 256
CALL_TIMEOUT_S = 30.0
PARTITION = 0
_METADATA_MAX_AGE_MS = 10_000
_RECONNECT_MAX_MS = 1_000  # the client's own 30 s is how long a broker's restart would then last
_CLIENT_ID = "amalgamator"


class SystemClock:
    """`amalgamator.ports.Clock` of the operating system."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return seconds since some instant."""
        return time.monotonic()


@contextmanager
def _as_unavailable(what: str) -> Iterator[None]:
    """Turn kafka-python's errors into ours."""
    try:
        yield
    except KafkaError as error:
        raise UnavailableError(f"{what}: {type(error).__name__}: {error}") from error


class KafkaSummarySource:
    """`amalgamator.ports.SummarySource`: every summaries topic, from its first record.

    No consumer group and no commits: the compacted topics are the state, and are read anew at
    every start. Use from one thread only.

    Parameters
    ----------
    bootstrap
        ``host:port,...``.
    topics
        Of one partition each; must exist.
    """

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self._partitions = [TopicPartition(topic, PARTITION) for topic in topics]
        with _as_unavailable("summaries"):
            self._consumer = _consumer(bootstrap)
            self._consumer.assign(self._partitions)
            self._ends: dict[Any, int] = _end_offsets(self._consumer, self._partitions)
        self._next = dict.fromkeys(self._partitions, 0)

    def poll(self, timeout_s: float) -> Sequence[SourceRecord]:
        """Return what came, in each topic's order."""
        with _as_unavailable("summaries"):
            found = self._consumer.poll(
                timeout_ms=int(timeout_s * 1_000), max_records=MAX_POLL_RECORDS
            )
        records: list[SourceRecord] = []
        for partition in sorted(found):
            records += [
                SourceRecord(one.topic, one.partition, one.offset, _fragment(one))
                for one in found[partition]
            ]
            self._next[partition] = found[partition][-1].offset + 1
        return records

    def is_caught_up(self) -> bool:
        """Return whether every topic was read to where it ended at the start."""
        return all(self._is_read(partition) for partition in self._partitions)

    def _is_read(self, partition: Any) -> bool:
        end = self._ends[partition]
        if self._next[partition] >= end:
            return True
        # Compaction can leave no record at the end; the position moves past it all the same.
        with _as_unavailable("summaries"):
            position = self._consumer.position(partition, timeout_ms=int(CALL_TIMEOUT_S * 1_000))
        return position is not None and bool(position >= end)

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close(autocommit=False, timeout_ms=int(CALL_TIMEOUT_S * 1_000))


class KafkaReleaseSink:
    """`amalgamator.ports.ReleaseSink` on one compacted topic of one partition."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        with _as_unavailable("releases"):
            self._producer = _producer(bootstrap)

    def history(self) -> Sequence[FragmentRecord]:
        """Return all records of the topic."""
        with _as_unavailable("releases"):
            return read_all(self._bootstrap, self._topic)

    def publish(self, records: Sequence[FragmentRecord]) -> None:
        """Append records and wait for all of them to be acknowledged."""
        with _as_unavailable("releases"):
            _send(self._producer, self._topic, records)

    def close(self) -> None:
        """Close the connections."""
        self._producer.close(timeout=CALL_TIMEOUT_S)


class KafkaQuarantineSink:
    """`amalgamator.ports.QuarantineSink`: JSON, keyed by where the envelope lies."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        with _as_unavailable("quarantine"):
            self._producer = _producer(bootstrap)

    def put(self, entries: Sequence[QuarantineEntry]) -> None:
        """Append entries and wait for all of them to be acknowledged."""
        records = [
            FragmentRecord(
                f"{entry.topic}|{entry.partition}|{entry.offset}".encode(),
                msgspec.json.encode(entry),
                (),
            )
            for entry in entries
        ]
        with _as_unavailable("quarantine"):
            _send(self._producer, self._topic, records)

    def close(self) -> None:
        """Close the connections."""
        self._producer.close(timeout=CALL_TIMEOUT_S)


def read_all(bootstrap: str, topic: str) -> list[FragmentRecord]:
    """Return every record of a one-partition topic, up to where it ends now.

    Raises
    ------
    UnavailableError
        If the end is not reached although nothing came for `CALL_TIMEOUT_S`.
    """
    partition = TopicPartition(topic, PARTITION)
    consumer = _consumer(bootstrap)
    records: list[FragmentRecord] = []
    timeout_ms = int(CALL_TIMEOUT_S * 1_000)
    try:
        consumer.assign([partition])
        end = _end_offsets(consumer, [partition])[partition]
        quiet_since_s = time.monotonic()
        while (consumer.position(partition, timeout_ms=timeout_ms) or 0) < end:
            found = consumer.poll(timeout_ms=500).get(partition, [])
            records += [_fragment(one) for one in found if one.offset < end]
            quiet_since_s = time.monotonic() if found else quiet_since_s
            if time.monotonic() - quiet_since_s > CALL_TIMEOUT_S:
                raise UnavailableError(f"{topic}: expected records up to offset {end}")
    finally:
        consumer.close(autocommit=False, timeout_ms=timeout_ms)
    return records


def _consumer(bootstrap: str) -> Any:
    return KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        client_id=_CLIENT_ID,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_bytes=4 * FETCH_BYTES,
        max_poll_records=MAX_POLL_RECORDS,
        metadata_max_age_ms=_METADATA_MAX_AGE_MS,
        reconnect_backoff_max_ms=_RECONNECT_MAX_MS,
    )


def _producer(bootstrap: str) -> Any:
    return KafkaProducer(
        bootstrap_servers=bootstrap.split(","),
        client_id=_CLIENT_ID,
        acks="all",
        allow_auto_create_topics=False,
        max_request_size=REQUEST_BYTES,
        max_block_ms=int(CALL_TIMEOUT_S * 1_000),
        delivery_timeout_ms=int(CALL_TIMEOUT_S * 1_000),
        request_timeout_ms=int(CALL_TIMEOUT_S * 500),
        reconnect_backoff_max_ms=_RECONNECT_MAX_MS,
    )


def _end_offsets(consumer: Any, partitions: Sequence[Any]) -> dict[Any, int]:
    ends = consumer.end_offsets(partitions, timeout_ms=int(CALL_TIMEOUT_S * 1_000))
    missing = [partition for partition in partitions if ends.get(partition) is None]
    if missing:
        raise UnavailableError(f"{missing[0].topic}: expected the topic to exist; create it first")
    return {partition: int(ends[partition]) for partition in partitions}


def _send(producer: Any, topic: str, records: Sequence[FragmentRecord]) -> None:
    """Send in order and check every future: an epoch bump loses sends that are in flight."""
    futures = [
        producer.send(
            topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            partition=PARTITION,
        )
        for record in records
    ]
    producer.flush(timeout=CALL_TIMEOUT_S)
    for future in futures:
        future.get(timeout=CALL_TIMEOUT_S)


def _fragment(record: Any) -> FragmentRecord:
    headers = tuple((name, bytes(value or b"")) for name, value in record.headers or ())
    return FragmentRecord(record.key or b"", record.value, headers)
