"""What a worker sends out on the bank's cluster, and the producer that sends it in batches."""

import asyncio
import zlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from models.errors import UnavailableError

_BATCH_BYTES = 900_000
_REQUEST_BYTES = 4 * 1024 * 1024


class Output(NamedTuple):
    """One record to be sent; records of one key keep their order."""

    topic: str
    key: bytes
    value: bytes


class OutputProducer:
    """Sends records partition by partition, a batch at a time.

    Parameters
    ----------
    bootstrap
        Of the bank's cluster.
    """

    def __init__(self, bootstrap: str) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
        )
        self._n_partitions: dict[str, int] = {}

    async def start(self) -> None:
        """Connect.

        Raises
        ------
        UnavailableError
            If the cluster does not answer.
        """
        try:
            await self._producer.start()
        except KafkaError as error:
            await self._producer.stop()
            raise UnavailableError(f"the bank's cluster is not reached: {error}") from error

    async def n_partitions(self, topic: str) -> int:
        """Return how many partitions a topic has.

        Raises
        ------
        UnavailableError
            If the cluster does not say.
        """
        try:
            return len(await self._producer.partitions_for(topic))
        except KafkaError as error:
            raise UnavailableError(f"the bank's cluster is not reached: {error}") from error

    async def stop(self) -> None:
        """Send what is buffered and disconnect."""
        await self._producer.stop()

    async def send(self, outputs: Sequence[Output]) -> None:
        """Send records and wait until the broker has them all."""
        groups: defaultdict[tuple[str, int], list[Output]] = defaultdict(list)
        for output in outputs:
            groups[await self._partition(output)].append(output)
        sent = []
        for (topic, partition), group in groups.items():
            sent += await self._send_group(topic, partition, group)
        await asyncio.gather(*sent)

    async def _partition(self, output: Output) -> tuple[str, int]:
        n = self._n_partitions.get(output.topic)
        if n is None:
            n = len(await self._producer.partitions_for(output.topic))
            self._n_partitions[output.topic] = n
        return output.topic, zlib.crc32(output.key) % n

    async def _send_group(
        self, topic: str, partition: int, group: Sequence[Output]
    ) -> list["asyncio.Future[object]"]:
        sent = []
        batch = self._producer.create_batch()
        for output in group:
            if batch.append(key=output.key, value=output.value, timestamp=None) is None:
                sent.append(await self._producer.send_batch(batch, topic, partition=partition))
                batch = self._producer.create_batch()
                batch.append(key=output.key, value=output.value, timestamp=None)
        sent.append(await self._producer.send_batch(batch, topic, partition=partition))
        return sent
