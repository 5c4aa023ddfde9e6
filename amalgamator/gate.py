"""What is let in: each envelope is checked, in a fixed order, before a number is used; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from amalgamator.registry import Member, Registry
from models.basis import Basis
from models.codec import decode_contribution
from models.envelope import (
    MAX_ENVELOPE_BYTES,
    ContributionHeader,
    Envelope,
    Kind,
    check_body_hash,
    check_signature,
    decode_header,
    open_envelope,
)
from models.errors import InvalidTreesError, QuarantinedError
from models.probes import check_answers
from models.schema import Schema
from models.summary import Contribution, ContributionKey, proposed_trees
from models.tree_checks import TreeLimits, check_trees
from models.trees import REASONS as TREE_REASONS

REASONS = (
    "fragment",
    "size",
    "magic",
    "kind",
    "header_length",
    "header",
    "consortium",
    "schema",
    "member",
    "revoked",
    "signature",
    "body_hash",
    "replay",
    "fork",
    "clock",
    "part",
    "shape",
    "trailing_bytes",
    "finite",
    "range",
    *(f"trees_{reason}" for reason in TREE_REASONS),
)
DUPLICATE: Literal["duplicate"] = "duplicate"
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLimits:
    """Bounds of the gate.

    Parameters
    ----------
    max_envelope_bytes
        Larger envelopes are refused unread.
    clock_tolerance_ms
        How far in the future ``created_ms`` may lie; None in replay, where clocks mean nothing.
    max_days_ahead
        How many days past the wall clock the bucket of evidence may lie; None where event time
        does not follow the wall clock. One bucket far ahead would push out all others.
    trees
        Bounds of what is proposed as structure.
    """

    max_envelope_bytes: int = MAX_ENVELOPE_BYTES
    clock_tolerance_ms: int | None = 300_000
    max_days_ahead: int | None = None
    trees: TreeLimits = TreeLimits()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Accepted:
    """A contribution that may be folded.

    ``gap`` says that the envelope before it was not seen, as usual after compaction.
    """

    contribution: Contribution
    seq: int
    hash: bytes
    gap: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """An envelope that changes nothing.

    ``reason`` is one of ``REASONS`` (it goes to quarantine) or ``duplicate`` (counted, ignored).
    """

    reason: str
    detail: str
    hash: bytes = b""


@dataclass(slots=True)
class Seen:
    """What was accepted so far: per key and per worker's seq, the hash; and the bases in use.

    Parameters
    ----------
    newest
        Key -> (seq, envelope hash) of its newest contribution.
    by_seq
        (member, worker) -> seq -> envelope hash, of every newest contribution.
    last
        (member, worker) -> (seq, hash) with the highest seq.
    bases
        By number: those that statistics and trees are expected for.
    n_probes
        Number of the set of probes that answers are expected to -> how many they are.
    """

    newest: dict[ContributionKey, tuple[int, bytes]] = field(default_factory=dict)
    by_seq: dict[tuple[str, str], dict[int, bytes]] = field(default_factory=dict)
    last: dict[tuple[str, str], tuple[int, bytes]] = field(default_factory=dict)
    bases: Mapping[int, Basis] = field(default_factory=dict)
    n_probes: Mapping[int, int] = field(default_factory=dict)

    def record(self, key: ContributionKey, seq: int, digest: bytes) -> None:
        """Take note of an accepted contribution."""
        worker = (key.member, key.worker)
        of_worker = self.by_seq.setdefault(worker, {})
        replaced = self.newest.get(key)
        if replaced is not None:
            of_worker.pop(replaced[0], None)
        of_worker[seq] = digest
        self.newest[key] = (seq, digest)
        if seq > self.last.get(worker, (0, b""))[0]:
            self.last[worker] = (seq, digest)

    def forget(self, members: frozenset[str]) -> None:
        """Drop everything about these members."""
        self.newest = {key: v for key, v in self.newest.items() if key.member not in members}
        self.by_seq = {key: v for key, v in self.by_seq.items() if key[0] not in members}
        self.last = {key: v for key, v in self.last.items() if key[0] not in members}


class Gate:
    """Checks envelopes against the registry and the schema.

    The order is: size, magic, kind, header length, header, consortium, schema, member, revoked,
    signature, body hash, replay, fork, clock, registered parts, shapes, trailing bytes, finite,
    ranges. Nothing is allocated for a body before its signature and hash hold.
    """

    def __init__(self, registry: Registry, schema: Schema, limits: GateLimits) -> None:
        self._registry = registry
        self._schema = schema
        self._schema_hash = schema.hash
        self._limits = limits

    def check(self, raw: bytes, seen: Seen, now_ms: int) -> Accepted | Refused:
        """Return the contribution, or why it is refused; never raises for bad bytes."""
        try:
            envelope = open_envelope(raw, max_bytes=self._limits.max_envelope_bytes)
        except QuarantinedError as error:
            return Refused(error.reason, error.detail)
        digest = envelope.hash
        try:
            header = self._check_sender(envelope)
            if _is_duplicate(header, digest, seen):
                return Refused(DUPLICATE, "the same envelope was accepted before", digest)
            self._check_clock(header, now_ms)
            contribution = decode_contribution(header, envelope.body, self._schema)
            _check_basis(contribution, seen, self._limits.trees)
            _check_answers(contribution, seen)
        except QuarantinedError as error:
            return Refused(error.reason, error.detail, digest)
        gap = _last_hash(header, seen) != header.prev_hash
        return Accepted(contribution=contribution, seq=header.seq, hash=digest, gap=gap)

    def _check_sender(self, envelope: Envelope) -> ContributionHeader:
        if envelope.kind is not Kind.CONTRIBUTION:
            raise QuarantinedError("kind", f"expected a contribution, got {envelope.kind.name}")
        header = decode_header(envelope, ContributionHeader)
        if header.consortium != self._registry.consortium:
            raise QuarantinedError("consortium", f"expected {self._registry.consortium}")
        if header.schema_hash != self._schema_hash:
            raise QuarantinedError("schema", f"expected schema {self._schema_hash}")
        member = self._check_member(header)
        if header.key_id in member.revoked:
            raise QuarantinedError("revoked", f"key {header.key_id} is revoked")
        verifier = member.verifiers.get(header.key_id)
        if verifier is None:
            raise QuarantinedError("signature", "key_id: expected a key of the member")
        check_signature(envelope, verifier)
        check_body_hash(envelope, header.body_sha256)
        return header

    def _check_member(self, header: ContributionHeader) -> Member:
        member = self._registry.members.get(header.member)
        if member is None or header.worker not in member.workers:
            raise QuarantinedError("member", "expected a registered member and worker")
        return member

    def _check_clock(self, header: ContributionHeader, now_ms: int) -> None:
        tolerance_ms, days = self._limits.clock_tolerance_ms, self._limits.max_days_ahead
        if tolerance_ms is not None and not header.created_ms <= now_ms + tolerance_ms:
            raise QuarantinedError("clock", f"created more than {tolerance_ms} ms in the future")
        is_dated = days is not None and header.part == "evidence"
        if is_dated and not header.bucket <= now_ms // _DAY_MS + (days or 0):
            raise QuarantinedError("clock", f"evidence of a day more than {days} days ahead")


def _is_duplicate(header: ContributionHeader, digest: bytes, seen: Seen) -> bool:
    """Return whether this very envelope is the newest of its key; raise for replays and forks."""
    worker = (header.member, header.worker)
    known = seen.by_seq.get(worker, {}).get(header.seq)
    if known is not None and known != digest:
        raise QuarantinedError("fork", f"another envelope with seq {header.seq} was accepted")
    # A part that is not registered has no key in `newest`; it is refused later, as `part`.
    held = seen.newest.get((header.member, header.worker, header.part, header.bucket))  # type: ignore[call-overload]  # tuple equals key
    if held is not None and header.seq < held[0]:
        raise QuarantinedError("replay", f"expected seq above {held[0]}, got {header.seq}")
    return known is not None


def _last_hash(header: ContributionHeader, seen: Seen) -> bytes:
    return seen.last.get((header.member, header.worker), (0, b""))[1]


def _check_basis(contribution: Contribution, seen: Seen, limits: TreeLimits) -> None:
    basis = seen.bases.get(contribution.basis)
    if basis is None:
        return
    if contribution.key.part == "statistics":
        if len(contribution.arrays["gradient"]) != basis.n_weights:
            raise QuarantinedError("shape", f"gradient: expected {basis.n_weights} weights")
    elif contribution.key.part == "trees":
        try:
            check_trees(proposed_trees(contribution.arrays)[0], basis, limits)
        except InvalidTreesError as error:
            raise QuarantinedError(f"trees_{error.reason}", error.detail) from error


def _check_answers(contribution: Contribution, seen: Seen) -> None:
    n_probes = seen.n_probes.get(contribution.basis)
    if contribution.key.part == "answers" and n_probes is not None:
        check_answers(contribution.arrays, n_probes)
