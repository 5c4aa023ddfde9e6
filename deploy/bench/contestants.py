"""``python -m deploy.bench.contestants NAME``: one no-op reader of a topic, timed by itself.

``transport`` is the worker's own transport with an agent that only acknowledges, ``faust`` is stock
Faust with an agent that does nothing, ``floor`` is aiokafka's ``getmany`` without a framework.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faust
import uvloop
from aiokafka import AIOKafkaConsumer

from deploy.bench.stopwatch import Stopwatch
from models.topics import BankTopics
from stream.agents import build_faust
from stream.settings import read_settings

_POLL_S = 0.02
_MAX_RECORDS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is read, and as whom.

    Parameters
    ----------
    bootstrap
        Of the broker.
    bank
        Whose transactions.
    group
        Consumer group, new.
    settings
        A worker's settings file.
    directory
        For what the contestant keeps on disk.
    """

    bootstrap: str
    bank: str
    group: str
    settings: Path
    directory: Path


async def run_floor(options: Options, watch: Stopwatch) -> None:
    """Read with aiokafka alone."""
    consumer = AIOKafkaConsumer(
        BankTopics(options.bank).transactions,
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        while not watch.is_done:
            found = await consumer.getmany(max_records=_MAX_RECORDS, timeout_ms=500)
            watch.count(sum(len(records) for records in found.values()))
    finally:
        await consumer.stop()


async def run_transport(options: Options, watch: Stopwatch) -> None:
    """Read through the worker's transport and acknowledge each chunk."""
    topics = BankTopics(options.bank)

    async def on_chunk(event: Any) -> None:
        if event.value[0].topic == topics.transactions:
            watch.count(len(event.value))
        event.ack()

    async def positions() -> dict[tuple[str, int], int]:
        return {}

    settings = replace(
        read_settings(options.settings, {}), member=options.group, state_dir=options.directory
    )
    await _run_faust(build_faust(settings, topics, on_chunk, positions), watch)


async def run_stock(options: Options, watch: Stopwatch) -> None:
    """Read through stock Faust, an event at a time, undecoded."""
    app = faust.App(
        options.group,
        broker=f"kafka://{options.bootstrap}",
        datadir=str(options.directory),
        consumer_auto_offset_reset="earliest",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    topic = app.topic(
        BankTopics(options.bank).transactions,
        key_serializer="raw",
        value_serializer="raw",
        internal=False,
    )

    async def run(stream: Any) -> None:
        async for _ in stream:
            watch.count()

    app.agent(topic, name="noop")(run)
    await _run_faust(app, watch)


async def _run_faust(app: faust.App, watch: Stopwatch) -> None:
    app.finalize()
    await app.start()
    try:
        while not watch.is_done:  # noqa: ASYNC110  # an event per record would be measured too
            await asyncio.sleep(_POLL_S)
    finally:
        await app.stop()


CONTESTANTS: Mapping[str, Callable[[Options, Stopwatch], Awaitable[None]]] = {
    "floor": run_floor,
    "transport": run_transport,
    "faust": run_stock,
}


def main() -> int:
    """Run one contestant over its records and print its times."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.contestants")
    parser.add_argument("name", choices=CONTESTANTS)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--bank", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--records", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    warnings.filterwarnings("ignore")
    watch = Stopwatch(given.records)
    with tempfile.TemporaryDirectory() as directory:
        options = Options(
            bootstrap=given.bootstrap,
            bank=given.bank,
            group=given.group,
            settings=given.settings,
            directory=Path(directory),
        )

        async def run() -> None:
            await CONTESTANTS[given.name](options, watch)

        uvloop.run(run())
    watch.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
