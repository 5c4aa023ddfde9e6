"""State on disk: whatever happens, what is found is one checkpoint with the offsets of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rocksdict import AccessType, Options, Rdict

from models.errors import StateError, StateHeldError
from stream.manifest import UNHASHED_VERSION, VERSION
from stream.page_table import PAGE_BYTES
from stream.store import StateStore

ROOT = Path(__file__).parents[3]
PLACE = ("bank.transactions", 0)
WRITER = '''
import os
import signal
import sys
from pathlib import Path
import numpy as np
from stream.store import StateStore

class Mortal:
    """A database that dies just before one of its calls."""

    def __init__(self, database, n_calls):
        self.database, self.n_calls = database, n_calls

    def __getattr__(self, name):
        if name in ("put", "write", "delete", "__setitem__"):
            self.n_calls -= 1
            if self.n_calls == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return getattr(self.database, name)


store = StateStore(Path(sys.argv[1]))
store._db = Mortal(store._db, int(sys.argv[2]))
held = store.load()
i = 0 if held is None else held.offsets[("bank.transactions", 0)]
while True:
    i += 1
    arrays = {f"a{k}": np.full((k + i % 3) * 70_000, i) for k in range(4)}
    store.save(arrays, b"%d" % i, {("bank.transactions", 0): i, ("bank.labels", 3): -i})
    print(i, flush=True)
'''


def raw(path: Path) -> Rdict:
    """Open the database behind a store."""
    options = Options(raw_mode=True)
    return Rdict(str(path), options, access_type=AccessType.read_write())


def saved(path: Path, arrays: dict[str, np.ndarray], offset: int = 1) -> None:
    """Store once and close."""
    store = StateStore(path)
    store.save(arrays, b"meta", {PLACE: offset})
    store.close()


def edited(path: Path, **changes: object) -> None:
    """Change fields of the manifest on disk."""
    database = raw(path)
    manifest = msgspec.msgpack.decode(database[b"manifest"])
    database[b"manifest"] = msgspec.msgpack.encode(manifest | changes)
    database.close()


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
    """Arrays that grow, shrink, go or come again leave nothing behind, with or without restarts."""
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
    database = raw(path)
    keys = {key for key in database.keys() if key != b"manifest"}  # noqa: SIM118  # no dict
    database.close()
    n_pages = {name: -(-n * PAGE_BYTES // 16 * 8 // PAGE_BYTES) for name, n in sizes.items()}
    pages = {f"page/{name}/{p}".encode() for name, n in n_pages.items() for p in range(n)}
    assert {key[:-2] for key in keys} == pages
    assert {key[-2:] for key in keys} <= {b"/0", b"/1"}
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


def test_another_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    """Whoever reads the message knows what to move away."""
    saved(tmp_path / "s", {"a": np.arange(3)})
    edited(tmp_path / "s", version=VERSION + 1)
    assert refusal(tmp_path / "s") == f"state: expected version {VERSION}, got {VERSION + 1}"


def test_an_unknown_field_or_no_manifest_at_all_is_refused(tmp_path: Path) -> None:
    """A later layout is not guessed at."""
    saved(tmp_path / "s", {"a": np.arange(3)})
    edited(tmp_path / "s", more=1)
    assert "manifest" in refusal(tmp_path / "s")
    database = raw(tmp_path / "s")
    database[b"manifest"] = b"\xff\x00"
    database.close()
    assert "manifest" in refusal(tmp_path / "s")


@pytest.mark.parametrize("page", [None, b"", b"short"])
def test_a_missing_or_short_page_is_refused_by_its_arrays_name(
    tmp_path: Path, page: bytes | None
) -> None:
    """No array is made up of what is left."""
    saved(tmp_path / "s", {"good": np.arange(3), "bad": np.zeros(PAGE_BYTES)})
    database = raw(tmp_path / "s")
    if page is None:
        del database[b"page/bad/3/0"]
    else:
        database[b"page/bad/3/0"] = page
    database.close()
    found = "none" if page is None else f"{len(page)}"
    said = f"state: array 'bad', page 3: expected {PAGE_BYTES} bytes, "
    assert refusal(tmp_path / "s").startswith(said)
    assert found in refusal(tmp_path / "s").removeprefix(said)


def test_a_byte_that_changed_is_found_by_array_and_page(tmp_path: Path) -> None:
    """In any page, of a table whose pages are told as of any other; all are named, no value is."""
    arrays = {"a": np.arange(2 * PAGE_BYTES // 8), "table": np.arange(2_000)}
    store = StateStore(tmp_path / "s")
    marks = {"table": np.ones(4, np.bool_)}
    store.save(arrays, b"", {}, marks)
    arrays["table"][-1] = 7
    store.save(arrays, b"", {}, {"table": np.array([False, False, False, True])})
    store.close()
    database = raw(tmp_path / "s")
    for key in (b"page/a/1/0", b"page/table/2/0", b"page/table/3/1"):
        page = bytearray(database[key])
        page[5] ^= 1
        database[key] = bytes(page)
    database.close()
    store = StateStore(tmp_path / "s", is_read_only=True)
    _, faults = store.read()
    with pytest.raises(StateError, match=r"array 'a', page 1: its bytes.*, and 2 more faults"):
        store.load()
    store.close()
    assert [(one.array, one.page) for one in faults] == [("a", 1), ("table", 2), ("table", 3)]


@pytest.mark.parametrize("cut", [1, 9])
def test_a_manifest_that_is_cut_or_changed_is_refused(tmp_path: Path, cut: int) -> None:
    """Also where what is left could be decoded."""
    saved(tmp_path / "s", {"a": np.arange(3)})
    database = raw(tmp_path / "s")
    whole = database[b"manifest"]
    database[b"manifest"] = whole[:-cut]
    database.close()
    assert "manifest" in refusal(tmp_path / "s")
    database = raw(tmp_path / "s")
    database[b"manifest"] = whole.replace(PLACE[0].encode(), b"bank.transactionz")
    database.close()
    assert refusal(tmp_path / "s") == "state: the manifest's bytes have changed"


def test_a_state_from_before_the_hashes_is_gone_on_with_and_gets_them(tmp_path: Path) -> None:
    """Version 3 had four fields an array; the next checkpoint writes hashes of all its pages."""
    array = np.arange(2 * PAGE_BYTES // 8)
    saved(tmp_path / "s", {"a": array, "gone": array})
    database = raw(tmp_path / "s")
    body = msgspec.msgpack.decode(msgspec.msgpack.decode(database[b"manifest"])["body"])
    body["arrays"] = {name: layout[:4] for name, layout in body["arrays"].items()}
    database[b"manifest"] = msgspec.msgpack.encode(body | {"version": UNHASHED_VERSION})
    database.close()
    store = StateStore(tmp_path / "s")
    held = store.load()
    assert held is not None
    assert held.arrays["a"].tobytes() == array.tobytes()
    assert store.save({"a": array}, b"meta", {PLACE: 2}) == 0
    store.close()
    database = raw(tmp_path / "s")
    database[b"page/a/1/0"] = bytes(PAGE_BYTES)
    database.close()
    assert "page 1: its bytes have changed" in refusal(tmp_path / "s")


def test_parts_of_a_database_are_not_begun_anew_over(tmp_path: Path) -> None:
    """RocksDB would make an empty one where the file that names the current one is gone."""
    saved(tmp_path / "s", {"a": np.arange(3)})
    database = raw(tmp_path / "s")
    database.flush()
    database.close()
    (tmp_path / "s" / "CURRENT").unlink()
    with pytest.raises(StateError, match="parts of one"):
        StateStore(tmp_path / "s")


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
    other.close()
    store.close()
