"""The bank of the benchmark: its stream, its topics on a broker, its worker and the amalgamator.

A worker that has read a first backlog with its labels, and installed the release that came of it,
keeps that state on disk; every measurement goes on from there with payments not seen before.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from deploy.bank_formats import BankFormat
from deploy.consortium_files import ConsortiumPlan, write_consortium
from deploy.demo import KINDS
from deploy.kafka_server import free_port
from deploy.services import Service, Services
from deploy.simulator import SimulationConfig, bank_parts
from deploy.topics import TopicPlan, bank_plan, consortium_plan, create_topics
from models.errors import UnavailableError
from models.mapping import load_mapping
from models.records import Decision, Label, TransactionBatch, concatenate_batches
from models.topics import BankTopics
from stream.outputs import OutputProducer, Outputs
from stream.settings import CHECKPOINT_SHARE

BANK = "nordbank"
CONSORTIUM = "bench"
PARTITIONS = 2
CADENCE_S = 5.0
MAPPING_FILE = Path(__file__).parents[1] / "demo_banks" / f"{BANK}.toml"
_DAY_MS = 86_400_000
_LABEL_DELAY_MS = _DAY_MS
_SEND_ROWS = 20_000
_PATIENCE_S = 300.0
_READY_S = 180.0  # a worker is ready once it has read what was there
_PIECES = 10
_STEPS = {
    "chunk": "chunk",
    "checkpoint": "checkpoint",
    "summary": "summary",
    "install": "release_install",
}
_SCORECARDS = 2  # the bank's own and the merged
SELDOM = {"AMALGAM_STREAM_CADENCE_S": "3600"}  # as by default, unlike in the bank's own file
USUAL_SHARE = {"AMALGAM_STREAM_CHECKPOINT_SHARE": str(CHECKPOINT_SHARE)}  # likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """How much is measured.

    Parameters
    ----------
    customers
        Accounts of the bank.
    payments_per_day
        Of an account.
    warm, backlog
        Payments before the measurements, and of each round. Those before are some weeks, so that
        what is measured is a bank with a trained scorer.
    few
        Payments that the slow contestants get.
    rounds
        How often everything is measured.
    workers
        Measured in each round, each on a backlog of its own.
    """

    customers: int = 100_000
    payments_per_day: float = 0.8
    warm: int = 1_600_000
    backlog: int = 320_000
    few: int = 40_000
    rounds: int = 5
    workers: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class BenchStream:
    """Payments in time order, and which are frauds."""

    batch: TransactionBatch
    is_fraud: NDArray[np.bool_]


def make_stream(config: BenchConfig) -> BenchStream:
    """Simulate what all rounds together need; it ends yesterday."""
    wanted = config.warm + config.backlog * config.rounds * config.workers
    n_days = int(wanted / config.customers / config.payments_per_day * 1.1) + 3
    simulation = SimulationConfig(
        bank_shares=(1.0,),
        start_ms=(time.time_ns() // 1_000_000 // _DAY_MS - n_days - 1) * _DAY_MS,
        n_days=n_days,
        n_customers=config.customers,
        n_terminals=config.customers * 3 // 4,
        n_merchants=config.customers * 3 // 20,
        payments_per_day=config.payments_per_day,
        growth=0.0,
    )
    parts = list(bank_parts(simulation, 0, load_mapping(MAPPING_FILE), seed=1))
    batch = concatenate_batches([part.batch for part in parts])
    is_fraud = np.concatenate([part.is_fraud for part in parts])
    if len(batch) < wanted:
        raise UnavailableError(f"expected {wanted} simulated payments, got {len(batch)}")
    return BenchStream(batch.rows(slice(0, wanted)), is_fraud[:wanted])


class BenchBank:
    """One bank alone in a consortium, on a broker.

    Parameters
    ----------
    directory
        For its files, states and logs.
    bootstrap
        Of the broker.
    stream
        What it will have been paid.
    """

    def __init__(self, directory: Path, bootstrap: str, stream: BenchStream) -> None:
        self.directory = directory
        self.bootstrap = bootstrap
        self.stream = stream
        self.topics = BankTopics(BANK)
        self.format = BankFormat(load_mapping(MAPPING_FILE))
        create_topics(bootstrap, bank_plan(BANK, partitions=PARTITIONS))
        create_topics(bootstrap, consortium_plan(CONSORTIUM, [BANK]))
        create_topics(bootstrap, [TopicPlan(f"{BANK}.peer-decisions", PARTITIONS)])
        files = write_consortium(
            directory,
            ConsortiumPlan(
                name=CONSORTIUM,
                entity_kinds=KINDS,
                mappings={BANK: MAPPING_FILE},
                bank_bootstrap=bootstrap,
                consortium_bootstrap=bootstrap,
                is_replay=False,
                bank_settings={
                    "cadence_s": CADENCE_S,
                    "checkpoint_share": 1.0,  # so that what is published goes out at once
                    "tick_s": 3_600.0,
                    "label_horizon_s": 2 * _LABEL_DELAY_MS / 1_000,
                    "changelog": False,  # as its peers
                },
            ),
        )
        self.settings = files.settings[BANK]
        self._amalgamator = files.amalgamator
        self.frauds_file = directory / "frauds.txt"
        frauds = [stream.batch.transaction_id[i] for i in stream.is_fraud.nonzero()[0].tolist()]
        self.frauds_file.write_text("\n".join(frauds), encoding="utf-8")

    def send(self, rows: slice) -> None:
        """Put payments on the bank's topic, and the labels that fell due in the same time."""
        asyncio.run(self._send(rows))

    async def _send(self, rows: slice) -> None:
        producer = OutputProducer(self.bootstrap)
        await producer.start()
        try:
            for start in range(rows.start, rows.stop, _SEND_ROWS):
                chosen = slice(start, min(start + _SEND_ROWS, rows.stop))
                await producer.send([*self._labels(chosen), self.payments(self._rows(chosen))])
        finally:
            await producer.stop()

    def _rows(self, rows: slice) -> TransactionBatch:
        return self.stream.batch.rows(rows)

    def payments(self, batch: TransactionBatch) -> Outputs:
        """Return payments as the bank writes them, keyed by account."""
        keys = list(map(str.encode, batch.account_id))
        return Outputs(self.topics.transactions, keys, self.format.transactions(batch))

    def verdict(self, transaction_id: str, account_id: str, *, at_ms: int) -> Outputs:
        """Return the label of a fraud as the bank writes it."""
        label = Label(
            transaction_id=transaction_id,
            is_fraud=True,
            source="chargeback",
            labelled_at_ms=at_ms,
        )
        value = self.format.label(label, account_id)
        return Outputs(self.topics.labels, [account_id.encode()], [value])

    def _labels(self, rows: slice) -> list[Outputs]:
        """Return the labels that fall due while these payments are made."""
        batch, times = self.stream.batch, self.stream.batch.event_time_ms
        first, end = np.searchsorted(
            times, times[[rows.start, rows.stop - 1]] - _LABEL_DELAY_MS
        ).tolist()
        frauds = first + np.flatnonzero(self.stream.is_fraud[first:end])
        return [
            self.verdict(
                batch.transaction_id[i],
                batch.account_id[i],
                at_ms=int(times[i]) + _LABEL_DELAY_MS,
            )
            for i in frauds.tolist()
        ]

    @contextmanager
    def services(self, added: Mapping[str, str] | None = None) -> Iterator[Service]:
        """Run the amalgamator and the worker for the length of a block; gives the ready worker."""
        with Services(self.directory / "logs") as services:
            port = str(free_port())
            environment = {
                **self._amalgamator,
                "AMALGAM_AMALGAMATOR_HEALTH_PORT": port,
                "AMALGAM_AMALGAMATOR_FOLD_EVERY_S": str(CADENCE_S),
                "HEALTH_PORT": port,
            }
            services.start("amalgamator", "amalgamator", [], environment)
            port = str(free_port())
            environment = {"AMALGAM_STREAM_HEALTH_PORT": port, "HEALTH_PORT": port, **(added or {})}
            arguments = ["--settings", str(self.settings)]
            worker = services.start("worker", "stream", arguments, environment)
            services.wait_ready(_READY_S)
            yield worker
            services.check()

    def warm_up(self, n: int) -> None:
        """Have a worker read its first payments and install the release that comes of them.

        Raises
        ------
        UnavailableError
            If no merged scorecard is in force at the end.
        """
        done = int(n * 0.85)
        piece = (n - done) // _PIECES
        self.send(slice(0, done))
        with self.services(), DecisionLog(self.bootstrap) as log:
            wait_until(lambda: log.end() >= done, "the first payments' decisions")
            for _ in range(_PIECES):
                time.sleep(CADENCE_S)
                self.send(slice(done, done + piece))
                done += piece
                wait_until(lambda done=done: log.end() >= done, "decisions")  # type: ignore[misc]  # bound default
                if len(log.newest().expert_scores) == _SCORECARDS:
                    break
            else:
                raise UnavailableError("expected two scorecards in force after the warm-up")
            self.send(slice(done, n))
            wait_until(lambda: log.end() >= n, "the warm-up's decisions")


