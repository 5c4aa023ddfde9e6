"""``python -m amalgamator --settings FILE``: the service, set up by file and environment."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from amalgamator.core import Amalgamator
from amalgamator.gate import GateLimits
from amalgamator.kafka_io import (
    KafkaQuarantineSink,
    KafkaReleaseSink,
    KafkaSummarySource,
    SystemClock,
)
from amalgamator.registry import Registry, parse_registry
from amalgamator.release_log import ReleaseLog
from amalgamator.service import Pace, Ports, Service
from amalgamator.settings import PREFIX, Settings, fold_config, read_settings
from amalgamator.telemetry import Telemetry
from amalgamator.watchdog import Watchdog
from models.errors import AmalgamError, SettingsError
from models.health_server import HealthServer
from models.json_log import log_as_json
from models.keys import load_signer
from models.schema import Schema
from models.topics import ConsortiumTopics

log = logging.getLogger("amalgamator")


def main() -> int:
    """Run until SIGTERM or SIGINT.

    Exit codes: 0 after a stop, 1 after a failure, 2 for wrong settings, 4 for a loop that stood
    still, which no one but the watchdog can end.
    """
    parser = argparse.ArgumentParser(prog="python -m amalgamator", description=__doc__)
    parser.add_argument("--settings", type=Path, help=f"TOML file; {PREFIX}* wins over it")
    try:
        settings = read_settings(parser.parse_args().settings, os.environ)
        log_as_json(settings.log_level, {"kafka": logging.CRITICAL})
        registry = _read_registry(settings)
        signer = load_signer(settings.key_file)
        schema = Schema(entity_kinds=registry.entity_kinds, attributes=registry.attributes)
        amalgamator = _amalgamator(settings, registry, schema)
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"amalgamator: {error}\n")
        return 2
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    telemetry = Telemetry(CollectorRegistry())
    watchdog = Watchdog(settings.deadline_s, SystemClock().monotonic_s)
    watchdog.start()
    try:
        service = Service(
            amalgamator,
            ReleaseLog(registry.consortium, schema, signer),
            ports=_ports(settings, registry),
            pace=_pace(settings),
            telemetry=telemetry,
        )
        watchdog.watch(service.live)
        health = HealthServer(
            settings.health_port,
            render_metrics=telemetry.render,
            live=service.live,
            ready=service.ready,
            host=settings.health_host,
        )
        health.start()
        log.info("health server host=%s port=%d", settings.health_host, health.port)
        try:
            service.start()
            service.run(stopped.is_set, time.sleep)
        finally:
            health.stop()
    except AmalgamError:
        log.exception("stopped by an error")
        return 1
    log.info("stopped")
    return 0


def _read_registry(settings: Settings) -> Registry:
    try:
        text = settings.registry_file.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{settings.registry_file}: cannot be read") from error
    return parse_registry(text, str(settings.registry_file))


def _amalgamator(settings: Settings, registry: Registry, schema: Schema) -> Amalgamator:
    is_lockstep = settings.mode == "lockstep"
    return Amalgamator(
        registry,
        fold_config(settings, schema),
        limits=GateLimits(
            max_envelope_bytes=settings.max_envelope_bytes,
            clock_tolerance_ms=None if is_lockstep else int(settings.clock_tolerance_s * 1_000),
            max_days_ahead=None if settings.max_days_ahead < 0 else settings.max_days_ahead,
        ),
        lockstep=is_lockstep,
    )


def _ports(settings: Settings, registry: Registry) -> Ports:
    topics = ConsortiumTopics(registry.consortium)
    return Ports(
        source=KafkaSummarySource(
            settings.bootstrap, [topics.summaries(name) for name in sorted(registry.members)]
        ),
        releases=KafkaReleaseSink(settings.bootstrap, topics.releases),
        quarantine=KafkaQuarantineSink(settings.bootstrap, topics.quarantine),
        clock=SystemClock(),
    )


def _pace(settings: Settings) -> Pace:
    return Pace(
        fold_every_s=0.0 if settings.mode == "lockstep" else settings.fold_every_s,
        poll_s=settings.poll_s,
        deadline_s=settings.deadline_s,
    )


if __name__ == "__main__":
    sys.exit(main())
