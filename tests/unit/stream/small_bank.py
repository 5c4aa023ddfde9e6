"""A small bank for the worker's tests: simulated payments as a log, and runners over it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from deploy.runs import RunPlan, local_amalgamator
from deploy.scenarios import FraudRates
from deploy.simulator import SimulationConfig, bank_parts
from models.blend import BlendPolicy
from models.budget import BudgetPolicy
from models.features.accounts import DAY_MS, HOUR_MS
from models.mapping import load_mapping
from models.records import Alert, Label, TransactionBatch, concatenate_batches
from models.release import Release
from models.schema import Schema
from models.summary import Contribution
from stream.day_work import chores_of
from stream.experts import LearningPolicy
from stream.judge import JudgePolicy
from stream.label_join import Rejected
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.pipeline_state import State, dump, restore

MAPPING = load_mapping(Path(__file__).parents[3] / "deploy" / "mappings" / "simulated.toml")
SCHEMA = Schema(entity_kinds=("terminal",))
SECRET = b"s" * 32
BANKS = ("north", "south")
N_DAYS = 10
HORIZON_MS = 2 * DAY_MS
DELAY_MS = 30 * HOUR_MS
LEARNING = LearningPolicy(first_n=200, first_frauds=10)
SIMULATION = SimulationConfig(
    bank_shares=(0.5, 0.5),
    n_days=N_DAYS,
    n_customers=110,
    n_terminals=40,
    n_merchants=10,
    growth=0.0,
    rates=FraudRates(terminals=8.0, customers=30.0, card_testing=4.0),
)


@dataclass(frozen=True)
class Exchange:
    """The place in a log where an epoch is published and its release, if any, swapped in."""

    epoch: int


Event = int | Label | Exchange


@dataclass
class Trace:
    """Everything that came out of a pipeline, in order."""

    scores: list[float] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    refused: list[Rejected] = field(default_factory=list)
    contributions: list[Contribution] = field(default_factory=list)
    seq: int = 0


def a_config(member: str = BANKS[0], **changes: object) -> PipelineConfig:
    """Return the configuration of one of the banks."""
    values: dict[str, object] = {
        "member": member,
        "schema": SCHEMA,
        "secret": SECRET,
        "label_horizon_ms": HORIZON_MS,
        "learning": LEARNING,
        "judging": JudgePolicy(
            blend=BlendPolicy(fresh_d=1.0, min_frauds=5),
            budget=BudgetPolicy(rate=0.05, warm_up=100),
        ),
    }
    return PipelineConfig(**values | changes)  # type: ignore[arg-type]  # names are the fields'


def payments(bank: int, seed: int = 3) -> tuple[TransactionBatch, list[Label]]:
    """Return a bank's payments of all days, and labels of its frauds and of some others."""
    parts = list(bank_parts(SIMULATION, bank, MAPPING, seed=seed))
    batch = concatenate_batches([part.batch for part in parts])
    fraud = np.concatenate([part.is_fraud for part in parts])
    said = [i for i in range(len(batch)) if fraud[i] or i % 7 == 0]
    labels = [
        Label(
            transaction_id=batch.transaction_id[i],
            is_fraud=bool(fraud[i]),
            source="chargeback",
            labelled_at_ms=int(batch.event_time_ms[i]) + DELAY_MS + i % 5 * HOUR_MS,
        )
        for i in said
    ]
    return batch, labels


