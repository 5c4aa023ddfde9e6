"""State and input offsets on disk, always written together.

Arrays are cut into pages, and each page has two slots. A checkpoint writes the pages that changed
into the slot that is not in use, in small batches, and then in one atomic write the manifest, which
says which slots are in use, with the offsets. So after a crash at any instant the disk holds the
state of one checkpoint and exactly the offsets that belong to it. The batches are small because
RocksDB's client keeps Python's lock while it writes one, and decisions wait for that.

Whoever owns a large table says which pages were touched; of other arrays the pages' hashes tell. A
snapshot copies what is to be written, so that the slow part may go on in another thread.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray
from rocksdict import AccessType, Options, Rdict, WriteBatch

from models.errors import StateError
from stream.touched import TABLE_PAGE_BYTES

VERSION = 3
PAGE_BYTES = 256 * 1024
_MANIFEST = b"manifest"
_BATCH_BYTES = 1_000_000

Partition = tuple[str, int]
Arrays = Mapping[str, NDArray[np.generic]]


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    arrays: dict[str, tuple[str, tuple[int, ...], int, bytes]]
    meta: bytes
    offsets: list[tuple[str, int, int]]


class Snapshot(NamedTuple):
    """What one checkpoint writes: changed pages, keys to delete, the manifest."""

    pages: list[tuple[bytes, bytes]]
    gone: list[bytes]
    manifest: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the pages."""
        return sum(len(page) for _, page in self.pages)


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

    Raises
    ------
    StateError
        If another process holds it or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(path), options, access_type=AccessType.read_write())
        except Exception as error:  # rocksdict raises bare Exception
            raise StateError(f"state in {path} cannot be opened: {error}") from error
        self._hashes: dict[str, list[int]] = {}
        self._page_bytes: dict[str, int] = {}
        self._slots: dict[str, NDArray[np.uint8]] = {}  # array -> slot in use of each page

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
        for name, array in arrays.items():
            view = _bytes_of(array)
            size = TABLE_PAGE_BYTES if name in touched else PAGE_BYTES
            n_pages = -(-len(view) // size)
            before = self._slots.get(name, np.empty(0, np.uint8))
            changed = self._changed(name, view, size, touched.get(name))
            slots = np.ones(n_pages, np.uint8)
            slots[: len(before)] = before[:n_pages]
            slots[changed] ^= 1
            pages += [
                (_key(name, i, slots[i]), bytes(view[i * size : (i + 1) * size])) for i in changed
            ]
            gone += _keys(name, range(n_pages, len(before)))
            self._slots[name], self._page_bytes[name] = slots, size
        for name in self._slots.keys() - arrays.keys():
            gone += _keys(name, range(len(self._slots.pop(name))))
            del self._page_bytes[name]
            self._hashes.pop(name, None)
        layout = {
            name: (
                array.dtype.str,
                array.shape,
                self._page_bytes[name],
                self._slots[name].tobytes(),
            )
            for name, array in arrays.items()
        }
        places = [(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        manifest = msgspec.msgpack.encode(_Manifest(VERSION, layout, meta, places))
        return Snapshot(pages, gone, manifest)

    def _changed(
        self, name: str, view: memoryview, size: int, touched: NDArray[np.bool_] | None
    ) -> list[int]:
        """Return the pages that must be written."""
        n_pages = -(-len(view) // size)
        is_same_layout = self._page_bytes.get(name) == size
        before = len(self._slots[name]) if is_same_layout else 0
        if touched is not None:
            self._hashes.pop(name, None)
            new = np.arange(n_pages) >= before
            found: list[int] = np.flatnonzero(touched | new).tolist()
            return found
        held = self._hashes.get(name, []) if is_same_layout else []
        self._hashes[name] = hashes = _page_hashes(view)
        return [i for i in range(n_pages) if i >= len(held) or held[i] != hashes[i]]

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot in one atomic batch; snapshots are written in their order.

        Raises
        ------
        StateError
            If the disk does not take it.
        """
        try:
            for batch in _batches(snapshot.pages):
                self._db.write(batch)
            last = WriteBatch(raw_mode=True)
            last.put(_MANIFEST, snapshot.manifest)
            for key in snapshot.gone:
                last.delete(key)
            self._db.write(last)
        except Exception as error:  # rocksdict raises bare Exception
            raise StateError(f"state cannot be written: {error}") from error

    def load(self) -> Checkpoint | None:
        """Return the last checkpoint, None on a new disk.

        Raises
        ------
        StateError
            If it is of another version or damaged.
        """
        stored = self._db.get(_MANIFEST)
        if stored is None:
            return None
        try:
            manifest = msgspec.msgpack.decode(stored, type=_Manifest)
        except msgspec.MsgspecError as error:
            raise StateError(f"state: expected a manifest of version {VERSION}") from error
        if manifest.version != VERSION:
            raise StateError(f"state: expected version {VERSION}, got {manifest.version}")
        arrays = {name: self._array(name, *layout) for name, layout in manifest.arrays.items()}
        self._hashes = {}
        self._slots = {
            name: np.frombuffer(layout[3], np.uint8) for name, layout in manifest.arrays.items()
        }
        self._page_bytes = {name: layout[2] for name, layout in manifest.arrays.items()}
        for name, array in arrays.items():
            if self._page_bytes[name] == PAGE_BYTES:
                self._hashes[name] = _page_hashes(_bytes_of(array))
        offsets = {(topic, partition): offset for topic, partition, offset in manifest.offsets}
        return Checkpoint(arrays, manifest.meta, offsets)

    def _array(
        self, name: str, dtype: str, shape: tuple[int, ...], page_bytes: int, slots: bytes
    ) -> NDArray[np.generic]:
        out = np.empty(shape, dtype)
        view = out.reshape(-1).view(np.uint8)
        for start in range(0, len(view), page_bytes):
            index = start // page_bytes
            page = self._db.get(_key(name, index, slots[index])) if index < len(slots) else None
            wanted = min(page_bytes, len(view) - start)
            if page is None or len(page) != wanted:
                raise StateError(f"state: array {name!r} lacks a page of {wanted} bytes")
            view[start : start + wanted] = np.frombuffer(page, np.uint8)
        return out

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


def _key(name: str, index: int, slot: int) -> bytes:
    return b"page/%b/%d/%d" % (name.encode(), index, slot)


def _keys(name: str, indices: Iterable[int]) -> list[bytes]:
    return [_key(name, index, slot) for index in indices for slot in (0, 1)]


def _page_hashes(view: memoryview) -> list[int]:
    starts = range(0, len(view), PAGE_BYTES)
    return [xxhash.xxh3_64_intdigest(view[start : start + PAGE_BYTES]) for start in starts]


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
