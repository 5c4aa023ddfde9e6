"""Pages of a state in one file, where each has two places that are written in turn.

A page of a large table is overwritten at every other checkpoint, anywhere in the table. A database
that merges what it is given into ever larger files does six times the work for that. Here a page's
place is found by arithmetic: an array has segments, a segment holds 64 small pages or a large one,
each with a place for even and one for odd slots. Which segments are whose is a short list that the
manifest carries. What was never written takes no room on the disk.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from stream.manifest import parts_of
from stream.touched import TABLE_PAGE_BYTES

PAGE_BYTES = 256 * 1024
_SEGMENT_BYTES = 2 * PAGE_BYTES


class Segments(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Which segments an array has: of its small pages, and of its large ones, in order."""

    small: list[int]
    large: list[int]


class PageFile:
    """The file, open.

    Parameters
    ----------
    path
        Made if it is absent.
    segments
        Array -> its segments, as they were stored.
    is_read_only
        Look at what is there.

    Attributes
    ----------
    segments
        As given, and those that arrays have got since; to be stored.
    """

    def __init__(
        self, path: Path, segments: Mapping[str, Segments], *, is_read_only: bool = False
    ) -> None:
        flags = os.O_RDONLY if is_read_only else os.O_RDWR | os.O_CREAT
        self._file = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self.segments = dict(segments)
        given = (n for held in segments.values() for n in (*held.small, *held.large))
        self._n = 1 + max(given, default=-1)

    def write(self, pages: Iterable[tuple[bytes, bytes]]) -> None:
        """Write pages, given by their keys, each in the place that its slot has.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        for key, page in pages:
            name, index, slot = parts_of(key)
            at, written = self._place(name, index, slot, len(page)), 0
            while written < len(page):  # a disk that fills up may take a part of it
                written += os.pwrite(self._file, page[written:], at + written)

    def read(self, name: str, index: int, slot: int, out: memoryview) -> int:
        """Fill ``out`` from a page's place, and return how many bytes there were."""
        at, found = self._place(name, index, slot, len(out)), 0
        while found < len(out):
            n = os.preadv(self._file, [out[found:]], at + found)
            if not n:
                break
            found += n
        return found

    def _place(self, name: str, index: int, slot: int, size_bytes: int) -> int:
        """Return where a page of a length lies; an array gets segments as it grows."""
        held, is_small = self.segments.get(name), size_bytes <= TABLE_PAGE_BYTES
        if held is None:
            held = self.segments[name] = Segments([], [])
        segments, stride = (held.small, TABLE_PAGE_BYTES) if is_small else (held.large, PAGE_BYTES)
        which, within = divmod(index, PAGE_BYTES // stride)
        while len(segments) <= which:
            segments.append(self._n)
            self._n += 1
        return segments[which] * _SEGMENT_BYTES + (2 * within + slot % 2) * stride

    def sync(self) -> None:
        """Return once everything is on the disk, a loss of power included."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)
