"""A damaged store on a real broker: the worker stops, is rebuilt and reads what is left anew."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from deploy.state_command import (
    plan_rebuild,
    rebuild_state,
    settings_of,
    show_state,
    verify_state,
)
from models.fragments import FragmentRecord
from models.records import Decision
from models.topics import BankTopics, ConsortiumTopics
from stream.anew import Published, read_marker
from tests.integration.bank_process import BankProcess, a_bank, eventually, read_topic
from tests.integration.test_bank_worker import MAPPING, payment, verdict
from tests.store_files import change_page

pytestmark = pytest.mark.integration
TOPICS = BankTopics("rebuilt")


def learnt(broker: str) -> tuple[int, int]:
    """Return the outcomes in the newest evidence on the bank's topic, and its highest number."""
    place = TopicPartition(ConsortiumTopics("of-rebuilt").summaries("rebuilt"), 0)
    consumer = KafkaConsumer(bootstrap_servers=broker)
    consumer.assign([place])
    consumer.seek_to_beginning()
    end, published, seqs = consumer.end_offsets([place])[place], Published(), [0]
    while consumer.position(place) < end:
        for record in consumer.poll(timeout_ms=200).get(place, []):
            published.add(FragmentRecord(record.key, record.value, record.headers))
            seqs += [int(value) for name, value in record.headers if name == "seq"]
    consumer.close()
    found = [one.n for key, one in published.headers.items() if key.part == "evidence"]
    return sum(found), max(seqs)


def damaged(settings: Path) -> None:
    """Change a byte of a page of the log."""
    change_page(settings.parent / "state" / "state", "log/hash", 0)


def send(broker: str) -> None:
    """Send 40 payments to two partitions, verdicts on ten, and two payments much later."""
    producer = KafkaProducer(bootstrap_servers=broker)
    for number in range(40):
        producer.send(TOPICS.transactions, payment(number), partition=number % 2)
    for number in range(10):
        producer.send(TOPICS.labels, verdict(number), partition=0)
    producer.flush()
    for number in (40, 41):
        raw = payment(number, second=6_000 + number)
        producer.send(TOPICS.transactions, raw, partition=number % 2)
    producer.flush()
    producer.close()


def test_a_rebuilt_worker_reads_anew_what_the_broker_has_and_takes_back_the_rest(
    broker: str, tmp_path: Path, started: Callable[[Path], BankProcess]
) -> None:
    """Not from where its consumer group stood; what it published before counts no second time."""
    files = a_bank(tmp_path, broker, "rebuilt", MAPPING, cadence_s=2.0)
    file = files.settings["rebuilt"]
    scored = 'transactions_scored_total{decision="pass"}'
    worker = started(file)
    send(broker)
    eventually(lambda: worker.metric(scored) == 42, "all decisions")
    n_before, seq_before = eventually(
        lambda: found if (found := learnt(broker))[0] else None, "evidence"
    )
    assert worker.stop() == 0
    assert n_before % 10 == 0

    damaged(file)
    assert BankProcess(file).process.wait(60) == 3
    line = (file.parent / "worker.log").read_text().splitlines()[-1]
    assert "array 'log/hash', page 0" in msgspec.json.decode(line)["message"]

    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.delete_records({TopicPartition(TOPICS.transactions, 0): 3})
    admin.close()
    plan = plan_rebuild(settings_of(file), is_offline=False)
    assert "rebuilt.transactions/0: offsets below 3 are no longer on the broker" in plan.said
    rebuild_state(plan, datetime.now(UTC))

    worker = started(file)
    eventually(lambda: worker.metric(scored) == 39, "decisions on what is still there")
    producer = KafkaProducer(bootstrap_servers=broker)  # labels may have come first: one more tick
    producer.send(TOPICS.transactions, payment(42, second=9_000), partition=0)
    producer.flush()
    producer.close()
    eventually(lambda: learnt(broker)[0] == n_before * 7 // 10, "evidence of what was read anew")
    assert worker.stop() == 0
    settings = settings_of(file)
    assert verify_state(settings) == []
    told = show_state(settings)
    assert not told["is_reading_anew"]
    assert told["labels_parked"] == 3  # of the payments that are gone
    assert told["offsets"] == {
        "rebuilt.labels/0": 10,
        "rebuilt.transactions/0": 22,
        "rebuilt.transactions/1": 21,
    }
    assert read_marker(settings.state_dir) is None
    assert learnt(broker)[1] > seq_before
    decided = [one.transaction_id for one in read_topic(broker, TOPICS.decisions, Decision)]
    assert len(set(decided)) == 43
    assert len(decided) == 42 + 39 + 1
