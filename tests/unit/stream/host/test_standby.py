"""A copy of another host's worker: handed over it is its state, cut short it is none."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.changelog import Pair
from stream.followed import read_followed
from stream.host import standby as module
from stream.host.standby import Standby
from stream.store import STORE, StateStore
from tests.unit.stream.host.test_children import settings_of
from tests.unit.stream.test_followed import Writer


@dataclass
class Record:
    key: bytes
    value: bytes | None


class Topic:
    """A changelog as its readers see it; each read gives one record."""

    def __init__(self) -> None:
        self.log: list[Pair] = []
        self.n_read = 0
        self.is_stuck = False

    def consumer(self, **_: Any) -> "Consumer":
        return Consumer(self)


class Consumer:
    def __init__(self, topic: Topic) -> None:
        self._topic, self._next = topic, 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, places: list[Any]) -> None: ...

    async def seek_to_beginning(self, place: Any) -> None:
        self._next = 0

    def seek(self, place: Any, offset: int) -> None:
        self._next = offset

    async def end_offsets(self, places: list[Any]) -> dict[Any, int]:
        return dict.fromkeys(places, len(self._topic.log))

    async def position(self, place: Any) -> int:
        return self._next

    def highwater(self, place: Any) -> int:
        return len(self._topic.log)

    async def getmany(self, place: Any, timeout_ms: int) -> dict[Any, list[Record]]:
        await asyncio.sleep(0.001)
        if self._topic.is_stuck:
            return {}
        found = self._topic.log[self._next : self._next + 1]
        self._next += len(found)
        self._topic.n_read += len(found)
        return {place: [Record(*pair) for pair in found]}


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    """Return a changelog that every new reader gets."""
    one = Topic()
    monkeypatch.setattr(module, "AIOKafkaConsumer", one.consumer)
    monkeypatch.setattr(module, "_HAND_OVER_S", 0.3)
    return one


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():  # noqa: ASYNC110  # no event for it
            await asyncio.sleep(0.005)


def held(folder: Path) -> dict[str, int] | None:
    """Return the first values of what a worker would start with."""
    store = StateStore(folder / "1" / STORE)
    found = store.load()
    store.close()
    return found and {name: int(np.asarray(array)[0]) for name, array in found.arrays.items()}


async def test_a_copy_is_handed_over_with_the_newest_state(topic: Topic, tmp_path: Path) -> None:
    """Also with what was written while it was followed; a note says how far it has read."""
    writer = Writer(tmp_path / "writer", 1)
    topic.log += writer.checkpoint(1, 2)
    one = Standby(settings_of(state_dir=tmp_path))
    one.follow("1")
    one.follow("1")
    await until(lambda: topic.n_read == len(topic.log))
    topic.log += writer.checkpoint(1, 3)
    await one.hand_over("1")
    await one.hand_over("1")
    assert held(tmp_path) == {"a": 1, "b": 3}
    followed = read_followed(tmp_path / "1")
    assert followed is not None
    assert followed.offset == len(topic.log)
    assert one.lag("1") == 0


async def test_a_copy_that_was_handed_over_goes_on_from_there(topic: Topic, tmp_path: Path) -> None:
    """Where its worker has not run here in between."""
    writer = Writer(tmp_path / "writer", 1)
    topic.log += writer.checkpoint(1, 2)
    one = Standby(settings_of(state_dir=tmp_path))
    one.follow("1")
    await until(lambda: topic.n_read == len(topic.log))
    await one.close()
    topic.n_read = 0
    later = writer.checkpoint(7, 2)
    topic.log += later
    one.follow("1")
    await until(lambda: topic.n_read == len(later))
    await one.close()
    assert topic.n_read == len(later)
    assert held(tmp_path) == {"a": 7, "b": 2}


async def test_a_copy_that_does_not_reach_the_end_is_no_state(topic: Topic, tmp_path: Path) -> None:
    """Nor is one that ends with its host; the worker then reads the changelog itself."""
    topic.log += Writer(tmp_path / "writer", 1).checkpoint(1, 2)
    one = Standby(settings_of(state_dir=tmp_path))
    for is_stuck in (False, True):
        topic.is_stuck = False
        topic.log += [(b"page/z/0/4", b"w")]
        one.follow("1")
        await until(lambda: topic.n_read == len(topic.log))
        topic.is_stuck = is_stuck
        topic.log += [(b"page/z/0/4", b"x")]
        await one.hand_over("1")
        assert (held(tmp_path) is None) is is_stuck


async def test_a_store_that_is_held_is_waited_for(
    topic: Topic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker may just be ending."""
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    topic.log += Writer(tmp_path / "writer", 1).checkpoint(1, 2)
    holder = StateStore(tmp_path / "1" / STORE)
    one = Standby(settings_of(state_dir=tmp_path))
    one.follow("1")
    await asyncio.sleep(0.05)
    assert topic.n_read == 0
    holder.close()
    await until(lambda: topic.n_read == len(topic.log))
    await one.hand_over("1")
    assert held(tmp_path) == {"a": 1, "b": 2}
