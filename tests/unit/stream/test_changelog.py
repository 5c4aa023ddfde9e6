"""A changelog, wherever it ends and whatever compaction took: one whole state, or a refusal."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import StateError
from stream.changelog import (
    Harvest,
    Head,
    Owner,
    Pair,
    check_owner,
    head_pair,
    heads,
    newer,
    page_pairs,
)
from stream.manifest import N_EPOCHS, Snapshot
from stream.page_table import PAGE_BYTES
from stream.store import StateStore
from stream.touched import TABLE_PAGE_BYTES, TouchedPages

OWNER = Owner("bank", "0", "abc")
PLACE = ("bank.transactions", 0)
Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Hundreds of stores are made and thrown away."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, lambda file: None)
        yield


def head(manifest: bytes, epoch: int = 1, owner: Owner = OWNER) -> Head:
    return Head(*owner, epoch, "process", 0, manifest)


def records(snapshot: Snapshot) -> list[Pair]:
    """Return what a checkpoint sends, in its order."""
    last: list[Pair] = [(key, None) for key in snapshot.gone]
    pages = [(key, bytes(page)) for key, page in page_pairs(snapshot)]
    return [*pages, head_pair(head(snapshot.manifest, snapshot.stamp.epoch)), *last]


def newest(log: Sequence[Pair]) -> Head | None:
    found = None
    for one in heads(log):
        found = newer(found, one)
    return found


def state_of(log: Sequence[Pair], path: Path) -> tuple[dict[str, list[int]], int] | None:
    """Return the arrays and the offset that a new host finds."""
    found = newest(log)
    state = None if found is None else found.state()
    if found is None or state is None:
        return None
    harvest, store = Harvest(state), StateStore(path)
    store.put(harvest.take(log))
    harvest.check()
    store.take(found.manifest)
    held = store.load()
    store.close()
    assert held is not None
    arrays = {name: array.tolist() for name, array in held.arrays.items()}
    return arrays, held.offsets[PLACE]


def compacted(log: Sequence[Pair]) -> list[Pair]:
    """Return the last value of each key, in the order of these."""
    last = {key: i for i, (key, _) in enumerate(log)}
    return [log[i] for i in sorted(last.values())]


class Writer:
    """A worker's store with what it sends; ``checkpoint`` gives the records of one."""

    def __init__(self, path: Path) -> None:
        self.store = StateStore(path)
        self.store.load()

    def checkpoint(self, arrays: Arrays, offset: int) -> list[Pair]:
        pages = TouchedPages(1)
        pages.span(0, arrays["table"].nbytes if "table" in arrays else 0)
        snapshot = self.store.snapshot(arrays, b"", {PLACE: offset}, {"table": pages})
        self.store.write(snapshot)
        return records(snapshot)


def arrays_of(seed: int, sizes: dict[str, int]) -> Arrays:
    """Return arrays of so many pages and a bit, of small numbers that differ by checkpoint."""
    rng = np.random.default_rng(seed)
    pages = {"table": TABLE_PAGE_BYTES // 8, "a": PAGE_BYTES // 8, "b": 100}
    return {name: rng.integers(0, 9, n * pages[name] + 5) for name, n in sizes.items()}


SIZES = st.dictionaries(st.sampled_from(["table", "a", "b"]), st.integers(0, 2), min_size=1)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_wherever_it_is_cut_the_last_whole_checkpoint_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """With restarts in new epochs; compaction, of all or of what precedes, changes nothing."""
    path = tmp_path_factory.mktemp("writer")
    log: list[Pair] = []
    whole: list[tuple[int, tuple[dict[str, list[int]], int]]] = []
    writer, epoch = Writer(path / "s"), 1
    writer.store.begin(epoch, None)
    for i, sizes in enumerate(data.draw(st.lists(SIZES, min_size=1, max_size=4))):
        if data.draw(st.booleans()) and i:
            writer.store.close()
            writer, epoch = Writer(path / "s"), epoch + 1
            found = newest(log)
            assert found is not None
            writer.store.begin(epoch, found.state())
            assert writer.store.n_unsent == 0
            log.append(head_pair(head(found.manifest, epoch)))
        arrays = arrays_of(i, sizes)
        sent = writer.checkpoint(arrays, i)
        n_head = len(log) + [key[:5] for key, _ in sent].index(b"head/") + 1
        whole.append((n_head, ({k: v.tolist() for k, v in arrays.items()}, i)))
        log += sent
    writer.store.close()
    cut = data.draw(st.integers(0, len(log)))
    cleaned = data.draw(st.integers(0, cut))
    expected = next((state for n, state in reversed(whole) if n <= cut), None)
    for k, left in enumerate((log[:cut], compacted(log[:cut]),
                              [*compacted(log[:cleaned]), *log[cleaned:cut]])):  # fmt: skip
        assert state_of(left, path / f"r{k}") == expected


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, N_EPOCHS - 1]), st.integers(1, 3), st.randoms(use_true_random=False))
def test_what_a_process_of_an_older_epoch_still_writes_harms_nothing(
    tmp_path_factory: pytest.TempPathFactory, epoch: int, n: int, chance: Random
) -> None:
    """It can write one checkpoint before it learns of its end; mixed in anyhow, and compacted."""
    path = tmp_path_factory.mktemp("writers")
    old = Writer(path / "old")
    old.store.begin(epoch, None)
    log = old.checkpoint(arrays_of(1, {"table": 2, "a": 1}), 1)
    log += old.checkpoint(arrays_of(2, {"table": 2, "a": 1}), 2)
    assert state_of(log, path / "new") is not None
    found = newest(log)
    assert found is not None
    log.append(head_pair(head(found.manifest, epoch + 1)))
    stale = old.checkpoint(arrays_of(3, {"table": 2, "a": 1}), 3)
    new = Writer(path / "new")
    new.store.begin(epoch + 1, found.state())
    fresh = [new.checkpoint(arrays_of(10 + i, {"table": 2, "a": 1}), 10 + i) for i in range(n)]
    queues = [stale, [one for each in fresh for one in each]]
    turns = [i for i, queue in enumerate(queues) for _ in queue]
    chance.shuffle(turns)
    log += [queues[i].pop(0) for i in turns]
    old.store.close()
    new.store.close()
    wanted = {k: v.tolist() for k, v in arrays_of(9 + n, {"table": 2, "a": 1}).items()}
    assert state_of(log, path / "r0") == (wanted, 9 + n)
    assert state_of(compacted(log), path / "r1") == (wanted, 9 + n)


