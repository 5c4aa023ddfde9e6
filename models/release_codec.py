"""Releases as signed bytes and back: parts addressed by their content, then a manifest; pure."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec
import numpy as np

from models.basis import Basis
from models.entity_risk import EvidenceCells
from models.envelope import (
    Envelope,
    Kind,
    NetManifestHeader,
    ReleaseManifestHeader,
    ReleasePartHeader,
    SourceHeader,
    check_body_hash,
    check_signature,
    decode_header,
    open_envelope,
    seal,
)
from models.errors import InvalidInputError, QuarantinedError
from models.families.mlp_parameters import MlpSummary
from models.keys import Signer, Verifier
from models.release import MergedNet, ProbeSet, Release, Source, Student, StudentNetwork
from models.release_parts import Part, pack_part, typed_part, unpack_part
from models.schema import Schema

RELEASE_ID_DIGITS = 32
MANIFEST_KEY = "manifest"
_EMPTY_SHA256 = hashlib.sha256(b"").digest()

HeaderT = TypeVar("HeaderT", ReleasePartHeader, ReleaseManifestHeader)
_MANIFESTS: Mapping[Kind, type[ReleaseManifestHeader]] = {
    Kind.RELEASE_MANIFEST: ReleaseManifestHeader,
    Kind.NET_MANIFEST: NetManifestHeader,
}


class Digests:
    """Remembers the content hash of objects that were hashed before, by identity.

    Parts of a release are immutable and most do not change from one release to the next.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Part, str]] = {}

    def of(self, part: Part, *, name: str, number: int) -> str:
        """Return the hash of a part, computed at most once per object."""
        known = self._known.get(id(part))
        if known is None or known[0] is not part:
            header, _ = pack_part(part, name=name, number=number, consortium="", key_id="")
            known = (part, part_hash(header))
            self._known[id(part)] = known
        return known[1]

    def keep_only(self, release: Release) -> None:
        """Forget all parts but those of ``release``."""
        wanted = {id(part) for part in _parts_of(release)}
        self._known = {key: value for key, value in self._known.items() if key in wanted}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHashes:
    """Content hashes of a release's parts."""

    basis: str | None
    weights: str | None
    next_basis: str | None
    evidence: tuple[tuple[int, str], ...]
    probes: str | None = None
    student: str | None = None
    student_basis: str | None = None
    net: str | None = None
    net_basis: str | None = None

    def all(self) -> frozenset[str]:
        """Return every hash that is set."""
        single = {self.basis, self.weights, self.next_basis, *self.of_probes(), *self.of_net()}
        return frozenset(h for h in single if h) | {h for _, h in self.evidence}

    def of_probes(self) -> tuple[str | None, str | None, str | None]:
        """Return the hashes of probes, student and the student's basis."""
        return self.probes, self.student, self.student_basis

    def of_net(self) -> tuple[str | None, str | None]:
        """Return the hashes of the merged net and its basis."""
        return self.net, self.net_basis


def part_hashes(release: Release, digests: Digests | None = None) -> PartHashes:
    """Return the content hash of each part."""
    digests = Digests() if digests is None else digests
    probes, student, net = release.probes, release.student, release.net
    return PartHashes(
        net=None if net is None else digests.of(net.summary, name="net", number=net.summary.basis),
        net_basis=_basis_hash(None if net is None else net.basis, digests),
        probes=None if probes is None else digests.of(probes, name="probes", number=probes.number),
        student=None
        if student is None
        else digests.of(student.network, name="student", number=student.network.number),
        student_basis=_basis_hash(None if student is None else student.basis, digests),
        basis=_basis_hash(release.basis, digests),
        weights=None
        if release.weights is None
        else digests.of(release.weights, name="weights", number=0),
        next_basis=_basis_hash(release.next_basis, digests),
        evidence=tuple(
            (day, digests.of(cells, name="evidence", number=day))
            for day, cells in sorted(release.evidence.items())
        ),
    )


def seal_release(release: Release, digests: Digests | None = None) -> Release:
    """Return the release with its ``release_id``: all content but ``number`` and ``created_ms``."""
    return replace(
        release,
        release_id=release_id_of(release.epoch, release.sources, part_hashes(release, digests)),
    )


def release_id_of(epoch: int, sources: Sequence[Source], hashes: PartHashes) -> str:
    """Return the first 32 hexadecimal digits of the SHA-256 of the canonical manifest."""
    content: list[object] = [
        "amalgam-release-1",
        epoch,
        [tuple(source) for source in sources],
        hashes.basis,
        hashes.weights,
        hashes.next_basis,
        hashes.evidence,
    ]
    if any(hashes.of_probes()):  # absent, not empty, in a consortium that uses none
        content.append(hashes.of_probes())
    if any(hashes.of_net()):  # likewise; two where those of probes are three
        content.append(hashes.of_net())
    canonical = msgspec.msgpack.encode(content)
    return hashlib.sha256(canonical).hexdigest()[:RELEASE_ID_DIGITS]


