"""The signed frame around everything that crosses a border; pure bytes in and out.

::

    "AMS1" | kind u8 | header length u16 | msgpack header | Ed25519 signature 64 B | body

Integers are little-endian. The signature covers everything before it; the header names the body's
SHA-256, so the body is covered as well. A header has exactly one encoding: fields in their order,
none missing, none unknown.
"""

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec

from models.errors import InvalidInputError, QuarantinedError
from models.keys import SIGNATURE_BYTES, Signer, Verifier

MAGIC = b"AMS1"
MAX_HEADER_BYTES = 0xFFFF
MAX_ENVELOPE_BYTES = 64 * 1024 * 1024
MAX_INTEGER = 2**53
MAX_NAME_LENGTH = 64
MAX_ARRAYS = 24
_PREFIX = struct.Struct("<4sBH")

HeaderT = TypeVar("HeaderT", bound=msgspec.Struct)
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_LENGTH)]
MaybeName = Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]
Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
MaybeDigest = Annotated[bytes, msgspec.Meta(max_length=32)]
Shape = Annotated[tuple[Count, ...], msgspec.Meta(max_length=2)]


class Kind(IntEnum):
    """What an envelope holds."""

    CONTRIBUTION = 1
    RELEASE_PART = 2
    RELEASE_MANIFEST = 3


class ArrayHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, dtype (numpy's little-endian text, e.g. ``"<f4"``), shape and place of one array.

    ``offset`` counts bytes from the start of the body; arrays follow each other without gaps.
    """

    name: Name
    dtype: Name
    shape: Shape
    offset: Count


Arrays = Annotated[tuple[ArrayHeader, ...], msgspec.Meta(max_length=MAX_ARRAYS)]


class ContributionHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Header of a member's contribution.

    Parameters
    ----------
    consortium, member, worker
        Who speaks, and to whom.
    key_id
        Of the key that signed.
    seq
        1, 2, 3, ... per (member, worker).
    prev_hash
        `Envelope.hash` of the envelope before, empty for the first.
    epoch
        Cadence index.
    schema_hash
        Of `models.schema.Schema`.
    pseudonym_generation
        Generation of the key behind the pseudonyms, >= 0.
    created_ms
        Wall clock.
    n
        Matured transactions behind the numbers.
    epsilon_spent
        Privacy budget spent so far; 0 in the mode ``exact``.
    base_release
        ``release_id`` in force at publication, empty before the first.
    part, bucket, basis
        As in `models.summary.Contribution`.
    arrays
        What the body holds.
    body_sha256
        32 bytes.
    """

    consortium: Name
    member: Name
    worker: Name
    key_id: Name
    seq: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    prev_hash: MaybeDigest
    epoch: Integer
    schema_hash: Name
    pseudonym_generation: Count
    created_ms: Integer
    n: Count
    epsilon_spent: float
    base_release: MaybeName
    part: Name
    bucket: Integer
    basis: Count
    arrays: Arrays
    body_sha256: Digest


class ReleasePartHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Header of one piece of a release, addressed by the hash of its content.

    ``part`` is ``basis`` (``number``: its version), ``weights`` or ``personal`` (0), ``former`` or
    ``net`` (that of its basis), ``evidence`` (UTC day), ``probes`` or ``student`` (number of the
    set).
    """

    consortium: Name
    key_id: Name
    part: Name
    number: Integer
    schema_hash: MaybeName
    arrays: Arrays
    body_sha256: Digest


class SourceHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """`models.release.Source` on the wire."""

    member: Name
    worker: Name
    seq: Count
    weight: float
    statistics_weight: float
    max_frauds: Count


class ReleaseManifestHeader(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Header of a release's manifest, sent after its parts; it has no body.

    ``basis``, ``weights``, ``next_basis``, ``evidence`` (UTC day, hash), ``probes``, ``student``,
    ``student_basis``, ``personal`` (whose rows are those of ``personal_members``), ``former``
    (basis, weights), ``net`` and ``net_basis`` name parts by hash; from ``probes`` on they are
    written only where they are set.
    """

    consortium: Name
    key_id: Name
    number: Annotated[int, msgspec.Meta(ge=1, le=MAX_INTEGER)]
    epoch: Integer
    created_ms: Integer
    release_id: Name
    sources: tuple[SourceHeader, ...]
    basis: Name | None
    weights: Name | None
    next_basis: Name | None
    evidence: tuple[tuple[Integer, Name], ...]
    body_sha256: Digest
    probes: Name | None = None
    student: Name | None = None
    student_basis: Name | None = None
    personal: Name | None = None
    personal_members: tuple[Name, ...] = ()
    former: tuple[tuple[Name, Name], ...] = ()
    net: Name | None = None
    net_basis: Name | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelope:
    """An envelope taken apart, nothing of it believed yet.

    Parameters
    ----------
    kind
        What it says it holds.
    head
        Prefix and header as they came: what is signed.
    header
        The msgpack bytes within ``head``.
    signature
        64 bytes.
    body
        The rest, not copied.
    """

    kind: Kind
    head: bytes
    header: bytes
    signature: bytes
    body: memoryview

    @property
    def hash(self) -> bytes:
        """32 bytes that name the envelope; the body is covered by its hash in the header."""
        return hashlib.sha256(self.head + self.signature).digest()


def _encoded(header: msgspec.Struct) -> bytes:
    """Return the one encoding of a header: the shortest, however many fields are not set.

    Of a struct, msgspec writes a length that would hold all fields, those left out too.
    """
    return msgspec.msgpack.encode(msgspec.to_builtins(header, builtin_types=(bytes,)))


def seal(kind: Kind, header: msgspec.Struct, body: bytes, signer: Signer) -> bytes:
    """Return the signed envelope; ``header.body_sha256`` must be that of ``body``."""
    encoded = _encoded(header)
    if len(encoded) > MAX_HEADER_BYTES:
        raise InvalidInputError(
            f"header: expected at most {MAX_HEADER_BYTES} bytes, got {len(encoded)}"
        )
    head = _PREFIX.pack(MAGIC, kind, len(encoded)) + encoded
    return head + signer.sign(head) + body


def open_envelope(raw: bytes, *, max_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
    """Take an envelope apart after checking size, magic, kind and header length, in this order.

    Raises
    ------
    QuarantinedError
        Reasons ``size``, ``magic``, ``kind``, ``header_length``.
    """
    if not _PREFIX.size + SIGNATURE_BYTES <= len(raw) <= max_bytes:
        raise QuarantinedError("size", f"expected at most {max_bytes} bytes, got {len(raw)}")
    magic, kind, length = _PREFIX.unpack_from(raw)
    if magic != MAGIC:
        raise QuarantinedError("magic", f"expected an envelope that starts with {MAGIC.decode()}")
    if kind not in Kind.__members__.values():
        raise QuarantinedError("kind", f"expected a kind in 1..{max(Kind)}, got {kind}")
    header_end = _PREFIX.size + length
    body_start = header_end + SIGNATURE_BYTES
    if not 0 < length <= len(raw) - _PREFIX.size - SIGNATURE_BYTES:
        raise QuarantinedError("header_length", f"header of {length} bytes does not fit")
    return Envelope(
        kind=Kind(kind),
        head=raw[:header_end],
        header=raw[_PREFIX.size : header_end],
        signature=raw[header_end:body_start],
        body=memoryview(raw)[body_start:],
    )


def decode_header(envelope: Envelope, header_type: type[HeaderT]) -> HeaderT:
    """Return the header if it is written in the one canonical way.

    Raises
    ------
    QuarantinedError
        Reason ``header``.
    """
    try:
        header = msgspec.msgpack.decode(envelope.header, type=header_type)
        encoded = _encoded(header)
    except (msgspec.MsgspecError, OverflowError, ValueError) as error:
        raise QuarantinedError("header", f"expected a {header_type.__name__}") from error
    if encoded != envelope.header:
        raise QuarantinedError("header", "expected the canonical encoding")
    return header


def check_signature(envelope: Envelope, verifier: Verifier) -> None:
    """Raise `QuarantinedError` with reason ``signature`` unless ``verifier``'s key signed it."""
    if not verifier.verify(envelope.signature, envelope.head):
        raise QuarantinedError("signature", f"not signed by key {verifier.key_id}")


def check_body_hash(envelope: Envelope, body_sha256: bytes) -> None:
    """Raise `QuarantinedError` with reason ``body_hash`` unless the body is what was signed."""
    if hashlib.sha256(envelope.body).digest() != body_sha256:
        raise QuarantinedError("body_hash", "the body is not the one that was signed")
