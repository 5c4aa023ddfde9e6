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
_SMALL, _LARGE = "small", "large"
_PAGES_PER_SEGMENT = {_SMALL: PAGE_BYTES // TABLE_PAGE_BYTES, _LARGE: 1}
_STRIDE = {_SMALL: TABLE_PAGE_BYTES, _LARGE: PAGE_BYTES}


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
    """

    def __init__(
        self, path: Path, segments: Mapping[str, Segments], *, is_read_only: bool = False
    ) -> None:
        flags = os.O_RDONLY if is_read_only else os.O_RDWR | os.O_CREAT
        self._file = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self._segments: dict[tuple[str, str], list[int]] = {}
        for name, held in segments.items():
            self._segments[name, _SMALL] = list(held.small)
            self._segments[name, _LARGE] = list(held.large)
        self._n = 1 + max((n for held in self._segments.values() for n in held), default=-1)

    def segments(self) -> dict[str, Segments]:
        """Return which segments are whose, to be stored."""
        names = {name for name, _ in self._segments}
        return {
            name: Segments(*(self._segments.get((name, kind), []) for kind in (_SMALL, _LARGE)))
            for name in sorted(names)
        }

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
        kind = _kind(len(out))
        segments = self._segments.get((name, kind), [])
        if index // _PAGES_PER_SEGMENT[kind] >= len(segments):
            return 0
        at, found = self._place(name, index, slot, len(out)), 0
        while found < len(out):
            n = os.preadv(self._file, [out[found:]], at + found)
            if not n:
                break
            found += n
        return found

    def _place(self, name: str, index: int, slot: int, size_bytes: int) -> int:
        """Return where a page of a length lies; an array gets segments as it grows."""
        kind = _kind(size_bytes)
        which, within = divmod(index, _PAGES_PER_SEGMENT[kind])
        segments = self._segments.setdefault((name, kind), [])
        while len(segments) <= which:
            segments.append(self._n)
            self._n += 1
        return segments[which] * _SEGMENT_BYTES + (2 * within + slot % 2) * _STRIDE[kind]

    def sync(self) -> None:
        """Return once everything is on the disk, a loss of power included."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)


def _kind(size_bytes: int) -> str:
    return _SMALL if size_bytes <= TABLE_PAGE_BYTES else _LARGE
