"""What the commands do, without the command line."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from deploy.bank_formats import BankFormat, LabelledBatch
from deploy.kafka_server import resolve, running, start, stop
from deploy.replay import ReplayConfig, Replayer, Sent, plan_replay
from deploy.replay_kafka import KafkaSender
from deploy.simulated_files import write_days
from deploy.simulator import SimulationConfig, bank_parts, simulate
from models.errors import InvalidInputError, SettingsError, UnavailableError
from models.families.registry import FamilySpec, make_families
from models.mapping import Mapping as FieldMapping
from models.mapping import load_mapping
from models.records import Alert, Label
from models.tables import read_table
from models.topics import BankTopics
from stream.settings import Settings, read_settings

SIMULATED = "deploy/mappings/simulated.toml"
_HOUR_MS = 3_600_000
_TICK_S = 0.05


def kafka_up(state: Path, port: int, environment: Mapping[str, str]) -> str:
    """Start a broker unless one runs; return its address."""
    directory = state / "kafka" / "broker"
    record = running(directory)
    if record is None:
        record = start(directory, resolve(state / "kafka" / "libs", environment), port=port)
    return record.bootstrap


def kafka_down(state: Path) -> bool:
    """Stop the broker; return whether one ran."""
    return stop(state / "kafka" / "broker")


def local_bootstrap(state: Path) -> str:
    """Return the address of the broker that runs on this machine.

    Raises
    ------
    UnavailableError
        If none does.
    """
    for directory in (state / "kafka" / "broker", state / "demo" / "kafka"):
        record = running(directory)
        if record is not None:
            return record.bootstrap
    raise UnavailableError("no local broker runs; give --bootstrap or start one: amalgam kafka up")


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by ``python -m module``, which then gets every signal itself."""
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606  # ourselves


def tail_alerts(
    bootstrap: str,
    bank: str,
    *,
    seconds: float,
    from_start: bool,
    clock: Callable[[], float],
) -> Iterator[str]:
    """Yield each alert once, as a line of text with its reasons."""
    topic = BankTopics(bank).alerts
    try:
        consumer = KafkaConsumer(bootstrap_servers=bootstrap)
        partitions = consumer.partitions_for_topic(topic)
    except KafkaError as error:
        raise UnavailableError(f"Kafka at {bootstrap} does not answer: {error}") from error
    if not partitions:
        raise UnavailableError(f"{bootstrap}: expected a topic {topic}, found none")
    consumer.assign([TopicPartition(topic, partition) for partition in sorted(partitions)])
    if from_start:
        consumer.seek_to_beginning()
    seen: set[str] = set()
    until = clock() + seconds if seconds > 0 else float("inf")
    try:
        while clock() < until:
            for records in consumer.poll(timeout_ms=200).values():
                for record in records:
                    alert = msgspec.json.decode(record.value, type=Alert)
                    if alert.alert_id not in seen:
                        seen.add(alert.alert_id)
                        yield alert_text(alert)
    finally:
        consumer.close()


def alert_text(alert: Alert) -> str:
    """Return an alert as its analyst reads it."""
    amount = f"{alert.amount_minor:,} minor units {alert.currency}"
    lines = [
        f"{alert.y_score:6.1%}  transaction {alert.transaction_id}  account {alert.account_id}  "
        f"{amount}  case {alert.case_id[:8]}  release {alert.release}"
    ]
    lines += [f"        {one.contribution:+5.1f}  {one.text}" for one in alert.reasons]
    return "\n".join(lines)


def send_label(
    settings_file: Path, transaction_id: str, account_id: str, *, is_fraud: bool, at: datetime
) -> None:
    """Send an analyst's verdict to the bank's label topic, in the bank's own format.

    Raises
    ------
    SettingsError
        If the settings or the mapping are wrong, or ``at`` has no time zone.
    """
    if at.tzinfo is None:
        raise SettingsError("--at: expected a time with a zone, e.g. 2026-01-31T12:00:00+00:00")
    settings = read_settings(settings_file, {})
    mapping = load_mapping(settings.mapping_file)
    label = Label(
        transaction_id=transaction_id,
        is_fraud=is_fraud,
        source="analyst",
        labelled_at_ms=int(at.timestamp() * 1_000),
    )
    sender = KafkaSender(settings.bank_bootstrap)
    sender.send(
        BankTopics(settings.member).labels,
        key=account_id.encode(),
        value=BankFormat(mapping).label(label, account_id),
        headers=[],
        partition=None,
    )
    sender.close()


