"""Input topics that lose records, vanish or come anew: each is told and counted, none is silent."""

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from deploy.topics import bank_plan, create_topics
from models.records import DeadLetter, Decision
from models.topics import BankTopics
from tests.integration.bank_process import BankProcess, a_bank, eventually, read_topic, send
from tests.integration.test_bank_worker import MAPPING, payment

pytestmark = pytest.mark.integration

SCORED = 'transactions_scored_total{decision="pass"}'
MISSED = 'records_missed_total{stream="transactions"}'
REPLACED = 'topics_replaced_total{stream="transactions"}'
Start = Callable[[Path], BankProcess]


def some(numbers: range) -> list[tuple[str, bytes]]:
    """Return payments of one account."""
    return [("a", payment(number)) for number in numbers]


def begun(
    broker: str, directory: Path, started: Start, bank: str, n: int
) -> tuple[Path, BankProcess]:
    """Return the settings of a bank of one partition, and its worker that has answered n."""
    settings = a_bank(directory, broker, bank, MAPPING, partitions=1).settings[bank]
    worker = started(settings)
    send(broker, bank, some(range(n)))
    eventually(lambda: worker.metric(SCORED) == n, f"{n} decisions")
    return settings, worker


def answered(broker: str, bank: str) -> set[str]:
    decisions = read_topic(broker, BankTopics(bank).decisions, Decision)
    return {one.transaction_id for one in decisions}


def test_records_that_were_deleted_unread_are_counted_and_the_rest_is_answered(
    broker: str, tmp_path: Path, started: Start
) -> None:
    """Of 80 payments 70 are deleted, of which 50 had been read."""
    settings, worker = begun(broker, tmp_path, started, "forgetful", 50)
    assert worker.stop() == 0
    send(broker, "forgetful", some(range(50, 80)))
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
        admin.delete_records({TopicPartition(BankTopics("forgetful").transactions, 0): 70})
    worker = started(settings)
    eventually(lambda: worker.metric(SCORED) == 10, "the ten that are left")
    eventually(lambda: worker.metric(MISSED) == 20, "the twenty that are gone")
    assert worker.metric('records_missed_total{stream="labels"}') == 0
    assert worker.metric(REPLACED) == 0
    assert worker.stop() == 0
    assert "20 records from offset 50 on were deleted" in worker.log_path.read_text()
    kept = {*range(50), *range(70, 80)}
    assert answered(broker, "forgetful") == {f"p{number}" for number in kept}


def test_marks_of_transactional_producers_are_no_loss(
    broker: str, tmp_path: Path, started: Start
) -> None:
    """Each transaction leaves an offset without a record."""
    files = a_bank(tmp_path, broker, "exact", MAPPING, partitions=1)
    worker = started(files.settings["exact"])
    producer = KafkaProducer(bootstrap_servers=broker, transactional_id="exact-sender")
    producer.init_transactions()
    for first in range(0, 30, 10):
        producer.begin_transaction()
        for number in range(first, first + 10):
            producer.send(BankTopics("exact").transactions, payment(number))
        producer.commit_transaction()
        eventually(lambda n=first + 10: worker.metric(SCORED) == n, "ten more decisions")
    producer.close()
    assert worker.metric(MISSED) == 0
    assert worker.stop() == 0
    assert "deleted before they were read" not in worker.log_path.read_text()


@pytest.mark.parametrize("n_new", [5, 40])
def test_topic_made_anew_between_two_runs_is_read_from_its_start(
    broker: str, tmp_path: Path, started: Start, n_new: int
) -> None:
    """Also where it has more records by then than had been read of the old one."""
    bank = f"anew-{n_new}"
    settings, worker = begun(broker, tmp_path, started, bank, 20)
    assert worker.stop() == 0
    make_anew(broker, bank)
    send(broker, bank, some(range(100, 100 + n_new)))
    worker = started(settings)
    eventually(lambda: worker.metric(SCORED) == n_new, "the new payments")
    assert worker.metric(REPLACED) == 1
    send(broker, bank, some(range(200, 203)))
    eventually(lambda: worker.metric(SCORED) == n_new + 3, "those after them")
    assert worker.stop() == 0
    wanted = {*range(20), *range(100, 100 + n_new), *range(200, 203)}
    assert answered(broker, bank) == {f"p{number}" for number in wanted}
    assert read_topic(broker, BankTopics(bank).dead_letters, DeadLetter) == []


def make_anew(broker: str, bank: str) -> None:
    """Delete the topic of transactions and create it again."""
    topic = BankTopics(bank).transactions
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
        admin.delete_topics([topic])
        eventually(lambda: topic not in admin.list_topics(), "the topic gone")
    assert create_topics(broker, bank_plan(bank, partitions=1)) == [topic]


def test_topic_deleted_under_a_worker_is_told_and_its_successor_is_read(
    broker: str, tmp_path: Path, started: Start
) -> None:
    """Without it the worker is not ready; the new one is read from its start, after a restart."""
    settings, worker = begun(broker, tmp_path, started, "bereft", 20)
    topic = BankTopics("bereft").transactions
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
        admin.delete_topics([topic])
    eventually(lambda: topic in worker.get("/readyz"), "not ready, and why")
    create_topics(broker, bank_plan("bereft", partitions=1))
    send(broker, "bereft", some(range(100, 130)))
    wanted = {f"p{number}" for number in (*range(20), *range(100, 130))}

    def all_answered() -> bool:
        nonlocal worker
        if worker.process.poll() is not None:  # as whatever runs workers does
            assert worker.process.returncode == 1
            worker = started(settings)
        return answered(broker, "bereft") == wanted

    eventually(all_answered, "the new payments")
    assert worker.stop() == 0
    assert f"topic {topic}" in worker.log_path.read_text()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 24 MB; it goes after the workers that were started on it."""
    path = tmp_path / "small"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("NO FILE SYSTEM CAN BE MOUNTED, A FULL DISK WAS NOT TESTED")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_full_disk_ends_a_worker_which_goes_on_once_there_is_room(
    broker: str, tmp_path: Path, small_disk: Path, started: Start
) -> None:
    """Nothing is lost, and nobody is told to give the state up."""
    settings = a_bank(tmp_path, broker, "crammed", MAPPING, partitions=1).settings["crammed"]
    there = f'state_dir = "{small_disk}"'
    settings.write_text(re.sub(r"^state_dir = .*$", there, settings.read_text(), flags=re.M))
    worker = started(settings)
    send(broker, "crammed", some(range(20)))
    eventually(lambda: worker.metric("checkpoint_duration_seconds_count") > 0, "a checkpoint")
    fill(small_disk / "ballast")
    n_sent = 20
    while worker.process.poll() is None and n_sent < 2_000:
        send(broker, "crammed", some(range(n_sent, n_sent + 100)))
        n_sent += 100
    eventually(lambda: worker.process.poll() is not None, "the end")
    assert worker.process.returncode == 1
    assert BankProcess(settings).process.wait(60.0) == 1
    told = worker.log_path.read_text()
    assert told.count("No space left on device") >= 2
    assert "rebuild" not in told
    (small_disk / "ballast").unlink()
    worker = started(settings)
    wanted = {f"p{number}" for number in range(n_sent)}
    eventually(lambda: answered(broker, "crammed") == wanted, "a decision for each payment")
    assert worker.stop() == 0


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4_096))
