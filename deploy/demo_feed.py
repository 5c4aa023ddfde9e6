"""Feeds the demonstration: every bank's simulated records through its topics, decisions back."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

import msgspec
from kafka import KafkaConsumer, TopicPartition

from deploy.bank_formats import LabelledBatch
from deploy.replay import ReplayConfig, Replayer, plan_replay
from deploy.replay_kafka import KafkaSender
from deploy.scoreboard import Scoreboard
from models.mapping import Mapping
from models.records import Alert, Decision
from models.release_codec import MANIFEST_KEY
from models.topics import BankTopics, ConsortiumTopics

_FETCH_BYTES = 16 * 1024 * 1024


class Feed:
    """Replays banks' streams, one thread a bank.

    Parameters
    ----------
    bootstrap
        Of the banks' cluster.
    config
        How a replay is cut.
    speed
        Event seconds per second.
    """

    def __init__(self, bootstrap: str, config: ReplayConfig, speed: float) -> None:
        self._bootstrap = bootstrap
        self._config = config
        self._speed = speed
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self.error: Exception | None = None

    def start(self, bank: str, parts: Iterable[LabelledBatch], mapping: Mapping) -> None:
        """Begin to send one bank's stream."""
        thread = threading.Thread(
            target=self._run, args=(bank, parts, mapping), name=f"feed-{bank}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _run(self, bank: str, parts: Iterable[LabelledBatch], mapping: Mapping) -> None:
        topics = BankTopics(bank)
        try:
            sender = KafkaSender(self._bootstrap)
            replayer = Replayer(
                sender,
                transactions_topic=topics.transactions,
                labels_topic=topics.labels,
                speed=self._speed,
                clock=time.monotonic,
                sleep=self._sleep,
            )
            with closing(sender):
                replayer.run(plan_replay(parts, mapping, self._config))
        except _StopError:
            return
        except Exception as error:  # noqa: BLE001  # shown by the main thread, which stops
            self.error = error

    def _sleep(self, wait_s: float) -> None:
        if self._stopped.wait(wait_s):
            raise _StopError

    def stop(self) -> None:
        """Send no more."""
        self._stopped.set()

    @property
    def is_done(self) -> bool:
        """Whether everything has been sent."""
        return not any(thread.is_alive() for thread in self._threads)


class _StopError(Exception):
    """The feed is to end before its time."""


class Watcher:
    """Reads decisions, alerts and releases into a scoreboard.

    Parameters
    ----------
    bootstrap
        Of the cluster that holds them all.
    consortium
        Its name.
    banks
        Whose topics are read.
    board
        Where they are counted.
    """

    def __init__(
        self, bootstrap: str, consortium: str, banks: Sequence[str], board: Scoreboard
    ) -> None:
        self._board = board
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap, max_partition_fetch_bytes=_FETCH_BYTES
        )
        self._take: dict[str, Callable[[bytes, bytes], None]] = {
            ConsortiumTopics(consortium).releases: self._release
        }
        for bank in banks:
            topics = BankTopics(bank)
            self._take[topics.decisions] = self._decision_of(bank)
            self._take[topics.alerts] = self._alert_of(bank)
        places = [
            TopicPartition(topic, partition)
            for topic in self._take
            for partition in sorted(self._consumer.partitions_for_topic(topic) or ())
        ]
        self._consumer.assign(places)
        self._consumer.seek_to_beginning()

    def poll(self, timeout_s: float) -> None:
        """Take in what came."""
        found = self._consumer.poll(timeout_ms=int(timeout_s * 1_000), max_records=5_000)
        for place, records in found.items():
            take = self._take[place.topic]
            for record in records:
                take(record.key or b"", record.value or b"")

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close(autocommit=False, timeout_ms=5_000)

    def _release(self, key: bytes, _: bytes) -> None:
        if key.startswith(MANIFEST_KEY.encode()):
            self._board.n_releases += 1

    def _decision_of(self, bank: str) -> Callable[[bytes, bytes], None]:
        decoder = msgspec.json.Decoder(Decision)
        return lambda _, value: self._board.add_decision(bank, decoder.decode(value))

    def _alert_of(self, bank: str) -> Callable[[bytes, bytes], None]:
        decoder = msgspec.json.Decoder(Alert)
        return lambda _, value: self._board.add_alert(bank, decoder.decode(value))