def part_hash(header: ReleasePartHeader) -> str:
    """Return the address of a part: what it is and what it holds, not who signed it."""
    canonical = msgspec.structs.replace(header, consortium="-", key_id="-")
    return hashlib.sha256(msgspec.msgpack.encode(canonical)).hexdigest()


def encode_release(
    release: Release,
    previous: Collection[str],
    signer: Signer,
    *,
    consortium: str,
    digests: Digests | None = None,
) -> list[tuple[str, bytes]]:
    """Return (topic key, envelope) of the parts that are new, then of the manifest.

    Parameters
    ----------
    release
        Sealed.
    previous
        Hashes of the parts that receivers have, ``part_hashes(...).all()`` of the last release.
    signer
        The amalgamator's key.
    consortium
        Its name.
    digests
        Hashes that are known already.
    """
    hashes = part_hashes(release, digests)
    if release.release_id != release_id_of(release.epoch, release.sources, hashes):
        raise InvalidInputError("release: expected a sealed release; call seal_release first")
    records, sent = [], set(previous)
    for part, name, number, address in _parts(release, hashes):
        if address not in sent:
            sent.add(address)
            header, body = pack_part(
                part, name=name, number=number, consortium=consortium, key_id=signer.key_id
            )
            records.append((f"{name}|{number}", seal(Kind.RELEASE_PART, header, body, signer)))
    manifest = ReleaseManifestHeader(
        consortium=consortium,
        key_id=signer.key_id,
        number=release.number,
        epoch=release.epoch,
        created_ms=release.created_ms,
        release_id=release.release_id,
        sources=tuple(SourceHeader(*source) for source in release.sources),
        basis=hashes.basis,
        weights=hashes.weights,
        next_basis=hashes.next_basis,
        evidence=hashes.evidence,
        probes=hashes.probes,
        student=hashes.student,
        student_basis=hashes.student_basis,
        body_sha256=_EMPTY_SHA256,
    )
    records.append((MANIFEST_KEY, _sealed_manifest(manifest, hashes, signer)))
    return records


def _sealed_manifest(manifest: ReleaseManifestHeader, hashes: PartHashes, signer: Signer) -> bytes:
    if hashes.net is None or hashes.net_basis is None:
        return seal(Kind.RELEASE_MANIFEST, manifest, b"", signer)
    fields = msgspec.structs.asdict(manifest)
    with_net = NetManifestHeader(**fields, net=hashes.net, net_basis=hashes.net_basis)
    return seal(Kind.NET_MANIFEST, with_net, b"", signer)


