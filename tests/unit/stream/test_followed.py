"""A warm copy of a worker: whole or no state at all, and the note of how far it had come."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.changelog import Head, Owner, Pair, head_pair, page_of, page_pairs
from stream.followed import Copy, Followed, note_of, read_followed, write_followed
from stream.manifest import (
    Manifest,
    Stamp,
    is_of_epoch,
    is_older,
    next_slots,
    page_digest,
    seal,
    unseal,
)
from stream.store import StateStore

OWNER = Owner("bank", "0", "abc")
PLACES = {("bank.transactions", 0): 7}


class Writer:
    """A worker's process: its checkpoints as they go to the changelog."""

    def __init__(self, folder: Path, epoch: int, elsewhere: Manifest | None = None) -> None:
        self.store = StateStore(folder)
        self.store.load()
        self.store.begin(epoch, elsewhere)
        self.epoch = epoch

    def checkpoint(self, *values: int) -> list[Pair]:
        """Return the records of a checkpoint of two arrays of one page each."""
        arrays = {name: np.full(9, value) for name, value in zip("ab", values, strict=True)}
        snapshot = self.store.snapshot(arrays, b"", PLACES)
        self.store.write(snapshot)
        return [
            *((key, bytes(page)) for key, page in page_pairs(snapshot)),
            self.head(snapshot.manifest),
            *((key, None) for key in snapshot.gone),
        ]

    def head(self, manifest: bytes) -> Pair:
        return head_pair(Head(*OWNER, self.epoch, f"of {self.epoch}", 0, manifest))


def stored(folder: Path, pages: Iterable[tuple[bytes, bytes]], manifest: bytes) -> dict[str, int]:
    """Return the first values of the arrays of a state that is put into a new store."""
    store = StateStore(folder)
    store.put(pages)
    store.take(manifest)
    held = store.load()
    store.close()
    assert held is not None
    return {name: int(array[0]) for name, array in held.arrays.items()}


def test_a_copy_has_the_newest_state_once_its_pages_are_there(tmp_path: Path) -> None:
    """Before the head there is none; a later head takes its place, page by page."""
    writer, copy, pages = Writer(tmp_path / "w", 1), Copy(), []
    first, second = writer.checkpoint(1, 1), writer.checkpoint(1, 2)
    for records, seen in (
        (first[:2], False),
        (first[2:], True),
        (second[:1], True),
        (second[1:], True),
    ):
        pages += copy.take(records)
        assert (copy.whole() is not None) is seen
    manifest = copy.whole()
    assert manifest is not None
    assert unseal(manifest).stamp == Stamp(1, 2)
    assert stored(tmp_path / "copy", pages, manifest) == {"a": 1, "b": 2}


def test_a_copy_that_lacks_a_page_or_has_another_is_no_state(tmp_path: Path) -> None:
    """As where compaction has taken it, until its newer version comes."""
    writer = Writer(tmp_path / "w", 1)
    records = writer.checkpoint(1, 1)
    assert Copy().whole() is None
    lacking, other = Copy(), Copy()
    lacking.take(records[1:])
    assert lacking.whole() is None
    other.take([(records[0][0], b"x"), *records[1:]])
    assert other.whole() is None
    lacking.take(records[:1])
    assert lacking.whole() is not None


def test_a_state_of_an_earlier_epoch_does_not_count_any_more(tmp_path: Path) -> None:
    """Whatever a superseded process still writes, its pages lie beside those in use."""
    old = Writer(tmp_path / "old", 1)
    copy, pages = Copy(), []
    pages += copy.take(old.checkpoint(1, 1))
    claimed = copy.whole()
    assert claimed is not None
    new = Writer(tmp_path / "new", 2, unseal(claimed))
    pages += copy.take([new.head(claimed)])
    pages += copy.take(old.checkpoint(8, 8))
    assert copy.whole() == claimed
    pages += copy.take(new.checkpoint(3, 4))
    pages += copy.take(old.checkpoint(9, 9))
    manifest = copy.whole()
    assert manifest is not None
    assert stored(tmp_path / "copy", pages, manifest) == {"a": 3, "b": 4}


def test_a_copy_goes_on_from_what_its_store_holds(tmp_path: Path) -> None:
    """With nothing newer it is whole at once; with a page it needs only that."""
    writer = Writer(tmp_path / "w", 3)
    manifest = next(value for key, value in writer.checkpoint(1, 1) if key.startswith(b"head/"))
    assert manifest is not None
    begun = Copy()
    begun.take(Writer(tmp_path / "again", 3).checkpoint(1, 1))
    held = begun.whole()
    assert held is not None
    copy = Copy(held)
    assert copy.whole() == held
    later = writer.checkpoint(1, 5)
    assert len(later) == 2
    copy.take(later)
    found = copy.whole()
    assert found is not None
    assert dict(unseal(found).pages()).keys() >= {later[0][0]}
    assert (
        page_digest(page_of(later[0][1] or b"") or b"") == dict(unseal(found).pages())[later[0][0]]
    )


def test_a_note_is_found_again_or_passed_over(tmp_path: Path) -> None:
    """A copy without a note is read anew."""
    assert read_followed(tmp_path) is None
    write_followed(tmp_path, Followed(3, 7, 100))
    found = read_followed(tmp_path)
    assert found == Followed(3, 7, 100)
    assert found is not None
    assert found.stamp == Stamp(3, 7)
    (tmp_path / "followed.json").write_text("{}")
    assert read_followed(tmp_path) is None


def test_a_note_has_the_age_of_its_state(tmp_path: Path) -> None:
    """And counts for no other."""
    assert note_of(seal(Manifest({}, b"", [], 2, 9)), 5) == Followed(2, 9, 5)


@given(st.integers(0, 1_000), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_slots_alternate_between_two_places_across_epochs(epoch: int, steps: list[int]) -> None:
    """A page goes to the other place each time, and a later epoch's slot is never the older one."""
    slots = np.array([1], np.uint8)
    for step in steps:
        found = next_slots(slots, epoch + step)
        assert int(found[0]) % 2 != int(slots[0]) % 2
        assert bool(is_of_epoch(found, epoch + step)[0])
        epoch, slots = epoch + step, found
    later = next_slots(slots, epoch + 1)
    assert is_older(int(slots[0]), int(later[0]))
    assert not is_older(int(later[0]), int(slots[0]))
