"""One whole chaos run: data, broker, processes, faults, the outcome, and what differs."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from deploy.chaos.collect import collect, is_at_end
from deploy.chaos.compare import Verdict, compare
from deploy.chaos.conductor import TWIN, Conductor, Progress, StalledError, stranger_of, twin_of
from deploy.chaos.fault_log import FaultLog
from deploy.chaos.fault_plan import AMALGAMATOR, Fault, plan_faults
from deploy.chaos.feed_plan import FeedPolicy, Slot, plan_feed
from deploy.chaos.feeder import Feeder, Note
from deploy.chaos.fleet import Broker, Command, Fleet
from deploy.chaos.small_world import (
    BANKS,
    HOUR_MS,
    PARTITIONS,
    World,
    WorldConfig,
    make_world,
    write_world,
)
from deploy.chaos.undisturbed import run_undisturbed
from deploy.consortium_files import ConsortiumFiles
from deploy.kafka_server import free_port, resolve
from models.topics import BankTopics
from stream.settings import read_settings

PLANTED, STRANGER = "deploy.chaos.planted", "deploy.chaos.stranger"
_LEAD = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class ChaosConfig:
    """One run.

    Parameters
    ----------
    directory
        Where everything lies; emptied at the start.
    kafka_libs
        Where Kafka's jars are kept between runs.
    seed
        Of payments, feed and faults.
    faults
        How many.
    days, customers
        Of the simulation.
    only
        Sorts of faults, see `deploy.chaos.fault_plan.SORTS`; all of them where it is empty.
    plants
        Bank -> a bug to run its worker with, see `deploy.chaos.planted`; none where it is left out.
    stall_s
        How long nothing may move before the run is taken as halted, and compared as it is.
    """

    directory: Path
    kafka_libs: Path
    seed: int
    faults: int
    days: int
    customers: int
    only: Sequence[str] = ()
    plants: Mapping[str, str] = field(default_factory=dict)
    stall_s: float = 300.0


def run_chaos(config: ChaosConfig, environment: Mapping[str, str]) -> Verdict:
    """Run disturbed and undisturbed, and return what came out.

    Raises
    ------
    UnavailableError
        If there is no Kafka, or the disturbed run left nothing that could be compared.
    StateError
        If a bank left no state, or one that cannot be read.
    """
    began_s = time.monotonic()
    shutil.rmtree(config.directory, ignore_errors=True)
    (config.directory / "logs").mkdir(parents=True)
    world = make_world(WorldConfig(days=config.days, customers=config.customers, seed=config.seed))
    broker = Broker(config.directory / "kafka", resolve(config.kafka_libs, environment))
    try:
        broker.start()
        broker.wait()
        files = write_world(config.directory / "banks", broker.bootstrap)
        run = _disturb(config, world, files, broker)
        chaos = collect(broker.bootstrap, run.held)
    finally:
        broker.stop()
    calm = run_undisturbed(world, files)
    verdict = compare(chaos, calm, world.streams, world.span_ms[1], halted=run.halted)
    seconds = time.monotonic() - began_s
    figures = {**run.told, **verdict.figures, "seed": float(config.seed), "seconds": seconds}
    return Verdict(figures=figures, differences=verdict.differences)


@dataclass(frozen=True, slots=True)
class _Disturbed:
    """A disturbed run: how much of what there was, whose files are left, and why it halted."""

    told: Mapping[str, float]
    held: ConsortiumFiles
    halted: str


def _disturb(
    config: ChaosConfig, world: World, files: ConsortiumFiles, broker: Broker
) -> _Disturbed:
    """Run all processes to the end of the stream, or until they halt, with faults."""
    rng = np.random.default_rng([config.seed, 0])
    feeds = {bank: plan_feed(world.chunks[bank], PARTITIONS, FeedPolicy(), rng) for bank in BANKS}
    rng = np.random.default_rng([config.seed, 1])  # so that a plan of faults is its own seed's
    faults = plan_faults(config.faults, BANKS, rng, only=config.only)
    fleet = Fleet(config.directory / "logs", _commands(config, files, broker.bootstrap))
    log = FaultLog(config.directory / "faults.jsonl", lambda: datetime.now(UTC))
    progress = Progress(world.span_ms, dict.fromkeys(BANKS, -1))

    def note(one: Note) -> None:
        more = {"slot": one.slot, "repeated": one.repeated, "late": one.late}
        log.write("feed", one.bank, share=progress.share, **more)

    feeder = Feeder(broker.bootstrap, feeds, allowed=lambda: progress.share + _LEAD, note=note)

    def held() -> ConsortiumFiles:
        paths = {bank: Path(fleet.commands[bank].arguments[-1]) for bank in BANKS}
        return ConsortiumFiles(settings=paths, amalgamator=files.amalgamator)

    def is_finished() -> bool:
        return feeder.is_done and is_at_end(held(), world.span_ms[1] - HOUR_MS)

    conductor = Conductor(
        fleet,
        broker,
        progress,
        log,
        feeder.check,
        is_finished,
        clock=time.monotonic,
        sleep=time.sleep,
        stall_s=config.stall_s,
    )
    log.write("begin", "all", seed=config.seed, faults=config.faults, days=config.days)
    try:
        for name in (AMALGAMATOR, *BANKS):
            fleet.start(name)
        feeder.start()
        halted = _conduct(conductor, faults)
        for name in (*BANKS, AMALGAMATOR):
            log.write("terminated", name, code=fleet.terminate(name))
    finally:
        feeder.stop()
        fleet.stop()
        log.write("end", "all", done=conductor.done, revived=conductor.revived)
        log.close()
    slots = [slot for each in feeds.values() for slot in each]
    return _Disturbed(_told(conductor, faults, slots), held(), halted)


def _conduct(conductor: Conductor, faults: Sequence[Fault]) -> str:
    """Carry the faults out to the stream's end; return why it halted, nothing if it did not."""
    try:
        conductor.run(faults)
    except StalledError as error:
        conductor.log.write("halted", "all", why=str(error))
        conductor.settle()
        return str(error)
    return ""


