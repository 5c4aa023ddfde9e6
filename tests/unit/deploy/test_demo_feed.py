"""The demonstration's feed sends every bank's stream, and its watcher counts what comes back."""

import threading
import time
from types import SimpleNamespace

import msgspec
import pytest
from kafka import TopicPartition

from deploy import demo_feed
from deploy.demo_feed import Feed, Watcher
from deploy.replay import ReplayConfig
from deploy.scoreboard import Scoreboard
from deploy.simulator import SimulationConfig, bank_parts
from models.errors import UnavailableError
from models.mapping import load_mapping
from models.release_codec import MANIFEST_KEY
from tests.unit.deploy.small_backtest import DAY_MS, MAPPING
from tests.unit.deploy.test_scoreboard import alert, decision

FIELDS = load_mapping(MAPPING)


class FakeSender:
    """Keeps what is sent to any topic, over all senders."""

    def __init__(self, bootstrap):
        assert bootstrap == "broker:1"
        self.is_closed = False
        self.senders.append(self)

    def partitions(self, _topic):
        """Return one partition."""
        return (0,)

    def send(self, topic, *, key, value, headers, partition):
        """Keep one record, if it is none of the watermarks."""
        if value is not None:
            self.sent.append((threading.current_thread().name, topic, key))

    def flush(self):
        """Pretend that everything is stored."""

    def close(self):
        """Note it."""
        self.is_closed = True


@pytest.fixture
def sender(monkeypatch):
    """Put a fake in the place of the producer."""

    class Fake(FakeSender):
        sent, senders = [], []

    monkeypatch.setattr(demo_feed, "KafkaSender", Fake)
    return Fake


def days(bank):
    """Return a bank's payments of two days."""
    config = SimulationConfig(n_days=2, n_customers=60, n_terminals=20)
    return list(bank_parts(config, bank, FIELDS, seed=1))


def wait_until(condition):
    """Poll until something holds."""
    until_s = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_each_bank_is_fed_by_a_thread_of_its_own(sender):
    """All its payments in order to its own topic, by account; then the sender is closed."""
    feed = Feed("broker:1", ReplayConfig(label_delay_ms=DAY_MS), 0.0)
    for i, bank in enumerate(("north", "south")):
        feed.start(bank, days(i), FIELDS)
    wait_until(lambda: feed.is_done)
    assert feed.error is None
    for i, bank in enumerate(("north", "south")):
        sent = [(who, key) for who, topic, key in sender.sent if topic == f"{bank}.transactions"]
        accounts = [text.encode() for part in days(i) for text in part.batch.account_id]
        assert sent == [(f"feed-{bank}", key) for key in accounts]
    assert [one.is_closed for one in sender.senders] == [True, True]


def test_feed_that_is_stopped_sends_no_more(sender):
    """Two days at real time would take two days."""
    feed = Feed("broker:1", ReplayConfig(label_delay_ms=0), 1.0)
    feed.start("north", days(0), FIELDS)
    assert not feed.is_done
    feed.stop()
    wait_until(lambda: feed.is_done)
    assert feed.error is None
    assert len(sender.sent) < sum(len(part.batch) for part in days(0))


def test_error_of_a_thread_is_kept_for_the_caller(sender, monkeypatch):
    """Whatever it is: the main thread shows it and stops."""

    def refuse(*_args, **_kwargs):
        raise UnavailableError("full")

    monkeypatch.setattr(sender, "send", refuse)
    feed = Feed("broker:1", ReplayConfig(label_delay_ms=0), 0.0)
    feed.start("north", days(0), FIELDS)
    wait_until(lambda: feed.is_done)
    assert isinstance(feed.error, UnavailableError)


class FakeConsumer:
    """Hands out records that a test put there."""

    def __init__(self, **config):
        assert config["bootstrap_servers"] == "broker:1"
        self.waiting, self.calls, self.places = {}, [], []

    def partitions_for_topic(self, topic):
        """Return two partitions of decisions, one of alerts and releases; one topic is missing."""
        if topic == "south.alerts":
            return None
        return {1, 0} if topic.endswith(".decisions") else {0}

    def assign(self, places):
        """Take the places."""
        self.places = [(place.topic, place.partition) for place in places]
        self.calls.append("assign")

    def seek_to_beginning(self):
        """Note it."""
        self.calls.append("seek")

    def poll(self, timeout_ms, max_records):
        """Return what waits."""
        assert timeout_ms == 250
        assert max_records > 0
        found, self.waiting = self.waiting, {}
        return found

    def put(self, topic, *records):
        """Let records wait."""
        found = [SimpleNamespace(key=key, value=value) for key, value in records]
        self.waiting[TopicPartition(topic, 0)] = found

    def close(self, **_config):
        """Note it."""
        self.calls.append("close")


@pytest.fixture
def watched(monkeypatch):
    """Return a watcher of two banks, its consumer and its board."""
    monkeypatch.setattr(demo_feed, "KafkaConsumer", FakeConsumer)
    board = Scoreboard({"north": frozenset({"P1"}), "south": frozenset()})
    watcher = Watcher("broker:1", "test", ["north", "south"], board)
    return watcher, watcher._consumer, board


def test_watcher_reads_all_topics_from_their_beginning(watched):
    """Every partition that there is of decisions, alerts and releases."""
    _, consumer, _ = watched
    assert sorted(consumer.places) == [
        ("north.alerts", 0), ("north.decisions", 0), ("north.decisions", 1),
        ("south.decisions", 0), ("south.decisions", 1), ("test.releases", 0),
    ]  # fmt: skip
    assert consumer.calls == ["assign", "seek"]


def test_watcher_counts_decisions_alerts_and_releases(watched):
    """Each for its bank; of a release's records only the one that completes it."""
    watcher, consumer, board = watched
    parts = [(b"part/1", b"x"), (MANIFEST_KEY.encode(), b"x"), (None, b"x")]
    consumer.put("test.releases", *parts)
    consumer.put(
        "north.decisions",
        *((b"A", msgspec.json.encode(decision(i, alert=i == 1))) for i in (1, 2, 2)),
    )
    consumer.put("south.decisions", (b"A", msgspec.json.encode(decision(1))))
    consumer.put("north.alerts", (b"A", msgspec.json.encode(alert(1))))
    watcher.poll(0.25)
    north, south = board.banks["north"], board.banks["south"]
    assert (north.n_scored, north.n_alerts, north.n_frauds_alerted) == (2, 1, 1)
    assert (south.n_scored, south.n_alerts) == (1, 0)
    assert [(bank, one.alert_id) for bank, one in board.latest] == [("north", "a1")]
    assert board.n_releases == 1


def test_watcher_lets_go_of_its_connection(watched):
    """Once."""
    watcher, consumer, _ = watched
    watcher.close()
    assert consumer.calls[-1] == "close"
