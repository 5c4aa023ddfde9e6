"""The producer of a replay: kafka-python behind `deploy.replay.Sender`."""

from collections.abc import Sequence

from kafka import KafkaProducer
from kafka.errors import KafkaError

from deploy.replay import Headers
from models.errors import UnavailableError

_LINGER_MS = 20
_BATCH_BYTES = 1 << 18


class KafkaSender:
    """Sends records to one cluster, in order per partition, each stored before `flush` returns.

    Parameters
    ----------
    bootstrap
        ``host:port`` of a broker, several separated by commas.
    flush_timeout_s
        How long `flush` waits at most.

    Raises
    ------
    UnavailableError
        If the broker cannot be reached or does not take the records in time.
    """

    def __init__(self, bootstrap: str, *, flush_timeout_s: float = 60.0) -> None:
        self._bootstrap = bootstrap
        self._flush_timeout_s = flush_timeout_s
        self._partitions: dict[str, Sequence[int]] = {}
        self._first_error: Exception | None = None
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=bootstrap.split(","),
                acks="all",
                linger_ms=_LINGER_MS,
                batch_size=_BATCH_BYTES,
            )
        except KafkaError as error:
            raise UnavailableError(f"{bootstrap}: expected a broker, got: {error}") from error

    def partitions(self, topic: str) -> Sequence[int]:
        """Return the partitions of a topic, asked for once."""
        if topic not in self._partitions:
            try:
                found = self._producer.partitions_for(topic)
            except KafkaError as error:
                raise UnavailableError(
                    f"{self._bootstrap}: expected a topic {topic}, got: {error}"
                ) from error
            self._partitions[topic] = sorted(found)
        return self._partitions[topic]

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
        try:
            sent = self._producer.send(
                topic, key=key, value=value, headers=headers, partition=partition
            )
        except KafkaError as error:
            raise UnavailableError(f"{self._bootstrap}: {topic}: {error}") from error
        sent.add_errback(self._note)

    def flush(self) -> None:
        """Return once everything handed over is stored."""
        try:
            self._producer.flush(timeout=self._flush_timeout_s)
        except KafkaError as error:
            raise UnavailableError(f"{self._bootstrap}: {error}") from error
        if self._first_error is not None:
            raise UnavailableError(
                f"{self._bootstrap}: expected every record to be stored, got: {self._first_error}"
            ) from self._first_error

    def close(self) -> None:
        """Flush and let go of the connection."""
        try:
            self.flush()
        finally:
            self._producer.close(timeout=self._flush_timeout_s)

    def _note(self, error: Exception) -> None:
        if self._first_error is None:
            self._first_error = error
