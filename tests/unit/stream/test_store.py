"""State on disk: whatever happens, what is found is one checkpoint with the offsets of it."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import NoRoomError, StateError, StateHeldError
from stream.manifest import VERSION
from stream.page_file import PAGE_BYTES
from stream.store import LAYOUT, StateStore, read_stored
from stream.touched import TABLE_PAGE_BYTES, TouchedPages
from tests.store_files import change_manifest, change_page, with_fields

ROOT = Path(__file__).parents[3]
PLACE = ("bank.transactions", 0)
WRITER = '''
import os
import signal
import sys
from pathlib import Path
import numpy as np
from stream.store import StateStore

def mortal(name, calls=[int(sys.argv[2])]):
    """Have a call to the system be the last of this process, just before it is done."""
    call = getattr(os, name)

    def counted(*given, **named):
        calls[0] -= 1
        if calls[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)

    setattr(os, name, counted)


for name in ("pwrite", "fdatasync", "fsync", "replace"):
    mortal(name)
store = StateStore(Path(sys.argv[1]))
held = store.load()
i = 0 if held is None else held.offsets[("bank.transactions", 0)]
while True:
    i += 1
    arrays = {f"a{k}": np.full((k + i % 3) * 70_000, i) for k in range(4)}
    store.save(arrays, b"%d" % i, {("bank.transactions", 0): i, ("bank.labels", 3): -i})
    print(i, flush=True)
'''


def saved(path: Path, arrays: dict[str, np.ndarray], offset: int = 1) -> None:
    """Store once and close."""
    store = StateStore(path)
    store.save(arrays, b"meta", {PLACE: offset})
    store.close()


def refusal(path: Path) -> str:
    """Return why a store cannot be loaded."""
    store = StateStore(path)
    with pytest.raises(StateError) as caught:
        store.load()
    store.close()
    return str(caught.value)


def test_a_new_disk_holds_nothing_and_is_made_with_its_parents(tmp_path: Path) -> None:
    """The directory need not be there."""
    store = StateStore(tmp_path / "a" / "b")
    assert store.load() is None
    store.close()


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    """Names, types, shapes, bits, text and offsets; also empty arrays and such of many pages."""
    rng = np.random.default_rng(1)
    arrays = {
        "empty": np.empty((0, 3), np.float32),
        "one": np.array([np.nan]),
        "flags": np.array([True, False]),
        "part/square": rng.normal(size=(300, 301)),
        "view": rng.integers(0, 9, (50, 40))[::2, 1:],
        "exact page": rng.integers(0, 255, PAGE_BYTES, np.uint8),
    }
    store = StateStore(tmp_path / "s")
    store.save(arrays, b"\x00text", {PLACE: 2**40, ("bank.labels", 7): 0})
    store.close()
    again = StateStore(tmp_path / "s")
    held = again.load()
    again.close()
    assert held is not None
    assert held.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert held.arrays[name].dtype == array.dtype
        assert held.arrays[name].shape == array.shape
        assert held.arrays[name].tobytes() == array.tobytes()
    assert held.meta == b"\x00text"
    assert held.offsets == {PLACE: 2**40, ("bank.labels", 7): 0}


def test_only_pages_that_changed_are_written(tmp_path: Path) -> None:
    """Nothing for the same content; one page for one byte; the same after a restart."""
    a = np.zeros(3 * PAGE_BYTES, np.uint8)
    store = StateStore(tmp_path / "s")
    assert store.save({"a": a}, b"", {}) == 3 * PAGE_BYTES
    assert store.save({"a": a}, b"other text", {PLACE: 1}) == 0
    a[PAGE_BYTES] = 1
    assert store.save({"a": a}, b"", {}) == PAGE_BYTES
    store.close()
    again = StateStore(tmp_path / "s")
    again.load()
    a[-1] = 1
    assert again.save({"a": a}, b"", {}) == PAGE_BYTES
    held = again.load()
    again.close()
    assert held is not None
    assert held.arrays["a"].tobytes() == a.tobytes()


@settings(max_examples=40)
@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=6),
    st.sets(st.integers(0, 5)),
)
def test_the_last_of_many_checkpoints_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    checkpoints: list[dict[str, int]],
    restarts: set[int],
) -> None:
    """Also where arrays grow, shrink, go or come again, with or without restarts."""
    path = tmp_path_factory.mktemp("store")
    store = StateStore(path)
    for i, sizes in enumerate(checkpoints):
        if i in restarts:
            store.close()
            store = StateStore(path)
            store.load()
        arrays = {name: np.full(n * PAGE_BYTES // 16, i) for name, n in sizes.items()}
        store.save(arrays, b"%d" % i, {PLACE: i})
    store.close()
    store = StateStore(path)
    held = store.load()
    store.close()
    assert held is not None
    assert held.offsets == {PLACE: len(checkpoints) - 1}
    assert {k: v.tolist() for k, v in held.arrays.items()} == {
        k: v.tolist() for k, v in arrays.items()
    }


def test_a_writer_that_is_killed_leaves_one_whole_checkpoint_with_its_offsets(
    tmp_path: Path,
) -> None:
    """At least the last one it reported; from outside at any place, or between two calls."""
    path = tmp_path / "s"
    last = 0
    for n_reported, n_calls in ((1, -1), (8, -1), *((0, n) for n in (1, 2, 3, 4, 5, 7, 12, 20))):
        command = [sys.executable, "-c", WRITER, str(path), str(n_calls)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert child.stdout is not None
        reported = [int(child.stdout.readline()) for _ in range(n_reported)]
        if n_reported:
            os.kill(child.pid, signal.SIGKILL)
        reported += [int(line) for line in child.stdout.read().split()]
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        last = max(reported, default=last)
        store = StateStore(path)
        held = store.load()
        store.close()
        assert held is not None
        i = held.offsets[PLACE]
        assert last <= i <= last + 1
        last = i
        assert held.offsets == {PLACE: i, ("bank.labels", 3): -i}
        assert held.meta == b"%d" % i
        assert {name: len(array) for name, array in held.arrays.items()} == {
            f"a{k}": (k + i % 3) * 70_000 for k in range(4)
        }
        assert all((array == i).all() for array in held.arrays.values())


def test_a_directory_that_is_held_cannot_be_opened_again(tmp_path: Path) -> None:
    """Two workers never write one state; the message names the directory."""
    store = StateStore(tmp_path / "s")
    with pytest.raises(StateHeldError, match=str(tmp_path / "s")):
        StateStore(tmp_path / "s")
    store.close()
    StateStore(tmp_path / "s").close()


def test_another_version_or_layout_is_refused_with_both(tmp_path: Path) -> None:
    """Whoever reads the message knows what to move away."""
    path = tmp_path / "s"
    saved(path, {"a": np.arange(3)})
    change_manifest(path, with_fields(version=VERSION + 1))
    assert refusal(path) == f"state: expected version {VERSION}, got {VERSION + 1}"
    change_manifest(path, with_fields(version=VERSION), layout=LAYOUT + 1)
    with pytest.raises(StateError, match=f"expected layout {LAYOUT}, got {LAYOUT + 1}"):
        StateStore(path)
    (path / "CURRENT").touch()
    with pytest.raises(StateError, match="got a database"):
        StateStore(path)


def test_an_unknown_field_or_no_manifest_at_all_is_refused(tmp_path: Path) -> None:
    """A later layout is not guessed at."""
    path = tmp_path / "s"
    saved(path, {"a": np.arange(3)})
    change_manifest(path, with_fields(more=1))
    assert "manifest" in refusal(path)
    (path / "manifest").write_bytes(b"\xff\x00")
    with pytest.raises(StateError, match="expected a manifest"):
        StateStore(path)


def test_an_array_of_the_version_that_is_stored_is_not_looked_at(tmp_path: Path) -> None:
    """One of another version is, also where its bytes came back; a new table looks at all."""
    store, array = StateStore(tmp_path / "state"), np.arange(9)

    def copied_bytes(version: int) -> int:
        copied = store.pages.copy({"a": array}, b"", {}, versions={"a": version})
        snapshot = store.pages.finish(copied)
        store.write(snapshot)
        return snapshot.size_bytes

    assert copied_bytes(1) == array.nbytes
    array[0] = 7
    assert copied_bytes(1) == 0
    assert copied_bytes(2) == array.nbytes
    assert copied_bytes(3) == 0
    store.close()
    again = StateStore(tmp_path / "state")
    held = again.load()
    assert held is not None
    assert held.arrays["a"].tolist() == array.tolist()
    array[0] = 8
    store = again
    assert copied_bytes(3) == array.nbytes
    again.close()


@pytest.mark.parametrize(("left", "found"), [(0, "none"), (5, "5")])
def test_a_missing_or_short_page_is_refused_by_its_arrays_name(
    tmp_path: Path, left: int, found: str
) -> None:
    """No array is made up of what is left."""
    path = tmp_path / "s"
    saved(path, {"good": np.arange(3), "the bad": np.zeros(PAGE_BYTES)})
    os.truncate(path / "pages", (path / "pages").stat().st_size - PAGE_BYTES + left)
    said = f"state: array 'the bad', page 7: expected {PAGE_BYTES} bytes, "
    assert refusal(path).startswith(said)
    assert found in refusal(path).removeprefix(said)


def test_a_byte_that_changed_is_found_by_array_and_page(tmp_path: Path) -> None:
    """In any page, of a table whose pages are told as of any other; all are named, no value is."""
    arrays = {"a": np.arange(2 * PAGE_BYTES // 8), "table": np.arange(7_000)}
    path = tmp_path / "s"
    store = StateStore(path)
    pages = TouchedPages(TABLE_PAGE_BYTES)
    pages.span(0, 4)
    store.save(arrays, b"", {}, {"table": pages})
    pages.span(3, 4)
    arrays["table"][-1] = 7
    store.save(arrays, b"", {}, {"table": pages})
    store.close()
    for name, index in (("a", 1), ("table", 2), ("table", 3)):
        change_page(path, name, index, byte=5)
    store = StateStore(path, is_read_only=True)
    _, faults = store.read()
    with pytest.raises(StateError, match=r"array 'a', page 1: its bytes.*, and 2 more faults"):
        store.load()
    store.close()
    assert [(one.array, one.page) for one in faults] == [("a", 1), ("table", 2), ("table", 3)]


@pytest.mark.parametrize("cut", [1, 9])
def test_a_manifest_that_is_cut_or_changed_is_refused(tmp_path: Path, cut: int) -> None:
    """Also where what is left could be decoded; the file around it, and what it seals."""
    path = tmp_path / "s"
    saved(path, {"a": np.arange(3)})
    whole = (path / "manifest").read_bytes()
    for content in (whole[:-cut], whole.replace(PLACE[0].encode(), b"bank.transactionz")):
        (path / "manifest").write_bytes(content)
        with pytest.raises(StateError, match="manifest"):
            StateStore(path)
    (path / "manifest").write_bytes(whole)
    change_manifest(path, lambda sealed: sealed[:-cut])
    assert "manifest" in refusal(path)
    (path / "manifest").write_bytes(whole)
    change_manifest(path, lambda sealed: sealed.replace(b"bank.t", b"bank.x"))
    assert refusal(path) == "state: the manifest's bytes have changed"


def test_a_store_that_cannot_be_opened_is_let_go(tmp_path: Path) -> None:
    """Whoever holds on to what was wrong does not hold the store."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "manifest").write_bytes(b"\xff\x00")
    (tmp_path / "state" / "pages").touch()
    refusals = []
    for _ in range(2):
        with pytest.raises(StateError, match="expected a manifest") as refused:
            StateStore(tmp_path / "state")
        refusals.append(refused)