def _told(conductor: Conductor, faults: Sequence[Fault], slots: Sequence[Slot]) -> dict[str, float]:
    of_banks = Counter(fault.kind for fault in faults if fault.target in BANKS)
    told = {
        "faults": conductor.done,
        "hand_overs": of_banks["hand_over"],
        "rebalances": of_banks["rebalance"],
        "revived": conductor.revived,
        "records_repeated": sum(slot.repeated for slot in slots),
        "records_late": sum(slot.late for slot in slots),
    }
    return {name: float(n) for name, n in told.items()}


def _commands(config: ChaosConfig, files: ConsortiumFiles, bootstrap: str) -> dict[str, Command]:
    commands = {}
    for name in (AMALGAMATOR, TWIN):
        port = free_port()
        added = {**files.amalgamator, "AMALGAM_AMALGAMATOR_HEALTH_PORT": str(port)}
        commands[name] = Command("amalgamator", [], added, port)
    for bank, path in files.settings.items():
        bug = config.plants.get(bank)
        for name, settings in ((bank, path), (twin_of(bank), _on_another_disk(path))):
            port = free_port()
            commands[name] = Command(
                "stream" if bug is None else PLANTED,
                [*([] if bug is None else [bug]), "--settings", str(settings)],
                {"AMALGAM_STREAM_HEALTH_PORT": str(port)},
                port,
            )
        topics = BankTopics(bank)
        arguments = ["--bootstrap", bootstrap, "--group", read_settings(path, {}).group]
        arguments += [topics.transactions, topics.labels]
        commands[stranger_of(bank)] = Command(STRANGER, arguments, {}, 0)
    return commands


def _on_another_disk(path: Path) -> Path:
    """Write a bank's settings again, for a process that has a disk of its own."""
    text = path.read_text(encoding="utf-8")
    settings = read_settings(path, {})
    other = path.with_name("twin.toml")
    state_dir = settings.state_dir.with_name(f"{settings.state_dir.name}-2")
    old = next(line for line in text.splitlines() if line.startswith("state_dir"))
    other.write_text(text.replace(old, f'state_dir = "{state_dir}"'), encoding="utf-8")
    return other
