"""Pages of a state in one file, where each has two places that are written in turn.

A page of a large table is overwritten at every other checkpoint, anywhere in the table. A database
that merges what it is given into ever larger files does six times the work for that. Here a page's
place is found by arithmetic: an array has segments, a segment has places for the even slots of 64
small pages or a large one, then as many for the odd ones. Neighbours in slots of one evenness are
written together. Which segments are whose is a short list that the manifest carries. What was never
written takes no room on the disk.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.manifest import Pages
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

    def write(self, parts: Iterable[Pages]) -> None:
        """Write pages, each in the place that its slot has.

        Raises
        ------
        OSError
            If the disk does not take it.
        """
        for part in parts:
            size, places = part.page_bytes, self._places(part)
            starts = np.flatnonzero(np.diff(places, prepend=places[0] - 2 * size) != size)
            for start, stop in zip(starts, [*starts[1:], len(places)], strict=True):
                data, at = part.data[start * size : stop * size], int(places[start])
                while data:  # a disk that fills up may take a part of it
                    written = os.pwrite(self._file, data, at)
                    data, at = data[written:], at + written

    def read(self, name: str, index: int, slot: int, out: memoryview) -> int:
        """Fill ``out`` from a page's place, and return how many bytes there were."""
        at, found = self._place(name, index, slot, len(out)), 0
        while found < len(out):
            n = os.preadv(self._file, [out[found:]], at + found)
            if not n:
                break
            found += n
        return found

    def _places(self, pages: Pages) -> NDArray[np.int64]:
        """Return where pages lie, which are alike but for the last; an array gets segments."""
        last = len(pages.data) - (len(pages.numbers) - 1) * pages.page_bytes
        sizes = [pages.page_bytes] * (len(pages.numbers) - 1) + [last]
        return np.array(
            [
                self._place(pages.name, index, slot, size_bytes)
                for index, slot, size_bytes in zip(
                    pages.numbers.tolist(), pages.slots.tolist(), sizes, strict=True
                )
            ],
            np.int64,
        )

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
        return segments[which] * _SEGMENT_BYTES + slot % 2 * PAGE_BYTES + within * stride

    def sync(self) -> None:
        """Return once everything is on the disk, a loss of power included."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)
