"""Asking for memory ahead changes nothing but where it is found."""

import numba as nb
import numpy as np

from models.features.prefetch import AHEAD, expect, lines_of, prefetch

RECORD = np.dtype([("a", "f4", 15), ("b", "i8"), ("c", "i4", 17), ("d", "i1")])


@nb.njit
def _sum_ahead(values, rows, lines):
    total = 0.0
    for i in range(len(rows)):
        prefetch(values, rows[i], 8)
        expect(values, rows, i - AHEAD, lines)
        total += values[rows[i]]
    return total


def test_lines_are_those_in_which_the_fields_lie() -> None:
    """Of fields at bytes 0 to 59, 60 to 67, 68 to 135 and 136."""
    assert lines_of(RECORD).tolist() == [0, 64, 128]
    assert lines_of(RECORD, ("a", "d")).tolist() == [0, 128]
    assert lines_of(RECORD, ("b",)).tolist() == [0, 64]
    assert lines_of(RECORD, ("c", "b")).tolist() == [0, 64, 128]


def test_asking_is_an_instruction_and_changes_no_value() -> None:
    """Rows that are none are passed over; bytes after the last do no harm."""
    values, rows = np.arange(10.0), np.array([9, 0, -1, 3])
    lines = np.array([0, 1 << 40])
    assert _sum_ahead(values, rows, lines) == 21.0
    assert (values == np.arange(10.0)).all()
    (code,) = _sum_ahead.inspect_asm().values()
    assert "prefetch" in code
