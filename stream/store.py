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

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from rocksdict import AccessType, DBCompressionType, Options, Rdict, WriteBatch

from models.errors import NoRoomError, StateError, StateHeldError
from stream.manifest import (
    Arrays,
    Fault,
    Layout,
    Manifest,
    Partition,
    Snapshot,
    Stamp,
    bytes_of,
    page_digest,
    page_hashes,
    page_key,
    unseal,
)
from stream.page_table import PageTable

STORE = "state"  # folder of the store in a worker's state_dir
_MANIFEST = b"manifest"
_BATCH_BYTES = 250_000
_NO_ROOM = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT)))
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
            raise _error(f"state in {path} cannot be opened", error) from error
        self.pages = PageTable()

    @property
    def n_unsent(self) -> int:
        """Pages that the copy elsewhere lacks, see `stream.page_table.PageTable.begin`."""
        return self.pages.n_unsent

    def begin(self, epoch: int, elsewhere: Manifest | None) -> None:
        """Go on in an epoch of one's own; see `stream.page_table.PageTable.begin`."""
        self.pages.begin(epoch, elsewhere)

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
        """Return what has changed since the last snapshot; it must then be written."""
        return self.pages.finish(self.pages.copy(arrays, meta, offsets, touched))

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
        self.pages = PageTable()
        self.pages.stamp = manifest.stamp
        for name, layout in manifest.arrays.items():
            arrays[name], of_array = self._array(name, layout)
            faults += of_array
            slots = np.frombuffer(layout.slots, np.uint8)
            hashes = _hashes_of(layout, arrays[name])
            self.pages.hold(name, slots, layout.page_bytes, hashes)
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
            raise _error("state cannot be written", error) from error

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


def _error(what: str, error: Exception) -> StateError:
    """Return what is wrong: nothing but room is lacking, or else."""
    kind = NoRoomError if any(text in str(error) for text in _NO_ROOM) else StateError
    return kind(f"{what}: {error}")


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
