"""A worker's local store, as an operator looks at it, checks it and puts it aside."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from rich.table import Table

from models.errors import InvalidInputError, StateError, UnavailableError
from models.mapping import load_mapping
from models.topics import BankTopics
from stream.anew import Anew, set_aside
from stream.manifest import VERSION, Manifest, Partition
from stream.outbox import Outbox
from stream.pipeline_state import VERSION as PIPELINE_VERSION
from stream.row_log import PENDING
from stream.settings import (
    Settings,
    of_worker,
    pipeline_config,
    read_membership,
    read_settings,
)
from stream.state_check import check_state
from stream.store import STORE, Checkpoint, StateStore, read_stored
from stream.take_over import changelog_of, look
from stream.take_up import Taken, take_up

Told = dict[str, object]
_TIMEOUT_MS = 10_000


def settings_of(file: Path, worker: str | None = None) -> Settings:
    """Return a worker's settings as it reads them itself; ``worker``: the one that a host runs."""
    settings = read_settings(file, os.environ)
    return settings if worker is None else of_worker(settings, worker)


def _taken(settings: Settings, checkpoint: Checkpoint) -> Taken:
    membership = read_membership(settings)
    config = pipeline_config(settings, membership, load_mapping(settings.mapping_file))
    parts = membership.consortium, membership.schema, membership.signer
    return take_up(checkpoint, config, Outbox(*parts, now_ms=lambda: 0))


def show_state(settings: Settings) -> Told:
    """Return what a store holds, without any id or amount; nothing is written.

    Raises
    ------
    StateError
        If there is none, or it cannot be gone on with.
    """
    path = settings.state_dir / STORE
    checkpoint, faults = read_stored(path)
    if checkpoint is None:
        raise StateError(f"state in {path}: no checkpoint yet")
    if faults:
        raise StateError(f"state: {faults[0]}; `amalgam state verify` tells all")
    return _told(settings, checkpoint, _taken(settings, checkpoint))


def _told(settings: Settings, checkpoint: Checkpoint, taken: Taken) -> Told:
    pipeline = taken.pipeline
    waiting = int(np.count_nonzero(pipeline.log.outcome == PENDING))
    kinds = np.bincount(pipeline.entities.arrays()["kinds"], minlength=64).tolist()
    offsets = {f"{t}/{p}": offset for (t, p), offset in sorted(checkpoint.offsets.items())}
    arrays = {
        name: {"dtype": str(a.dtype), "shape": list(a.shape), "size_bytes": a.nbytes}
        for name, a in sorted(checkpoint.arrays.items())
    }
    return {
        "version": {"store": VERSION, "pipeline": PIPELINE_VERSION},
        "member": settings.member,
        "worker": settings.worker,
        "schema": pipeline.config.schema.hash,
        "tick": _utc(pipeline.tick_ms),
        "watermark": _utc(pipeline.watermark_ms),
        "release": pipeline.release_age.number,
        "accounts": pipeline.accounts.size,
        "entities": dict(zip(pipeline.entities.kinds, kinds, strict=False)),
        "rows": {"matured": pipeline.log.size - waiting, "waiting": waiting},
        "labels_parked": len(pipeline.labels.parked),
        "summaries_waiting": len(taken.outbox.letters),
        "is_reading_anew": taken.outbox.is_anew,
        "experts": _experts(taken),
        "threshold": _threshold(taken),
        "offsets": offsets,
        "arrays": arrays,
        "size_bytes": sum(a.nbytes for a in checkpoint.arrays.values()),
    }


def _utc(time_ms: int) -> str | None:
    """Return an instant, None before the first record."""
    if time_ms < 0:
        return None
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat(timespec="milliseconds")


def _experts(taken: Taken) -> dict[str, Told]:
    blend = taken.pipeline.judge.blend
    rows = zip(
        taken.pipeline.panel.names,
        blend.weights.tolist(),
        blend.active.tolist(),
        blend.average_precision.tolist(),
        strict=True,
    )
    return {
        name: {"weight": weight, "is_active": is_active, "average_precision": _finite(precision)}
        for name, weight, is_active, precision in rows
    }


def _threshold(taken: Taken) -> float | None:
    """Return the probability that the next payment would have to exceed, None for no alerts yet."""
    pipeline = taken.pipeline
    now = np.array([max(pipeline.watermark_ms, 0)], np.int64)
    _, threshold = pipeline.judge.budget.choose(np.zeros(1), now)
    return _finite(1.0 / (1.0 + float(np.exp(-threshold[0])))) if threshold[0] < np.inf else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def state_table(told: Told) -> Table:
    """Return what `show_state` gave as two columns."""
    table = Table("state", "", show_header=False)
    for name, value in told.items():
        if not isinstance(value, Mapping):
            table.add_row(name, _written(value))
        elif name != "arrays":
            for key, one in value.items():
                said = one["weight"] if isinstance(one, Mapping) else one
                table.add_row(f"{name} {key}", _written(said))
    for part, (n, size_bytes) in _parts(told).items():
        table.add_row(f"arrays {part}", f"{n:,} of {size_bytes:,} bytes")
    return table


def _written(value: object) -> str:
    if value is None:
        return "none yet"
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _parts(told: Told) -> dict[str, tuple[int, int]]:
    """Return part -> (arrays, bytes)."""
    arrays = told["arrays"]
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    if isinstance(arrays, Mapping):
        for name, one in arrays.items():
            sizes[name.partition("/")[0]].append(one["size_bytes"])
    return {part: (len(found), sum(found)) for part, found in sizes.items()}


