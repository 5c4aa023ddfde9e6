"""A copy of another host's worker that is kept up to date, so that taking over reads little.

Pages are stored as they come over the worker's changelog, without a manifest, so that a copy that
is cut short counts as no state. Only where it is handed over, caught up and whole, does it get the
manifest, and beside the store a note of how far it had come in the topic.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from stream.changelog import Pair, heads
from stream.manifest import Stamp, page_digest, unseal

_NOTE = "followed.json"
_PAGE = b"page/"


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
        self._digests: dict[bytes, int] = {}
        if manifest is not None:
            state = unseal(manifest)
            self._manifest, self._epoch = manifest, state.epoch
            self._digests = dict(state.pages())

    def take(self, pairs: Iterable[Pair]) -> list[tuple[bytes, bytes]]:
        """Take records of the changelog in, in their order; return the pages to be stored."""
        pages = []
        for key, value in pairs:
            if key.startswith(_PAGE):
                if value is None:
                    self._digests.pop(key, None)
                else:
                    self._digests[key] = page_digest(value)
                    pages.append((key, value))
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
        pages = unseal(self._manifest).pages()
        is_whole = all(self._digests.get(key) == digest for key, digest in pages)
        return self._manifest if is_whole else None


def note_of(manifest: bytes, offset: int) -> Followed:
    """Return the note for a copy with a manifest."""
    stamp = unseal(manifest).stamp
    return Followed(stamp.epoch, stamp.number, offset)
