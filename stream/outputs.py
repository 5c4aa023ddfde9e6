"""What a worker sends out on the bank's cluster, and the producer that sends it in batches."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from models.errors import UnavailableError

_BATCH_BYTES = 900_000
_REQUEST_BYTES = 4 * 1024 * 1024
_Pair = tuple[bytes, bytes]


class Outputs(NamedTuple):
    """Records of one topic to be sent; those of one key keep their order."""

    topic: str
    keys: Sequence[bytes]
    values: Sequence[bytes]


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
        self._unconfirmed: list[asyncio.Future[object]] = []

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

    async def send(self, outputs: Sequence[Outputs]) -> None:
        """Send records and wait until the broker has them and all before them.

        Raises
        ------
        KafkaError
            If it does not take them.
        """
        await self.hand_over(outputs)
        await self.confirmed()

    async def confirmed(self) -> None:
        """Return once the broker has all that was handed over.

        Raises
        ------
        KafkaError
            If it has not taken something.
        """
        while self._unconfirmed:
            await asyncio.wait(self._unconfirmed, return_when=asyncio.FIRST_EXCEPTION)
            self._look()

    def failure(self) -> str | None:
        """Return what the broker has not taken, None while there is nothing."""
        try:
            self._look()
        except KafkaError as error:
            return f"the bank's cluster did not take the answers: {error!r}"
        return None

    def _look(self) -> None:
        """Let go of what is confirmed."""
        for future in self._unconfirmed:
            if future.done():
                future.result()
        self._unconfirmed = [future for future in self._unconfirmed if not future.done()]

    async def hand_over(self, outputs: Sequence[Outputs]) -> None:
        """Send records, and wait only while the broker has not been sent what was before them.

        Raises
        ------
        KafkaError
            If it has not taken something that was handed over before.
        """
        self._look()
        groups: defaultdict[tuple[str, int], list[_Pair]] = defaultdict(list)
        for topic, keys, values in outputs:
            n = await self._count_partitions(topic)
            of_partition = [groups[topic, partition].append for partition in range(n)]
            for key, value in zip(keys, values, strict=True):
                of_partition[crc32(key) % n]((key, value))
        for (topic, partition), group in groups.items():
            if group:
                self._unconfirmed += await self._send_group(topic, partition, group)

    async def _count_partitions(self, topic: str) -> int:
        if topic not in self._n_partitions:
            self._n_partitions[topic] = len(await self._producer.partitions_for(topic))
        return self._n_partitions[topic]

    async def _send_group(
        self, topic: str, partition: int, group: Sequence[_Pair]
    ) -> list["asyncio.Future[object]"]:
        sent = []
        batch = self._producer.create_batch()
        for key, value in group:
            if batch.append(key=key, value=value, timestamp=None) is None:
                sent.append(await self._producer.send_batch(batch, topic, partition=partition))
                batch = self._producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        sent.append(await self._producer.send_batch(batch, topic, partition=partition))
        return sent
