"""The process around a worker: it can be stopped, and ends itself, during a start that hangs."""

import asyncio
import gc
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.consortium_files import ConsortiumPlan, write_consortium
from models.errors import SettingsError, UnavailableError
from models.topics import BankTopics
from stream import __main__ as process
from stream.share import Share

ROOT = Path(__file__).parents[3]


class App:
    """A worker whose start, or whose first loop, does what a test says."""

    def __init__(self, start, loop=None, workers=1):
        self.said: str | None = None
        self.closed: list[str] = []
        self.settings = SimpleNamespace(
            mode="replay", drift_watch=False, workers=workers, share=Share(0, workers)
        )
        self.worker = SimpleNamespace(topics=BankTopics("bank"))
        self.outputs = SimpleNamespace(
            start=_nothing, stop=self._closes("outputs"), n_partitions=_n_partitions
        )
        self.faust = SimpleNamespace(finalize=lambda: None, start=start, stop=self._closes("faust"))
        self.fill_changelog = _nothing
        self.exchange = SimpleNamespace(run=_for_ever)
        self.watch_topics = _for_ever
        self.checkpoint_regularly = loop or _for_ever
        self.close = self._closes("state")

    def failure(self) -> str | None:
        return self.said

    def _closes(self, name):
        async def close() -> None:
            self.closed.append(name)

        return close


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _nothing() -> None:
    """Come back at once."""


async def _n_partitions(topic: str) -> int:
    return {"bank.transactions": 4, "bank.labels": 2}[topic]


async def _fail() -> None:
    raise UnavailableError("away")


async def served(app, stopped=None):
    return await asyncio.wait_for(process._serve(app, stopped or asyncio.Event()), 5.0)


async def test_a_client_that_is_lost_during_the_start_ends_the_process(caplog) -> None:
    """Faust's start waits for a first assignment, which then never comes."""
    app = App(_for_ever)
    app.said = "the client's coordination has ended"
    assert await served(app) == 1
    assert "cannot go on: the client's coordination has ended" in caplog.messages
    assert app.closed == ["state", "faust", "outputs"]


@pytest.mark.parametrize("start", [_for_ever, _nothing])
async def test_a_stop_is_heard_during_the_start_and_after_it(start) -> None:
    """With code 0."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stopped.set)
    app = App(start)
    gc.unfreeze()
    try:
        assert await served(app, stopped) == 0
        assert gc.get_freeze_count() > 0  # what was there before the first payment
    finally:
        gc.unfreeze()
    assert app.closed == ["state", "faust", "outputs"]


@pytest.mark.parametrize("app", [App(_fail), App(_nothing, loop=_fail)])
async def test_what_fails_ends_the_process_with_one(app, caplog) -> None:
    """At the start or in a loop; the log says what."""
    assert await served(app) == 1
    assert "a background task failed" in caplog.messages


async def test_more_workers_than_partitions_are_told_as_settings() -> None:
    """Asked of both topics before anything is read; everything is closed before it is told."""
    app = App(_nothing, workers=3)
    with pytest.raises(SettingsError, match=r"at most 2, the partitions of bank\.labels, got 3"):
        await served(app)
    assert app.closed == ["state", "faust", "outputs"]
    stopped = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stopped.set)
    assert await served(App(_nothing, workers=2), stopped) == 0


@pytest.mark.slow
def test_a_worker_whose_cluster_accepts_but_never_answers_can_be_stopped(tmp_path: Path) -> None:
    """As in front of a broker that is stopped: the client waits for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        plan = ConsortiumPlan(
            name="silent",
            entity_kinds=("terminal",),
            mappings={"a": ROOT / "deploy" / "demo_banks" / "costabanco.toml"},
            bank_bootstrap=address,
            consortium_bootstrap=address,
            is_replay=False,
            bank_settings={},
        )
        settings = write_consortium(tmp_path, plan).settings["a"]
        command = [sys.executable, "-m", "stream", "--settings", str(settings)]
        worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            silent.settimeout(60.0)
            link, _ = silent.accept()
            link.recv(1)  # it asks, and waits
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(20.0) == 0
            link.close()
        finally:
            worker.kill()
            worker.communicate()
