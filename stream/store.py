"""State and input offsets on disk, always written together.

Arrays are cut into pages; a checkpoint writes the pages whose content changed, the manifest and the
offsets in one atomic RocksDB batch. So after a crash at any instant the disk holds the state of one
checkpoint and exactly the offsets that belong to it. Whoever owns a large table says which pages
were touched; of other arrays the pages' hashes tell. A snapshot copies what is to be written, so
that the slow part, the writing, may go on in another thread.
"""

from collections import deque
from collections.abc import Iterator, Mapping
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

VERSION = 2
PAGE_BYTES = 256 * 1024
_MANIFEST = b"manifest"

Partition = tuple[str, int]
Arrays = Mapping[str, NDArray[np.generic]]


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    arrays: dict[str, tuple[str, tuple[int, ...], int]]
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
        self._hashes: dict[bytes, int] = {}
        self._paged: dict[str, tuple[int, int]] = {}  # array -> pages, bytes of a page

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
            before, size_before = self._paged.get(name, (0, size))
            n_pages = -(-len(view) // size)
            self._paged[name] = n_pages, size
            if name in touched and before and size == size_before:
                new = np.arange(n_pages) >= before
                changed = np.flatnonzero(touched[name] | new).tolist()
                pages += [_page(name, i, view, size) for i in changed]
            elif name in touched:
                pages += [_page(name, i, view, size) for i in range(n_pages)]
            else:
                pages += self._differing(name, view, size_before)
            gone += [_page_key(name, i) for i in range(n_pages, before)]
        for name in self._paged.keys() - arrays.keys():
            gone += [_page_key(name, i) for i in range(self._paged.pop(name)[0])]
        for key in gone:
            self._hashes.pop(key, None)
        layout = {
            name: (array.dtype.str, array.shape, self._paged[name][1])
            for name, array in arrays.items()
        }
        places = [(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        manifest = msgspec.msgpack.encode(_Manifest(VERSION, layout, meta, places))
        return Snapshot(pages, gone, manifest)

    def _differing(
        self, name: str, view: memoryview, size_before: int = PAGE_BYTES
    ) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(view), PAGE_BYTES):
            page = view[start : start + PAGE_BYTES]
            key, digest = _page_key(name, start // PAGE_BYTES), xxhash.xxh3_64_intdigest(page)
            if self._hashes.get(key) != digest or size_before != PAGE_BYTES:
                self._hashes[key] = digest
                yield key, bytes(page)

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot in one atomic batch; snapshots are written in their order.

        Raises
        ------
        StateError
            If the disk does not take it.
        """
        batch = WriteBatch(raw_mode=True)
        for key, page in snapshot.pages:
            batch.put(key, page)
        for key in snapshot.gone:
            batch.delete(key)
        batch.put(_MANIFEST, snapshot.manifest)
        try:
            self._db.write(batch)
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
        self._hashes, self._paged = {}, {}
        for name, array in arrays.items():
            size, view = manifest.arrays[name][2], _bytes_of(array)
            self._paged[name] = -(-len(view) // size), size
            if size == PAGE_BYTES:
                deque(self._differing(name, view), maxlen=0)
        offsets = {(topic, partition): offset for topic, partition, offset in manifest.offsets}
        return Checkpoint(arrays, manifest.meta, offsets)

    def _array(
        self, name: str, dtype: str, shape: tuple[int, ...], page_bytes: int
    ) -> NDArray[np.generic]:
        out = np.empty(shape, dtype)
        view = out.reshape(-1).view(np.uint8)
        for start in range(0, len(view), page_bytes):
            page = self._db.get(_page_key(name, start // page_bytes))
            wanted = min(page_bytes, len(view) - start)
            if page is None or len(page) != wanted:
                raise StateError(f"state: array {name!r} lacks a page of {wanted} bytes")
            view[start : start + wanted] = np.frombuffer(page, np.uint8)
        return out

    def close(self) -> None:
        """Release the directory."""
        self._db.close()


def _page_key(name: str, index: int) -> bytes:
    return b"page/%b/%d" % (name.encode(), index)


def _page(name: str, index: int, view: memoryview, size: int) -> tuple[bytes, bytes]:
    return _page_key(name, index), bytes(view[index * size : (index + 1) * size])


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