def test_a_manifest_without_pages_is_not_begun_anew_over(tmp_path: Path) -> None:
    """What is left of a state is refused, not overwritten."""
    saved(tmp_path / "s", {"a": np.arange(3)})
    (tmp_path / "s" / "pages").unlink()
    with pytest.raises(StateError, match="expected pages beside the manifest"):
        StateStore(tmp_path / "s")


def test_a_page_has_two_places_and_what_is_small_takes_little_room(tmp_path: Path) -> None:
    """However often it is written; a restart in a later epoch takes the place not in use."""
    path, table = tmp_path / "s", np.zeros(1_000 * 4_096, np.uint8)
    some, pages = np.arange(0, 1_000, 3), TouchedPages(4_096)
    sizes = []
    for epoch in range(1, 6):
        store = StateStore(path)
        held = store.load()
        assert held is None or bool((held.arrays["table"] == table).all())
        store.begin(epoch, None)
        for value in range(4):
            pages.rows(some)
            table.reshape(1_000, -1)[some] = 10 * epoch + value
            store.save({"table": table, "n": np.array([value])}, b"", {}, {"table": pages})
        store.close()
        sizes.append((path / "pages").stat().st_blocks * 512)
    assert sizes[-1] == sizes[-2] <= 2 * 4_096 * 1_000 + 100_000


