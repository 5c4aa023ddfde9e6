"""What a worker says of itself: whether it is ready, why it ends, how far it lags."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from models.errors import SupersededError, UnavailableError
from models.topics import BankTopics
from stream.app import BankApp
from stream.aside import Aside
from stream.catch_up import CatchUp
from stream.checkpointing import Checkpoints
from stream.share import Share
from stream.sources import Source, Sources
from stream.store import STORE, StateStore
from stream.take_over import Places
from stream.telemetry import Telemetry

FOUND = {"bank.transactions": Source("a", 1), "bank.labels": Source("b", 1)}
PLACES = frozenset({("bank.transactions", 0), ("bank.labels", 0)})


class Consumer:
    """Faust's consumer as far as the app asks it; it too refuses what is not its own."""

    def __init__(self) -> None:
        self.assigned = {TP(*place) for place in PLACES}
        self.is_there = True
        self.ended: str | None = None
        self.end = 10

    def assignment(self) -> set[TP]:
        return self.assigned

    def highwater(self, tp: TP) -> int:
        assert tp in self.assigned, "Partition is not assigned"
        return self.end

    def is_in_touch(self) -> bool:
        return self.is_there

    async def ends(self, places: frozenset[tuple[str, int]]) -> dict[tuple[str, int], int]:
        return dict.fromkeys(places, self.end)

    def ended_task(self) -> str | None:
        return self.ended


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[BankApp]:
    """Return the shell without its connections."""
    one = object.__new__(BankApp)
    one.settings = SimpleNamespace(checkpoint_s=0.001, mode="live")
    one.faust = SimpleNamespace(consumer=Consumer(), crashed=False, consumer_generation_id=2)
    one.telemetry = Telemetry(CollectorRegistry())
    one.partitions = PLACES
    one._offsets = {("bank.transactions", 0): 4, ("bank.labels", 0): 10}
    one._lock = asyncio.Lock()
    one._unacked = []
    one._catch_up = CatchUp(lambda: (one.partitions, one._offsets))
    one._over = one._anew = None
    one._is_publishing, one._publishing = False, None
    one.outputs = SimpleNamespace(failure=lambda: None)
    one.sources = Sources(BankTopics("bank"), {}, lambda topics: FOUND, one.telemetry)
    store = StateStore(tmp_path / STORE)
    with contextlib.closing(store), Aside("state") as aside:
        places = Places(store, None, aside)
        one._checkpoints = Checkpoints(places, one.telemetry, every_s=0.001, share=0.02)
        await one._checkpoints.written()
        yield one


def event(generation: int) -> SimpleNamespace:
    """Return a chunk of one record, far ahead, of an assignment; the second is the newest."""
    record = SimpleNamespace(topic="bank.transactions", partition=0, offset=9)
    return SimpleNamespace(value=[record], message=SimpleNamespace(generation_id=generation))


def shown_lag(app: BankApp) -> float:
    return next(
        float(line.split()[1])
        for line in app.telemetry.render().decode().splitlines()
        if line.startswith("amalgam_stream_lag_records ")
    )


async def test_a_worker_is_ready_with_partitions_and_in_touch(app: BankApp) -> None:
    """And no longer when the bank's cluster goes away, though it keeps its partitions."""
    assert app.unready() is None
    app.faust.consumer.is_there = False
    assert app.unready() == "the bank's cluster is not reached"
    app.partitions = frozenset()
    assert app.unready() == "no partitions assigned yet"


async def test_a_worker_is_ready_once_it_has_caught_up(app: BankApp) -> None:
    """With what was there when its partitions were assigned, and not with what comes since."""
    app._checkpoints.changelog = None
    await app.positions()
    assert app.unready() == "6 records of before are still to be read"
    app.faust.consumer.end = 50
    app._offsets["bank.transactions", 0] = 10
    assert app.unready() is None


