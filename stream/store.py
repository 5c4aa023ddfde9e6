"""State and input offsets on disk, always written together.

Arrays are cut into pages, and each page has two places. A checkpoint writes the pages that changed
into the place that is not in use, waits until the disk has them, and then replaces the manifest,
which says which places are in use, with the offsets, by renaming a file. So after a crash at any
instant, of the machine too, the disk holds the state of one checkpoint and exactly the offsets that
belong to it. All that waits for the disk lets other threads run.

Whoever owns a large table says which pages were touched; of other arrays the pages' hashes tell. A
snapshot copies what is to be written, so that the slow part may go on in another thread. The
manifest holds the hash of every page and is sealed by one of its own, so that a byte that changed
on disk is found when it is read, by the name of its array and the number of its page.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.errors import NoRoomError, StateError, StateHeldError
from stream.manifest import (
    Arrays,
    Fault,
    Layout,
    Manifest,
    Pages,
    Partition,
    Snapshot,
    Stamp,
    page_digest,
    page_hashes,
    unseal,
)
from stream.page_file import PageFile, Segments
from stream.page_table import PageTable
from stream.touched import TouchedPages

STORE = "state"  # folder of the store in a worker's state_dir
LAYOUT = 3
"""Version of the files; what the manifest says has its own."""
_LOCK, _PAGES, _MANIFEST = "lock", "pages", "manifest"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What was stored: named arrays, the pipeline's own text, next offset of each partition."""

    arrays: Mapping[str, NDArray[np.generic]]
    meta: bytes
    offsets: Mapping[Partition, int]