def test_a_store_writes_with_its_next_checkpoint_what_the_changelog_lacks(tmp_path: Path) -> None:
    """All of it to an empty one; what is in other slots or of other bytes; nothing twice."""
    writer = Writer(tmp_path / "s")
    arrays = arrays_of(1, {"table": 3, "a": 1, "b": 1})
    log = writer.checkpoint(arrays, 1)
    writer.store.begin(1, None)
    assert writer.store.n_unsent == 4 + 2 + 1
    first = writer.checkpoint(arrays, 1)
    assert state_of(first, tmp_path / "r0") == state_of(log, tmp_path / "r1")
    assert writer.store.n_unsent == 0
    assert len(writer.checkpoint(arrays, 2)) == 4 + 1  # a table's marks, and the head
    found = newest(first)
    assert found is not None
    writer.store.begin(2, found.state())
    assert writer.store.n_unsent == 4
    writer.store.close()


def test_a_new_epoch_follows_the_newer_of_two_states(tmp_path: Path) -> None:
    """So that a state that begins anew is newer than what it replaces."""
    writer = Writer(tmp_path / "s")
    for i in range(5):
        log = writer.checkpoint(arrays_of(1, {"b": 1}), i)
    writer.store.close()
    found = newest(log)
    assert found is not None
    anew = Writer(tmp_path / "anew")
    anew.store.begin(1, found.state())
    anew.checkpoint(arrays_of(2, {"b": 1}), 0)
    assert anew.store.stamp() == (1, 6)
    anew.store.close()


@pytest.mark.parametrize("what", ["changed", "missing"])
def test_a_page_that_is_not_as_its_manifest_says_is_refused_by_name(
    tmp_path: Path, what: str
) -> None:
    """And the store holds no state."""
    writer = Writer(tmp_path / "s")
    log = writer.checkpoint(arrays_of(1, {"table": 2, "b": 1}), 1)
    writer.store.close()
    (at,) = [i for i, (key, _) in enumerate(log) if key.startswith(b"page/table/1/")]
    key, page = log[at]
    assert page is not None
    log[at] = (key, page[:-1] + bytes([page[-1] ^ 1]) if what == "changed" else None)
    said = "its bytes have changed" if what == "changed" else "found none"
    with pytest.raises(StateError, match=f"changelog: array 'table', page 1: {said}"):
        state_of(log, tmp_path / "r")
    store = StateStore(tmp_path / "r")
    assert store.load() is None
    store.close()


@pytest.mark.parametrize(
    "other", [Owner("bonk", "0", "abc"), Owner("bank", "1", "abc"), Owner("bank", "0", "abd")]
)
def test_a_changelog_of_another_worker_or_schema_is_refused(other: Owner) -> None:
    """With what was expected and what came."""
    check_owner(head(b""), OWNER)
    with pytest.raises(StateError) as caught:
        check_owner(head(b"", owner=other), OWNER)
    assert str(caught.value) == (
        f"changelog: expected (member, worker, schema) {tuple(OWNER)}, got {tuple(other)}"
    )


def test_another_version_of_a_head_is_refused_and_so_is_what_is_none() -> None:
    """Pages and deletions are no heads."""
    key, value = head_pair(head(b""))
    assert list(heads([(key, value), (b"page/a/0/0", b"x"), (b"head/7", None)])) == [head(b"")]
    with pytest.raises(StateError, match="expected version 2, got 3"):
        list(heads([(key, value.replace(b"\xa7version\x02", b"\xa7version\x03"))]))
    with pytest.raises(StateError, match="expected a head"):
        list(heads([(key, b"\xc1")]))


def test_a_restored_store_keeps_nothing_of_what_was_there_before(tmp_path: Path) -> None:
    """A stale state of the same worker on this disk."""
    stale = Writer(tmp_path / "s")
    stale.checkpoint(arrays_of(1, {"table": 5, "a": 1}), 1)
    other = Writer(tmp_path / "o")
    log = other.checkpoint(arrays_of(2, {"b": 1}), 2)
    stale.store.close()
    other.store.close()
    assert state_of(log, tmp_path / "s") == ({"b": arrays_of(2, {"b": 1})["b"].tolist()}, 2)
