"""The pages of a state: which slot of each is in use, what has changed, and a copy of that.

Each page has two slots of an epoch, and a checkpoint writes the pages that changed into those that
are not in use. Whoever owns a large table says which pages were touched; of other arrays the pages'
hashes tell.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.copy_buffer import CopyBuffer
from stream.manifest import (
    Arrays,
    Form,
    Manifest,
    Pages,
    Partition,
    Snapshot,
    Stamp,
    bytes_of,
    is_of_epoch,
    layout_of,
    next_slots,
    page_hashes,
    pair_keys,
    seal,
)
from stream.page_file import PAGE_BYTES
from stream.touched import OwedPages, TouchedPages

_NO_PAGES = np.empty(0, np.bool_)
_ALIGNED = 64  # bytes, at which an array's pages begin in the buffer


class CopiedPart(NamedTuple):
    """Changed pages of one array: which, where they lie in the buffer, and whether hashes are."""

    name: str
    pages: NDArray[np.int64]
    place: slice
    is_hashed: bool


class Copied(NamedTuple):
    """What one checkpoint is made of, its pages in a buffer that the next copy writes over."""

    parts: list[CopiedPart]
    gone: list[bytes]
    forms: Mapping[str, Form]
    meta: bytes
    offsets: Mapping[Partition, int]
    owed: Sequence[OwedPages]
    buffer: NDArray[np.uint8]

    def pay(self, n_bytes: int, is_over: Callable[[], bool] = lambda: True) -> bool:
        """Copy about so much of what is owed, until it is over; return whether all is paid."""
        for owed in self.owed:
            while owed.is_owing:
                owed.pay(n_bytes)
                if is_over():
                    return not any(owed.is_owing for owed in self.owed)
        return True


class PageTable:
    """All pages of a state.

    Attributes
    ----------
    stamp
        Age of the last copy.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, NDArray[np.uint64]] = {}
        self._page_bytes: dict[str, int] = {}
        self._slots: dict[str, NDArray[np.uint8]] = {}  # array -> slot in use of each page
        self._versions: dict[str, int] = {}
        self._unsent: dict[str, NDArray[np.bool_]] = {}  # array -> pages to be written anyway
        self.stamp = Stamp(0, 0)
        self._buffer = CopyBuffer()

    def hold(
        self, name: str, slots: NDArray[np.uint8], page_bytes: int, hashes: NDArray[np.uint64]
    ) -> None:
        """Take note of an array as it is stored."""
        self._slots[name], self._page_bytes[name] = slots, page_bytes
        self._hashes[name] = hashes

    def begin(self, epoch: int, elsewhere: Manifest | None) -> None:
        """Go on in an epoch of one's own, with a copy of the state elsewhere; after `load`.

        Parameters
        ----------
        epoch
            Higher than that of either.
        elsewhere
            What the copy holds, None for nothing. Pages that are others here, or in other slots,
            are written with the next checkpoint, changed or not.
        """
        number = 0 if elsewhere is None else elsewhere.number
        self.stamp = Stamp(epoch, max(self.stamp.number, number))
        held = {} if elsewhere is None else elsewhere.arrays
        self._unsent = {}
        for name, slots in self._slots.items():
            unsent = np.ones(len(slots), np.bool_)
            there = held.get(name)
            if there is not None and there.page_bytes == self._page_bytes[name]:
                n = min(len(slots), len(there.slots), len(there.hashes) // 8)
                hashes = np.frombuffer(there.hashes, np.uint64)[:n]
                unsent[:n] = np.frombuffer(there.slots, np.uint8)[:n] != slots[:n]
                unsent[:n] |= hashes != self._hashes[name][:n]
            self._unsent[name] = unsent

    @property
    def n_unsent(self) -> int:
        """Pages that the copy elsewhere lacks, see `begin`."""
        return sum(int(np.count_nonzero(unsent)) for unsent in self._unsent.values())

    def copy(
        self,
        arrays: Arrays,
        meta: bytes,
        offsets: Mapping[Partition, int],
        touched: Mapping[str, TouchedPages] = MappingProxyType({}),
        versions: Mapping[str, int] = MappingProxyType({}),
    ) -> Copied:
        """Return a copy of what has changed since the last one; `finish` it before the next.

        Of touched pages it is begun and not made: it is paid off, or paid for by whoever writes.

        Parameters
        ----------
        arrays
            The whole state.
        meta
            The pipeline's own text.
        offsets
            Next offset of each partition.
        touched
            Array -> its pages that may have changed; unmarked.
        versions
            Array -> number: an array of the same number as at the last copy is the same.
        """
        same = {name for name in versions if self._is_same(name, versions[name])}
        views = {n: bytes_of(array) for n, array in arrays.items() if n not in same}
        parts, gone, start = [], [], 0
        for name, view in views.items():
            size = touched[name].page_bytes if name in touched else PAGE_BYTES
            n_pages = -(-len(view) // size)
            marks = touched[name].marks(n_pages) if name in touched else None
            changed = self._changed(name, view, size, marks)
            gone += self._take_slots(name, n_pages, changed)
            stop = start + len(changed) * size
            if len(changed) and changed[-1] == n_pages - 1:  # the last page may be shorter
                stop -= n_pages * size - len(view)
            parts.append(CopiedPart(name, changed, slice(start, stop), name not in touched))
            self._page_bytes[name] = size
            start = -(-stop // _ALIGNED) * _ALIGNED
        for name in self._slots.keys() - arrays.keys():
            gone += pair_keys(name, enumerate(self._slots.pop(name).tolist()))
            del self._page_bytes[name], self._hashes[name]
        self._versions = dict(versions)
        buffer, owed = self._buffer.take(start), []
        for name, changed, place, _ in parts:
            source, out = np.frombuffer(views[name], np.uint8), buffer[place]
            of_array = OwedPages(source, self._page_bytes[name], changed, out)
            if name in touched:
                touched[name].copied(of_array)
                owed.append(of_array)
            else:
                of_array.pay_all()
        self._unsent = {}
        self.stamp = Stamp(self.stamp.epoch, self.stamp.number + 1)
        forms = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        return Copied(parts, gone, forms, meta, dict(offsets), owed, buffer)

    def _is_same(self, name: str, version: int) -> bool:
        """Return whether an array is in the last copy as it is now, and in the one elsewhere."""
        if self._versions.get(name) != version or name not in self._slots:
            return False
        return not bool(self._unsent.get(name, _NO_PAGES).any())

    def _take_slots(self, name: str, n_pages: int, changed: NDArray[np.int64]) -> list[bytes]:
        """Give pages that are to be written their next slots; return the keys that are gone."""
        before, epoch = self._slots.get(name, np.empty(0, np.uint8)), self.stamp.epoch
        slots = next_slots(np.zeros(n_pages, np.uint8), epoch)  # odd: a first one is even
        slots[: len(before)] = before[:n_pages]
        other_epoch = changed[~is_of_epoch(slots[changed], epoch)]
        gone = pair_keys(name, zip(other_epoch.tolist(), slots[other_epoch].tolist(), strict=True))
        gone += pair_keys(name, enumerate(before[n_pages:].tolist(), n_pages))
        slots[changed] = next_slots(slots[changed], epoch)
        self._slots[name] = slots
        return gone

    def make_ready(self, part: float = 0.0) -> None:
        """Have memory ready for the next copy; slow, safe in another thread until it begins.

        Parameters
        ----------
        part
            Of all that is stored, in [0, 1], for which there is to be memory at least.
        """
        n_bytes = sum(len(slots) * self._page_bytes[name] for name, slots in self._slots.items())
        self._buffer.make_ready(round(part * n_bytes))

    def finish(self, copied: Copied) -> Snapshot:
        """Return a copy as it is to be written: slow; safe in another thread once all is paid."""
        for owed in copied.owed:
            owed.pay_all()
        parts = []
        for name, changed, place, is_hashed in copied.parts:
            if not len(changed):
                continue
            size, data = self._page_bytes[name], copied.buffer[place].data
            if not is_hashed:
                self._hashes[name][changed] = page_hashes(data, size, range(len(changed)))
            parts.append(Pages(name, changed, self._slots[name][changed], size, data))
        return Snapshot(parts, copied.gone, self._sealed(copied), self.stamp)

    def _sealed(self, copied: Copied) -> bytes:
        layouts = {
            name: layout_of(form, self._page_bytes[name], self._slots[name], self._hashes[name])
            for name, form in copied.forms.items()
        }
        places = [(topic, partition, at) for (topic, partition), at in copied.offsets.items()]
        return seal(Manifest(layouts, copied.meta, places, self.stamp.epoch, self.stamp.number))

    def _changed(
        self, name: str, view: memoryview, size: int, touched: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Return the pages that must be written; remember hashes where these tell."""
        n_pages = -(-len(view) // size)
        held = np.empty(0, np.uint64)
        if self._page_bytes.get(name) == size:
            held = self._hashes[name][:n_pages]
        is_new = np.arange(n_pages) >= len(held)
        unsent = self._unsent.get(name, _NO_PAGES)[:n_pages]
        is_new[: len(unsent)] |= unsent
        hashes = np.zeros(n_pages, np.uint64)
        if touched is not None:
            hashes[: len(held)] = held
            is_new |= touched
        else:
            hashes[:] = page_hashes(view, size, range(n_pages))
            is_new[: len(held)] |= hashes[: len(held)] != held
        self._hashes[name] = hashes
        return np.flatnonzero(is_new)
