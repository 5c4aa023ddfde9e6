"""What each step of a worker costs a transaction, in this process, one core, best of some rounds.

The stream is simulated; a worker that has learnt and installed a release answers its last days.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry

from deploy.bank_formats import BankFormat
from deploy.demo import KINDS, bank_stream
from deploy.local import LocalConsortium
from deploy.simulator import SimulationConfig, bank_parts
from models.decoding import TransactionDecoder
from models.mapping import Mapping, load_mapping
from models.records import TransactionBatch, concatenate_batches
from models.schema import Schema
from models.topics import BankTopics
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.pipeline_state import State, dump, restore
from stream.store import StateStore
from stream.telemetry import Telemetry
from stream.worker import BankWorker

T = TypeVar("T")
CHUNK = 1_000
_DAY_MS = 86_400_000
_DAYS = 40
_WARM_DAYS = 30


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """A Kafka record as a worker reads it."""

    topic: str
    partition: int
    offset: int
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """A worker's state after some weeks, and the records that come next.

    Parameters
    ----------
    config, state
        Of the pipeline.
    mapping
        Of the bank.
    batch
        What comes next, canonical; ``records`` holds the same in the bank's format.
    """

    config: PipelineConfig
    state: State
    mapping: Mapping
    batch: TransactionBatch
    records: Sequence[bytes]

    def pipeline(self) -> Pipeline:
        """Return a fresh copy of the worker's pipeline."""
        return restore(self.config, self.state)


def make_workload(customers: int = 8_000) -> Workload:
    """Run a bank alone for a month, so that tables are filled and a scorecard is in force."""
    mapping = load_mapping(Path(__file__).parents[1] / "demo_banks" / "alpenkasse.toml")
    simulation = SimulationConfig(bank_shares=(1.0,), n_days=_DAYS, n_customers=customers)
    parts = list(bank_parts(simulation, 0, mapping, seed=1))
    config = PipelineConfig(
        member="bench",
        schema=Schema(entity_kinds=KINDS),
        secret=bytes(32),
        label_horizon_ms=7 * _DAY_MS,
    )
    pipeline = Pipeline(config)
    consortium = LocalConsortium({"bench": pipeline}, None, cadence_ms=_DAY_MS)
    stream = bank_stream(parts[:_WARM_DAYS], 7 * _DAY_MS)
    consortium.run({"bench": stream}, on_scored=lambda *_: None)
    held = dump(pipeline)
    state = State({name: array.copy() for name, array in held.arrays.items()}, held.meta)
    batch = concatenate_batches([part.batch for part in parts[_WARM_DAYS:]])
    return Workload(config, state, mapping, batch, BankFormat(mapping).transactions(batch))


def measure_pieces(workload: Workload, directory: Path, rounds: int = 3) -> dict[str, float]:
    """Return microseconds of processor time a transaction for each step.

    Parameters
    ----------
    workload
        See `make_workload`.
    directory
        Of the store, new.
    rounds
        The least of so many is taken: other programs only ever add.
    """
    n = len(workload.batch)
    decoder = TransactionDecoder(workload.mapping)
    chunks = [slice(i, i + CHUNK) for i in range(0, n, CHUNK)]
    topics = BankTopics("bench")
    records = [
        BenchRecord(topics.transactions, 0, i, raw) for i, raw in enumerate(workload.records)
    ]

    def worker() -> BankWorker:
        return BankWorker(
            workload.pipeline(), workload.mapping, topics, Telemetry(CollectorRegistry())
        )

    def decode(_: None) -> None:
        for chunk in chunks:
            decoder.decode(workload.records[chunk])

    def score(pipeline: Pipeline) -> None:
        for chunk in chunks:
            pipeline.score(workload.batch.rows(chunk))

    def job(one: BankWorker) -> None:
        clock_ms = int(workload.batch.event_time_ms[-1])
        for chunk in chunks:
            one.score(records[chunk], clock_ms=clock_ms)

    def per_transaction(best_s: float) -> float:
        return best_s / n * 1e6

    figures = {
        "decode_us_per_tx": per_transaction(_best_s(lambda: None, decode, rounds)),
        "score_us_per_tx": per_transaction(_best_s(workload.pipeline, score, rounds)),
        "worker_us_per_tx": per_transaction(_best_s(worker, job, rounds)),
    }
    pipeline = workload.pipeline()
    score(pipeline)
    with_store = StateStore(directory / "state")
    started_s = time.process_time()
    size_bytes = with_store.save(dump(pipeline).arrays, dump(pipeline).meta, {})
    figures["checkpoint_ms"] = (time.process_time() - started_s) * 1e3
    figures["checkpoint_mb"] = size_bytes / 2**20
    with_store.close()
    figures["accounts"] = float(pipeline.accounts.size)
    figures["transactions"] = float(n)
    return figures


def _best_s(prepare: Callable[[], T], work: Callable[[T], None], rounds: int) -> float:
    best_s = float("inf")
    for _ in range(rounds):
        subject = prepare()
        started_s = time.process_time()
        work(subject)
        best_s = min(best_s, time.process_time() - started_s)
    return best_s
