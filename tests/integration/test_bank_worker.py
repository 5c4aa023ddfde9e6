"""One bank's worker on a real broker: bad input goes aside, a killed worker loses nothing."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaProducer

from deploy.bank_formats import BankFormat
from deploy.consortium_files import ConsortiumPlan, write_consortium
from deploy.kafka_server import free_port, resolve, start, stop
from deploy.simulator import SimulationConfig, bank_parts
from deploy.topics import consortium_plan, create_topics
from models.mapping import load_mapping
from models.records import DeadLetter, Decision, concatenate_batches
from models.topics import BankTopics
from tests.integration.bank_process import ROOT, BankProcess, a_bank, eventually, read_topic
from tests.integration.conftest import LIBS

pytestmark = pytest.mark.integration

MAPPING = ROOT / "deploy" / "demo_banks" / "rhinepay.toml"
NOW_S = 1_750_000_000


def a_time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW_S + second))


def payment(
    number: int, *, second: int | None = None, amount: str = "12.50", **other: str
) -> bytes:
    """Return a record in the bank's format."""
    record = {
        "payment_id": f"p{number}",
        "created_at": a_time(number if second is None else second),
        "wallet": "secret-wallet-77",
        "money": {"amount": amount, "currency": "EUR"} | other,
        "shop": {"id": "s1"},
        "device": {"hash": "d1"},
    }
    return msgspec.json.encode(record)


def verdict(number: int, result: str = "fraud") -> bytes:
    record = {
        "payment_id": f"p{number}",
        "wallet": "secret-wallet-77",
        "result": result,
        "origin": "chargeback",
        "reported_at": a_time(5_000),
    }
    return msgspec.json.encode(record)


def without(raw: bytes, field: str) -> bytes:
    record = msgspec.json.decode(raw)
    del record[field]
    return msgspec.json.encode(record)


BAD_PAYMENTS = {
    "malformed_json": b'{"payment_id": "p1", ',
    "not_an_object": b"[1, 2]",
    "missing_field": without(payment(2), "wallet"),
    "wrong_type": payment(3).replace(b'"p3"', b"{}"),
    "unknown_currency": payment(4, currency="XAU"),
    "negative_amount": payment(5, amount="-3.00"),
    "not_finite": payment(6).replace(b'"12.50"', b'"NaN"'),
    "bad_time": payment(7).replace(a_time(7).encode(), b"yesterday"),
    "future_event": payment(8, second=10 * 365 * 86_400),
    "late_event": payment(9, second=-2 * 86_400),
    "duplicate_transaction": payment(100),
}


def test_bad_records_become_dead_letters_and_the_stream_goes_on(
    broker: str, tmp_path: Path, started: Callable[[Path], BankProcess]
) -> None:
    """Each kind has its reason; good ones before, between and after are all scored."""
    files = a_bank(tmp_path, broker, "badinput", MAPPING, partitions=1)
    worker = started(files.settings["badinput"])
    topics = BankTopics("badinput")
    producer = KafkaProducer(bootstrap_servers=broker)
    producer.send(topics.transactions, payment(100))
    for i, raw in enumerate(BAD_PAYMENTS.values()):
        producer.send(topics.transactions, raw)
        producer.send(topics.transactions, payment(101 + i))
    producer.flush()
    n_good = len(BAD_PAYMENTS) + 1
    eventually(lambda: worker.metric('transactions_scored_total{decision="pass"}') == n_good, "all")

    for raw in (verdict(101), verdict(101), verdict(101, "genuine"), verdict(999), b"{"):
        producer.send(topics.labels, raw)
    producer.flush()
    producer.close()
    eventually(lambda: worker.metric("labels_parked") == 1, "a parked label")
    eventually(lambda: worker.metric('labels_total{outcome="duplicate"}') == 1, "a repeated label")
    assert worker.metric('labels_total{outcome="joined"}') == 1
    assert worker.stop() == 0

    letters = read_topic(broker, topics.dead_letters, DeadLetter)
    assert Counter(letter.reason for letter in letters) == Counter(
        [*BAD_PAYMENTS, "contradicting_label", "malformed_json"]
    )
    by_reason = {letter.reason: letter for letter in letters if letter.topic == topics.transactions}
    assert {reason: by_reason[reason].payload for reason in BAD_PAYMENTS} == BAD_PAYMENTS
    decided = [one.transaction_id for one in read_topic(broker, topics.decisions, Decision)]
    assert sorted(decided) == sorted(f"p{100 + i}" for i in range(n_good))
    for told in (worker.log_path.read_text(), *(letter.detail for letter in letters)):
        assert "secret-wallet-77" not in told
        assert "12.5" not in told


