"""State and input offsets on disk, always written together.

Arrays are cut into pages, and each page has two slots. A checkpoint writes the pages that changed
into the slot that is not in use, in small batches, and then in one atomic write the manifest, which
says which slots are in use, with the offsets. So after a crash at any instant the disk holds the
state of one checkpoint and exactly the offsets that belong to it. The batches are small because
RocksDB's client keeps Python's lock while it writes one, and decisions wait for that.

Whoever owns a large table says which pages were touched; of other arrays the pages' hashes tell. A
snapshot copies what is to be written, so that the slow part may go on in another thread. The
manifest holds the hash of every page and is sealed by one of its own, so that a byte that changed
on disk is found when it is read, by the name of its array and the number of its page.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from rocksdict import AccessType, DBCompressionType, Options, Rdict, WriteBatch

from models.errors import StateError, StateHeldError
from stream.manifest import (
    Arrays,
    Fault,
    Layout,
    Manifest,
    Partition,
    Snapshot,
    Stamp,
    bytes_of,
    first_slot,
    layout_of,
    page_digest,
    page_hashes,
    page_key,
    pair_keys,
    seal,
    unseal,
)
from stream.touched import TABLE_PAGE_BYTES

STORE = "state"  # folder of the store in a worker's state_dir
PAGE_BYTES = 256 * 1024
_MANIFEST = b"manifest"
_BATCH_BYTES = 1_000_000
_MAX_FILES = 12  # before they are merged: pages are overwritten soon, so merging early is in vain


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What was stored: named arrays, the pipeline's own text, next offset of each partition."""

    arrays: Mapping[str, NDArray[np.generic]]
    meta: bytes
    offsets: Mapping[Partition, int]


