"""A start with a changelog: what is read of it, from nothing, from a copy, from an older state."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import StateError
from stream.changelog import Pair
from stream.followed import Copy, Followed, note_of
from stream.store import StateStore
from stream.take_over import Found, take_over
from tests.unit.stream.test_changelog_topic import Shared
from tests.unit.stream.test_followed import PLACES

N_PAGES = 40


class Side:
    """A changelog to which one process wrote, and a copy of what it held at some time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[Pair] = []
        self.table = np.zeros(N_PAGES * 32_768)  # pages of 256 KB
        self.writer = Shared(self.log, "writer")
        self.store = StateStore(folder / "writer")
        self.followed: Followed | None = None

    async def begin(self) -> None:
        await self.writer.claim(0, is_anew=False)
        self.store.begin(self.writer.epoch, None)

    async def checkpoint(self, page: int, value: float) -> None:
        self.table[page * 32_768] = value
        snapshot = self.store.snapshot({"table": self.table}, b"", PLACES)
        self.store.write(snapshot)
        await self.writer.send(snapshot)

    def copy(self) -> StateStore:
        """Return a store with what the changelog holds now, as a standby leaves it."""
        copy, store = Copy(), StateStore(self.folder / "copy")
        store.put(copy.take(self.log))
        manifest = copy.whole()
        assert manifest is not None
        store.take(manifest)
        self.followed = note_of(manifest, len(self.log))
        return store

    async def taken(self, store: StateStore) -> tuple[Found, int, np.ndarray]:
        """Return what a take-over finds, how many records it reads, and the state after it."""
        one = Shared(self.log, "next")
        found = await take_over(one, store, is_anew=False, followed=self.followed)
        held = store.load()
        assert held is not None
        return found, one.n_read, np.asarray(held.arrays["table"])


@pytest.fixture
async def side(tmp_path: Path) -> Side:
    """Return a changelog with a first checkpoint of all pages and one of two."""
    one = Side(tmp_path)
    await one.begin()
    await one.checkpoint(0, 1.0)
    await one.checkpoint(1, 2.0)
    return one


async def test_a_copy_that_is_up_to_date_is_taken_as_it_is(side: Side) -> None:
    """Only the head is looked for."""
    found, n_read, table = await side.taken(side.copy())
    assert not found.is_restored
    assert n_read < len(side.log)
    assert table.tobytes() == side.table.tobytes()


async def test_of_a_copy_that_is_behind_only_what_is_newer_is_read(side: Side) -> None:
    """Pages that it has are not read again; the state is the newest."""
    store = side.copy()
    end = len(side.log)
    await side.checkpoint(2, 3.0)
    await side.checkpoint(1, 4.0)
    newer = len(side.log) - end
    alone, n_alone, expected = await side.taken(StateStore(side.folder / "new"))
    found, n_read, table = await side.taken(store)
    assert alone.is_restored
    assert found.is_restored
    assert n_alone - n_read >= N_PAGES - newer
    assert table.tobytes() == expected.tobytes() == side.table.tobytes()


async def test_a_note_of_another_state_is_not_believed(side: Side) -> None:
    """The whole changelog is read, as without a note."""
    store = side.copy()
    await side.checkpoint(2, 3.0)
    side.followed = Followed(1, 3, len(side.log))
    await side.checkpoint(3, 4.0)
    found, n_read, table = await side.taken(store)
    assert found.is_restored
    assert n_read > N_PAGES
    assert table.tobytes() == side.table.tobytes()


async def test_a_copy_that_lacks_a_page_does_not_become_a_state(side: Side) -> None:
    """A note that has gone too far leaves pages out; the start says which and holds nothing."""
    store = side.copy()
    await side.checkpoint(2, 3.0)
    assert side.followed is not None
    side.followed = Followed(*side.followed.stamp, len(side.log))
    with pytest.raises(StateError, match=r"'table', page 2: "):
        await side.taken(store)
    assert store.load() is None
