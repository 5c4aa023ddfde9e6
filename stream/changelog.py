"""A worker's state as records of a compacted topic, and back; pure.

Pages go, packed, under the keys that they have in the store, then a head, which holds the
manifest. The newest head of the highest epoch is what counts. No page that it names is written
again before a newer head is there, neither by its own process nor by one of another epoch
(`stream.manifest`), so wherever the topic ends, and whatever compaction took, it holds one whole
state.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from models.errors import StateError
from models.features.packing import Packer, unpack_page
from stream.manifest import Fault, Manifest, Snapshot, page_digest, page_key, unseal
from stream.page_file import PAGE_BYTES

VERSION = 2
_HEAD = b"head/"
_PACKED_BYTES = 1024 * 1024  # of pages are packed at once

Pair = tuple[bytes, bytes | None]


class Owner(NamedTuple):
    """Whose state a changelog holds, and of which consortium's schema."""

    member: str
    worker: str
    schema: str


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes the pages before it a state.

    Parameters
    ----------
    member, worker, schema
        Of the owner.
    epoch
        Of the process that wrote it.
    process
        A name that no other process has.
    previous
        Offset from which on a reader meets every head that its writer had not seen before.
    manifest
        Sealed; empty while there is no state. After a claim that of the epoch before.
    version
        Of this layout.
    """

    member: str
    worker: str
    schema: str
    epoch: int
    process: str
    previous: int
    manifest: bytes
    version: int = VERSION

    @property
    def owner(self) -> Owner:
        """Whose it is."""
        return Owner(self.member, self.worker, self.schema)

    def state(self) -> Manifest | None:
        """Return what it holds, None while there is no state."""
        return unseal(self.manifest) if self.manifest else None


class _Version(msgspec.Struct, frozen=True):
    version: int


def head_pair(head: Head) -> tuple[bytes, bytes]:
    """Return a head's key and value."""
    return _HEAD + b"%d" % head.epoch, msgspec.msgpack.encode(head)


def heads(pairs: Iterable[Pair]) -> Iterator[Head]:
    """Yield the heads among records.

    Raises
    ------
    StateError
        If one is of another version, or none at all.
    """
    for key, value in pairs:
        if key.startswith(_HEAD) and value is not None:
            yield _head(value)


def _head(value: bytes) -> Head:
    try:
        version = msgspec.msgpack.decode(value, type=_Version).version
        if version != VERSION:
            raise StateError(f"changelog: expected version {VERSION}, got {version}")
        return msgspec.msgpack.decode(value, type=Head)
    except msgspec.MsgspecError as error:
        raise StateError(f"changelog: expected a head of version {VERSION}") from error


def newer(held: Head | None, found: Head) -> Head:
    """Return which of two heads counts, the second being the later record."""
    return found if held is None or found.epoch >= held.epoch else held


def check_owner(found: Head, owner: Owner) -> None:
    """Refuse a changelog of another worker or schema.

    Raises
    ------
    StateError
        If it is.
    """
    if found.owner != owner:
        raise StateError(
            f"changelog: expected (member, worker, schema) {tuple(owner)}, got {tuple(found.owner)}"
        )


def page_pairs(snapshot: Snapshot) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the key and the bytes of each page that a checkpoint writes, packed.

    The bytes hold until the next page is asked for: fresh memory costs more than the packing.
    """
    packer = Packer()
    for part in snapshot.parts:
        pages = zip(part.numbers.tolist(), part.slots.tolist(), strict=True)
        step = max(_PACKED_BYTES // part.page_bytes, 1) * part.page_bytes
        for first in range(0, len(part.data), step):
            data = np.frombuffer(part.data[first : first + step], np.uint8)
            words, starts = packer.pack(data, part.page_bytes)
            packed, ends = words.view(np.uint8).data, (starts * words.itemsize).tolist()
            for (start, stop), (number, slot) in zip(pairwise(ends), pages, strict=False):
                yield page_key(part.name, number, slot), packed[start:stop]


def page_of(value: bytes) -> bytes | None:
    """Return a page, given its record's value; None where that is not one."""
    return unpack_page(value, PAGE_BYTES)


class Harvest:
    """Picks a state's pages out of the records of a changelog; the last value of a key counts.

    Parameters
    ----------
    manifest
        Of the state.

    Attributes
    ----------
    leftover
        Keys of pages that the state does not name.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._wanted = dict(manifest.pages())
        self._found: dict[bytes, bool] = {}
        self.leftover: set[bytes] = set()

    def take(self, pairs: Iterable[Pair]) -> list[tuple[bytes, bytes]]:
        """Return the pages among records that are the state's, bit for bit."""
        taken = []
        for key, value in pairs:
            digest = self._wanted.get(key)
            if value is None:
                self._found.pop(key, None)
                self.leftover.discard(key)
            elif digest is not None:
                page = page_of(value)
                self._found[key] = page is not None and page_digest(page) == digest
                if page is not None and self._found[key]:
                    taken.append((key, page))
            elif not key.startswith(_HEAD):
                self.leftover.add(key)
        return taken

    def have(self, copy: Manifest) -> None:
        """Take note of the pages that a copy of an earlier state holds already."""
        for key, digest in copy.pages():
            if key in self._wanted:
                self._found[key] = self._wanted[key] == digest
            else:
                self.leftover.add(key)

    def check(self) -> None:
        """Refuse a state that is not whole.

        Raises
        ------
        StateError
            If a page is missing or is not as the manifest says; it names the first.
        """
        bad = sorted(key for key in self._wanted if not self._found.get(key, False))
        if bad:
            _, name, index, _ = _parts(bad[0])
            what = "its bytes have changed" if bad[0] in self._found else "found none"
            more = f", and {len(bad) - 1} more faults" if len(bad) > 1 else ""
            raise StateError(f"changelog: {Fault(name, int(index), what)}{more}")


def _parts(key: bytes) -> tuple[str, str, str, str]:
    kind, _, rest = key.decode().partition("/")
    name, index, slot = rest.rsplit("/", 2)
    return kind, name, index, slot