async def test_a_worker_is_not_ready_before_it_knows_what_is_there(app: BankApp) -> None:
    """It has its partitions by then, at its start as after another assignment."""
    app._checkpoints.changelog = None
    ends, asked, answered = app.faust.consumer.ends, asyncio.Event(), asyncio.Event()

    async def slow_ends(places: frozenset[tuple[str, int]]) -> dict[tuple[str, int], int]:
        asked.set()
        await answered.wait()
        return await ends(places)

    app.faust.consumer.ends = slow_ends
    assigning = asyncio.create_task(app.positions())
    await asyncio.wait_for(asked.wait(), 10.0)
    assert app.unready() == "no partitions assigned yet"
    answered.set()
    await assigning
    assert app.unready() == "6 records of before are still to be read"


async def test_marks_that_never_come_are_not_waited_for(app: BankApp) -> None:
    """Half a minute without a record."""
    app._checkpoints.changelog = None
    await app.positions()
    app._catch_up._seen_s -= 31.0
    assert app.unready() is None


async def test_a_worker_cannot_go_on_after_a_crash_or_without_its_clients_tasks(
    app: BankApp,
) -> None:
    """The reason goes to the log, and the process ends."""
    assert app.failure() is None
    app.faust.consumer.ended = "coordination"
    assert app.failure() == "the client's coordination has ended"
    app.faust.crashed = True
    assert app.failure() == "an agent crashed"


async def test_a_worker_whose_state_is_not_stored_cannot_go_on(app: BankApp) -> None:
    """Also while no chunk comes, as where another process has taken over."""
    app._checkpoints._writing = asyncio.get_running_loop().create_future()
    app._checkpoints._writing.set_exception(SupersededError("another process"))
    assert app.failure() == "the state is not stored: another process"


async def test_a_worker_whose_answers_are_not_taken_cannot_go_on(app: BankApp) -> None:
    """Also while no chunk comes that would find it out."""
    app.outputs.failure = lambda: "not taken"
    assert app.failure() == "not taken"


async def test_nothing_is_stored_before_what_came_of_it_is_published(
    app: BankApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in between would else lose an answer for ever."""
    published, begun = asyncio.Event(), []
    app.outputs.confirmed = published.wait
    app.worker, app.outbox = SimpleNamespace(pipeline=None), None
    app._awaited, app._unacked = None, ["event"]
    for name in ("shell_arrays", "shell_versions", "show"):
        monkeypatch.setattr(f"stream.app.{name}", lambda *_: {})
    monkeypatch.setattr(app._checkpoints, "begin", lambda *given: begun.append(given))
    storing = asyncio.create_task(app._checkpoint())
    await asyncio.sleep(0.01)
    assert begun == []
    published.set()
    await storing
    assert len(begun) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [(SupersededError("epoch 2"), "epoch 2"), (UnavailableError("away"), None), (None, None)],
)
async def test_a_new_assignment_shows_whether_the_place_was_taken(
    app: BankApp, error: Exception | None, expected: str | None
) -> None:
    """A process whose place was taken is assigned again as soon as it asks; then it ends."""

    class Changelog:
        async def check(self) -> None:
            if error is not None:
                raise error

    app._checkpoints.changelog = Changelog()
    app._offsets = {}
    await app.positions()
    assert app.failure() == expected


async def test_nothing_is_answered_once_the_place_is_taken(app: BankApp) -> None:
    """Whoever has it answers."""
    app._over = SupersededError("epoch 2")
    await app.on_chunk(event(2))
    assert app._unacked == []


async def test_what_was_delivered_before_an_assignment_is_left_to_come_again(app: BankApp) -> None:
    """Reading goes on from the state's offsets: a later chunk would hide what lies between."""
    await app.on_chunk(event(1))
    assert app._unacked == []
    assert app._offsets["bank.transactions", 0] == 4


async def test_in_a_replay_all_partitions_of_the_share_must_speak(app: BankApp) -> None:
    """Also those that a stranger in the group has got for a while."""
    app.settings.share = Share(0, 1)
    app.partitions = frozenset({("bank.labels", 0)})
    await app.sources.look()
    assert app._share() == PLACES


async def test_the_lag_is_followed_while_a_chunk_is_stuck(app: BankApp) -> None:
    """Four and ten records are in the state; who is stuck holds the lock, and much is unstored."""
    app._unacked = ["event"]
    async with app._lock:
        showing = asyncio.create_task(app.checkpoint_regularly())
        for end, lag in ((10, 6.0), (25, 36.0)):
            app.faust.consumer.end = end
            await asyncio.sleep(0.05)
            assert shown_lag(app) == lag
        showing.cancel()


async def test_a_partition_that_is_gone_does_not_lag(app: BankApp) -> None:
    """Between its revocation and the next assignment the client refuses to speak of it."""
    app.faust.consumer.assigned = {TP("bank.labels", 0)}
    assert app._lag() == 0


async def test_what_is_unstored_is_stored_while_no_chunk_comes(app: BankApp) -> None:
    """Once: then there is nothing more to acknowledge."""
    stored = []

    async def checkpoint() -> None:
        stored.append(app._unacked)
        app._unacked = []

    app._checkpoint = checkpoint
    app._unacked = ["event"]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.checkpoint_regularly(), 0.05)
    assert stored == [["event"]]


