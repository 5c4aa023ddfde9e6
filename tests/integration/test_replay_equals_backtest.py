"""The same transactions through real Kafka and through one process score the same, bit for bit."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition

from amalgamator.core import Amalgamator
from amalgamator.kafka_io import read_all
from amalgamator.policy import FoldConfig
from amalgamator.registry import parse_registry
from deploy.consortium_files import ConsortiumFiles, ConsortiumPlan, write_consortium
from deploy.local import LocalConsortium
from deploy.replay import ReplayConfig, Replayer, heard_stream, plan_replay
from deploy.replay_kafka import KafkaSender
from deploy.simulator import SimulationConfig, bank_parts
from deploy.topics import bank_plan, consortium_plan, create_topics
from models.fragments import Reassembler
from models.mapping import Mapping, load_mapping
from models.records import Decision
from models.release_codec import ReleaseAssembler
from models.topics import BankTopics, ConsortiumTopics
from stream.pipeline import Pipeline
from stream.scored import Scored
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
    "seed": 5,
}
SMALL = "min_n = 500, min_frauds = 5"
FAMILIES = {
    "alpenkasse": (f"lightgbm {{n_trees = 20, refit_d = 4, {SMALL}}}",),
    "costabanco": (f'river {{model = "river.linear_model.LogisticRegression", {SMALL}}}',),
    "nordbank": (
        f'river {{model = "river.tree.HoeffdingAdaptiveTreeClassifier", renew_d = 5, {SMALL}}}',
        f"lightgbm {{n_trees = 10, refit_d = 6, on_residual = true, {SMALL}}}",
    ),
    "polkabank": (f'river {{model = "river.naive_bayes.GaussianNB", {SMALL}}}',),
}
SIMULATION = SimulationConfig(n_days=24, n_customers=900)
SEED = 3
ROOT = Path(__file__).parents[2]
N_KILLS = 8
Scores = dict[str, tuple[float, dict[str, float], bool]]


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


def _in_process(files: ConsortiumFiles) -> tuple[dict[str, Scores], tuple[int, str]]:
    """Return each bank's scores and the last release from the consortium in one process."""
    pipelines, streams = {}, {}
    for bank, (member, path) in enumerate(files.settings.items()):
        settings = read_settings(path, {})
        membership = read_membership(settings)
        mapping = load_mapping(settings.mapping_file)
        pipelines[member] = Pipeline(pipeline_config(settings, membership, mapping))
        streams[member] = heard_stream(_parts(bank, mapping), mapping, label_delay_ms=DELAY_MS)
    registry_file = Path(files.amalgamator["AMALGAM_AMALGAMATOR_REGISTRY_FILE"])
    registry = parse_registry(registry_file.read_text(encoding="utf-8"))
    config = FoldConfig(schema=membership.schema)
    amalgamator = Amalgamator(registry, config, lockstep=True)
    out: dict[str, Scores] = {member: {} for member in pipelines}

    def keep(member: str, rows: slice, scored: Scored) -> None:
        ids = streams[member].transactions.rows(rows).transaction_id
        for i, row in enumerate(scored.accepted.tolist()):
            named = zip(scored.experts, scored.scores[i].tolist(), strict=True)
            experts = {name: score for name, score in named if np.isfinite(score)}
            out[member][ids[row]] = (float(scored.logit[i]), experts, bool(scored.alert[i]))

    LocalConsortium(pipelines, amalgamator, cadence_ms=int(SETTINGS["cadence_s"]) * 1_000).run(
        streams, on_scored=keep
    )
    last = amalgamator.previous
    assert last is not None
    assert last.basis is not None
    assert len(last.basis.trees)
    assert all(pipeline.drift for pipeline in pipelines.values())
    return out, (last.number, last.release_id)


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


class Consortium:
    """The amalgamator and each bank's worker as processes, which may be killed and started."""

    def __init__(self, directory: Path, files: ConsortiumFiles) -> None:
        self._directory = directory
        self._commands = {"amalgamator": ([], dict(files.amalgamator), "amalgamator")}
        for member, path in files.settings.items():
            self._commands[member] = (["--settings", str(path)], {}, "stream")
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start one."""
        arguments, extra, module = self._commands[name]
        with (self._directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=os.environ | extra,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def start_all(self) -> None:
        """Start all that do not run."""
        for name in self._commands.keys() - self.running.keys():
            self.start(name)

    def kill(self, name: str) -> None:
        """Kill -9."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Stop all, each by its own id."""
        for process in self.running.values():
            process.kill()
        for process in self.running.values():
            process.wait(20)


