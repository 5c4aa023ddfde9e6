"""Memory for copies is kept, made ready for more, and let go of where it is far too large."""

import resource
from typing import NoReturn

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
    """A quarter more is there without another page; what is still read stays as it is."""
    buffer = CopyBuffer()
    first = buffer.take(4 * MB)
    first[:] = 7
    buffer.make_ready()
    assert (first == 7).all()
    before = faults()
    second = buffer.take(5 * MB)
    second[:] = 8
    assert faults() - before < 16
    assert len(second) == 5 * MB
    buffer.make_ready()
    assert place(second) == place(first) == place(buffer.take(4 * MB))


def test_far_too_much_is_given_back_after_a_while() -> None:
    """Not at once: it may yet be wanted again."""
    buffer = CopyBuffer()
    buffer.take(65 * MB)[:] = 7
    for _ in range(8):
        buffer.take(MB)
        buffer.make_ready()
        assert buffer.take(65 * MB)[-1] == 7
    buffer.take(MB)
    buffer.make_ready()
    again = buffer.take(65 * MB)
    assert (again[:MB] == 7).all()
    assert not again[2 * MB :].any()


def test_what_lies_beyond_the_most_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of so much is kept, which would else be had anew with each copy."""
    monkeypatch.setattr("stream.copy_buffer._MOST_BYTES", 16 * MB)
    buffer = CopyBuffer()
    buffer.take(20 * MB)[:] = 7
    buffer.make_ready()
    again = buffer.take(20 * MB)
    assert (again[: 16 * MB] == 7).all()
    assert not again[16 * MB :].any()


def test_a_part_is_ready_before_anything_was_taken() -> None:
    """So that the first copy is as quick as those after it."""
    buffer = CopyBuffer()
    buffer.make_ready(8 * MB)
    before = faults()
    buffer.take(8 * MB)[:] = 1
    assert faults() - before < 16


def test_memory_that_is_not_to_be_had_yet_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is serves as before."""
    buffer = CopyBuffer()
    taken = buffer.take(MB)

    def refuse(n_bytes: int) -> NoReturn:
        raise MemoryError(n_bytes)

    monkeypatch.setattr(buffer._room, "rows", refuse)
    buffer.make_ready()
    monkeypatch.undo()
    assert place(buffer.take(MB)) == place(taken)
