"""A copy of another host's worker that is kept up to date, so that taking over reads little.

Pages are stored as they come over the worker's changelog, without a manifest, so that a copy that
is cut short counts as no state. Only where it is handed over, caught up and whole, does it get the
manifest, and beside the store a note of how far it had come in the topic.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from stream.changelog import Pair, heads, page_of
from stream.manifest import Stamp, is_older, page_digest, parts_of, unseal

_NOTE = "followed.json"
_PAGE = b"page/"
_Place = tuple[str, int, int]


class Followed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a copy had come.

    Parameters
    ----------
    epoch, number
        Of the state that it holds; counts only while the store still holds that.
    offset
        Of the changelog, up to which it had been read.
    """

    epoch: int
    number: int
    offset: int

    @property
    def stamp(self) -> Stamp:
        """Age of the state."""
        return Stamp(self.epoch, self.number)


def write_followed(state_dir: Path, followed: Followed) -> None:
    """Leave the note beside a store."""
    whole = state_dir / f"{_NOTE}.part"
    whole.write_bytes(msgspec.json.encode(followed))
    whole.replace(state_dir / _NOTE)


def read_followed(state_dir: Path) -> Followed | None:
    """Return the note beside a store, None where there is none that can be read."""
    try:
        return msgspec.json.decode((state_dir / _NOTE).read_bytes(), type=Followed)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


class Copy:
    """What a copy holds so far; pure.

    Parameters
    ----------
    manifest
        Of the state that it begins with, sealed; None: it begins with nothing.
    """

    def __init__(self, manifest: bytes | None = None) -> None:
        self._manifest, self._epoch = b"", 0
        self._held: dict[_Place, tuple[int, int]] = {}  # slot and hash
        if manifest is not None:
            state = unseal(manifest)
            self._manifest, self._epoch = manifest, state.epoch
            for key, digest in state.pages():
                place, slot = _place_of(key)
                self._held[place] = slot, digest

    def take(self, pairs: Iterable[Pair]) -> list[tuple[bytes, bytes]]:
        """Take records of the changelog in, in their order; return the pages to be stored.

        Even and odd slots of a page have one place each in a store. What a process of an earlier
        epoch still sends is not to take the place of a later one's page.
        """
        pages = []
        for key, value in pairs:
            if key.startswith(_PAGE):
                place, slot = _place_of(key)
                held = self._held.get(place)
                if value is None:
                    if held is not None and held[0] == slot:
                        del self._held[place]
                elif held is None or not is_older(slot, held[0]):
                    page = page_of(value)
                    self._held.pop(place, None)
                    if page is not None:
                        self._held[place] = slot, page_digest(page)
                        pages.append((key, page))
            for head in heads([(key, value)]):
                if head.epoch >= self._epoch:
                    self._manifest, self._epoch = head.manifest, head.epoch
        return pages

    def whole(self) -> bytes | None:
        """Return the manifest of the newest state, None while there is none or a page is missing.

        Raises
        ------
        StateError
            If it is of another version.
        """
        if not self._manifest:
            return None
        for key, digest in unseal(self._manifest).pages():
            place, slot = _place_of(key)
            if self._held.get(place) != (slot, digest):
                return None
        return self._manifest


def _place_of(key: bytes) -> tuple[_Place, int]:
    """Return which of a store's places a page takes, and its slot."""
    name, index, slot = parts_of(key)
    return (name, index, slot % 2), slot


def note_of(manifest: bytes, offset: int) -> Followed:
    """Return the note for a copy with a manifest."""
    stamp = unseal(manifest).stamp
    return Followed(stamp.epoch, stamp.number, offset)
