"""State and input offsets on disk, always written together.

Arrays are cut into pages; a checkpoint writes the pages whose content changed, the manifest and the
offsets in one atomic RocksDB batch. So after a crash at any instant the disk holds the state of one
checkpoint and exactly the offsets that belong to it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray
from rocksdict import AccessType, Options, Rdict, WriteBatch

from models.errors import StateError

VERSION = 1
PAGE_BYTES = 256 * 1024
_MANIFEST = b"manifest"

Partition = tuple[str, int]


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    arrays: dict[str, tuple[str, tuple[int, ...]]]
    meta: bytes
    offsets: list[tuple[str, int, int]]


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

    def save(
        self,
        arrays: Mapping[str, NDArray[np.generic]],
        meta: bytes,
        offsets: Mapping[Partition, int],
    ) -> int:
        """Store a state with its offsets, atomically; return the bytes of pages that changed."""
        batch = WriteBatch(raw_mode=True)
        written, pages = 0, set()
        for key, page in _pages(arrays):
            pages.add(key)
            digest = xxhash.xxh3_64_intdigest(page)
            if self._hashes.get(key) != digest:
                self._hashes[key] = digest
                batch.put(key, bytes(page))
                written += len(page)
        for gone in self._hashes.keys() - pages:
            batch.delete(gone)
        self._hashes = {key: digest for key, digest in self._hashes.items() if key in pages}
        layout = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
        places = [(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        batch.put(_MANIFEST, msgspec.msgpack.encode(_Manifest(VERSION, layout, meta, places)))
        self._db.write(batch)
        return written

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
        self._hashes = {key: xxhash.xxh3_64_intdigest(page) for key, page in _pages(arrays)}
        offsets = {(topic, partition): offset for topic, partition, offset in manifest.offsets}
        return Checkpoint(arrays, manifest.meta, offsets)

    def _array(self, name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
        out = np.empty(shape, dtype)
        view = out.reshape(-1).view(np.uint8)
        for start in range(0, len(view), PAGE_BYTES):
            page = self._db.get(_page_key(name, start // PAGE_BYTES))
            wanted = min(PAGE_BYTES, len(view) - start)
            if page is None or len(page) != wanted:
                raise StateError(f"state: array {name!r} lacks a page of {wanted} bytes")
            view[start : start + wanted] = np.frombuffer(page, np.uint8)
        return out

    def close(self) -> None:
        """Release the directory."""
        self._db.close()


def _page_key(name: str, index: int) -> bytes:
    return b"page/%b/%d" % (name.encode(), index)


def _pages(arrays: Mapping[str, NDArray[np.generic]]) -> Iterator[tuple[bytes, memoryview]]:
    for name, array in arrays.items():
        view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for start in range(0, len(view), PAGE_BYTES):
            yield _page_key(name, start // PAGE_BYTES), view[start : start + PAGE_BYTES]