async def test_the_next_checkpoint_is_left_to_a_publication_that_waits(app: BankApp) -> None:
    """It is to have what is published in it, and two in a row would cost their share twice."""
    app._is_publishing = True
    app._unacked = ["event"]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(app.checkpoint_regularly(), 0.05)
    assert app._unacked == ["event"]


async def test_decisions_are_made_while_a_summary_is_written_and_a_stop_waits_for_it(
    app: BankApp,
) -> None:
    """The lock is free and no checkpoint is due; what was begun is ended before the last one."""
    told: list[str] = []
    is_written = threading.Event()

    async def checkpoint() -> None:
        told.append("stored")

    app.settings.cadence_s = app.settings.tick_s = 0.01
    app.outbox = SimpleNamespace(is_anew=False)
    app.exchange = SimpleNamespace(deliver=lambda: asyncio.sleep(0))
    app._now_s = asyncio.get_running_loop().time
    app._publisher = SimpleNamespace(
        draft=lambda epoch: told.append("draft"),
        seal=lambda draft: is_written.wait(5.0),
        settle=lambda sealed: told.append("settled"),
    )
    app._checkpoint = checkpoint
    app._checkpoints.store = SimpleNamespace(close=lambda: told.append("closed"))
    task = asyncio.create_task(app.publish_live())
    await asyncio.sleep(0.1)
    assert (told, app._lock.locked(), app._is_due()) == (["draft"], False, False)
    task.cancel()
    closing = asyncio.create_task(app.close())
    await asyncio.sleep(0.05)
    assert told == ["draft"]
    is_written.set()
    await closing
    assert told == ["draft", "settled", "stored", "closed"]


async def test_a_publication_waits_until_a_checkpoint_may_be_made_again(app: BankApp) -> None:
    """Cadence after cadence, at the pace of the checkpoints and not its own."""
    published: list[int] = []
    app.settings.cadence_s, app.settings.tick_s = 0.01, 0.01
    app.outbox = SimpleNamespace(is_anew=False)
    app.exchange = SimpleNamespace(deliver=lambda: asyncio.sleep(0))
    app._now_s = asyncio.get_running_loop().time
    app._publisher = SimpleNamespace(draft=lambda epoch: epoch)
    app._publish_beside = lambda epoch, _: asyncio.sleep(0, published.append(epoch))
    app._checkpoints._cost_s, app._checkpoints._began_s = 0.004, app._now_s()
    task = asyncio.create_task(app.publish_live())
    await asyncio.sleep(0.05)
    assert (published, app._is_publishing) == ([], True)
    async with asyncio.timeout(10.0):
        while len(published) <= 3:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    task.cancel()
