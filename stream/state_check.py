"""What must hold of a stored state beyond its bytes; pure.

A restored pipeline is dumped again: names, types and shapes of all arrays must be those that were
stored. Then come the relations between numbers. No finding names a value.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from models.features.key_index import ABSENT
from stream.manifest import Arrays, Fault
from stream.pipeline import Pipeline
from stream.pipeline_state import dump
from stream.row_log import FRAUD, PENDING
from stream.store import Checkpoint
from stream.take_up import Taken, shell_arrays

_OPTIONAL = ("drift/", "outbox/first_seq", "topics")
"""Switched on and off between starts, or unknown to an older worker."""


def check_state(checkpoint: Checkpoint, taken: Taken) -> list[Fault]:
    """Return what is wrong with a state that could be restored.

    Parameters
    ----------
    checkpoint
        As it was stored.
    taken
        What was restored from it.
    """
    held = {
        **dump(taken.pipeline).arrays,
        **shell_arrays(taken.outbox, taken.awaited, taken.topic_ids),
    }
    return [
        *_layout_faults(checkpoint.arrays, held),
        *_offset_faults(checkpoint),
        *_clock_faults(taken.pipeline),
        *_log_faults(taken.pipeline),
        *_table_faults(taken.pipeline),
        *_other_faults(taken),
    ]


def _layout_faults(stored: Arrays, needed: Arrays) -> Iterator[Fault]:
    for name in sorted(stored.keys() | needed.keys()):
        if name.startswith(_OPTIONAL):
            continue
        if name not in needed:
            yield Fault(name, None, "expected no such array")
        elif name not in stored:
            yield Fault(name, None, "expected an array, found none")
        else:
            one, other = needed[name], stored[name]
            if (one.dtype, one.shape) != (other.dtype, other.shape):
                expected = f"{one.dtype} of shape {one.shape}"
                yield Fault(name, None, f"expected {expected}, got {other.dtype} {other.shape}")


def _offset_faults(checkpoint: Checkpoint) -> Iterator[Fault]:
    for (topic, partition), offset in sorted(checkpoint.offsets.items()):
        if not offset >= 0:
            yield Fault("offsets", None, f"{topic}/{partition}: expected 0 or more")


def _clock_faults(pipeline: Pipeline) -> Iterator[Fault]:
    if not -1 <= pipeline.tick_ms <= max(pipeline.watermark_ms, -1):
        yield Fault("tick", None, "expected a tick at or before the watermark")
    if not all(-1 <= newest <= pipeline.watermark_ms for newest in pipeline.newest_ms.values()):
        yield Fault("newest", None, "expected no event time after the watermark")
    if not pipeline.release_age.number >= 0:
        yield Fault("release", None, "expected a number of 0 or more")


def _log_faults(pipeline: Pipeline) -> Iterator[Fault]:
    log = pipeline.log
    waits, known = log.outcome == PENDING, log.known_ms
    arrival, event = log.arrival_ms, log.event_ms
    demands = (
        ("arrival_ms", "rows in the order of time", np.diff(arrival, prepend=arrival[:1]) >= 0),
        ("arrival_ms", "no time after the watermark", arrival <= pipeline.watermark_ms),
        ("event_ms", "no time after that of its scoring", (event >= 0) & (event <= arrival)),
        ("outcome", "known outcomes", (log.outcome >= PENDING) & (log.outcome <= FRAUD)),
        ("known_ms", "-1 where no outcome is known, else its time", waits == (known == -1)),
        ("known_ms", "no outcome known before its event", waits | (known >= event)),
        ("account", "rows of the accounts", _within(log.account, 0, pipeline.accounts.size)),
        ("entity", "rows of the entities", _within(log.entity, -1, pipeline.entities.size)),
    )
    for name, expected, holds in demands:
        n_wrong = int(np.count_nonzero(~np.asarray(holds)))
        if n_wrong:
            yield Fault(f"log/{name}", None, f"expected {expected}, got {n_wrong} others")
    if len(np.unique(log.hash)) != log.size:
        yield Fault("log/hash", None, "expected each transaction once")
    first = log.first_pending
    if not 0 <= first <= log.size or bool(waits[:first].any()):
        yield Fault("log/outcome", None, "expected none to wait before the first that waits")


def _within(rows: NDArray[np.int32], first: int, size: int) -> NDArray[np.bool_]:
    return (rows >= first) & (rows < size)


def _table_faults(pipeline: Pipeline) -> Iterator[Fault]:
    accounts, entities = pipeline.accounts, pipeline.entities
    if len(np.unique(accounts.keys[: accounts.size])) != accounts.size:
        yield Fault("accounts/keys", None, "expected each account once")
    held = entities.arrays()
    if not bool(np.all(held["kinds"] < np.uint8(len(entities.kinds)))):
        yield Fault("entities/kinds", None, f"expected kinds below {len(entities.kinds)}")
    n_stated = len(entities.state)
    if n_stated < entities.size or len(accounts.state) < accounts.size:
        yield Fault("entities/state", None, "expected a row for each name")


def _other_faults(taken: Taken) -> Iterator[Fault]:
    pipeline, labels = taken.pipeline, taken.pipeline.labels
    counts = (labels.joined, labels.duplicates, labels.contradicting, labels.dropped)
    if not all(count >= 0 for count in counts):
        yield Fault("labels/counts", None, "expected counts of 0 or more")
    parked = np.array(list(labels.parked), np.uint64)
    if bool((pipeline.log.find(parked) != ABSENT).any()):
        yield Fault("labels/parked_hash", None, "expected no label whose transaction is held")
    blend, n_experts = pipeline.judge.blend, len(pipeline.panel.names)
    if len(blend.weights) != n_experts or not bool(np.isfinite(blend.weights).all()):
        yield Fault("judge/blend/weights", None, f"expected {n_experts} finite weights")
    seq = int(np.asarray(taken.outbox.arrays()["seq"])[0])
    if not all(0 < letter.seq <= seq for letter in taken.outbox.letters):
        yield Fault("outbox/seq", None, "expected no number above the last that was given")
