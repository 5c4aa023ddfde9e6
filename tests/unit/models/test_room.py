"""An array that becomes longer stays where it is, and whoever looks at it goes on to see it."""

import mmap
import subprocess
import sys

import numpy as np
import pytest

from models.features import room
from models.features.room import Room


def test_rows_stay_in_place_and_new_ones_are_zeros() -> None:
    """Of numbers and of records, whatever a row's shape; to a view of before, too."""
    record = np.dtype([("at", "i8"), ("n", "f4", (3,))])
    for dtype, shape in ((np.float32, (5,)), (np.uint64, ()), (record, ())):
        held = Room(dtype, shape)
        few = held.rows(3)
        assert few.shape == (3, *shape)
        few.view(np.uint8)[:] = 7
        many = held.rows(100_000)
        assert (few.dtype, many.dtype) == (np.dtype(dtype), np.dtype(dtype))
        assert many.ctypes.data == few.ctypes.data
        assert (many[:3].view(np.uint8) == 7).all()
        assert not many[3:].view(np.uint8).any()


def test_rows_that_are_given_back_are_zeros_and_those_before_stay() -> None:
    """Up to the end of their page; of a room that has none, nothing is."""
    held = Room(np.int64)
    held.give_back(0)
    held.rows(10_000)[:] = 7
    held.give_back(1_000)
    per_page = mmap.PAGESIZE // 8
    first = -(-1_000 // per_page) * per_page
    assert (held.rows(10_000)[:first] == 7).all()
    assert not held.rows(10_000)[first:].any()


@pytest.mark.parametrize("are_dear", [True, False])
def test_more_than_was_reserved_is_copied(
    monkeypatch: pytest.MonkeyPatch, *, are_dear: bool
) -> None:
    """Where addresses are limited, or the system gives no more than are needed."""
    asked: list[int] = []
    whole, held = mmap.mmap, Room(np.int64)
    needed = before = 0

    def few(file: int, n_bytes: int, **more: int) -> mmap.mmap:
        asked.append(n_bytes)
        if n_bytes > needed:
            raise OSError("no")
        return whole(file, n_bytes, **more)

    monkeypatch.setattr(room, "are_addresses_dear", lambda: are_dear)
    monkeypatch.setattr(room.mmap, "mmap", few)
    for n in (600, 5_000, 100_000):
        needed = 2 * 8 * n
        rows = held.rows(n)
        assert rows[:before].tolist() == list(range(before))
        assert not rows[before:].any()
        rows[:], before = np.arange(n), n
    assert held.rows(100_000).tolist() == list(range(100_000))
    assert (room._SPACE_BYTES in asked) is not are_dear


def test_a_limit_of_addresses_is_seen() -> None:
    """In a process that has one; a table grows there, too."""
    program = (
        "import resource; _, most = resource.getrlimit(resource.RLIMIT_AS); "
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, most)); "
        "from models.features import room; held = room.Room('i8'); held.rows(9)[:] = 7; "
        "print(room.are_addresses_dear(), held.rows(9_999_999)[:10].tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split(maxsplit=1) == ["True", "[7, 7, 7, 7, 7, 7, 7, 7, 7, 0]\n"]


def test_no_memory_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how much was asked for."""

    def none(_file: int, _n_bytes: int, **_: int) -> mmap.mmap:
        raise OSError("no")

    monkeypatch.setattr(room.mmap, "mmap", none)
    with pytest.raises(MemoryError, match="16000 bytes for a table"):
        Room(np.int64).rows(1_000)