class _Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the file of the manifest holds; ``digest`` is that of ``body``, a `_Body`."""

    layout: int
    digest: int
    body: bytes


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    segments: dict[str, Segments]
    manifest: bytes


class StateStore:
    """One worker's state in a directory of its own.

    Parameters
    ----------
    path
        Directory; made if it is absent.
    is_read_only
        Look at what is there, also while a worker has it open; nothing is made or written. What a
        worker writes meanwhile may show as faults, see `read_stored`.

    Raises
    ------
    StateHeldError
        If another process holds it.
    NoRoomError
        If the disk is full.
    StateError
        If it cannot be read, or what is to be looked at is not there.
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self._path = path
        has_manifest = (path / _MANIFEST).exists()
        if (path / "CURRENT").exists():
            raise StateError(f"state in {path}: expected files of layout {LAYOUT}, got a database")
        if is_read_only and not has_manifest:
            raise StateError(f"state in {path}: expected a manifest, found none")
        if has_manifest and not (path / _PAGES).exists():
            raise StateError(f"state in {path}: expected pages beside the manifest, found none")
        with _told(f"state in {path} cannot be opened"), contextlib.ExitStack() as undo:
            self._lock = None if is_read_only else undo.enter_context(_locked(path))
            segments, self._sealed = self._stored()
            self._pages = PageFile(path / _PAGES, segments, is_read_only=is_read_only)
            undo.pop_all()
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
        touched: Mapping[str, TouchedPages] = MappingProxyType({}),
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
        touched: Mapping[str, TouchedPages] = MappingProxyType({}),
    ) -> Snapshot:
        """Return a copy of what has changed since the last one; see `PageTable.copy`."""
        return self.pages.finish(self.pages.copy(arrays, meta, offsets, touched))

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot; safe in another thread, one after the other.

        Raises
        ------
        NoRoomError
            If the disk is full.
        StateError
            If it does not take it for another reason.
        """
        with self._writing():
            self._pages.write(snapshot.parts)
        self.take(snapshot.manifest)

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
            hashes = np.frombuffer(layout.hashes, np.uint64)
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
        return self._sealed

    def forget(self) -> None:
        """Hold no state any more, before one from elsewhere takes its place."""
        with self._writing():
            (self._path / _MANIFEST).unlink(missing_ok=True)
            _sync_folder(self._path)
        self._sealed = None

    def put(self, pages: Iterable[tuple[bytes, bytes]]) -> None:
        """Write pages that no manifest names yet."""
        with self._writing():
            self._pages.write(Pages.grouped(pages))

    def take(self, manifest: bytes) -> None:
        """Switch to a state whose pages were all put, once the disk has them."""
        body = msgspec.msgpack.encode(_Body(self._pages.segments, manifest))
        stored = _Stored(LAYOUT, page_digest(body), body)
        with self._writing():
            self._pages.sync()
            _replaced(self._path / _MANIFEST, msgspec.msgpack.encode(stored))
        self._sealed = manifest

    def close(self) -> None:
        """Release the directory."""
        self._pages.close()
        if self._lock is not None:
            self._lock.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._lock is None:
            raise StateError("state cannot be written: it was opened to be looked at")
        with _told("state cannot be written"):
            yield

    def _stored(self) -> tuple[Mapping[str, Segments], bytes | None]:
        """Return the segments of the file of pages, and the manifest, None on a new disk."""
        path = self._path / _MANIFEST
        if not path.exists():
            return {}, None
        try:
            stored = msgspec.msgpack.decode(path.read_bytes(), type=_Stored)
            if stored.layout != LAYOUT:
                raise StateError(f"state: expected layout {LAYOUT}, got {stored.layout}")
            if page_digest(stored.body) != stored.digest:
                raise StateError("state: the manifest's bytes have changed")
            body = msgspec.msgpack.decode(stored.body, type=_Body)
        except msgspec.MsgspecError as error:
            raise StateError(f"state: expected a manifest of layout {LAYOUT}") from error
        return body.segments, body.manifest

    def _manifest(self) -> Manifest | None:
        return None if self._sealed is None else unseal(self._sealed)

    def _array(self, name: str, layout: Layout) -> tuple[NDArray[np.generic], list[Fault]]:
        """Return an array, and what is wrong with its pages; such a page is left as it was read."""
        out = np.zeros(layout.shape, layout.dtype)
        view, size = out.reshape(-1).view(np.uint8).data, layout.page_bytes
        slots, hashes = (np.frombuffer(layout.slots, np.uint8), np.frombuffer(layout.hashes, "u8"))
        n_pages = -(-len(view) // size)
        if not n_pages == len(slots) == len(hashes):
            return out, [Fault(name, None, f"expected {n_pages} pages, got {len(slots)}")]
        found = self._pages.read(Pages(name, np.arange(n_pages), slots, size, view))
        expected = np.minimum(len(view) - np.arange(n_pages) * size, size)
        is_changed = np.array(page_hashes(view, size, range(n_pages)), np.uint64) != hashes
        faults = []
        for index in np.flatnonzero((found < expected) | is_changed).tolist():
            what, n = _CHANGED, int(found[index])
            if n < expected[index]:
                got = f"got {n}" if n else "found none"
                what = f"expected {expected[index]} bytes, {got}"
            faults.append(Fault(name, index, what))
        return out, faults


_CHANGED = "its bytes have changed: expected the hash that the manifest names"


def read_stored(path: Path) -> tuple[Checkpoint | None, list[Fault]]:
    """Return what a store holds, as `StateStore.read` does, also while a worker writes to it.

    A page that is written over while it is read looks damaged; then there is a newer checkpoint by
    the time that it is read once more.
    """
    before: bytes | None = None
    while True:
        with contextlib.closing(StateStore(path, is_read_only=True)) as store:
            (checkpoint, faults), sealed = store.read(), store.sealed()
        if not faults or sealed == before:
            return checkpoint, faults
        before = sealed


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep workers away from a store that is there.

    Raises
    ------
    StateHeldError
        If one has it open.
    """
    with _locked(path):
        yield


def _locked(path: Path) -> TextIO:
    path.mkdir(parents=True, exist_ok=True)
    lock = (path / _LOCK).open("a", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise StateHeldError(f"state in {path} is held by another process") from error
    return lock


def _replaced(path: Path, content: bytes) -> None:
    """Put a file in the place of another, whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell a full disk from a broken one."""
    try:
        yield
    except OSError as error:
        kind = NoRoomError if error.errno in _NO_ROOM else StateError
        raise kind(f"{what}: {error}") from error