class StateStore:
    """One worker's state in a directory of its own.

    Parameters
    ----------
    path
        Directory; made if it is absent.
    is_read_only
        Look at what is there, also while a worker has it open; nothing is made or written.

    Raises
    ------
    StateHeldError
        If another process holds it.
    StateError
        If it cannot be read, or what is to be looked at is not there.
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        is_database = (path / "CURRENT").exists()
        if not is_database and any(path.glob("*.sst")):  # RocksDB would begin a new one over it
            raise StateError(f"state in {path}: expected a database, found parts of one")
        if is_read_only and not is_database:
            raise StateError(f"state in {path}: expected a database, found none")
        options = Options(raw_mode=True)
        options.create_if_missing(not is_read_only)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_level_zero_file_num_compaction_trigger(_MAX_FILES)
        options.set_level_zero_slowdown_writes_trigger(4 * _MAX_FILES)
        options.set_level_zero_stop_writes_trigger(8 * _MAX_FILES)
        access = AccessType.read_only() if is_read_only else AccessType.read_write()
        if not is_read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(path), options, access_type=access)
        except Exception as error:  # rocksdict raises bare Exception
            if "lock" in str(error).lower():
                raise StateHeldError(f"state in {path} is held by another process") from error
            raise StateError(f"state in {path} cannot be opened: {error}") from error
        self._hashes: dict[str, NDArray[np.uint64]] = {}
        self._page_bytes: dict[str, int] = {}
        self._slots: dict[str, NDArray[np.uint8]] = {}  # array -> slot in use of each page
        self._unsent: dict[str, NDArray[np.bool_]] = {}  # array -> pages to be written anyway
        self._stamp = Stamp(0, 0)

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
        self._stamp = Stamp(epoch, max(self._stamp.number, number))
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

    def save(
        self,
        arrays: Arrays,
        meta: bytes,
        offsets: Mapping[Partition, int],
        touched: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
    ) -> int:
        """Store a state with its offsets, atomically; return the bytes of pages that changed."""
        snapshot = self.snapshot(arrays, meta, offsets, touched)
        self.write(snapshot)
        return snapshot.size_bytes

    def snapshot(
        self,
        arrays: Arrays,
        meta: bytes,
        offsets: Mapping[Partition, int],
        touched: Mapping[str, NDArray[np.bool_]] = MappingProxyType({}),
    ) -> Snapshot:
        """Return what has changed since the last snapshot, copied; it must then be written.

        Parameters
        ----------
        arrays
            The whole state.
        meta
            The pipeline's own text.
        offsets
            Next offset of each partition.
        touched
            Array -> bool of shape (n_pages,): pages of `TABLE_PAGE_BYTES` that may have changed.
        """
        pages: list[tuple[bytes, bytes]] = []
        gone: list[bytes] = []
        first = first_slot(self._stamp.epoch)
        for name, array in arrays.items():
            view = bytes_of(array)
            size = TABLE_PAGE_BYTES if name in touched else PAGE_BYTES
            n_pages = -(-len(view) // size)
            before = self._slots.get(name, np.empty(0, np.uint8))
            changed = self._changed(name, view, size, touched.get(name))
            slots = np.full(n_pages, first + 1, np.uint8)
            slots[: len(before)] = before[:n_pages]
            gone += pair_keys(
                name, [(i, int(slots[i])) for i in changed if slots[i] & 254 != first]
            )
            gone += pair_keys(name, enumerate(before[n_pages:].tolist(), n_pages))
            slots[changed] = np.where(slots[changed] == first, first + 1, first)
            pages += [
                (page_key(name, i, slots[i]), bytes(view[i * size : (i + 1) * size]))
                for i in changed
            ]
            self._slots[name], self._page_bytes[name] = slots, size
        for name in self._slots.keys() - arrays.keys():
            gone += pair_keys(name, enumerate(self._slots.pop(name).tolist()))
            del self._page_bytes[name], self._hashes[name]
        self._unsent = {}
        self._stamp = Stamp(self._stamp.epoch, self._stamp.number + 1)
        return Snapshot(pages, gone, self._sealed(arrays, meta, offsets), self._stamp)

    def _sealed(self, arrays: Arrays, meta: bytes, offsets: Mapping[Partition, int]) -> bytes:
        layouts = {
            name: layout_of(array, self._page_bytes[name], self._slots[name], self._hashes[name])
            for name, array in arrays.items()
        }
        places = [(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        return seal(Manifest(layouts, meta, places, self._stamp.epoch, self._stamp.number))

    def _changed(
        self, name: str, view: memoryview, size: int, touched: NDArray[np.bool_] | None
    ) -> list[int]:
        """Return the pages that must be written; remember the hashes of all."""
        n_pages = -(-len(view) // size)
        held = np.empty(0, np.uint64)
        if self._page_bytes.get(name) == size:
            held = self._hashes[name][:n_pages]
        is_new = np.arange(n_pages) >= len(held)
        unsent = self._unsent.get(name, np.empty(0, np.bool_))[:n_pages]
        is_new[: len(unsent)] |= unsent
        hashes = np.zeros(n_pages, np.uint64)
        hashes[: len(held)] = held
        if touched is not None:
            changed = np.flatnonzero(touched | is_new)
            hashes[changed] = page_hashes(view, size, changed.tolist())
        else:
            hashes[:] = page_hashes(view, size, range(n_pages))
            is_new[: len(held)] |= hashes[: len(held)] != held
            changed = np.flatnonzero(is_new)
        self._hashes[name] = hashes
        found: list[int] = changed.tolist()
        return found

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot in one atomic batch; snapshots are written in their order.

        Raises
        ------
        StateError
            If the disk does not take it.
        """
        self.put(snapshot.pages)
        last = _deletion(snapshot.gone)
        last.put(_MANIFEST, snapshot.manifest)
        self._written(last)

    def load(self) -> Checkpoint | None:
        """Return the last checkpoint, None on a new disk; the store goes on from there.

        Raises
        ------
        StateError
            If it is of another version or damaged.
        """
        checkpoint, faults = self.read()
        if faults:
            more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
            raise StateError(f"state: {faults[0]}{more}")
        return checkpoint

    def read(self) -> tuple[Checkpoint | None, list[Fault]]:
        """Return the last checkpoint, None on a new disk, and every page that is not as stored.

        Raises
        ------
        StateError
            If the manifest is of another version or damaged.
        """
        manifest = self._manifest()
        if manifest is None:
            return None, []
        arrays, faults = {}, []
        self._hashes, self._slots, self._page_bytes, self._unsent = {}, {}, {}, {}
        self._stamp = manifest.stamp
        for name, layout in manifest.arrays.items():
            self._slots[name] = np.frombuffer(layout.slots, np.uint8)
            self._page_bytes[name] = layout.page_bytes
            arrays[name], of_array = self._array(name, layout)
            faults += of_array
            self._hashes[name] = _hashes_of(layout, arrays[name])
        return Checkpoint(arrays, manifest.meta, manifest.places()), faults

    def offsets(self) -> Mapping[Partition, int]:
        """Return the offsets of the last checkpoint, whatever its pages are; none on a new disk.

        Raises
        ------
        StateError
            If the manifest is of another version or damaged.
        """
        manifest = self._manifest()
        return {} if manifest is None else manifest.places()

    def stamp(self) -> Stamp | None:
        """Return the age of the last checkpoint, whatever its pages are; None on a new disk.

        Raises
        ------
        StateError
            If the manifest is of another version or damaged.
        """
        manifest = self._manifest()
        return None if manifest is None else manifest.stamp

    def sealed(self) -> bytes | None:
        """Return the manifest as it is stored; None on a new disk."""
        stored: bytes | None = self._db.get(_MANIFEST)
        return stored

    def forget(self) -> None:
        """Hold no state any more, before one from elsewhere takes its place."""
        self._written(_deletion([_MANIFEST]))

    def put(self, pages: Iterable[tuple[bytes, bytes]]) -> None:
        """Write pages that no manifest names yet."""
        for batch in _batches(pages):
            self._written(batch)

    def take(self, manifest: bytes) -> None:
        """Switch to a state whose pages were all put; delete what it does not name."""
        kept = {key for key, _ in unseal(manifest).pages()}
        held = [key for key in self._db.keys() if isinstance(key, bytes)]  # noqa: SIM118  # no dict
        last = _deletion(key for key in held if key not in kept)
        last.put(_MANIFEST, manifest)
        self._written(last)

    def _written(self, batch: WriteBatch) -> None:
        try:
            self._db.write(batch)
        except Exception as error:  # rocksdict raises bare Exception
            raise StateError(f"state cannot be written: {error}") from error

    def _manifest(self) -> Manifest | None:
        try:
            stored = self._db.get(_MANIFEST)
        except Exception as error:  # rocksdict raises bare Exception
            raise StateError(f"state: the manifest cannot be read: {error}") from error
        return None if stored is None else unseal(stored)

    def _array(self, name: str, layout: Layout) -> tuple[NDArray[np.generic], list[Fault]]:
        """Return an array, and what is wrong with its pages; such a page is left at 0."""
        out = np.zeros(layout.shape, layout.dtype)
        view, size = out.reshape(-1).view(np.uint8), layout.page_bytes
        hashes = np.frombuffer(layout.hashes, np.uint64)
        n_pages = -(-len(view) // size)
        if n_pages != len(layout.slots) or (layout.hashes and n_pages != len(hashes)):
            return out, [Fault(name, None, f"expected {n_pages} pages, got {len(layout.slots)}")]
        faults = []
        for index, slot in enumerate(layout.slots):
            start = index * size
            wanted = min(size, len(view) - start)
            digest = int(hashes[index]) if layout.hashes else None
            page, what = self._page(page_key(name, index, slot), wanted, digest)
            if what:
                faults.append(Fault(name, index, what))
            else:
                view[start : start + wanted] = np.frombuffer(page, np.uint8)
        return out, faults

    def _page(self, key: bytes, wanted: int, digest: int | None) -> tuple[bytes, str]:
        """Return a page, and what is wrong with it."""
        try:
            page = self._db.get(key)
        except Exception as error:  # noqa: BLE001  # rocksdict raises bare Exception
            return b"", f"the database cannot read it: {error}"
        if page is None:
            return b"", f"expected {wanted} bytes, found none"
        if len(page) != wanted:
            return b"", f"expected {wanted} bytes, got {len(page)}"
        if digest is not None and page_digest(page) != digest:
            return b"", "its bytes have changed: expected the hash that the manifest names"
        return page, ""

    def close(self) -> None:
        """Release the directory."""
        self._db.close()


def _batches(pages: Iterable[tuple[bytes, bytes]]) -> Iterator[WriteBatch]:
    """Yield writes of a few milliseconds each."""
    batch, size_bytes = WriteBatch(raw_mode=True), 0
    for key, page in pages:
        batch.put(key, page)
        size_bytes += len(page)
        if size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = WriteBatch(raw_mode=True), 0
    if size_bytes:
        yield batch


def _deletion(keys: Iterable[bytes]) -> WriteBatch:
    batch = WriteBatch(raw_mode=True)
    for key in keys:
        batch.delete(key)
    return batch


def _hashes_of(layout: Layout, array: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Return the hashes of pages that were read: those that they were held against, if any."""
    if layout.hashes:
        return np.frombuffer(layout.hashes, np.uint64)
    pages = range(len(layout.slots))
    return np.array(page_hashes(bytes_of(array), layout.page_bytes, pages), np.uint64)