@pytest.fixture
def consortium_of(
    broker: str, tmp_path: Path
) -> Iterator[Callable[[str], tuple[Consortium, ConsortiumFiles]]]:
    """Return how to make a consortium with topics and files; it is stopped at the end."""
    made: list[Consortium] = []

    def make(name: str) -> tuple[Consortium, ConsortiumFiles]:
        members = {f"{name}-{bank}": path for bank, path in _mappings().items()}
        plan = ConsortiumPlan(
            name=name,
            entity_kinds=KINDS,
            mappings=members,
            bank_bootstrap=broker,
            consortium_bootstrap=broker,
            is_replay=True,
            bank_settings=SETTINGS,
            families={f"{name}-{bank}": specs for bank, specs in FAMILIES.items()},
        )
        files = write_consortium(tmp_path, plan)
        for member in members:
            create_topics(broker, bank_plan(member, partitions=2))
        create_topics(broker, consortium_plan(name, list(members)))
        made.append(Consortium(tmp_path, files))
        return made[-1], files

    yield make
    for one in made:
        one.stop()


def _replay_all(broker: str, files: ConsortiumFiles) -> None:
    for bank, (member, path) in enumerate(files.settings.items()):
        _replay(broker, member, bank, load_mapping(read_settings(path, {}).mapping_file))


def _assert_equal(broker: str, expected: dict[str, Scores]) -> None:
    """Blends, experts' scores and alerts on Kafka are those of one process."""
    deadline_s = time.monotonic() + 240
    for member, scores in expected.items():
        found = _decisions(broker, member, len(scores), deadline_s)
        assert found.keys() == scores.keys(), f"{member}: {len(found)} of {len(scores)}"
        assert {key: one.expert_scores for key, one in found.items()} == {
            key: experts for key, (_, experts, _) in scores.items()
        }
        blend = [1 / (1 + np.exp(-scores[key][0])) for key in found]
        np.testing.assert_allclose([d.y_score for d in found.values()], blend, rtol=1e-14)
        assert [d.alert for d in found.values()] == [scores[key][2] for key in found]
        scored_by = {name for _, experts, _ in scores.values() for name in experts}
        bank = member.rpartition("-")[2]
        families = {spec.split()[0] for spec in FAMILIES.get(bank, ())}
        assert scored_by - {"own"} == {"merged", *families}


def _release_id(files: ConsortiumFiles, broker: str) -> tuple[int, str]:
    """Return number and content hash of the newest release on the topic."""
    membership = read_membership(read_settings(next(iter(files.settings.values())), {}))
    assembler = ReleaseAssembler(
        membership.consortium, membership.schema, list(membership.amalgamator)
    )
    reassembler = Reassembler()
    topic = ConsortiumTopics(membership.consortium).releases
    raws = map(reassembler.add, read_all(broker, topic))
    found = [assembler.add(raw) for raw in raws if raw is not None]
    newest = [release for release in found if release is not None][-1]
    return newest.number, newest.release_id


def test_kafka_and_one_process_give_equal_bits(
    broker: str, consortium_of: Callable[[str], tuple[Consortium, ConsortiumFiles]]
) -> None:
    """Five banks with five formats and lists of families, two partitions each."""
    consortium, files = consortium_of("equality")
    consortium.start_all()
    _replay_all(broker, files)
    scores, release = _in_process(files)
    _assert_equal(broker, scores)
    assert _release_id(files, broker) == release


def test_killed_processes_give_the_bits_of_an_undisturbed_run(
    broker: str, consortium_of: Callable[[str], tuple[Consortium, ConsortiumFiles]]
) -> None:
    """Kill -9 at drawn moments, banks and amalgamator; the same scores, alerts, release hash."""
    consortium, files = consortium_of("killed")
    consortium.start_all()
    _replay_all(broker, files)
    rng = np.random.default_rng(11)
    names = ["amalgamator", *files.settings]
    for _ in range(N_KILLS):
        time.sleep(float(rng.uniform(0.3, 2.0)))
        name = names[int(rng.integers(len(names)))]
        consortium.kill(name)
        time.sleep(float(rng.uniform(0.0, 0.5)))
        consortium.start(name)
    scores, release = _in_process(files)
    _assert_equal(broker, scores)
    assert _release_id(files, broker) == release
