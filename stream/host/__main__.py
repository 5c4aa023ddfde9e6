"""``python -m stream.host --settings bank.toml``: runs those of a bank's workers that fall here."""

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry

from models.errors import AmalgamError, SettingsError
from models.health_server import HealthServer
from models.json_log import log_as_json
from stream.host.children import Children
from stream.host.group import HostGroup
from stream.host.host import Host
from stream.host.standby import Standby
from stream.host.telemetry import HostTelemetry
from stream.settings import Settings, read_settings
from stream.share import worker_names

log = logging.getLogger("stream.host")
_TALKATIVE = ("aiokafka",)


def main() -> int:
    """Run until SIGTERM or SIGINT.

    Exit codes: 0 after a stop, 1 after a failure, 2 for wrong settings. Workers' own codes are
    told in the log and by metrics, and do not end the host.
    """
    parser = argparse.ArgumentParser(prog="python -m stream.host", description=__doc__)
    parser.add_argument("--settings", type=Path, help="TOML file; AMALGAM_STREAM_* wins over it")
    file = parser.parse_args().settings
    try:
        settings = _read(file)
    except SettingsError as error:
        sys.stderr.write(f"stream.host: {error}\n")
        return 2
    log_as_json(settings.log_level, dict.fromkeys(_TALKATIVE, logging.WARNING))
    try:
        return asyncio.run(_run(settings, file))
    except SettingsError as error:
        log.error("%s", error)  # noqa: TRY400  # one line says it all
        return 2
    except AmalgamError as error:
        log.error("cannot go on: %s", error)  # noqa: TRY400  # one line says it all
        return 1


def _read(file: Path | None) -> Settings:
    settings = read_settings(file, os.environ)
    if not settings.changelog:
        raise SettingsError(
            "changelog: expected true where hosts run the workers, got false: a worker takes its "
            "state from there when it moves"
        )
    return settings


async def _run(settings: Settings, file: Path | None) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    names = worker_names(settings.workers, settings.worker)
    telemetry = HostTelemetry(CollectorRegistry(), names)
    async with HostGroup(settings) as group:
        children = Children(settings, file, os.environ)
        copies = Standby(settings) if settings.standby else None
        host = Host(group, children, telemetry, copies=copies, clock=time.monotonic)
        health = HealthServer(
            settings.health_port,
            render_metrics=telemetry.render,
            live=lambda: None,
            ready=host.unready,
            host=settings.health_host,
        )
        health.start()
        log.info("metrics on port %d", health.port)
        try:
            await host.run(stopped)
        finally:
            health.stop()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
