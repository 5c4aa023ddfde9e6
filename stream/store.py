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
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray
from rocksdict import AccessType, Options, Rdict, WriteBatch

from models.errors import StateError, StateHeldError
from stream.touched import TABLE_PAGE_BYTES

VERSION = 4
UNHASHED_VERSION = 3
"""Without hashes, still read; its first checkpoint brings it to the version above."""
STORE = "state"  # folder of the store in a worker's state_dir
PAGE_BYTES = 256 * 1024
_MANIFEST = b"manifest"
_BATCH_BYTES = 1_000_000

Partition = tuple[str, int]
Arrays = Mapping[str, NDArray[np.generic]]


class _Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One array: how it is cut, and of each page the slot in use (u1) and the hash (u8)."""

    dtype: str
    shape: tuple[int, ...]
    page_bytes: int
    slots: bytes
    hashes: bytes = b""


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    arrays: dict[str, _Layout]
    meta: bytes
    offsets: list[tuple[str, int, int]]
    version: int = VERSION


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    digest: int
    body: bytes


class _Version(msgspec.Struct, frozen=True):
    version: int


class Fault(NamedTuple):
    """What is wrong with a stored array, never with which value; ``page`` None: all of it."""

    array: str
    page: int | None
    what: str

    def __str__(self) -> str:
        """Return one line."""
        place = "" if self.page is None else f", page {self.page}"
        return f"array {self.array!r}{place}: {self.what}"


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
            del self._page_bytes[name], self._hashes[name]
        layout = {
            name: _Layout(
                array.dtype.str,
                array.shape,
                self._page_bytes[name],
                self._slots[name].tobytes(),
                self._hashes[name].tobytes(),
            )
            for name, array in arrays.items()
        }
        places = [(topic, partition, offset) for (topic, partition), offset in offsets.items()]
        return Snapshot(pages, gone, _sealed(_Manifest(layout, meta, places)))

    def _changed(
        self, name: str, view: memoryview, size: int, touched: NDArray[np.bool_] | None
    ) -> list[int]:
        """Return the pages that must be written; remember the hashes of all."""
        n_pages = -(-len(view) // size)
        held = np.empty(0, np.uint64)
        if self._page_bytes.get(name) == size:
            held = self._hashes[name][:n_pages]
        is_new = np.arange(n_pages) >= len(held)
        hashes = np.zeros(n_pages, np.uint64)
        hashes[: len(held)] = held
        if touched is not None:
            changed = np.flatnonzero(touched | is_new)
            hashes[changed] = _page_hashes(view, size, changed.tolist())
        else:
            hashes[:] = _page_hashes(view, size, range(n_pages))
            is_new[: len(held)] = hashes[: len(held)] != held
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
        self._hashes, self._slots, self._page_bytes = {}, {}, {}
        for name, layout in manifest.arrays.items():
            self._slots[name] = np.frombuffer(layout.slots, np.uint8)
            self._page_bytes[name] = layout.page_bytes
            arrays[name], of_array = self._array(name, layout)
            faults += of_array
            self._hashes[name] = _hashes_of(layout, arrays[name])
        return Checkpoint(arrays, manifest.meta, _offsets(manifest)), faults

    def offsets(self) -> Mapping[Partition, int]:
        """Return the offsets of the last checkpoint, whatever its pages are; none on a new disk.

        Raises
        ------
        StateError
            If the manifest is of another version or damaged.
        """
        manifest = self._manifest()
        return {} if manifest is None else _offsets(manifest)

    def _manifest(self) -> _Manifest | None:
        try:
            stored = self._db.get(_MANIFEST)
        except Exception as error:  # rocksdict raises bare Exception
            raise StateError(f"state: the manifest cannot be read: {error}") from error
        return None if stored is None else _opened(stored)

    def _array(self, name: str, layout: _Layout) -> tuple[NDArray[np.generic], list[Fault]]:
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
            page, what = self._page(_key(name, index, slot), wanted, digest)
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
        if digest is not None and xxhash.xxh3_64_intdigest(page) != digest:
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


def _key(name: str, index: int, slot: int) -> bytes:
    return b"page/%b/%d/%d" % (name.encode(), index, slot)


def _keys(name: str, indices: Iterable[int]) -> list[bytes]:
    return [_key(name, index, slot) for index in indices for slot in (0, 1)]


def _hashes_of(layout: _Layout, array: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Return the hashes of pages that were read: those that they were held against, if any."""
    if layout.hashes:
        return np.frombuffer(layout.hashes, np.uint64)
    pages = range(len(layout.slots))
    return np.array(_page_hashes(_bytes_of(array), layout.page_bytes, pages), np.uint64)


def _page_hashes(view: memoryview, size: int, pages: Iterable[int]) -> list[int]:
    return [xxhash.xxh3_64_intdigest(view[i * size : (i + 1) * size]) for i in pages]


def _offsets(manifest: _Manifest) -> dict[Partition, int]:
    return {(topic, partition): offset for topic, partition, offset in manifest.offsets}


def _sealed(manifest: _Manifest) -> bytes:
    body = msgspec.msgpack.encode(manifest)
    return msgspec.msgpack.encode(_Sealed(VERSION, xxhash.xxh3_64_intdigest(body), body))


def _opened(stored: bytes) -> _Manifest:
    """Return a manifest of this version or of the one without hashes."""
    try:
        version = msgspec.msgpack.decode(stored, type=_Version).version
        if version == UNHASHED_VERSION:
            return msgspec.msgpack.decode(stored, type=_Manifest)
        if version != VERSION:
            raise StateError(f"state: expected version {VERSION}, got {version}")
        sealed = msgspec.msgpack.decode(stored, type=_Sealed)
        if xxhash.xxh3_64_intdigest(sealed.body) != sealed.digest:
            raise StateError("state: the manifest's bytes have changed")
        return msgspec.msgpack.decode(sealed.body, type=_Manifest)
    except msgspec.MsgspecError as error:
        raise StateError(f"state: expected a manifest of version {VERSION}") from error


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