def verify_state(settings: Settings) -> list[str]:
    """Return one line for each fault of a store; nothing is written."""
    try:
        checkpoint, faults = read_stored(settings.state_dir / STORE)
        if checkpoint is None or faults:
            return [str(fault) for fault in faults]
        return [str(fault) for fault in check_state(checkpoint, _taken(settings, checkpoint))]
    except StateError as error:
        return [str(error)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuild:
    """What a rebuild would do.

    Parameters
    ----------
    state_dir
        Of the worker.
    anew
        For its next start, None where that restores the state from the changelog.
    said
        What it means, line by line.
    """

    state_dir: Path
    anew: Anew | None
    said: Sequence[str]


def plan_rebuild(settings: Settings, *, is_offline: bool) -> Rebuild:
    """Return what a rebuild would do; nothing is done.

    Raises
    ------
    InvalidInputError
        If the worker runs in replay.
    StateError
        If there is no store.
    UnavailableError
        If the bank's broker is asked and does not answer.
    """
    if settings.mode != "live":
        raise InvalidInputError(
            "mode: expected live, got replay: in lockstep epochs that are closed are not closed "
            "again; begin all banks and the amalgamator anew, on new topics"
        )
    places = _places(_store_of(settings))
    said = ["what is read again gives its decisions and alerts once more, under the same ids"]
    said.append("summaries published before are replaced or taken back once all is read again")
    if is_offline:
        said.append("the broker was not asked which records it still has (--offline)")
    else:
        said += _what_is_gone(settings, places)
    return Rebuild(state_dir=settings.state_dir, anew=Anew(places), said=said)


def _store_of(settings: Settings) -> Path:
    store = settings.state_dir / STORE
    if not store.exists():
        raise StateError(f"state in {store}: expected a store to put aside, found none")
    return store


def plan_restore(settings: Settings, *, is_offline: bool) -> Rebuild:
    """Return what a rebuild from the worker's changelog would do; nothing is done.

    Raises
    ------
    InvalidInputError
        If the worker has no changelog.
    StateError
        If there is no store, or the changelog holds no whole state of this worker.
    UnavailableError
        If the bank's broker is asked and does not answer.
    """
    if not settings.changelog:
        raise InvalidInputError("changelog: expected true for --from-changelog, got false")
    _store_of(settings)
    said = ["the broker was not asked whether the changelog is whole (--offline)"]
    if not is_offline:
        state = asyncio.run(_look(settings))
        size_bytes = sum(layout.size_bytes for layout in state.arrays.values())
        said = [f"the changelog holds a whole state: checkpoint {state.number:,}, of "
                f"{size_bytes:,} bytes"]  # fmt: skip
    said.append("what came after its last checkpoint is read again: decisions and alerts under the "
                "same ids; nothing else is")  # fmt: skip
    return Rebuild(state_dir=settings.state_dir, anew=None, said=said)


async def _look(settings: Settings) -> Manifest:
    async with changelog_of(settings, read_membership(settings)) as changelog:
        return await look(changelog)


def _places(path: Path) -> tuple[Partition, ...] | None:
    """Return the partitions that a store has read, None if it cannot say."""
    try:
        store = StateStore(path, is_read_only=True)
    except StateError:
        return None
    try:
        return tuple(sorted(store.offsets()))
    except StateError:
        return None
    finally:
        store.close()


def _what_is_gone(settings: Settings, places: Sequence[Partition] | None) -> list[str]:
    earliest = earliest_offsets(settings, places)
    gone = {place: offset for place, offset in earliest.items() if offset > 0}
    said = [
        f"{topic}/{partition}: offsets below {offset:,} are no longer on the broker"
        for (topic, partition), offset in sorted(gone.items())
    ]
    if gone:
        said.append("what was learnt from them is lost, here and, taken back, in the consortium")
    else:
        said.append("the topics still hold their first records: nothing is lost")
    return said


def earliest_offsets(
    settings: Settings, places: Sequence[Partition] | None
) -> Mapping[Partition, int]:
    """Return the earliest offset that the bank's broker retains of each partition.

    Raises
    ------
    UnavailableError
        If it does not answer.
    """
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=settings.bank_bootstrap.split(","),
            bootstrap_timeout_ms=_TIMEOUT_MS,
            request_timeout_ms=_TIMEOUT_MS,
        )
    except KafkaError as error:
        raise UnavailableError(
            f"Kafka at {settings.bank_bootstrap} does not answer: {error}; --offline does not ask"
        ) from error
    try:
        if places is None:
            names = BankTopics(settings.member)
            topics = (names.transactions, names.labels)
            places = [(t, p) for t in topics for p in consumer.partitions_for_topic(t) or ()]
        found = consumer.beginning_offsets([TopicPartition(*place) for place in places])
        return {(tp.topic, tp.partition): offset for tp, offset in found.items()}
    except KafkaError as error:
        raise UnavailableError(f"{settings.bank_bootstrap}: {error}") from error
    finally:
        consumer.close()


def rebuild_state(plan: Rebuild, now: datetime) -> Path:
    """Put the store aside and tell the next start to begin anew; return where it is kept.

    Raises
    ------
    StateHeldError
        If a worker has it open.
    """
    return set_aside(plan.state_dir, f"{STORE}.aside-{now:%Y%m%dT%H%M%SZ}", plan.anew)
