"""The group of a bank's hosts on its cluster, which deals the bank's workers out to them.

It is a consumer group of a topic without records, of one partition a worker: Kafka's own protocol
finds out which hosts are alive and which of them runs which worker.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from models.errors import SettingsError, UnavailableError
from models.topics import BankTopics
from stream.settings import Settings
from stream.share import worker_names
from stream.transport import ended_task, is_in_touch

log = logging.getLogger(__name__)

SESSION_TIMEOUT_MS = 10_000
_HEARTBEAT_MS = 2_000
_POLL_MS = 500
_ASK_S = 5.0


class HostGroup(ConsumerRebalanceListener):  # type: ignore[misc]  # untyped
    """A host in its group; entered it is connected, left it gives its workers up.

    A host is a dynamic member: one that stops leaves at once, one that is killed when its session
    times out. Workers that stay with a host through a rebalance are not touched by it.

    Parameters
    ----------
    settings
        Of the host.

    Attributes
    ----------
    workers
        The workers that are this host's, None before the group has said so.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = BankTopics(settings.member).workers
        self._names: Sequence[str] = worker_names(settings.workers, settings.worker)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bank_bootstrap,
            group_id=f"amalgam-{settings.member}-hosts",
            partition_assignment_strategy=[StickyPartitionAssignor],
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            enable_auto_commit=False,
        )
        self._wrong: SettingsError | None = None
        self.workers: frozenset[str] | None = None

    async def __aenter__(self) -> Self:
        """Connect and join.

        Raises
        ------
        UnavailableError
            If the cluster does not answer.
        SettingsError
            If it has no topic of the bank's workers.
        """
        try:
            await self._consumer.start()
            is_there = self._topic in await self._consumer.topics()
        except (KafkaError, OSError) as error:
            await self._consumer.stop()
            raise UnavailableError(f"the bank's cluster is not reached: {error}") from error
        if not is_there:
            await self._consumer.stop()
            raise SettingsError(
                f"hosts: expected a topic {self._topic}, found none: `amalgam topics create`"
            )
        self._consumer.subscribe([self._topic], listener=self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave."""
        await self._consumer.stop()

    async def run(self) -> None:
        """Stay in the group, until cancelled.

        Raises
        ------
        SettingsError
            If the topic has another number of partitions than the bank workers.
        UnavailableError
            If the client cannot go on.
        """
        try:
            while self._wrong is None:
                await self._consumer.getmany(timeout_ms=_POLL_MS)
                ended = ended_task(self._consumer)
                if ended is not None:
                    raise UnavailableError(f"the client's {ended} has ended")
        except KafkaError as error:
            raise UnavailableError(f"the group of hosts is lost: {error}") from error
        raise self._wrong

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Do nothing: what stays here, which most does, need not be stopped."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Take note of which workers are this host's."""
        n = len(self._consumer.partitions_for_topic(self._topic) or ())
        if n != len(self._names):
            self._wrong = SettingsError(
                f"workers: expected {n}, the partitions of {self._topic}, got {len(self._names)}"
            )
            return
        self.workers = frozenset(self._names[place.partition] for place in assigned)

    def is_in_touch(self) -> bool:
        """Return whether the group's coordinator is known."""
        return is_in_touch(self._consumer)

    async def has(self, worker: str) -> bool:
        """Ask the cluster whether a worker is this host's at this moment.

        A commit that it accepts is its word that this member is of the group's generation, which
        a host that was paused, or was cut off, may not know to be over.
        """
        place = TopicPartition(self._topic, self._names.index(worker))
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_ASK_S):
                await self._consumer.commit({place: 0})
            return True
        return False
