"""An array that becomes longer stays where it is, and whoever looks at it goes on to see it."""

import mmap

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


@pytest.mark.parametrize("factor", [1, 3])
def test_more_than_was_reserved_is_copied(monkeypatch: pytest.MonkeyPatch, factor: int) -> None:
    """Where the system gives no more addresses than needed, or a few more."""
    asked: list[int] = []
    whole, held = mmap.mmap, Room(np.int64)
    given_bytes = before = 0

    def few(file: int, n_bytes: int, **more: int) -> mmap.mmap:
        asked.append(n_bytes)
        if n_bytes > given_bytes:
            raise OSError("no")
        return whole(file, n_bytes, **more)

    monkeypatch.setattr(room.mmap, "mmap", few)
    for n in (600, 5_000, 100_000):
        given_bytes = factor * 2 * 8 * n
        rows = held.rows(n)
        assert rows[:before].tolist() == list(range(before))
        assert not rows[before:].any()
        rows[:], before = np.arange(n), n
    assert asked[0] == room._SPACE_BYTES
    assert held.rows(100_000).tolist() == list(range(100_000))


def test_no_memory_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how much was asked for."""

    def none(_file: int, _n_bytes: int, **_: int) -> mmap.mmap:
        raise OSError("no")

    monkeypatch.setattr(room.mmap, "mmap", none)
    with pytest.raises(MemoryError, match="16000 bytes for a table"):
        Room(np.int64).rows(1_000)