class ReleaseAssembler:
    """Collects a release's parts and manifest; gives it out once it is whole and higher.

    Parameters
    ----------
    consortium
        Releases of another are refused.
    schema
        What basis and evidence must agree with.
    verifiers
        The amalgamator's public keys, the old one too while it is being replaced.
    """

    def __init__(self, consortium: str, schema: Schema, verifiers: Sequence[Verifier]) -> None:
        self._consortium = consortium
        self._schema = schema
        self._verifiers = {verifier.key_id: verifier for verifier in verifiers}
        self._parts: dict[str, Part] = {}
        self._waiting: ReleaseManifestHeader | None = None
        self._number = 0

    def add(self, raw: bytes) -> Release | None:
        """Return the release that this envelope completes, None if there is none or an older one.

        Raises
        ------
        QuarantinedError
            If the envelope is not a valid one of the amalgamator; it is ignored.
        """
        envelope = open_envelope(raw)
        if envelope.kind is Kind.RELEASE_PART:
            part_header = self._verified(envelope, ReleasePartHeader)
            check_body_hash(envelope, part_header.body_sha256)
            self._parts[part_hash(part_header)] = unpack_part(
                part_header, envelope.body, self._schema
            )
        elif envelope.kind in _MANIFESTS:
            manifest = self._verified(envelope, _MANIFESTS[envelope.kind])
            check_body_hash(envelope, manifest.body_sha256)
            newest = max(self._number, self._waiting.number if self._waiting else 0)
            if manifest.number > newest:
                self._waiting = manifest
        else:
            raise QuarantinedError("kind", "expected a release part or manifest")
        return self._complete()

    def _verified(self, envelope: Envelope, header_type: type[HeaderT]) -> HeaderT:
        header = decode_header(envelope, header_type)
        if header.consortium != self._consortium:
            raise QuarantinedError("consortium", f"expected {self._consortium}")
        verifier = self._verifiers.get(header.key_id)
        if verifier is None:
            raise QuarantinedError("signature", "expected the amalgamator's key")
        check_signature(envelope, verifier)
        return header

    def _complete(self) -> Release | None:
        manifest = self._waiting
        if manifest is None:
            return None
        hashes = PartHashes(
            basis=manifest.basis,
            weights=manifest.weights,
            next_basis=manifest.next_basis,
            evidence=manifest.evidence,
            probes=manifest.probes,
            student=manifest.student,
            student_basis=manifest.student_basis,
            net=manifest.net if isinstance(manifest, NetManifestHeader) else None,
            net_basis=manifest.net_basis if isinstance(manifest, NetManifestHeader) else None,
        )
        if not hashes.all() <= self._parts.keys():
            return None
        self._waiting = None
        release = self._assemble(manifest, hashes)
        self._number = release.number
        self._parts = {address: self._parts[address] for address in sorted(hashes.all())}
        return release

    def _assemble(self, manifest: ReleaseManifestHeader, hashes: PartHashes) -> Release:
        sources = tuple(Source(*msgspec.structs.astuple(s)) for s in manifest.sources)
        if manifest.release_id != release_id_of(manifest.epoch, sources, hashes):
            raise QuarantinedError("release_id", "expected the hash of the manifest's content")
        basis = typed_part(self._parts, manifest.basis, Basis)
        weights = typed_part(self._parts, manifest.weights, np.ndarray)
        if (basis is None) != (weights is None) or (
            basis is not None and weights is not None and len(weights) != basis.n_weights
        ):
            raise QuarantinedError("shape", "weights: expected one per weight of the basis")
        evidence = {}
        for day, address in manifest.evidence:
            cells = typed_part(self._parts, address, EvidenceCells)
            if cells is not None:
                evidence[day] = cells
        return Release(
            number=manifest.number,
            epoch=manifest.epoch,
            created_ms=manifest.created_ms,
            release_id=manifest.release_id,
            sources=sources,
            basis=basis,
            weights=weights,
            next_basis=typed_part(self._parts, manifest.next_basis, Basis),
            evidence=evidence,
            probes=typed_part(self._parts, manifest.probes, ProbeSet),
            student=self._student(manifest),
            net=self._net(hashes),
        )

    def _student(self, manifest: ReleaseManifestHeader) -> Student | None:
        network = typed_part(self._parts, manifest.student, StudentNetwork)
        basis = typed_part(self._parts, manifest.student_basis, Basis)
        if (network is None) != (basis is None):
            raise QuarantinedError("part", "student: expected a network and its basis")
        return None if network is None or basis is None else Student(basis, network)

    def _net(self, hashes: PartHashes) -> MergedNet | None:
        summary = typed_part(self._parts, hashes.net, MlpSummary)
        basis = typed_part(self._parts, hashes.net_basis, Basis)
        if summary is None or basis is None:
            return None
        if summary.basis != basis.number:
            raise QuarantinedError("part", "net: expected parameters of its basis")
        return MergedNet(basis, summary)


def _parts_of(release: Release) -> list[Part]:
    """Return every part that there is."""
    single = (release.basis, release.weights, release.next_basis, release.probes)
    pairs = (*(release.student or ()), *(release.net or ()))
    return [part for part in (*single, *pairs) if part is not None] + [*release.evidence.values()]


def _basis_hash(basis: Basis | None, digests: Digests) -> str | None:
    return None if basis is None else digests.of(basis, name="basis", number=basis.number)


def _parts(release: Release, hashes: PartHashes) -> list[tuple[Part, str, int, str]]:
    """Return (part, name, number, address) of every part, the scorer first."""
    parts: list[tuple[Part, str, int, str]] = []
    if release.basis is not None and hashes.basis is not None:
        parts.append((release.basis, "basis", release.basis.number, hashes.basis))
    if release.next_basis is not None and hashes.next_basis is not None:
        parts.append((release.next_basis, "basis", release.next_basis.number, hashes.next_basis))
    student, probes = release.student, release.probes
    if student is not None and hashes.student is not None and hashes.student_basis is not None:
        parts.append((student.basis, "basis", student.basis.number, hashes.student_basis))
        parts.append((student.network, "student", student.network.number, hashes.student))
    net = release.net
    if net is not None and hashes.net is not None and hashes.net_basis is not None:
        parts.append((net.basis, "basis", net.basis.number, hashes.net_basis))
        parts.append((net.summary, "net", net.summary.basis, hashes.net))
    if probes is not None and hashes.probes is not None:
        parts.append((probes, "probes", probes.number, hashes.probes))
    if release.weights is not None and hashes.weights is not None:
        parts.append((release.weights, "weights", 0, hashes.weights))
    parts.extend(
        (release.evidence[day], "evidence", day, address) for day, address in hashes.evidence
    )
    return parts
