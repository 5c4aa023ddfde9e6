"""``python -m stream --settings bank.toml``: one bank's worker, set up by file and environment."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Coroutine
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from prometheus_client import CollectorRegistry

from models.errors import (
    AmalgamError,
    NoRoomError,
    SettingsError,
    StateError,
    StateHeldError,
    SupersededError,
    UnavailableError,
)
from models.features.attributes import check_attribute_types
from models.health_server import HealthServer
from models.json_log import log_as_json
from models.mapping import Mapping, load_mapping
from models.topics import BankTopics
from stream.anew import read_marker
from stream.app import BankApp, Clients
from stream.aside import Aside
from stream.changelog_topic import ChangelogTopic
from stream.checkpointing import Checkpoints
from stream.drift import DETECTORS_HOME
from stream.ending import end, end_within, leave, run_all
from stream.exchange import Exchange
from stream.followed import Followed, read_followed
from stream.outbox import Outbox
from stream.outputs import OutputProducer
from stream.pipeline_config import PipelineConfig
from stream.settings import Membership, Settings, pipeline_config, read_membership, read_settings
from stream.share import check_partitions
from stream.sources import Sources, described_by
from stream.store import STORE, StateStore
from stream.take_over import Found, Places, changelog_of, take_over
from stream.take_up import Taken, take_up
from stream.telemetry import Telemetry
from stream.worker import BankWorker

log = logging.getLogger("stream")
STATE_EXIT = 3
SUPERSEDED_EXIT = 4
ResultT = TypeVar("ResultT")
_STOP_TIMEOUT_S = 7.0
_END_S = 20.0  # after a stop, whatever hangs; what is not stored is read again
_SWITCH_S = 0.0005  # decisions wait no longer for Python's lock while a checkpoint is written
_STDIN = 0
_COLLECT = (100_000, 10, 50)  # objects more than before, and passes over the younger for each
_TALKATIVE = ("faust", "mode", "aiokafka", "kafka")


def main() -> int:
    """Run until SIGTERM or SIGINT.

    Exit codes: 0 after a stop, 1 after a failure, 2 for wrong settings, 3 for a state that cannot
    be gone on with, 4 where another process has taken this worker over.
    """
    parser = argparse.ArgumentParser(prog="python -m stream", description=__doc__)
    parser.add_argument("--settings", type=Path, help="TOML file; AMALGAM_STREAM_* wins over it")
    parser.add_argument(
        "--until-eof", action="store_true", help="stop where standard input ends, as a host's"
    )
    given = parser.parse_args()
    file = given.settings
    if given.until_eof:
        threading.Thread(target=_stop_at_eof, name="until-eof", daemon=True).start()
    try:
        settings = read_settings(file, os.environ)
        membership = read_membership(settings)
        mapping = load_mapping(settings.mapping_file)
        check_attribute_types(membership.schema, mapping.attributes)
        config = pipeline_config(settings, membership, mapping)
        BankTopics(settings.member).changelog(settings.worker if settings.changelog else "0")
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"stream: {error}\n")
        return 2
    quieter = dict.fromkeys(_TALKATIVE, logging.WARNING)
    sys.setswitchinterval(_SWITCH_S)
    log_as_json(settings.log_level, quieter, {"worker": settings.worker})
    warnings.filterwarnings("ignore")
    place = str(file or "BANK.toml")
    if given.until_eof:
        place += f" --worker {settings.worker}"
    return _ended(settings, place, _run(settings, membership, mapping, config))


def _stop_at_eof() -> None:
    """Stop this process once nobody holds the other end of its input any more."""
    while os.read(_STDIN, 1):  # not `sys.stdin`, whose lock would be held at the exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    end_within(_END_S)  # also where the loop does not hear the signal


def _ended(settings: Settings, place: str, run: Coroutine[Any, Any, int]) -> int:
    """Run to the end and return the exit code."""
    try:
        return uvloop.run(run)
    except (StateHeldError, NoRoomError) as error:
        log.error("%s", error)  # noqa: TRY400  # one line says it all
        return 1
    except SettingsError as error:
        log.error("%s", error)  # noqa: TRY400  # one line says it all
        return 2
    except StateError as error:
        log.error("%s; %s", error, _advice(settings, place))  # noqa: TRY400  # one line says it all
        return STATE_EXIT
    except SupersededError as error:
        log.error("%s", error)  # noqa: TRY400  # one line says it all
        return SUPERSEDED_EXIT
    except AmalgamError:
        log.exception("stopped by an error")
        return 1


def _advice(settings: Settings, place: str) -> str:
    other = ", with --from-changelog restored from the changelog" if settings.changelog else ""
    return (
        f"`amalgam state verify {place}` tells more, `amalgam state rebuild {place}` puts it aside "
        f"so that the topics are read anew{other}"
    )


def _outbox(membership: Membership) -> Outbox:
    return Outbox(
        membership.consortium,
        membership.schema,
        membership.signer,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )


async def _run(
    settings: Settings, membership: Membership, mapping: Mapping, config: PipelineConfig
) -> int:
    """Take up the state, from the changelog where that holds a newer one, and serve.

    What is on disk is read first, so that damage is told whether or not the cluster is there.
    """
    stopped = asyncio.Event()

    def stop() -> None:
        if not stopped.is_set():
            end_within(_END_S)
            stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    anew = read_marker(settings.state_dir)
    store = StateStore(settings.state_dir / STORE)
    async with contextlib.AsyncExitStack() as stack:
        aside = stack.enter_context(Aside("state"))
        changelog = None
        taken = take_up(store.load(), config, _outbox(membership), anew=anew)
        if settings.changelog:
            changelog = changelog_of(settings, membership)
            followed = read_followed(settings.state_dir)
            stack.push_async_callback(lambda: aside.run(changelog.close()))
            claim = _claimed(changelog, store, followed, is_anew=anew is not None)
            found = await _unless(stopped, aside.run(claim))
            if found is None:
                return 0
            if found.is_restored:
                taken = take_up(store.load(), config, _outbox(membership))
            store.begin(changelog.epoch, found.state)
        app = _app(settings, membership, mapping, Places(store, changelog, aside), taken)
        code = await _serve_shown(app, stopped)
        if code and changelog is not None:
            with contextlib.suppress(UnavailableError, TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await aside.run(changelog.check())
        return code


async def _claimed(
    changelog: ChangelogTopic,
    store: StateStore,
    followed: Followed | None,
    *,
    is_anew: bool,
) -> Found:
    await changelog.connect()
    return await take_over(changelog, store, is_anew=is_anew, followed=followed)


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT | None:
    """Return what some work gives, or None where a stop comes first."""
    stop, task = asyncio.create_task(stopped.wait()), asyncio.create_task(work)
    await asyncio.wait([stop, task], return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        await end([task])
        return None
    stop.cancel()
    return task.result()


def _app(
    settings: Settings, membership: Membership, mapping: Mapping, places: Places, taken: Taken
) -> BankApp:
    telemetry = Telemetry(CollectorRegistry(), taken.pipeline.panel.names)
    bootstrap, topics = settings.consortium_bootstrap, BankTopics(settings.member)
    return BankApp(
        settings,
        BankWorker(taken.pipeline, mapping, topics, telemetry),
        checkpoints=Checkpoints(
            places,
            telemetry,
            every_s=settings.checkpoint_s,
            share=settings.checkpoint_share,
        ),
        taken=taken,
        clients=Clients(
            Exchange(
                settings.member, settings.worker, bootstrap, membership, taken.outbox, telemetry
            ),
            OutputProducer(settings.bank_bootstrap),
            Sources(topics, taken.topic_ids, described_by(settings.bank_bootstrap), telemetry),
        ),
        telemetry=telemetry,
        now_s=time.time,
    )


async def _serve_shown(app: BankApp, stopped: asyncio.Event) -> int:
    settings, telemetry = app.settings, app.telemetry
    health = HealthServer(
        settings.health_port,
        render_metrics=telemetry.render,
        live=lambda: "crashed" if app.faust.crashed else None,
        ready=app.unready,
        host=settings.health_host,
    )
    health.start()
    log.info("metrics on port %d", health.port)
    try:
        return await _serve(app, stopped)
    finally:
        health.stop()


async def _serve(app: BankApp, stopped: asyncio.Event) -> int:
    """Run until told to stop, or something fails; both are heard during a start that hangs, too."""
    app.faust.finalize()
    stop = asyncio.create_task(stopped.wait())
    tasks = [asyncio.create_task(_work(app)), asyncio.create_task(_until_crashed(app)), stop]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    failed = [task for task in done if task is not stop]
    await end(tasks)
    has_closed = await _has_closed(app)
    for task in failed:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SettingsError):
            raise error
        if error is not None:
            log.error("a background task failed", exc_info=error)
    log.info("stopped")
    return 1 if failed or not has_closed else 0


async def _has_closed(app: BankApp) -> bool:
    """Close and return whether everything is stored, as far as it goes within the time."""
    closing = asyncio.create_task(_close(app))
    await asyncio.wait([closing], timeout=_STOP_TIMEOUT_S)
    if not closing.done():
        log.warning("not closed within %.0f s: it is left, and read again", _STOP_TIMEOUT_S)
        closing.cancel()
        await asyncio.wait([closing], timeout=1.0)
        return True
    error = closing.exception()
    if isinstance(error, AmalgamError):
        log.error("not stored at the stop: %s", error)
    elif error is not None:
        raise error
    return error is None


async def _work(app: BankApp) -> None:
    """Connect, then run every loop; one that fails ends the others.

    What is in memory by then, modules above all, is to stay: Python's collector passes over it,
    which would hold decisions up for a fifth of a second at a time. It looks at what is new once in
    a hundred chunks or so; by default it looks at each chunk's records, twice, and finds nothing.
    """
    await app.fill_changelog()
    gc.freeze()
    gc.set_threshold(*_COLLECT)
    await app.outputs.start()
    await _check_share(app)
    await app.faust.start()
    loops = [app.checkpoint_regularly(), app.exchange.run(), app.watch_topics()]
    if app.settings.mode == "live":
        loops += [app.publish_live(), app.renewals.releases(), app.renewals.days()]
    if app.settings.drift_watch:
        loops.append(_load_detectors(app))
    await run_all(loops)


async def _check_share(app: BankApp) -> None:
    """Refuse to start where some worker of the bank would have nothing to read."""
    if app.settings.workers > 1:
        topics = app.worker.topics
        for topic in (topics.transactions, topics.labels):
            check_partitions(app.settings.share, topic, await app.outputs.n_partitions(topic))


async def _load_detectors(app: BankApp) -> None:
    """Load what drift watch needs beside a worker that is ready, so that it is ready sooner."""
    while app.unready():  # noqa: ASYNC110  # Faust gives no event for it
        await asyncio.sleep(0.2)
    await asyncio.to_thread(import_module, DETECTORS_HOME)
    gc.freeze()


async def _until_crashed(app: BankApp) -> None:
    while (failure := app.failure()) is None:  # noqa: ASYNC110  # Faust gives no event for it
        await asyncio.sleep(0.2)
    log.error("cannot go on: %s", failure)


async def _close(app: BankApp) -> None:
    try:
        await app.close()
    finally:
        await app.faust.stop()
        await app.outputs.stop()


if __name__ == "__main__":
    leave(main())
