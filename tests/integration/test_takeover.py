"""A worker moves to another host on a real broker: by its changelog, and only one at a time."""

import shutil
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from deploy.bank_formats import BankFormat
from deploy.simulator import SimulationConfig, bank_parts
from deploy.state_command import (
    plan_restore,
    rebuild_state,
    settings_of,
    show_state,
    verify_state,
)
from models.mapping import load_mapping
from models.records import Decision, concatenate_batches
from models.topics import BankTopics
from stream.store import STORE, StateStore
from tests.integration.bank_process import (
    PATIENCE_S,
    BankProcess,
    a_bank,
    eventually,
    read_topic,
    send,
)
from tests.integration.test_bank_worker import MAPPING, payment
from tests.integration.test_state_rebuild import damaged

pytestmark = pytest.mark.integration
Records = Sequence[tuple[str, bytes]]


def some_payments() -> Records:
    """Return account and record of the payments of some days."""
    mapping = load_mapping(MAPPING)
    parts = bank_parts(SimulationConfig(n_days=10, n_customers=800), 1, mapping, seed=5)
    batch = concatenate_batches([part.batch for part in parts])
    return list(zip(batch.account_id, BankFormat(mapping).transactions(batch), strict=True))


def moved(files: Path, to: Path) -> None:
    """Carry a bank's files to another host, without its state."""
    shutil.copytree(files, to, ignore=shutil.ignore_patterns("state", "worker.log"))


def stored(settings: Path) -> dict[str, tuple[str, bytes]]:
    """Return types and bytes of a stopped worker's arrays, but of what is signed in its name."""
    store = StateStore(settings.parent / "state" / STORE, is_read_only=True)
    held = store.load()
    store.close()
    assert held is not None
    return {
        name: (f"{array.dtype} {array.shape}", array.tobytes())
        for name, array in held.arrays.items()
        if not name.startswith(("outbox/", "topics"))
    }


def test_a_killed_workers_state_is_taken_over_on_an_empty_disk(
    broker: str, tmp_path: Path, started: Callable[[Path], BankProcess]
) -> None:
    """Each payment has one distinct decision; the state is that of a worker that went on."""
    records = some_payments()
    half = len(records) // 2
    a_bank(tmp_path / "a", broker, "moved", MAPPING, partitions=1, cadence_s=86_400.0)
    worker = started(tmp_path / "a" / "moved" / "bank.toml")
    send(broker, "moved", records[:half])
    eventually(lambda: worker.metric("changelog_bytes_total") > 0, "a checkpoint")
    send(broker, "moved", records[half : 2 * len(records) // 3])
    worker.stop(signal.SIGKILL)
    time.monotonic()
    shutil.rmtree(tmp_path / "a" / "moved" / "state")
    moved(tmp_path / "a", tmp_path / "b")
    elsewhere = tmp_path / "b" / "moved" / "bank.toml"
    worker = started(elsewhere)
    send(broker, "moved", records[2 * len(records) // 3 :])

    calm = a_bank(tmp_path / "c", broker, "calm", MAPPING, partitions=1, cadence_s=86_400.0)
    shutil.copy(tmp_path / "a" / "pseudonyms.key", tmp_path / "c" / "pseudonyms.key")
    undisturbed = started(calm.settings["calm"])
    send(broker, "calm", records)

    def decisions(bank: str) -> list[Decision]:
        return read_topic(broker, BankTopics(bank).decisions, Decision)

    for bank in ("moved", "calm"):
        eventually(
            lambda bank=bank: len({one.transaction_id for one in decisions(bank)}) == len(records),
            "a decision for each payment",
        )
    assert worker.stop() == 0
    assert undisturbed.stop() == 0
    found = {(one.transaction_id, one.y_score, one.alert) for one in decisions("moved")}
    assert found == {(one.transaction_id, one.y_score, one.alert) for one in decisions("calm")}
    assert len(found) == len(records)
    assert verify_state(settings_of(elsewhere)) == []
    assert stored(elsewhere) == stored(calm.settings["calm"])


def test_of_two_processes_the_later_goes_on_and_a_stale_disk_is_not_gone_on_from(
    broker: str, tmp_path: Path, started: Callable[[Path], BankProcess]
) -> None:
    """The earlier one ends with code 4 and a line; started again it takes the newer state."""
    a_bank(tmp_path / "a", broker, "twice", MAPPING, partitions=1)
    here = tmp_path / "a" / "twice" / "bank.toml"
    first = started(here)
    send(broker, "twice", [("a", payment(number)) for number in range(10)])
    eventually(lambda: first.metric("changelog_bytes_total") > 0, "a checkpoint")
    moved(tmp_path / "a", tmp_path / "b")
    second = BankProcess(tmp_path / "b" / "twice" / "bank.toml")
    eventually(lambda: second.get("/readyz") == "ok\n", "the second is ready")
    send(broker, "twice", [("a", payment(number)) for number in range(10, 20)])
    assert first.process.wait(PATIENCE_S) == 4
    told = [msgspec.json.decode(line) for line in first.log_path.read_text().splitlines()]
    assert "another process has taken over worker '0' of twice" in told[-1]["message"]
    scored = 'transactions_scored_total{decision="pass"}'
    eventually(lambda: second.metric(scored) >= 10, "the rest of the decisions")
    assert second.stop() == 0

    again = started(here)
    assert "restored" in here.with_name("worker.log").read_text()
    send(broker, "twice", [("a", payment(20))])
    eventually(lambda: again.metric(scored) == 1, "one more decision")
    assert again.stop() == 0
    told = show_state(settings_of(here))
    assert told["offsets"]["twice.transactions/0"] == 21
    decided = read_topic(broker, BankTopics("twice").decisions, Decision)
    assert len({(one.transaction_id, one.y_score) for one in decided}) == 21


def test_a_damaged_store_is_restored_from_the_changelog(
    broker: str, tmp_path: Path, started: Callable[[Path], BankProcess]
) -> None:
    """The worker stops with code 3 and says so; afterwards nothing is read again."""
    a_bank(tmp_path, broker, "restored", MAPPING, partitions=1)
    file = tmp_path / "restored" / "bank.toml"
    worker = started(file)
    send(broker, "restored", [("a", payment(number)) for number in range(10)])
    scored = 'transactions_scored_total{decision="pass"}'
    eventually(lambda: worker.metric(scored) == 10, "all decisions")
    assert worker.stop() == 0
    damaged(file)
    assert BankProcess(file).process.wait(PATIENCE_S) == 3
    assert "--from-changelog" in file.with_name("worker.log").read_text()
    plan = plan_restore(settings_of(file), is_offline=False)
    assert plan.said[0].startswith("the changelog holds a whole state: checkpoint ")
    rebuild_state(plan, datetime.now(UTC))
    worker = started(file)
    send(broker, "restored", [("a", payment(10))])
    eventually(lambda: worker.metric(scored) == 1, "one more decision")
    assert worker.stop() == 0
    assert verify_state(settings_of(file)) == []
    assert len(read_topic(broker, BankTopics("restored").decisions, Decision)) == 11
