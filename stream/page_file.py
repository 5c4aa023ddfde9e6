"""Pages of a state in one file, where each has two places that are written in turn.

A page of a large table is overwritten at every other checkpoint, anywhere in the table. A database
that merges what it is given into ever larger files does six times the work for that. Here a page's
place is found by arithmetic: an array has segments, a segment has places for the even slots of 16
small pages or a large one, then as many for the odd ones. Neighbours in slots of one evenness are
written together. Which segments are whose is a short list that the manifest carries. What was never
written takes no room on the disk.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
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
            for run, at in self._runs(part):
                data, n = part.data[run], 0
                while n < len(data):  # a disk that fills up may take a part of it
                    n += os.pwrite(self._file, data[n:], at + n)

    def read(self, pages: Pages) -> NDArray[np.int64]:
        """Fill the data of pages from their places, and return how many bytes there were of each.

        Raises
        ------
        OSError
            If the disk does not give them.
        """
        size, total = pages.page_bytes, len(pages.data)
        starts = np.arange(len(pages.numbers)) * size
        found = np.zeros(len(starts), np.int64)
        for run, at in self._runs(pages):
            data, n = pages.data[run], 0
            while n < len(data) and (got := os.preadv(self._file, [data[n:]], at + n)):
                n += got
            of_run = slice(run.start // size, -(-run.stop // size))
            found[of_run] = np.clip(run.start + n - starts[of_run], 0, size)
        return np.minimum(found, total - starts)

    def _runs(self, pages: Pages) -> Iterator[tuple[slice, int]]:
        """Yield the stretches of pages' data that lie together in the file, and where."""
        if not len(pages.numbers):
            return
        size, places = pages.page_bytes, self._places(pages)
        starts = np.flatnonzero(np.diff(places, prepend=places[0] - 2 * size) != size).tolist()
        for start, stop in zip(starts, [*starts[1:], len(places)], strict=True):
            yield slice(start * size, min(stop * size, len(pages.data))), int(places[start])

    def _places(self, pages: Pages) -> NDArray[np.int64]:
        """Return where pages lie, which are alike but for the last; an array gets segments."""
        n, size = len(pages.numbers), pages.page_bytes
        last_bytes = len(pages.data) - (n - 1) * size
        places = np.empty(n, np.int64)
        for some, size_bytes in ((slice(n - 1), size), (slice(n - 1, n), last_bytes)):
            numbers, slots = pages.numbers[some], pages.slots[some]
            places[some] = self._placed(pages.name, numbers, slots, size_bytes)
        return places

    def _placed(
        self, name: str, numbers: NDArray[np.int64], slots: NDArray[np.uint8], size_bytes: int
    ) -> NDArray[np.int64]:
        """Return where pages of one length lie; an array gets segments as it grows."""
        held, is_small = self.segments.get(name), size_bytes <= TABLE_PAGE_BYTES
        if held is None:
            held = self.segments[name] = Segments([], [])
        segments, stride = (held.small, TABLE_PAGE_BYTES) if is_small else (held.large, PAGE_BYTES)
        which, within = np.divmod(numbers, PAGE_BYTES // stride)
        lacking = int(which.max(initial=-1)) + 1 - len(segments)
        segments.extend(range(self._n, self._n + max(lacking, 0)))
        self._n += max(lacking, 0)
        place: NDArray[np.int64] = np.array(segments, np.int64)[which] * _SEGMENT_BYTES
        place += (slots % 2).astype(np.int64) * PAGE_BYTES + within * stride
        return place

    def sync(self) -> None:
        """Return once everything is on the disk, a loss of power included."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)
