"""Memory for copies is kept, made ready for more, and let go of where it is far too large."""

import numpy as np
import pytest

from stream.copy_buffer import CopyBuffer

MB = 1 << 20


def place(taken: np.ndarray) -> int:
    return taken.ctypes.data


def test_what_was_made_ready_serves_more_than_before() -> None:
    """Half as much again needs no other memory; what is still read is not touched by that."""
    buffer = CopyBuffer()
    first = buffer.take(4 * MB)
    first[:] = 7
    buffer.make_ready()
    second = buffer.take(6 * MB)
    assert len(second) == 6 * MB
    assert place(second) != place(first)
    assert (first == 7).all()
    assert place(buffer.take(5 * MB)) == place(second)
    buffer.make_ready()
    assert place(buffer.take(4 * MB)) == place(second)


@pytest.mark.parametrize("wanted", [65 * MB, 700 * MB])
def test_too_much_is_not_kept(wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many times what is wanted, or more than a gigabyte with the half that it would have."""
    buffer = CopyBuffer()
    monkeypatch.setattr(buffer, "_bytes", np.empty(wanted, np.uint8))
    is_large = wanted > 100 * MB
    buffer.take(wanted if is_large else MB)
    buffer.make_ready()
    assert len(buffer._bytes) == (0 if is_large else MB * 3 // 2 * 5 // 4)
