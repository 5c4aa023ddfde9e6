"""A bank of several workers on hosts, in lockstep, and the same bank undisturbed in one process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from amalgamator.kafka_io import read_all
from deploy.chaos import collect
from deploy.chaos.feed_plan import FeedPolicy, partition_of, plan_feed
from deploy.chaos.feeder import Feeder
from deploy.chaos.outcome import BankOutcome, Outcome, Said, said_of, say
from deploy.chaos.small_world import CADENCE_MS, DELAY_MS, HORIZON_MS, HOUR_MS
from deploy.chaos.undisturbed import amalgamator_of, decisions_of
from deploy.consortium_files import ConsortiumFiles, ConsortiumPlan, write_consortium
from deploy.local import BankStream, LocalConsortium
from deploy.replay import ReplayChunk, ReplayConfig, heard_stream, plan_replay
from deploy.scenarios import FraudRates
from deploy.simulator import SimulationConfig, bank_parts
from deploy.state_command import verify_state
from deploy.topics import bank_plan, consortium_plan, create_topics
from models.errors import StateError
from models.mapping import Mapping as FieldMapping
from models.mapping import load_mapping
from models.named_arrays import under
from models.records import Alert, Decision
from models.topics import BankTopics, ConsortiumTopics
from stream.pipeline import Pipeline
from stream.pipeline_state import dump
from stream.scored import Scored
from stream.settings import Settings, pipeline_config, read_membership, read_settings
from stream.share import Share
from stream.store import STORE, Checkpoint, StateStore
from stream.take_up import SHELL
from tests.integration.bank_process import answer_of

ROOT = Path(__file__).parents[2]
MAPPING = ROOT / "deploy" / "demo_banks" / "costabanco.toml"
PARTITIONS = 4
WORKERS = 2
PATIENCE_S = 180.0
_SIMULATION = SimulationConfig(
    bank_shares=(1.0,),
    n_days=8,
    n_customers=150,
    n_terminals=75,
    n_merchants=20,
    rates=FraudRates(terminals=4.0, customers=16.0, card_testing=4.0),
)
_SMALL = "min_n = 200, min_frauds = 3"
_SETTINGS = {
    "tick_s": HOUR_MS / 1_000,
    "cadence_s": CADENCE_MS / 1_000,
    "statistics_s": CADENCE_MS / 1_000,
    "label_horizon_s": HORIZON_MS / 1_000,
    "alert_rate": 0.02,
    "seed": 5,
    "checkpoint_s": 0.5,
    "changelog": True,
    "workers": WORKERS,
}
_AMALGAMATOR = {"BASIS_MIN_N": "200", "BASIS_MIN_FRAUDS": "5", "DEADLINE_S": "60"}


@dataclass(frozen=True, slots=True, eq=False)
class SplitWorld:
    """A bank's payments, dealt to its workers as its partitions are.

    Parameters
    ----------
    streams
        Worker -> what it sees.
    chunks
        Of the whole bank's replay.
    span_ms
        First tick, and end of the last one.
    """

    mapping: FieldMapping
    streams: Mapping[str, BankStream]
    chunks: Sequence[ReplayChunk]
    span_ms: tuple[int, int]


def make_split_world() -> SplitWorld:
    """Make the payments up; they are the same each time."""
    mapping = load_mapping(MAPPING)
    parts = list(bank_parts(_SIMULATION, 0, mapping, seed=2))
    times = np.concatenate([part.batch.event_time_ms for part in parts])
    first = int(times.min()) // CADENCE_MS * CADENCE_MS
    end = (int(times.max()) // HOUR_MS + 1) * HOUR_MS
    replay = ReplayConfig(
        tick_ms=HOUR_MS, label_delay_ms=DELAY_MS, labels="frauds", start_ms=first, end_ms=end
    )
    whole = heard_stream(parts, mapping, label_delay_ms=DELAY_MS)
    return SplitWorld(
        mapping=mapping,
        streams={str(i): _share_of(whole, Share(i, WORKERS)) for i in range(WORKERS)},
        chunks=list(plan_replay(parts, mapping, replay)),
        span_ms=(first, end),
    )


def _share_of(whole: BankStream, share: Share) -> BankStream:
    batch = whole.transactions
    held = [share.holds(partition_of(one.encode(), PARTITIONS)) for one in batch.account_id]
    mine = batch.take(np.flatnonzero(held))
    ids = set(mine.transaction_id)
    labels = [label for label in whole.labels if label.transaction_id in ids]
    return BankStream(transactions=mine, labels=labels)


def write_split_bank(directory: Path, broker: str, name: str) -> ConsortiumFiles:
    """Write keys and settings of a bank in a consortium of its own, and create their topics."""
    plan = ConsortiumPlan(
        name=f"of-{name}",
        entity_kinds=("terminal", "merchant", "device"),
        mappings={name: MAPPING},
        bank_bootstrap=broker,
        consortium_bootstrap=broker,
        is_replay=True,
        bank_settings=_SETTINGS,
        families={name: (f'river {{model = "river.linear_model.LogisticRegression", {_SMALL}}}',)},
    )
    files = write_consortium(directory, plan)
    workers = [str(i) for i in range(WORKERS)]
    create_topics(broker, bank_plan(name, partitions=PARTITIONS, workers=workers))
    create_topics(broker, consortium_plan(f"of-{name}", [name]))
    added = {f"AMALGAM_AMALGAMATOR_{key}": value for key, value in _AMALGAMATOR.items()}
    return ConsortiumFiles(settings=files.settings, amalgamator={**files.amalgamator, **added})


def feeder_of(broker: str, name: str, world: SplitWorld, seconds: float) -> Feeder:
    """Return what sends the bank's stream, spread over some seconds, not started yet."""
    rng = np.random.default_rng(7)
    feed = plan_feed(world.chunks, PARTITIONS, FeedPolicy(), rng)
    began_s = time.monotonic()
    return Feeder(
        broker,
        {name: feed},
        allowed=lambda: (time.monotonic() - began_s) / seconds,
        note=lambda _: None,
    )


