"""One whole chaos run: data, broker, processes, faults, the outcome, and what differs."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from deploy.chaos.collect import collect, is_at_end
from deploy.chaos.compare import Verdict, compare
from deploy.chaos.conductor import TWIN, Conductor, Progress
from deploy.chaos.fault_log import FaultLog
from deploy.chaos.fault_plan import AMALGAMATOR, plan_faults
from deploy.chaos.feed_plan import FeedPolicy, plan_feed
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

PLANTED = "deploy.chaos.planted"
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
    """

    directory: Path
    kafka_libs: Path
    seed: int
    faults: int
    days: int
    customers: int
    only: Sequence[str] = ()
    plants: Mapping[str, str] = field(default_factory=dict)


def run_chaos(config: ChaosConfig, environment: Mapping[str, str]) -> Verdict:
    """Run disturbed and undisturbed, and return what came out.

    Raises
    ------
    UnavailableError
        If there is no Kafka, or the disturbed run does not come to its end.
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
        told = _disturb(config, world, files, broker)
        chaos = collect(broker.bootstrap, files)
    finally:
        broker.stop()
    calm = run_undisturbed(world, files)
    verdict = compare(chaos, calm, world.streams, world.span_ms[1])
    seconds = time.monotonic() - began_s
    figures = {**told, **verdict.figures, "seed": float(config.seed), "seconds": seconds}
    return Verdict(figures=figures, differences=verdict.differences)


def _disturb(
    config: ChaosConfig, world: World, files: ConsortiumFiles, broker: Broker
) -> dict[str, float]:
    """Run all processes to the end of the stream, with faults; return how many there were."""
    rng = np.random.default_rng([config.seed, 0])
    feeds = {bank: plan_feed(world.chunks[bank], PARTITIONS, FeedPolicy(), rng) for bank in BANKS}
    rng = np.random.default_rng([config.seed, 1])  # so that a plan of faults is its own seed's
    faults = plan_faults(config.faults, BANKS, rng, only=config.only)
    fleet = Fleet(config.directory / "logs", _commands(config, files))
    log = FaultLog(config.directory / "faults.jsonl", lambda: datetime.now(UTC))
    progress = Progress(world.span_ms, dict.fromkeys(BANKS, -1))

    def note(one: Note) -> None:
        more = {"slot": one.slot, "repeated": one.repeated, "late": one.late}
        log.write("feed", one.bank, share=progress.share, **more)

    feeder = Feeder(broker.bootstrap, feeds, allowed=lambda: progress.share + _LEAD, note=note)

    def check() -> None:
        if feeder.error is not None:
            raise feeder.error

    def is_finished() -> bool:
        return feeder.is_done and is_at_end(files, world.span_ms[1] - HOUR_MS)

    conductor = Conductor(
        fleet, broker, progress, log, check, is_finished, clock=time.monotonic, sleep=time.sleep
    )
    log.write("begin", "all", seed=config.seed, faults=config.faults, days=config.days)
    try:
        for name in (AMALGAMATOR, *BANKS):
            fleet.start(name)
        feeder.start()
        conductor.run(faults)
        for name in (*BANKS, AMALGAMATOR):
            log.write("terminated", name, code=fleet.terminate(name))
    finally:
        feeder.stop()
        fleet.stop()
        log.write("end", "all", done=conductor.done, revived=conductor.revived)
        log.close()
    slots = [slot for each in feeds.values() for slot in each]
    return {
        "faults": float(conductor.done),
        "revived": float(conductor.revived),
        "records_repeated": float(sum(slot.repeated for slot in slots)),
        "records_late": float(sum(slot.late for slot in slots)),
    }


def _commands(config: ChaosConfig, files: ConsortiumFiles) -> dict[str, Command]:
    commands = {}
    for name in (AMALGAMATOR, TWIN):
        port = free_port()
        added = {**files.amalgamator, "AMALGAM_AMALGAMATOR_HEALTH_PORT": str(port)}
        commands[name] = Command("amalgamator", [], added, port)
    for bank, path in files.settings.items():
        port = free_port()
        bug = config.plants.get(bank)
        commands[bank] = Command(
            "stream" if bug is None else PLANTED,
            [*([] if bug is None else [bug]), "--settings", str(path)],
            {"AMALGAM_STREAM_HEALTH_PORT": str(port)},
            port,
        )
    return commands
