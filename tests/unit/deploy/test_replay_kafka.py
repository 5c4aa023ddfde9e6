"""The real sender turns whatever the producer reports into one kind of error."""

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from deploy import replay_kafka
from deploy.replay_kafka import KafkaSender
from models.errors import UnavailableError


class Sent:
    """A delivery that may fail later."""

    def __init__(self, error):
        self.error = error

    def add_errback(self, note):
        """Fail at once where there is an error."""
        if self.error is not None:
            note(self.error)


class FakeProducer:
    """Stands for kafka-python's producer."""

    delivery_error = None
    send_error = None
    partitions = frozenset({2, 0, 1})

    def __init__(self, **config):
        self.config = config
        self.sent = []
        self.is_closed = False

    def send(self, topic, **record):
        """Keep a record or raise."""
        if self.send_error is not None:
            raise self.send_error
        self.sent.append((topic, record))
        return Sent(self.delivery_error)

    def partitions_for(self, topic):
        """Return partitions, or raise as the producer does for an unknown topic."""
        if topic == "none":
            raise KafkaTimeoutError("no metadata")
        return self.partitions

    def flush(self, timeout):
        """Pretend that everything is stored."""
        assert timeout > 0

    def close(self, timeout):
        """Note it."""
        assert timeout > 0
        self.is_closed = True


@pytest.fixture
def sender(monkeypatch):
    """Return a sender over a fake producer."""
    monkeypatch.setattr(replay_kafka, "KafkaProducer", FakeProducer)
    return KafkaSender("a:1,b:2")


def send(sender):
    """Send one record."""
    sender.send("t", key=b"k", value=b"v", headers=[("h", b"1")], partition=None)


def test_records_are_handed_over_whole_and_acknowledged_by_all(sender):
    """Key, value and headers; partitions in order."""
    send(sender)
    producer = sender._producer  # the fake
    record = {"key": b"k", "value": b"v", "headers": [("h", b"1")], "partition": None}
    assert producer.sent == [("t", record)]
    assert producer.config["acks"] == "all"
    assert producer.config["bootstrap_servers"] == ["a:1", "b:2"]
    assert sender.partitions("t") == [0, 1, 2]
    sender.close()
    assert producer.is_closed


def test_record_that_was_not_stored_fails_the_flush(sender):
    """A replay with a hole is no replay; the connection is closed all the same."""
    sender._producer.delivery_error = MessageSizeTooLargeError()  # the fake
    send(sender)
    with pytest.raises(UnavailableError, match="stored"):
        sender.flush()
    with pytest.raises(UnavailableError):
        sender.close()
    assert sender._producer.is_closed  # the fake


def test_broker_that_is_away_is_unavailable(sender):
    """Whether asked for a topic or handed a record."""
    with pytest.raises(UnavailableError, match="topic none"):
        sender.partitions("none")
    sender._producer.send_error = KafkaTimeoutError("full")  # the fake
    with pytest.raises(UnavailableError, match="a:1"):
        send(sender)