def test_a_killed_worker_answers_everything_and_repeats_its_ids_at_most(
    broker: str, tmp_path: Path, started: Callable[[Path], BankProcess]
) -> None:
    """Kill -9 three times under load; each payment has a decision, the same one if it has two."""
    mapping = load_mapping(MAPPING)
    parts = bank_parts(SimulationConfig(n_days=20, n_customers=800), 1, mapping, seed=5)
    batch = concatenate_batches([part.batch for part in parts])
    records = BankFormat(mapping).transactions(batch)
    files = a_bank(tmp_path, broker, "killed", MAPPING, partitions=1)
    topics = BankTopics("killed")
    producer = KafkaProducer(bootstrap_servers=broker)
    keyed = list(zip(batch.account_id, records, strict=True))
    quarter = len(keyed) // 4 + 1
    for k in range(4):
        worker = started(files.settings["killed"])
        for account, raw in keyed[k * quarter : (k + 1) * quarter]:
            producer.send(topics.transactions, raw, key=account.encode())
        producer.flush()
        if k < 3:
            eventually(lambda w=worker: w.metric("checkpoint_bytes_total") > 0, "a checkpoint")
            worker.stop(signal.SIGKILL)
    producer.close()
    wanted = set(batch.transaction_id)

    def unanswered() -> int:
        decisions = read_topic(broker, topics.decisions, Decision)
        return len(wanted.difference(one.transaction_id for one in decisions))

    eventually(lambda: unanswered() == 0, "a decision for each payment")
    assert worker.stop() == 0
    decisions = read_topic(broker, topics.decisions, Decision)
    assert {one.transaction_id for one in decisions} == wanted
    distinct = {(one.transaction_id, one.y_score, one.alert) for one in decisions}
    assert len(distinct) == len(batch)
    assert read_topic(broker, topics.dead_letters, DeadLetter) == []


def test_a_bank_whose_consortium_is_away_goes_on_and_catches_up(
    broker: str, tmp_path: Path, started: Callable[[Path], BankProcess]
) -> None:
    """The other cluster is down at the start, comes, is killed and comes again."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    settings = {"cadence_s": 2.0}
    files = a_bank(tmp_path, broker, "lonely", MAPPING, consortium=address, **settings)
    worker = started(files.settings["lonely"])
    producer = KafkaProducer(bootstrap_servers=broker)

    def answers(first: int) -> None:
        done = worker.metric('transactions_scored_total{decision="pass"}')
        for number in range(first, first + 10):
            producer.send("lonely.transactions", payment(number))
        producer.flush()
        scored = 'transactions_scored_total{decision="pass"}'
        eventually(lambda: worker.metric(scored) == done + 10, "ten more decisions")

    answers(0)
    home = tmp_path / "other"
    kafka = resolve(LIBS, os.environ)
    try:
        start(home, kafka, port=port)
        create_topics(address, consortium_plan("of-lonely", ["lonely"]))
        eventually(lambda: worker.metric("summaries_published_total") > 0, "summaries")
        stop(home)
        answers(10)
        eventually(lambda: worker.metric("summaries_waiting") > 0, "waiting summaries")
        published = worker.metric("summaries_published_total")
        answers(20)
        start(home, kafka, port=port)
        eventually(lambda: worker.metric("summaries_published_total") > published, "more of them")
        eventually(lambda: worker.metric("summaries_waiting") == 0, "nothing waiting")
        assert worker.stop() == 0
    finally:
        stop(home)
    producer.close()


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("accountid =", "account_id =", "transaction.account_id: expected"),
        ("[currencys]", "[currencies]", "currencies"),
        ('format = "iso"', 'format = "iso8601"', "time.format: expected iso8601, epoch_s"),
    ],
)
def test_a_wrong_mapping_ends_the_worker_with_two_and_a_line(
    tmp_path: Path, wrong: str, right: str, message: str
) -> None:
    """The line names the file, the key and what is expected."""
    text = MAPPING.read_text()
    assert right in text
    mapping = tmp_path / "wrong.toml"
    mapping.write_text(text.replace(right, wrong, 1))
    files = _files_without_a_broker(tmp_path, mapping)
    done = subprocess.run(
        [sys.executable, "-m", "stream", "--settings", str(files)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "mapping.toml" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def _files_without_a_broker(directory: Path, mapping: Path) -> Path:
    plan = ConsortiumPlan(
        name="none",
        entity_kinds=("terminal",),
        mappings={"rhinepay": mapping},
        bank_bootstrap="127.0.0.1:1",
        consortium_bootstrap="127.0.0.1:1",
        is_replay=False,
        bank_settings={},
    )
    return write_consortium(directory / "files", plan).settings["rhinepay"]
