"""The same transactions through real Kafka and through one process score the same, bit for bit."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition

from amalgamator.core import Amalgamator
from amalgamator.policy import FoldConfig
from amalgamator.registry import parse_registry
from deploy.bank_formats import BankFormat
from deploy.consortium_files import ConsortiumFiles, ConsortiumPlan, write_consortium
from deploy.local import BankStream, LocalConsortium
from deploy.replay import ReplayConfig, Replayer, plan_replay
from deploy.replay_kafka import KafkaSender
from deploy.simulator import SimulationConfig, bank_parts
from deploy.topics import bank_plan, consortium_plan, create_topics
from models.decoding import LabelDecoder, TransactionDecoder
from models.mapping import Mapping, load_mapping
from models.records import Decision, Label, TransactionBatch, concatenate_batches
from models.topics import BankTopics
from stream.pipeline import Pipeline, Scored
from stream.settings import pipeline_config, read_membership, read_settings

pytestmark = pytest.mark.integration

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DELAY_MS = 3 * DAY_MS
KINDS = ("terminal", "merchant", "device")
SETTINGS = {
    "tick_s": 3_600.0,
    "cadence_s": 6 * 3_600.0,
    "label_horizon_s": DELAY_MS / 1_000,
    "alert_rate": 0.02,
}
SIMULATION = SimulationConfig(n_days=24, n_customers=900)
SEED = 3
ROOT = Path(__file__).parents[2]
Scores = dict[str, tuple[float, float, bool]]


def _mappings() -> dict[str, Path]:
    return {path.stem: path for path in sorted((ROOT / "deploy" / "demo_banks").glob("*.toml"))}


def _parts(bank: int, mapping: Mapping) -> list:
    return list(bank_parts(SIMULATION, bank, mapping, seed=SEED))


def _span() -> tuple[int, int]:
    """Return first tick and end of the last: what every bank's replay covers."""
    times = np.concatenate(
        [
            part.batch.event_time_ms
            for bank, path in enumerate(_mappings().values())
            for part in _parts(bank, load_mapping(path))
        ]
    )
    cadence_ms = int(SETTINGS["cadence_s"]) * 1_000
    first = int(times.min()) // cadence_ms * cadence_ms
    return first, (int(times.max()) // HOUR_MS + 1) * HOUR_MS


def _stream(bank: int, mapping: Mapping) -> BankStream:
    """Return what a bank's records say, decoded from the bank's own format as the worker does."""
    write, decoder, labels = BankFormat(mapping), TransactionDecoder(mapping), LabelDecoder(mapping)
    batches: list[TransactionBatch] = []
    said: list[Label] = []
    for part in _parts(bank, mapping):
        decoded = decoder.decode(write.transactions(part.batch)).batch
        batches.append(decoded)
        for i in np.flatnonzero(part.is_fraud).tolist():
            label = Label(
                transaction_id=part.batch.transaction_id[i],
                is_fraud=True,
                source="chargeback",
                labelled_at_ms=int(part.batch.event_time_ms[i]) + DELAY_MS,
            )
            raw = write.label(label, part.batch.account_id[i])
            said += labels.decode([raw]).labels
    batch = concatenate_batches(batches)
    rows = list(range(len(batch)))
    rows.sort(key=lambda i: (int(batch.event_time_ms[i]), batch.transaction_id[i]))
    said.sort(key=lambda label: (label.labelled_at_ms, label.transaction_id))
    return BankStream(transactions=batch.take(np.array(rows, np.int64)), labels=said)


def _in_process(files: ConsortiumFiles) -> dict[str, Scores]:
    """Return each bank's scores from the consortium in one process."""
    pipelines, streams = {}, {}
    for bank, (member, path) in enumerate(files.settings.items()):
        settings = read_settings(path, {})
        membership = read_membership(settings)
        pipelines[member] = Pipeline(pipeline_config(settings, membership))
        streams[member] = _stream(bank, load_mapping(settings.mapping_file))
    registry_file = Path(files.amalgamator["AMALGAM_AMALGAMATOR_REGISTRY_FILE"])
    registry = parse_registry(registry_file.read_text(encoding="utf-8"))
    config = FoldConfig(schema=membership.schema)
    amalgamator = Amalgamator(registry, config, lockstep=True)
    out: dict[str, Scores] = {member: {} for member in pipelines}

    def keep(member: str, rows: slice, scored: Scored) -> None:
        ids = streams[member].transactions.rows(rows).transaction_id
        for i, row in enumerate(scored.accepted.tolist()):
            merged = float(scored.scores[i, 1])
            out[member][ids[row]] = (float(scored.logit[i]), merged, bool(scored.alert[i]))

    LocalConsortium(pipelines, amalgamator, cadence_ms=int(SETTINGS["cadence_s"]) * 1_000).run(
        streams, on_scored=keep
    )
    return out


def _replay(bootstrap: str, member: str, bank: int, mapping: Mapping) -> None:
    first, end = _span()
    topics = BankTopics(member)
    config = ReplayConfig(tick_ms=HOUR_MS, label_delay_ms=DELAY_MS, start_ms=first, end_ms=end)
    sender = KafkaSender(bootstrap)
    replayer = Replayer(
        sender,
        transactions_topic=topics.transactions,
        labels_topic=topics.labels,
        speed=0.0,
        clock=time.monotonic,
        sleep=time.sleep,
    )
    replayer.run(plan_replay(_parts(bank, mapping), mapping, config))
    sender.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Give a list whose processes are stopped, each by its own id, at the end."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.terminate()
    for process in started:
        process.wait(20)


def _decisions(bootstrap: str, member: str, n: int, deadline_s: float) -> dict[str, Decision]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    topic = BankTopics(member).decisions
    consumer.assign([TopicPartition(topic, p) for p in (0, 1)])
    consumer.seek_to_beginning()
    found: dict[str, Decision] = {}
    while len(found) < n and time.monotonic() < deadline_s:
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                decision = msgspec.json.decode(record.value, type=Decision)
                found[decision.transaction_id] = decision
    consumer.close()
    return found


def test_kafka_and_one_process_give_equal_bits(
    broker: str, tmp_path: Path, processes: list[subprocess.Popen[bytes]]
) -> None:
    """Five banks with five formats, two partitions each: blends, expert scores, alerts agree."""
    plan = ConsortiumPlan(
        name="equality",
        entity_kinds=KINDS,
        mappings=_mappings(),
        bank_bootstrap=broker,
        consortium_bootstrap=broker,
        is_replay=True,
        bank_settings=SETTINGS,
    )
    files = write_consortium(tmp_path, plan)
    for member in files.settings:
        create_topics(broker, bank_plan(member, partitions=2))
    create_topics(broker, consortium_plan("equality", list(files.settings)))
    environment = dict(os.environ)
    commands = [([], dict(files.amalgamator), "amalgamator")]
    commands += [(["--settings", str(path)], {}, "stream") for path in files.settings.values()]
    for arguments, extra, module in commands:
        log = (tmp_path / f"{module}{len(processes)}.log").open("wb")
        command = [sys.executable, "-m", module, *arguments]
        processes.append(
            subprocess.Popen(command, env=environment | extra, cwd=ROOT, stdout=log, stderr=log)
        )
    for bank, (member, path) in enumerate(files.settings.items()):
        _replay(broker, member, bank, load_mapping(read_settings(path, {}).mapping_file))
    expected = _in_process(files)
    deadline_s = time.monotonic() + 240
    for member, scores in expected.items():
        found = _decisions(broker, member, len(scores), deadline_s)
        assert found.keys() == scores.keys(), f"{member}: {len(found)} of {len(scores)}"
        merged = [one.expert_scores.get("merged", float("nan")) for one in found.values()]
        np.testing.assert_array_equal(merged, [scores[key][1] for key in found])
        blend = [1 / (1 + np.exp(-scores[key][0])) for key in found]
        np.testing.assert_allclose([d.y_score for d in found.values()], blend, rtol=1e-14)
        assert [d.alert for d in found.values()] == [scores[key][2] for key in found]
    assert any(np.isfinite(score[1]) for score in expected["nordbank"].values())
