"""Who may write a changelog: the epoch decides, however late anybody's records arrive."""

from collections.abc import AsyncIterator, Iterable
from itertools import islice

import numpy as np
import pytest

from models.errors import StateError, SupersededError
from stream.changelog import Head, Owner, Pair, head_pair, heads, page_pairs
from stream.changelog_topic import ChangelogTopic
from stream.manifest import Manifest as Stored
from stream.manifest import Pages, Snapshot, Stamp, layout_of, seal

OWNER = Owner("bank", "0", "abc")


class Shared(ChangelogTopic):
    """A process whose topic is a list; ``before`` is called before each of its writes."""

    def __init__(self, log: list[Pair], process: str = "me", owner: Owner = OWNER) -> None:
        super().__init__("127.0.0.1:1", "bank.changelog.0", owner, process)
        self.log, self.before, self.n_read = log, lambda: None, 0

    async def end(self) -> int:
        return len(self.log)

    async def beginning(self) -> int:
        return 0

    async def records(self, start: int, end: int) -> AsyncIterator[list[Pair]]:
        while found := list(islice(self.log, start, min(start + 3, end))):
            self.n_read += len(found)
            yield found
            start += len(found)

    async def _put(self, pairs: Iterable[Pair]) -> int:
        self.before()
        written = [(key, None if value is None else bytes(value)) for key, value in pairs]
        self.log += written
        return len(self.log) - 1 if written else -1


def manifest(number: int, epoch: int = 1, slots: bytes = b"\x02") -> bytes:
    layout = layout_of(("|u1", (1,)), 4096, np.frombuffer(slots, np.uint8), np.ones(1, np.uint64))
    return seal(Stored({"a": layout}, b"", [], epoch, number))


def snapshot(number: int, epoch: int = 1, n_pages: int = 2) -> Snapshot:
    pages = [(b"page/a/%d/2" % i, b"x") for i in range(n_pages)]
    return Snapshot(Pages.grouped(pages), [], manifest(number, epoch), Stamp(epoch, number))


def number_of(found: Head | None) -> int:
    state = None if found is None else found.state()
    assert state is not None
    return state.number


async def test_a_first_process_claims_epoch_one_and_the_next_one_two() -> None:
    """Or one above that of the state at hand; a claim holds what was found."""
    log: list[Pair] = []
    first = Shared(log)
    assert await first.claim(0, is_anew=False) is None
    assert first.epoch == 1
    await first.send(snapshot(7))
    second = Shared(log, "other")
    assert number_of(await second.claim(0, is_anew=False)) == 7
    assert second.epoch == 2
    assert number_of(list(heads(log))[-1]) == 7
    third = Shared(log, "third")
    await third.claim(9, is_anew=False)
    assert third.epoch == 10


async def test_a_process_that_is_superseded_learns_it_with_its_next_checkpoint() -> None:
    """Or when it asks; its checkpoint does not count, whatever came between its records."""
    log: list[Pair] = []
    first, second = Shared(log), Shared(log, "other")
    await first.claim(0, is_anew=False)
    await first.send(snapshot(1))
    await first.check()
    await second.claim(0, is_anew=False)
    with pytest.raises(SupersededError, match="epoch 2, this one was in 1"):
        await first.check()
    with pytest.raises(SupersededError):
        await first.send(snapshot(2))
    assert number_of(await Shared(log, "third").newest(len(log))) == 1
    await second.send(snapshot(2, epoch=2))
    await second.send(snapshot(3, epoch=2))
    assert number_of(await Shared(log, "third").newest(len(log))) == 3


async def test_a_checkpoint_that_comes_between_look_and_claim_is_gone_on_from() -> None:
    """It counted for the one that sent it, so it must not be lost."""
    log: list[Pair] = []
    first, second = Shared(log), Shared(log, "other")
    await first.claim(0, is_anew=False)
    await first.send(snapshot(1))
    late = snapshot(2)
    second.before = lambda: log.extend(
        [*page_pairs(late), head_pair(Head(*OWNER, 1, "me", 0, late.manifest))]
        if second.n_read == 4 else []
    )  # fmt: skip
    assert number_of(await second.claim(0, is_anew=False)) == 2
    assert number_of(await Shared(log, "third").newest(len(log))) == 2
    await second.send(snapshot(3, epoch=2))


async def test_of_two_that_claim_the_same_epoch_the_earlier_has_it() -> None:
    """The later one ends; the earlier one goes on."""
    log: list[Pair] = []
    first, second = Shared(log), Shared(log, "other")
    second.before = lambda: log.extend([head_pair(Head(*OWNER, 1, "me", 0, b""))])
    with pytest.raises(SupersededError):
        await second.claim(0, is_anew=False)
    log.clear()
    await first.claim(0, is_anew=False)
    log.append(head_pair(Head(*OWNER, 1, "other", 0, b"")))
    await first.send(snapshot(1))


async def test_the_newest_head_is_found_without_reading_all() -> None:
    """The last head says how far back another may be: a late one of an older epoch hides none."""
    log: list[Pair] = [(b"page/b/%d/2" % i, b"x") for i in range(5_000)]
    first, second = Shared(log), Shared(log, "other")
    await first.claim(0, is_anew=False)
    await first.send(snapshot(1))
    await second.claim(0, is_anew=False)
    with pytest.raises(SupersededError):
        await first.send(snapshot(2, n_pages=1_000))
    third = Shared(log, "third")
    found = await third.newest(len(log))
    assert found is not None
    assert found.epoch == 2
    assert third.n_read < 1_200


async def test_what_the_state_does_not_name_is_deleted_after_its_first_checkpoint() -> None:
    """Pages of the state that it replaces, and what a restore found; what it names is not."""
    log: list[Pair] = []
    first = Shared(log)
    await first.claim(0, is_anew=False)
    await first.send(snapshot(1))
    second = Shared(log, "other")
    await second.claim(0, is_anew=False)
    second.leftover.add(b"page/z/0/2")
    pages = Pages.grouped([(b"page/a/0/4", b"x")])
    await second.send(Snapshot(pages, [b"page/c/0/2"], manifest(2, 2, b"\x04"), Stamp(2, 2)))
    assert log[-3:] == [(key, None) for key in (b"page/a/0/2", b"page/c/0/2", b"page/z/0/2")]


async def test_another_workers_changelog_is_not_claimed() -> None:
    """Nothing is written; a state that begins anew may replace one of another schema."""
    log: list[Pair] = [head_pair(Head("bank", "0", "older", 4, "x", 0, manifest(1)))]
    one = Shared(log)
    with pytest.raises(StateError, match=r"expected .*'abc'.*, got .*'older'"):
        await one.claim(0, is_anew=False)
    assert len(log) == 1
    await one.claim(0, is_anew=True)
    assert one.epoch == 5