def settings_of(files: ConsortiumFiles, name: str, worker: str, state_dir: Path) -> Settings:
    """Return the settings of a worker on a host."""
    added = {"AMALGAM_STREAM_WORKER": worker, "AMALGAM_STREAM_STATE_DIR": str(state_dir / worker)}
    return read_settings(files.settings[name], added)


def run_undisturbed(world: SplitWorld, files: ConsortiumFiles, name: str) -> Outcome:
    """Run the bank's workers and the amalgamator in this process, to the end of the stream."""
    pipelines = {}
    for worker in world.streams:
        settings = settings_of(files, name, worker, Path())
        config = pipeline_config(settings, read_membership(settings), world.mapping)
        pipelines[worker] = Pipeline(config)
    amalgamator = amalgamator_of(files)
    decisions: dict[str, Said] = {worker: {} for worker in pipelines}
    alerts: dict[str, Said] = {worker: {} for worker in pipelines}

    def keep(worker: str, rows: slice, scored: Scored) -> None:
        batch = world.streams[worker].transactions.rows(rows)
        for decision in decisions_of(batch, scored):
            say(decisions[worker], decision)
        for alert in scored.alerts:
            say(alerts[worker], alert)

    LocalConsortium(pipelines, amalgamator, cadence_ms=CADENCE_MS).run(
        world.streams, on_scored=keep
    )
    last, held = amalgamator.previous, amalgamator.state.newest
    again = amalgamator.refold()
    assert last is not None
    assert last.weights is not None
    assert again is not None
    banks = {}
    for worker, pipeline in pipelines.items():
        state = dump(pipeline)
        banks[worker] = BankOutcome(
            decisions=decisions[worker],
            alerts=alerts[worker],
            arrays=state.arrays,
            meta=state.meta,
            seq=max(one.seq for key, one in held.items() if key.worker == worker),
        )
    return Outcome(
        banks=banks,
        release=(last.number, last.release_id),
        refolded=again.release_id,
        held=held,
    )


def newest_store(worker: str, state_dirs: Sequence[Path]) -> tuple[Checkpoint, Path] | None:
    """Return the newest of the states that hosts have of a worker, and that host's folder."""
    found = []
    for state_dir in state_dirs:
        try:
            store = StateStore(state_dir / worker / STORE, is_read_only=True)
        except StateError:
            continue
        try:
            stamp, (checkpoint, _) = store.stamp(), store.read()
        except StateError:  # its worker is writing
            continue
        finally:
            store.close()
        if stamp is not None and checkpoint is not None:
            found.append((stamp, checkpoint, state_dir))
    return max(found, key=lambda one: one[0])[1:] if found else None


