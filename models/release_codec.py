"""Releases as signed bytes and back: parts addressed by their content, then a manifest; pure."""

import hashlib
from collections.abc import Collection, Sequence
from typing import TypeVar

import msgspec
import numpy as np

from models.basis import Basis
from models.entity_risk import EvidenceCells
from models.envelope import (
    Envelope,
    Kind,
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
from models.release import (
    Age,
    Former,
    FormerWeights,
    MergedNet,
    PersonalWeights,
    ProbeSet,
    Release,
    Source,
    Student,
    StudentNetwork,
    check_former,
)
from models.release_hashes import Digests, PartHashes, part_hash, part_hashes, release_id_of
from models.release_parts import Part, pack_part, typed_part, unpack_part
from models.schema import Schema

MANIFEST_KEY = "manifest"
_EMPTY_SHA256 = hashlib.sha256(b"").digest()

HeaderT = TypeVar("HeaderT", ReleasePartHeader, ReleaseManifestHeader)


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
        personal=hashes.personal,
        personal_members=hashes.personal_members,
        former=hashes.former,
        net=hashes.net,
        net_basis=hashes.net_basis,
        body_sha256=_EMPTY_SHA256,
    )
    records.append((MANIFEST_KEY, seal(Kind.RELEASE_MANIFEST, manifest, b"", signer)))
    return records


def _age_of(manifest: ReleaseManifestHeader | None) -> Age:
    return Age() if manifest is None else Age(manifest.epoch, manifest.number)


class ReleaseAssembler:
    """Collects a release's parts and manifest; gives it out once it is whole and newer.

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
        self._age = Age()

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
        elif envelope.kind is Kind.RELEASE_MANIFEST:
            manifest = self._verified(envelope, ReleaseManifestHeader)
            check_body_hash(envelope, manifest.body_sha256)
            if _age_of(manifest) > max(self._age, _age_of(self._waiting)):
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
            personal=manifest.personal,
            personal_members=manifest.personal_members,
            former=manifest.former,
            net=manifest.net,
            net_basis=manifest.net_basis,
        )
        if not hashes.all() <= self._parts.keys():
            return None
        self._waiting = None
        release = self._assemble(manifest, hashes)
        self._age = release.age
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
            personal=self._personal(manifest, basis),
            former=self._former(manifest),
            net=self._net(manifest),
        )

    def _personal(
        self, manifest: ReleaseManifestHeader, basis: Basis | None
    ) -> PersonalWeights | None:
        weights = typed_part(self._parts, manifest.personal, np.ndarray)
        if weights is None:
            return None
        if basis is None or weights.ndim != 2 or weights.shape[1] != basis.n_weights:
            raise QuarantinedError("shape", "personal: expected one per weight of the basis")
        try:
            return PersonalWeights(members=manifest.personal_members, weights=weights)
        except InvalidInputError as error:
            raise QuarantinedError("shape", str(error)) from error

    def _former(self, manifest: ReleaseManifestHeader) -> tuple[Former, ...]:
        found = []
        for basis_address, address in manifest.former:
            basis = typed_part(self._parts, basis_address, Basis)
            last = typed_part(self._parts, address, FormerWeights)
            if basis is not None and last is not None:
                found.append(Former(basis, last))
        try:
            check_former(found)
        except InvalidInputError as error:
            raise QuarantinedError("shape", str(error)) from error
        return tuple(found)

    def _student(self, manifest: ReleaseManifestHeader) -> Student | None:
        network = typed_part(self._parts, manifest.student, StudentNetwork)
        basis = typed_part(self._parts, manifest.student_basis, Basis)
        if (network is None) != (basis is None):
            raise QuarantinedError("part", "student: expected a network and its basis")
        return None if network is None or basis is None else Student(basis, network)

    def _net(self, manifest: ReleaseManifestHeader) -> MergedNet | None:
        summary = typed_part(self._parts, manifest.net, MlpSummary)
        basis = typed_part(self._parts, manifest.net_basis, Basis)
        if summary is None and basis is None:
            return None
        if summary is None or basis is None or summary.basis != basis.number:
            raise QuarantinedError("part", "net: expected parameters and their basis")
        return MergedNet(basis, summary)


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
    for (basis, last), addresses in zip(release.former, hashes.former, strict=True):
        parts.append((basis, "basis", basis.number, addresses[0]))
        parts.append((last, "former", last.number, addresses[1]))
    if release.weights is not None and hashes.weights is not None:
        parts.append((release.weights, "weights", 0, hashes.weights))
    if release.personal is not None and hashes.personal is not None:
        parts.append((release.personal.weights, "personal", 0, hashes.personal))
    parts.extend(
        (release.evidence[day], "evidence", day, address) for day, address in hashes.evidence
    )
    return parts