def test_what_is_read_while_it_is_written_is_one_checkpoint(tmp_path: Path) -> None:
    """A writer in this process stores on and on beside the reader."""
    path, stop = tmp_path / "s", threading.Event()
    store = StateStore(path)

    def write() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            store.save({"a": np.full(3 * PAGE_BYTES, i)}, b"", {PLACE: i})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not (path / "manifest").exists():
            time.sleep(0.01)
        for _ in range(20):
            found, faults = read_stored(path)
            assert faults == []
            assert found is not None
            assert bool((found.arrays["a"] == found.offsets[PLACE]).all())
    finally:
        stop.set()
        writer.join()
        store.close()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, NoRoomError), (errno.EIO, StateError)])
def test_a_full_disk_is_told_from_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StateError]
) -> None:
    """Only one of them makes a state worth giving up."""

    def refused(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    store = StateStore(tmp_path / "s")
    monkeypatch.setattr(os, "pwrite", refused)
    with pytest.raises(StateError, match=os.strerror(number)) as caught:
        store.save({"a": np.arange(3)}, b"", {})
    assert type(caught.value) is kind
    store.close()


def test_looking_makes_and_writes_nothing(tmp_path: Path) -> None:
    """Also while another process has it open; where there is none it is said."""
    with pytest.raises(StateError, match="found none"):
        StateStore(tmp_path / "absent", is_read_only=True)
    assert not (tmp_path / "absent").exists()
    store = StateStore(tmp_path / "s")
    store.save({"a": np.arange(3)}, b"meta", {PLACE: 4})
    other = StateStore(tmp_path / "s", is_read_only=True)
    assert other.offsets() == {PLACE: 4}
    with pytest.raises(StateError):
        other.save({"a": np.arange(4)}, b"meta", {PLACE: 5})
    other.load()
    with pytest.raises(StateError):  # also where no page has changed
        other.save({"a": np.arange(3)}, b"meta", {PLACE: 5})
    other.close()
    store.close()