def is_at_end(world: SplitWorld, state_dirs: Sequence[Path]) -> bool:
    """Return whether every worker has stored the whole stream."""
    for worker in world.streams:
        found = newest_store(worker, state_dirs)
        if found is None:
            return False
        tick_ms = msgspec.msgpack.decode(found[0].meta)["tick_ms"]
        is_waiting = np.asarray(found[0].arrays["awaited"]).size > 0
        if tick_ms < world.span_ms[1] - HOUR_MS or is_waiting:
            return False
    return True


def collect_split(
    broker: str, world: SplitWorld, files: ConsortiumFiles, name: str, state_dirs: Sequence[Path]
) -> Outcome:
    """Return the outcome of a run whose processes have stopped."""
    topics = ConsortiumTopics(f"of-{name}")
    release = collect._last_release(files, read_all(broker, topics.releases))
    amalgamator = amalgamator_of(files)
    amalgamator.resume(release)
    refused = collect._receive(amalgamator, read_all(broker, topics.summaries(name)))
    again = amalgamator.refold()
    bank = BankTopics(name)
    decisions = [
        msgspec.json.decode(value, type=Decision)
        for value in collect.read_topic(broker, bank.decisions)
    ]
    alerts = [
        msgspec.json.decode(value, type=Alert) for value in collect.read_topic(broker, bank.alerts)
    ]
    banks = {}
    for worker, stream in world.streams.items():
        ids = set(stream.transactions.transaction_id)
        said, repeated = said_of(one for one in decisions if one.transaction_id in ids)
        found = newest_store(worker, state_dirs)
        assert found is not None
        checkpoint, state_dir = found
        outbox = under("outbox/", checkpoint.arrays)
        banks[worker] = BankOutcome(
            decisions=said,
            alerts=said_of(one for one in alerts if one.transaction_id in ids)[0],
            repeated=repeated,
            arrays={n: a for n, a in checkpoint.arrays.items() if not n.startswith(SHELL)},
            meta=checkpoint.meta,
            seq=int(outbox["seq"][0]),
            letters=sum(key.startswith("key/") for key in outbox),
            faults=tuple(verify_state(settings_of(files, name, worker, state_dir))),
        )
    return Outcome(
        banks=banks,
        release=(release.number, release.release_id),
        refolded="" if again is None else again.release_id,
        held=amalgamator.state.newest,
        quarantined=tuple(refused),
    )


def free_ports(n: int) -> int:
    """Return the first of ``n`` ports in a row that nobody has."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            base = int(first.getsockname()[1])
            if base + n > 65_535:
                continue
            try:
                for port in range(base + 1, base + n):
                    socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            return base


class HostProcess:
    """A host under test.

    Parameters
    ----------
    settings
        The bank's file.
    directory
        Of this host: its state and its log.
    standby
        Whether it keeps copies of the workers of others.
    """

    def __init__(self, settings: Path, directory: Path, *, standby: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.state_dir = directory / "state"
        self.port = free_ports(WORKERS + 1)
        self.log_path = directory / "host.log"
        environment = os.environ | {
            "AMALGAM_STREAM_HEALTH_PORT": str(self.port),
            "AMALGAM_STREAM_STATE_DIR": str(self.state_dir),
            "AMALGAM_STREAM_STANDBY": str(standby).lower(),
            "PYTHONPATH": str(ROOT),
        }
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stream.host", "--settings", str(settings)],
                env=environment,
                stdout=log,
                stderr=log,
            )

    def workers(self) -> list[str]:
        """Return which workers are ready here."""
        name = "amalgam_stream_host_worker_ready"
        return [str(i) for i in range(WORKERS) if self.metric(f'{name}{{worker="{i}"}}') == 1.0]

    def metric(self, name: str) -> float:
        """Return one sample, 0 while there is none."""
        for line in self.get("/metrics").splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def get(self, path: str) -> str:
        """Return what the host answers; empty while it does not."""
        return answer_of(self.port, path)

    def lines(self) -> list[str]:
        """Return what the host, and its workers, have said."""
        found = self.log_path.read_text().splitlines()
        return [msgspec.json.decode(line)["message"] for line in found if line.startswith("{")]

    def pids(self) -> list[int]:
        """Return the process ids of all workers that were started."""
        said = [line for line in self.lines() if "starts as process" in line]
        return [int(line.rpartition(" ")[2]) for line in said]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            if number == signal.SIGKILL:
                self.process.send_signal(signal.SIGCONT)
        return self.process.wait(30.0)


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def eventually(condition, what: str):  # any
    """Wait until a condition holds and return what it gave."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"expected within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.2)
    return found
