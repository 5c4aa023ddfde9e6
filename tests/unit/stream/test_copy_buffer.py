"""Memory for copies is kept, made ready for more, and let go of where it is far too large."""

import resource

import numpy as np
import pytest

from stream.copy_buffer import CopyBuffer

MB = 1 << 20


def place(taken: np.ndarray) -> int:
    return taken.ctypes.data


def faults() -> int:
    """Pages that the system has given to this thread so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


def test_what_was_made_ready_serves_more_than_before() -> None:
    """Half as much again is there without another page; what is still read stays as it is."""
    buffer = CopyBuffer()
    first = buffer.take(4 * MB)
    first[:] = 7
    buffer.make_ready()
    assert (first == 7).all()
    before = faults()
    second = buffer.take(6 * MB)
    second[:] = 8
    assert faults() - before < 16
    assert len(second) == 6 * MB
    buffer.make_ready()
    assert place(second) == place(first) == place(buffer.take(4 * MB))


@pytest.mark.parametrize(("before", "wanted"), [(65 * MB, MB), (MB, 700 * MB)])
def test_too_much_is_not_kept(before: int, wanted: int) -> None:
    """Many times what is wanted, or more than a gigabyte with the half that it would have."""
    buffer = CopyBuffer()
    buffer.take(before)
    taken = buffer.take(wanted)
    taken[:8] = 7
    buffer.make_ready()
    assert place(buffer.take(wanted)) != place(taken)
    assert (taken[:8] == 7).all()
