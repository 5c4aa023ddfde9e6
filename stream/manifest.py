"""What a stored state says of itself: pages of arrays, which slots are in use, their hashes.

A page's key names its array, its number and its slot. A process that writes takes slots of its own
epoch only, two of them, an even and an odd one, and never that of the evenness in use: so neither a
checkpoint that is not finished nor a process of another epoch that still writes touches a page that
a whole manifest names, also where there is but one place for even slots and one for odd ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from models.errors import StateError

VERSION = 4
N_EPOCHS = 128
"""Epochs whose slots differ; two slots each fit into a byte."""

Partition = tuple[str, int]
Arrays = Mapping[str, NDArray[np.generic]]


class Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One array: how it is cut, and of each page the slot in use (u1) and the hash (u8)."""

    dtype: str
    shape: tuple[int, ...]
    page_bytes: int
    slots: bytes
    hashes: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Stamp(NamedTuple):
    """Age of a state, to be compared: the epoch of its writer, and the checkpoints so far."""

    epoch: int
    number: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole state without its pages."""

    arrays: dict[str, Layout]
    meta: bytes
    offsets: list[tuple[str, int, int]]
    epoch: int = 0
    number: int = 0
    version: int = VERSION

    @property
    def stamp(self) -> Stamp:
        """Its age."""
        return Stamp(self.epoch, self.number)

    def places(self) -> dict[Partition, int]:
        """Return the next offset of each partition."""
        return {(topic, partition): offset for topic, partition, offset in self.offsets}

    def pages(self) -> Iterator[tuple[bytes, int]]:
        """Yield key and hash of each page in use."""
        for name, layout in self.arrays.items():
            digests = np.frombuffer(layout.hashes, np.uint64).tolist()
            for i, (slot, digest) in enumerate(zip(layout.slots, digests, strict=False)):
                yield page_key(name, i, slot), digest


class Fault(NamedTuple):
    """What is wrong with a stored array, never with which value; ``page`` None: all of it."""

    array: str
    page: int | None
    what: str

    def __str__(self) -> str:
        """Return one line."""
        place = "" if self.page is None else f", page {self.page}"
        return f"array {self.array!r}{place}: {self.what}"


Form = tuple[str, tuple[int, ...]]
"""An array's type and shape."""


class Pages(NamedTuple):
    """Some pages of one array, one after the other.

    Parameters
    ----------
    name
        Of the array.
    numbers, slots
        int64 and uint8 of shape (n,): which pages, and which slot of each; written in runs where
        neighbours have slots of one evenness.
    page_bytes
        Length of a page; the last one may be shorter.
    data
        The pages' bytes.
    """

    name: str
    numbers: NDArray[np.int64]
    slots: NDArray[np.uint8]
    page_bytes: int
    data: memoryview

    @classmethod
    def grouped(cls, pages: Iterable[tuple[bytes, bytes]]) -> "list[Pages]":
        """Return pages, given with their keys, by array and length; of one place the last counts.

        Examples
        --------
        >>> pages = [(b"page/a/7/2", b"zz"), (b"page/a/1/3", b"yy"), (b"page/a/7/4", b"xx")]
        >>> (found,) = Pages.grouped(pages)
        >>> found.numbers.tolist(), found.slots.tolist(), bytes(found.data)
        ([7, 1], [4, 3], b'xxyy')
        """
        groups: defaultdict[tuple[str, int], dict[tuple[int, int], tuple[int, bytes]]]
        groups = defaultdict(dict)
        for key, page in pages:
            name, index, slot = parts_of(key)
            groups[name, len(page)][index, slot % 2] = slot, page
        parts = []
        for (name, n_bytes), group in groups.items():
            places = sorted(group, key=lambda place: (place[1], place[0]))  # as in the file
            slots, data = zip(*(group[place] for place in places), strict=True)
            numbers = np.array([index for index, _ in places], np.int64)
            held = np.array(slots, np.uint8), n_bytes, memoryview(b"".join(data))
            parts.append(cls(name, numbers, *held))
        return parts