def instant_of(text: str) -> datetime:
    """Return a written time.

    Raises
    ------
    InvalidInputError
        If it is not ISO 8601.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(
            f"--at: expected a time such as 2026-01-31T12:00:00+00:00, got {text!r}"
        ) from error


def families_of(written: Sequence[str] | None) -> tuple[FamilySpec, ...]:
    """Return the families of ``--family``, each of which can be made.

    Raises
    ------
    SettingsError
        If one cannot, or two are of a kind.
    """
    families = tuple(written or ())
    try:
        make_families(families, seed=0)
    except SettingsError as error:
        raise SettingsError(f"--family: {error}") from error
    return families


def day_of(text: str | None) -> int | None:
    """Return days since 1970 of a date, None for none.

    Raises
    ------
    InvalidInputError
        If it is no ISO 8601 date.
    """
    if text is None:
        return None
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError as error:
        raise InvalidInputError(f"expected a date such as 2018-07-15, got {text!r}") from error


def simulate_file(output: Path, *, days: int, customers: int, seed: int) -> int:
    """Write simulated payments to a file; return how many."""
    if output.suffix not in (".csv", ".parquet"):
        raise InvalidInputError(f"{output}: expected a name that ends with .csv or .parquet")
    if seed < 0:
        raise InvalidInputError(f"--seed: expected 0 or more, got {seed}")
    config = SimulationConfig(n_days=days, n_customers=customers)
    banks = [f"bank-{i + 1}" for i in range(len(config.bank_shares))]
    return write_days(simulate(config, np.random.default_rng(seed)), banks, output)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateRequest:
    """One bank's part of a simulation, to be streamed; see the options of `amalgam simulate`."""

    settings: Path
    bank: int
    days: int
    customers: int
    seed: int
    rate: float
    label_delay_d: float


def simulate_stream(request: SimulateRequest) -> Sent:
    """Send one bank's simulated payments through its topics, on average ``rate`` a second.

    Raises
    ------
    InvalidInputError
        If there is no such bank, the rate is not above 0, or nothing was simulated.
    """
    config = SimulationConfig(n_days=request.days, n_customers=request.customers)
    n_banks = len(config.bank_shares)
    if not 1 <= request.bank <= n_banks:
        raise InvalidInputError(f"--bank: expected 1 to {n_banks}, got {request.bank}")
    if not 0.0 < request.rate < float("inf"):
        raise InvalidInputError(f"--rate: expected transactions a second > 0, got {request.rate}")
    settings = read_settings(request.settings, {})
    mapping = load_mapping(settings.mapping_file)
    parts = list(bank_parts(config, request.bank - 1, mapping, seed=request.seed))
    n = sum(len(part.batch) for part in parts)
    if n == 0:
        raise InvalidInputError("expected payments, got none: more --days or --customers")
    speed = request.rate * request.days * 86_400 / n
    return _send(settings, mapping, parts, speed, request.label_delay_d)


def _send(
    settings: Settings,
    mapping: FieldMapping,
    parts: Sequence[LabelledBatch],
    speed: float,
    label_delay_d: float,
) -> Sent:
    if not 0.0 <= label_delay_d < float("inf"):
        raise InvalidInputError(f"--label-delay-d: expected days >= 0, got {label_delay_d}")
    topics = BankTopics(settings.member)
    sender = KafkaSender(settings.bank_bootstrap)
    replayer = Replayer(
        sender,
        transactions_topic=topics.transactions,
        labels_topic=topics.labels,
        speed=speed,
        clock=time.monotonic,
        sleep=time.sleep,
    )
    # pacing needs ticks that last a fraction of a second
    tick_ms = min(_HOUR_MS, max(1, round(_TICK_S * speed * 1_000))) if speed > 0 else _HOUR_MS
    config = ReplayConfig(tick_ms=tick_ms, label_delay_ms=round(label_delay_d * 86_400_000))
    try:
        return replayer.run(plan_replay(parts, mapping, config))
    finally:
        sender.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What `amalgam replay` was asked for; see its options."""

    file: Path
    settings: Path
    mapping: Path
    bank: str | None
    bank_column: str | None
    speed: float
    label_delay_d: float


def replay_file(request: ReplayRequest) -> Sent:
    """Send a file through a bank's topics in the bank's own format.

    Raises
    ------
    InvalidInputError
        If the mapping names no label column, or ``bank`` comes without ``bank_column``.
    """
    if (request.bank is None) != (request.bank_column is None):
        raise InvalidInputError("--bank and --bank-column: expected both or neither")
    settings = read_settings(request.settings, {})
    table = read_table(request.file, load_mapping(request.mapping), bank_column=request.bank_column)
    if table.is_fraud is None:
        raise InvalidInputError(f"{request.mapping}: expected [table] label, to replay labels")
    part = LabelledBatch(batch=table.batch, is_fraud=table.is_fraud)
    if request.bank is not None and table.bank is not None:
        rows = np.flatnonzero(np.array(table.bank) == request.bank)
        part = LabelledBatch(batch=table.batch.take(rows), is_fraud=table.is_fraud[rows])
    mapping = load_mapping(settings.mapping_file)
    return _send(settings, mapping, [part], request.speed, request.label_delay_d)
