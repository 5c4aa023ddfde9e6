"""Collects what a run on Kafka left: topics, stores, and the amalgamator's fold from its topics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from amalgamator.core import Amalgamator
from amalgamator.gate import DUPLICATE, Refused
from amalgamator.kafka_io import read_all
from amalgamator.ports import QuarantineEntry
from deploy.chaos.outcome import BankOutcome, Outcome, said_of
from deploy.chaos.small_world import BANKS, CONSORTIUM
from deploy.chaos.undisturbed import amalgamator_of
from deploy.consortium_files import ConsortiumFiles
from deploy.state_command import verify_state
from models.errors import DecodeError, QuarantinedError, StateError, UnavailableError
from models.fragments import FragmentRecord, Reassembler
from models.named_arrays import under
from models.records import Alert, Decision
from models.release import Release
from models.release_codec import ReleaseAssembler
from models.topics import BankTopics, ConsortiumTopics
from stream.manifest import Fault
from stream.settings import read_membership, read_settings
from stream.store import STORE, Checkpoint, StateStore
from stream.take_up import SHELL

_TIMEOUT_MS = 30_000


def read_topic(bootstrap: str, topic: str) -> list[bytes]:
    """Return the values of all records of a topic.

    Raises
    ------
    UnavailableError
        If the broker does not answer.
    """
    try:
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, request_timeout_ms=_TIMEOUT_MS)
    except KafkaError as error:
        raise UnavailableError(f"{bootstrap}: {error}") from error
    try:
        places = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(places)
        values: list[bytes] = []
        while any(consumer.position(place) < ends[place] for place in places):
            polled: Mapping[Any, Any] = consumer.poll(timeout_ms=200)
            values += [record.value for records in polled.values() for record in records]
    except KafkaError as error:
        raise UnavailableError(f"{topic}: {error}") from error
    finally:
        consumer.close(autocommit=False, timeout_ms=_TIMEOUT_MS)
    return values


def is_at_end(files: ConsortiumFiles, last_tick_ms: int) -> bool:
    """Return whether every bank's store holds the whole stream: its last tick, and it is done."""
    return all(_is_at_end(path, last_tick_ms) for path in files.settings.values())


def _is_at_end(path: Path, last_tick_ms: int) -> bool:
    try:
        checkpoint = _checkpoint(path)[0]
    except StateError:
        return False
    if checkpoint is None:
        return False
    tick_ms = msgspec.msgpack.decode(checkpoint.meta)["tick_ms"]
    return bool(tick_ms >= last_tick_ms and not np.asarray(checkpoint.arrays["awaited"]).size)


def _checkpoint(path: Path) -> tuple[Checkpoint | None, list[Fault]]:
    store = StateStore(read_settings(path, {}).state_dir / STORE, is_read_only=True)
    try:
        return store.read()
    finally:
        store.close()


def collect(bootstrap: str, files: ConsortiumFiles) -> Outcome:
    """Return the outcome of a run whose processes have stopped; the broker runs.

    Raises
    ------
    UnavailableError
        If the broker does not answer, or there is no release.
    StateError
        If a store cannot be read.
    """
    topics = ConsortiumTopics(CONSORTIUM)
    release = _last_release(files, read_all(bootstrap, topics.releases))
    amalgamator = amalgamator_of(files)
    amalgamator.resume(release)
    refused = [
        msgspec.json.decode(value, type=QuarantineEntry).reason
        for value in read_topic(bootstrap, topics.quarantine)
    ]
    for bank in BANKS:
        refused += _receive(amalgamator, read_all(bootstrap, topics.summaries(bank)))
    again = amalgamator.refold()
    return Outcome(
        banks={bank: _bank(bootstrap, bank, path) for bank, path in files.settings.items()},
        release=(release.number, release.release_id),
        refolded="" if again is None else again.release_id,
        held=amalgamator.state.newest,
        quarantined=tuple(refused),
    )


def _last_release(files: ConsortiumFiles, records: list[FragmentRecord]) -> Release:
    membership = read_membership(read_settings(next(iter(files.settings.values())), {}))
    assembler = ReleaseAssembler(
        membership.consortium, membership.schema, list(membership.amalgamator)
    )
    reassembler, last = Reassembler(), None
    for record in records:
        try:
            raw = reassembler.add(record)
            last = (None if raw is None else assembler.add(raw)) or last
        except (DecodeError, QuarantinedError):
            continue
    if last is None:
        raise UnavailableError("expected a release, found none")
    return last


def _receive(amalgamator: Amalgamator, records: list[FragmentRecord]) -> list[str]:
    """Hand a member's records to an amalgamator; return why some were refused."""
    reassembler, refused = Reassembler(), []
    for record in records:
        try:
            raw = reassembler.add(record)
        except DecodeError as error:
            refused.append(error.reason)
            continue
        outcome = None if raw is None else amalgamator.receive(raw, 0)
        if isinstance(outcome, Refused) and outcome.reason != DUPLICATE:
            refused.append(outcome.reason)
    return refused


def _bank(bootstrap: str, bank: str, path: Path) -> BankOutcome:
    topics, settings = BankTopics(bank), read_settings(path, {})
    decisions, repeated = said_of(
        msgspec.json.decode(value, type=Decision)
        for value in read_topic(bootstrap, topics.decisions)
    )
    alerts, _ = said_of(
        msgspec.json.decode(value, type=Alert) for value in read_topic(bootstrap, topics.alerts)
    )
    checkpoint, faults = _checkpoint(path)
    if checkpoint is None:
        raise StateError(f"{bank}: expected a stored state, found none")
    outbox = under("outbox/", checkpoint.arrays)
    lines = [*map(str, faults), *verify_state(settings)]
    return BankOutcome(
        decisions=decisions,
        alerts=alerts,
        repeated=repeated,
        arrays={n: a for n, a in checkpoint.arrays.items() if not n.startswith(SHELL)},
        meta=checkpoint.meta,
        seq=int(outbox["seq"][0]),
        letters=sum(name.startswith("key/") for name in outbox),
        faults=tuple(dict.fromkeys(lines)),
    )