class Snapshot(NamedTuple):
    """What one checkpoint writes: changed pages, keys to delete, the manifest.

    The pages lie in the store's buffer until the next copy.
    """

    parts: Sequence[Pages]
    gone: list[bytes]
    manifest: bytes
    stamp: Stamp = Stamp(0, 0)

    @property
    def n_pages(self) -> int:
        """How many pages there are."""
        return sum(len(part.numbers) for part in self.parts)

    @property
    def size_bytes(self) -> int:
        """Bytes of the pages."""
        return sum(len(part.data) for part in self.parts)


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    digest: int
    body: bytes


class _Version(msgspec.Struct, frozen=True):
    version: int


def page_key(name: str, index: int, slot: int) -> bytes:
    """Return the key of a page."""
    return b"page/%b/%d/%d" % (name.encode(), index, slot)


def parts_of(key: bytes) -> tuple[str, int, int]:
    """Return array, number and slot of a page, given its key."""
    name, index, slot = key.removeprefix(b"page/").rsplit(b"/", 2)
    return name.decode(), int(index), int(slot)


def pair_keys(name: str, pages: Iterable[tuple[int, int]]) -> list[bytes]:
    """Return the keys of both slots of pages, of the epoch that the given slot is of."""
    return [page_key(name, i, slot) for i, held in pages for slot in (held & 254, held | 1)]


def next_slots(slots: NDArray[np.uint8], epoch: int) -> NDArray[np.uint8]:
    """Return the slots to write pages to, of an epoch, given those in use; of the other evenness.

    Examples
    --------
    >>> next_slots(np.array([2, 3, 1, 0], np.uint8), 1).tolist()
    [3, 2, 2, 3]
    """
    return (np.uint8(2 * (epoch % N_EPOCHS)) | (~slots & np.uint8(1))).astype(np.uint8)


def is_of_epoch(slots: NDArray[np.uint8], epoch: int) -> NDArray[np.bool_]:
    """Return which slots a process of an epoch takes."""
    return np.asarray(slots >> 1 == epoch % N_EPOCHS, np.bool_)


def is_older(slot: int, than: int) -> bool:
    """Return whether a slot is of an earlier epoch than another; epochs go round."""
    behind = (than // 2 - slot // 2) % N_EPOCHS
    return 0 < behind < N_EPOCHS // 2


def page_digest(page: bytes | memoryview) -> int:
    """Return the hash of a page."""
    return xxhash.xxh3_64_intdigest(page)


def page_hashes(view: memoryview, size: int, pages: Iterable[int]) -> list[int]:
    """Return the hashes of some pages of an array."""
    return [xxhash.xxh3_64_intdigest(view[i * size : (i + 1) * size]) for i in pages]


def bytes_of(array: NDArray[np.generic]) -> memoryview:
    """Return an array's bytes."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def layout_of(
    form: Form,
    page_bytes: int,
    slots: NDArray[np.uint8],
    hashes: NDArray[np.uint64],
) -> Layout:
    """Return how an array is stored."""
    return Layout(*form, page_bytes, slots.tobytes(), hashes.tobytes())


def seal(manifest: Manifest) -> bytes:
    """Return a manifest's bytes with their hash."""
    body = msgspec.msgpack.encode(manifest)
    return msgspec.msgpack.encode(_Sealed(VERSION, xxhash.xxh3_64_intdigest(body), body))


def unseal(stored: bytes) -> Manifest:
    """Return a manifest of this version.

    Raises
    ------
    StateError
        If it is of another version, or its bytes have changed.
    """
    try:
        version = msgspec.msgpack.decode(stored, type=_Version).version
        if version != VERSION:
            raise StateError(f"state: expected version {VERSION}, got {version}")
        sealed = msgspec.msgpack.decode(stored, type=_Sealed)
        if xxhash.xxh3_64_intdigest(sealed.body) != sealed.digest:
            raise StateError("state: the manifest's bytes have changed")
        return msgspec.msgpack.decode(sealed.body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise StateError(f"state: expected a manifest of version {VERSION}") from error
