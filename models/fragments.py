"""Envelopes cut into records that fit a broker's size limit, and put together again; pure.

A record's key is ``<key>|<slot>|<i>``. Topics are compacted, so two slots alternate: a new version
of a key that was published by half never replaces the last whole one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from models.errors import DecodeError, InvalidInputError

FRAGMENT_BYTES = 900_000
MAX_ENVELOPE_BYTES = 64 * 1024 * 1024
MAX_PENDING_BYTES = 256 * 1024 * 1024
MAX_PIECES = 4096
_N_SLOTS = 2
_HEADER_NAMES = ("seq", "i", "of", "sha256")
_SEQ_DIGITS = 19
_SHA256_BYTES = 32


class FragmentRecord(NamedTuple):
    """One record of a compacted topic: a piece of an envelope, or all of it.

    ``value`` is None where a record was deleted (a tombstone).
    """

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def split(
    envelope: bytes,
    key: bytes,
    seq: int,
    *,
    slot: int | None = None,
    fragment_bytes: int = FRAGMENT_BYTES,
) -> list[FragmentRecord]:
    """Cut an envelope into records of at most ``fragment_bytes`` each.

    Parameters
    ----------
    envelope
        Not empty.
    key
        Of the contribution or release part; a newer envelope with the same key replaces it.
    seq
        Of the envelope, >= 0.
    slot
        0 or 1, other than that of the key's last version; ``seq % 2`` by default, which is right
        only if ``seq`` counts the versions of this key (see `Splitter`).
    fragment_bytes
        Greatest length of a record's value.
    """
    if not envelope or seq < 0:
        raise InvalidInputError(f"split: expected bytes and seq >= 0, got {len(envelope)}, {seq}")
    digest = hashlib.sha256(envelope).digest()
    pieces = [
        envelope[start : start + fragment_bytes]
        for start in range(0, len(envelope), fragment_bytes)
    ]
    where = seq % _N_SLOTS if slot is None else slot
    return [
        FragmentRecord(
            key=b"%b|%d|%d" % (key, where, i),
            value=piece,
            headers=(
                ("seq", b"%d" % seq),
                ("i", b"%d" % i),
                ("of", b"%d" % len(pieces)),
                ("sha256", digest),
            ),
        )
        for i, piece in enumerate(pieces)
    ]


class Splitter:
    """`split` with the slots of each key alternating, whatever ``seq`` counts."""

    def __init__(self) -> None:
        self._slot_of: dict[bytes, int] = {}

    def observe(self, record_key: bytes) -> None:
        """Take note of a record found in the topic at a restart, in the topic's order."""
        key, slot = _split_key(record_key)
        self._slot_of[key] = slot

    def split(self, envelope: bytes, key: bytes, seq: int) -> list[FragmentRecord]:
        """Cut an envelope into records of the slot that the key's last version did not use."""
        slot = (self._slot_of.get(key, _N_SLOTS - 1) + 1) % _N_SLOTS
        self._slot_of[key] = slot
        return split(envelope, key, seq, slot=slot)


@dataclass(slots=True)
class _Pending:
    seq: int
    digest: bytes
    pieces: list[bytes | None]
    missing: int
    size_bytes: int


class Reassembler:
    """Puts the records of one topic together again, in the order of the topic.

    Parameters
    ----------
    max_envelope_bytes, max_pending_bytes
        Bounds on one envelope and on all that is incomplete; the oldest incomplete go first.
    """

    def __init__(
        self,
        max_envelope_bytes: int = MAX_ENVELOPE_BYTES,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self._max_envelope_bytes = max_envelope_bytes
        self._max_pending_bytes = max_pending_bytes
        self._pending: dict[tuple[bytes, int], _Pending] = {}
        self._pending_bytes = 0

    def add(self, record: FragmentRecord) -> bytes | None:
        """Return the envelope that this record completes, else None.

        Raises
        ------
        DecodeError
            With reason ``fragment`` (not one of ours) or ``size``; the record is ignored.
        """
        if record.value is None:
            return None
        key, slot = _split_key(record.key)
        seq, i, n_pieces, digest = _parse_headers(record.headers)
        if n_pieces > MAX_PIECES or len(record.value) > self._max_envelope_bytes:
            raise DecodeError("size", f"expected at most {MAX_PIECES} pieces, got {n_pieces}")
        if n_pieces == 1:
            self._forget((key, slot))
            return _checked(record.value, digest)
        pending = self._pending_of((key, slot), seq, n_pieces, digest)
        if pending.pieces[i] is None:
            pending.pieces[i] = record.value
            pending.missing -= 1
            pending.size_bytes += len(record.value)
            self._pending_bytes += len(record.value)
        if pending.size_bytes > self._max_envelope_bytes:
            self._forget((key, slot))
            raise DecodeError("size", f"expected at most {self._max_envelope_bytes} bytes")
        if pending.missing:
            self._evict((key, slot))
            return None
        self._forget((key, slot))
        return _checked(b"".join(piece for piece in pending.pieces if piece is not None), digest)

    def _pending_of(
        self, where: tuple[bytes, int], seq: int, n_pieces: int, digest: bytes
    ) -> _Pending:
        pending = self._pending.get(where)
        same = pending is not None and (pending.seq, pending.digest, len(pending.pieces)) == (
            seq,
            digest,
            n_pieces,
        )
        if pending is None or not same:
            self._forget(where)
            pending = _Pending(seq, digest, [None] * n_pieces, n_pieces, 0)
            self._pending[where] = pending
        return pending

    def _forget(self, where: tuple[bytes, int]) -> None:
        pending = self._pending.pop(where, None)
        if pending is not None:
            self._pending_bytes -= pending.size_bytes

    def _evict(self, keep: tuple[bytes, int]) -> None:
        while self._pending_bytes > self._max_pending_bytes:
            oldest = next((where for where in self._pending if where != keep), None)
            if oldest is None:
                return
            self._forget(oldest)


def _checked(envelope: bytes, digest: bytes) -> bytes:
    if hashlib.sha256(envelope).digest() != digest:
        raise DecodeError("fragment", "the pieces do not have the hash that their headers name")
    return envelope


def _split_key(record_key: bytes) -> tuple[bytes, int]:
    parts = record_key.rsplit(b"|", 2)
    if len(parts) != 3 or parts[1] not in (b"0", b"1"):
        raise DecodeError("fragment", "expected a record key of the form key|slot|i")
    return parts[0], int(parts[1])


def _parse_headers(headers: Sequence[tuple[str, bytes]]) -> tuple[int, int, int, bytes]:
    fields = dict(headers)
    if len(headers) != len(_HEADER_NAMES) or set(fields) != set(_HEADER_NAMES):
        raise DecodeError("fragment", f"expected the headers {', '.join(_HEADER_NAMES)}")
    seq, i, n_pieces = (_parse_count(fields[name], name) for name in ("seq", "i", "of"))
    if not 0 <= i < n_pieces:
        raise DecodeError("fragment", f"expected 0 <= i < of, got {i}, {n_pieces}")
    if len(fields["sha256"]) != _SHA256_BYTES:
        raise DecodeError("fragment", "sha256: expected 32 bytes")
    return seq, i, n_pieces, fields["sha256"]


def _parse_count(text: bytes, name: str) -> int:
    if not (0 < len(text) <= _SEQ_DIGITS and text.isdigit()):
        raise DecodeError("fragment", f"{name}: expected a whole number in decimal digits")
    return int(text)