def a_log(batch: TransactionBatch, labels: Iterable[Label]) -> list[Event]:
    """Return rows, labels and one exchange at each midnight, in order of time."""
    first, last = (int(batch.event_time_ms[i]) // DAY_MS for i in (0, -1))
    keyed: list[tuple[int, int, Event]] = [
        (time_ms, 2, row) for row, time_ms in enumerate(batch.event_time_ms.tolist())
    ]
    keyed += [(label.labelled_at_ms, 0, label) for label in labels]
    keyed += [(day * DAY_MS, 1, Exchange(day - 1)) for day in range(first + 1, last + 1)]
    keyed.sort(key=lambda entry: entry[:2])
    end_ms = int(batch.event_time_ms[-1])
    return [event for time_ms, _, event in keyed if time_ms <= end_ms]


def pieces(log: Sequence[Event], cuts: Iterable[int]) -> Iterator[tuple[type, list[Event]]]:
    """Yield runs of events of one kind, cut at the given places."""
    places = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    for start, stop in pairwise(places):
        for kind, run in groupby(log[start:stop], type):
            yield kind, list(run)


def publish(pipeline: Pipeline, epoch: int, trace: Trace) -> list[tuple[Contribution, int]]:
    """Publish an epoch; return its contributions with their numbers."""
    pipeline.advance((epoch + 1) * DAY_MS)
    made = pipeline.contributions(epoch)
    numbered = [(piece, trace.seq + i) for i, piece in enumerate(made, 1)]
    trace.seq += len(made)
    trace.contributions += made
    pipeline.published([seq for _, seq in numbered])
    return numbered


def feed(
    pipeline: Pipeline,
    batch: TransactionBatch,
    log: Sequence[Event],
    releases: dict[int, Release] | None = None,
    *,
    cuts: Iterable[int] = (),
    trace: Trace | None = None,
) -> Trace:
    """Run a log through a pipeline."""
    trace = Trace() if trace is None else trace
    for kind, run in pieces(log, cuts):
        if kind is Label:
            trace.refused += pipeline.learn(run)  # type: ignore[arg-type]  # all of one kind
        elif kind is Exchange:
            for exchange in run:
                epoch = exchange.epoch  # type: ignore[union-attr]  # all of one kind
                publish(pipeline, epoch, trace)
                if releases and epoch in releases:
                    pipeline.install(releases[epoch])
        else:
            scored = pipeline.score(batch.take(np.array(run, np.int64)))
            trace.scores += scored.scores.ravel().tolist()
            trace.logits += scored.logit.tolist()
            trace.alerts += scored.alerts
            trace.refused += scored.rejected
    return trace


def do_day(pipeline: Pipeline, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Do a day's chores; something happens after each that is slow."""
    assert pipeline.day_over is not None
    for chore in chores_of(pipeline, pipeline.day_over):
        for work in chore:
            work()
            meanwhile()


def copied(state: State) -> State:
    """Return a state that does not follow the running pipeline."""
    return State({name: array.copy() for name, array in state.arrays.items()}, bytes(state.meta))


def stopped_once(
    config: PipelineConfig,
    batch: TransactionBatch,
    log: Sequence[Event],
    releases: dict[int, Release],
    *,
    share: float,
) -> Trace:
    """Return what comes of a log when another pipeline goes on from a dump after a share of it."""
    stop, trace = int(share * len(log)), Trace()
    pipeline = Pipeline(config)
    feed(pipeline, batch, log[:stop], releases, trace=trace)
    again = restore(config, copied(dump(pipeline)))
    feed(again, batch, log[stop:], releases, trace=trace)
    return trace


@cache
def consortium_releases() -> dict[int, Release]:
    """Return the releases of both banks' simulated days, by epoch."""
    amalgamator = local_amalgamator(BANKS, SCHEMA, RunPlan(learning=LEARNING))
    pipelines = {name: Pipeline(a_config(name)) for name in BANKS}
    traces = {name: Trace() for name in BANKS}
    data = {name: payments(i) for i, name in enumerate(BANKS)}
    rest = {name: a_log(*data[name]) for name in BANKS}
    releases: dict[int, Release] = {}
    epochs = [event.epoch for event in rest[BANKS[0]] if isinstance(event, Exchange)]
    for epoch in epochs:
        for name in BANKS:
            stop = rest[name].index(Exchange(epoch))
            feed(pipelines[name], data[name][0], rest[name][:stop], trace=traces[name])
            rest[name] = rest[name][stop + 1 :]
            for contribution, seq in publish(pipelines[name], epoch, traces[name]):
                amalgamator.accept(contribution, seq)
        release = amalgamator.close_epoch(epoch)
        if release is not None:
            releases[epoch] = release
            for pipeline in pipelines.values():
                pipeline.install(release)
    return releases


def same_contributions(left: Sequence[Contribution], right: Sequence[Contribution]) -> bool:
    """Return whether two lists of contributions are equal to the bit."""
    return len(left) == len(right) and all(
        (a.key, a.epoch, a.basis, a.n) == (b.key, b.epoch, b.basis, b.n)
        and a.arrays.keys() == b.arrays.keys()
        and all(a.arrays[k].tobytes() == b.arrays[k].tobytes() for k in a.arrays)
        for a, b in zip(left, right, strict=True)
    )


def bits(values: Iterable[float]) -> bytes:
    """Return floats as bytes, so that NaN equals NaN."""
    return np.array(list(values), np.float64).tobytes()