class Answer(msgspec.Struct):
    """Of a decision, whose it is."""

    transaction_id: str


class DecisionLog:
    """What the bank has decided, asked of the broker and not of the worker.

    Parameters
    ----------
    bootstrap
        Of the broker.
    """

    def __init__(self, bootstrap: str) -> None:
        self._consumer = KafkaConsumer(bootstrap_servers=bootstrap)
        topic = BankTopics(BANK).decisions
        self._places = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        self._decode = msgspec.json.Decoder(Answer).decode
        self._answered: set[str] = set()

    def __enter__(self) -> "DecisionLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close(autocommit=False, timeout_ms=5_000)

    def end(self) -> int:
        """Return how many decisions there are."""
        return sum(self._consumer.end_offsets(self._places).values())

    def newest(self) -> Decision:
        """Return the last decision of a partition."""
        place = self._places[0]
        self._consumer.assign([place])
        self._consumer.seek(place, self._consumer.end_offsets([place])[place] - 1)
        found: list[bytes] = []

        def look() -> bool:
            found.extend(self._read(timeout_ms=500))
            return bool(found)

        wait_until(look, "the newest decision")
        return msgspec.json.decode(found[-1], type=Decision)

    def follow(self) -> None:
        """Have `has_answered` know of the decisions that come from now on."""
        self._consumer.assign(self._places)
        self._consumer.seek_to_end(*self._places)
        for place in self._places:
            self._consumer.position(place)

    def has_answered(self, transaction_id: str) -> bool:
        """Return whether a payment has been decided on since `follow`."""
        read = self._read(timeout_ms=20)
        self._answered.update(self._decode(value).transaction_id for value in read)
        return transaction_id in self._answered

    def _read(self, timeout_ms: int) -> list[bytes]:
        polled: Mapping[object, Sequence[object]] = self._consumer.poll(timeout_ms=timeout_ms)
        return [getattr(record, "value", b"") for each in polled.values() for record in each]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition.

    Raises
    ------
    UnavailableError
        If it does not hold in time.
    """
    until_s = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > until_s:
            raise UnavailableError(f"expected within {_PATIENCE_S:.0f} s: {what}")
        time.sleep(0.05)


def steps(worker: Service) -> dict[str, tuple[float, float]]:
    """Return how often the worker has done each step that it times, and the seconds of all.

    Its processing stands still during each: none where its metrics cannot be read.
    """
    samples = worker.metrics()
    if not samples:
        return {}
    return {
        step: (
            samples[f"amalgam_stream_{name}_duration_seconds_count"],
            samples[f"amalgam_stream_{name}_duration_seconds_sum"],
        )
        for step, name in _STEPS.items()
    }


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, all its threads, in ticks of 10 ms."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def now() -> datetime:
    """Return the wall clock."""
    return datetime.now(UTC)
