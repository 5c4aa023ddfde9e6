"""The bank's input topics as its cluster has them: whether they are the old ones, what is missing.

A topic that was deleted and made anew has the old name and another id, and its offsets begin again,
so a stored offset says nothing about it. Records that were deleted before they were read, by
Kafka's retention most often, leave a hole; so do the marks of transactional producers, which are no
loss. What is lost is told and counted, by topic and number, never in silence.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from models.errors import UnavailableError
from models.topics import BankTopics
from stream.manifest import Partition
from stream.share import Share
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)

LOOK_EVERY_S = 15.0
_ANSWER_S = 3.0
_PATIENCE_S = 8.0
Offsets = Mapping[Partition, int]


class Source(NamedTuple):
    """A topic as it is: its id, which no other ever has, and how many partitions it has."""

    topic_id: str
    n_partitions: int


class Broker(Protocol):
    """What is asked of the cluster; blocks."""

    def __call__(self, topics: Sequence[str]) -> Mapping[str, Source]:
        """Return those of some topics that are there, by name."""
        ...


def described_by(bootstrap: str) -> Broker:
    """Return how to ask a cluster for topics.

    What is returned raises `UnavailableError` if the cluster does not answer. Brokers before Kafka
    2.8 give all topics one id, by which nothing is told apart.
    """

    def ask(topics: Sequence[str]) -> Mapping[str, Source]:
        wait_ms = round(_ANSWER_S * 1_000)
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=bootstrap,
                bootstrap_timeout_ms=wait_ms,
                request_timeout_ms=wait_ms,
            )
            with contextlib.closing(admin):
                found = admin.describe_topics(list(topics))
        except (KafkaError, OSError) as error:
            raise UnavailableError(f"the bank's cluster is not reached: {error}") from error
        return {
            one["name"]: Source(str(one["topic_id"]), len(one["partitions"]))
            for one in found
            if one["error_code"] == 0
        }

    return ask


def n_missed(expected: int, got: int, begins: int) -> int:
    """Return how many records of a hole were deleted before they were read.

    Parameters
    ----------
    expected, got
        The offset that was next, and the one that came.
    begins
        The first offset that the partition still has.

    Examples
    --------
    >>> n_missed(expected=40, got=100, begins=100), n_missed(expected=40, got=41, begins=7)
    (60, 0)
    """
    return max(min(begins, got) - expected, 0)


class Sources:
    """Watches the two input topics of a worker.

    Parameters
    ----------
    topics
        Of the bank.
    known
        Topic -> id, of those that the state's offsets belong to; none on a new disk.
    ask
        The cluster.
    telemetry
        Counts what is missing.

    Attributes
    ----------
    known
        As given, and what was found since.
    replaced_by_now
        Topics that were made anew while they were read, and were found so by `watch`.
    """

    def __init__(
        self, topics: BankTopics, known: Mapping[str, str], ask: Broker, telemetry: Telemetry
    ) -> None:
        self._streams = {topics.transactions: "transactions", topics.labels: "labels"}
        self._ask = ask
        self._telemetry = telemetry
        self._found: Mapping[str, Source] | None = None
        self._next: dict[Partition, int] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self._looking: Future[Mapping[str, Source]] | None = None
        self.known = dict(known)
        self.replaced_by_now: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the cluster has ever said which topics it has."""
        return self._found is not None

    async def look(self) -> None:
        """Ask the cluster which topics it has; where it does not answer, what is known stays."""
        if self._looking is None:
            self._looking = Future()
            asked = (self._looking,)
            threading.Thread(target=self._answer, args=asked, name="topics", daemon=True).start()
        looking = self._looking
        try:
            async with asyncio.timeout(_PATIENCE_S):
                self._found = await asyncio.shield(asyncio.wrap_future(looking))
        except (UnavailableError, TimeoutError) as error:
            why = str(error) or f"no answer within {_PATIENCE_S:.0f} s"
            log.warning("the input topics were not looked at: %s", why)
        if looking.done() and self._looking is looking:
            self._looking = None

    def _answer(self, asked: Future[Mapping[str, Source]]) -> None:
        """Ask in a thread of one's own, which kafka-python may keep for ever."""
        try:
            asked.set_result(self._ask(tuple(self._streams)))
        except Exception as error:  # noqa: BLE001  # whoever waits takes or raises it
            asked.set_exception(error)

    def missing(self) -> str | None:
        """Return the name of an input topic that is not there, None while all are."""
        if self._found is None:
            return None
        return next((topic for topic in self._streams if topic not in self._found), None)

    def replaced(self) -> tuple[str, ...]:
        """Return the topics that are not those which the state has read."""
        ids = self._ids()
        return tuple(t for t, known in self.known.items() if ids.get(t, known) != known)

    def _ids(self) -> dict[str, str]:
        return {topic: source.topic_id for topic, source in (self._found or {}).items()}

    def unread(self, share: Share, assigned: Set[Partition]) -> list[Partition]:
        """Return the partitions that are there, are of a worker's share and are not assigned."""
        return [
            (topic, partition)
            for topic, source in (self._found or {}).items()
            for partition in range(source.n_partitions)
            if share.holds(partition) and (topic, partition) not in assigned
        ]

    def take_up(self, stored: Offsets, ends: Offsets) -> dict[Partition, int]:
        """Return where to read on, given where the state left off; topics as found become known.

        Parameters
        ----------
        stored
            Next offset of each partition by the state.
        ends
            The offset after the last record of those that are read, as far as it was told.

        Returns
        -------
        dict
            Of the same: 0 in a topic that was made anew, whose records are all new, and
            the end of a partition that has lost records which were read.
        """
        replaced, places = self.replaced(), dict[Partition, int]()
        for topic in replaced:
            self._telemetry.topics_replaced.labels(self._streams[topic]).inc()
            log.error("topic %s was deleted and made anew: it is read from its start", topic)
        for place, offset in sorted(stored.items()):
            places[place] = 0 if place[0] in replaced else min(offset, ends.get(place, offset))
            if 0 < places[place] < offset:
                n = offset - places[place]
                log.error("topic %s/%d lost its last %d records, which were read", *place, n)
        self.known |= self._ids()
        self._next = dict(places)
        return places

    def follow(
        self,
        place: Partition,
        offsets: tuple[int, int],
        begins: Callable[[Partition], Awaitable[int]],
    ) -> None:
        """Note the first and last offset of a chunk; where some lie between, find out why.

        ``begins`` asks the cluster for the first offset that a partition has. It is asked beside
        the stream, which does not wait for the answer.
        """
        expected = self._next.get(place, offsets[0])
        self._next[place] = max(offsets[1] + 1, expected)
        if offsets[0] > expected:
            task = asyncio.create_task(self._explain(place, expected, offsets[0], begins))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _explain(
        self,
        place: Partition,
        expected: int,
        got: int,
        begins: Callable[[Partition], Awaitable[int]],
    ) -> None:
        try:
            n = n_missed(expected, got, await begins(place))
        except Exception as error:  # noqa: BLE001  # of any client; the worst case is told
            log.warning("topic %s/%d: offsets %d to %d: %s", *place, expected, got - 1, error)
            return
        if n:
            self._telemetry.records_missed.labels(self._streams[place[0]]).inc(n)
            log.error(
                "topic %s/%d: %d records from offset %d on were deleted before they were read",
                *place,
                n,
                expected,
            )

    async def watch(self) -> None:
        """Look at the topics once, and tell what is wrong with them."""
        await self.look()
        self.replaced_by_now = self.replaced()
        topic = self.missing()
        if topic is not None:
            log.error("topic %s is not there: `amalgam topics create`", topic)
