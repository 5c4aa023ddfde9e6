"""Releases as signed bytes and back: parts addressed by their content, then a manifest; pure."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.codec import (
    CELLS_RULES,
    ArrayRule,
    check_cells,
    check_finite,
    check_layout,
    pack_arrays,
    unpack_arrays,
)
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
from models.keys import Signer, Verifier
from models.release import Release, Source
from models.schema import Schema

RELEASE_ID_DIGITS = 32
MANIFEST_KEY = "manifest"
_EMPTY_SHA256 = hashlib.sha256(b"").digest()

BASIS_RULES = (
    ArrayRule("edges", "<f4", (None,)),
    ArrayRule("n_edges", "<i4", (None,)),
    ArrayRule("coarse_edges", "<f4", (None,)),
    ArrayRule("n_coarse_edges", "<i4", (None,)),
    ArrayRule("selected", "<i4", (None,)),
    ArrayRule("crosses", "<i4", (None, 2)),
    ArrayRule("category_cells", "<i2", (None,)),
    ArrayRule("category_logits", "<f4", (None,)),
    ArrayRule("n_categories", "<i4", (None,)),
    ArrayRule("tree_n_nodes", "<i4", (None,)),
    ArrayRule("tree_feature", "<i2", (None,)),
    ArrayRule("tree_threshold", "<f4", (None,)),
    ArrayRule("tree_absent_left", "|u1", (None,)),
    ArrayRule("tree_left", "<i2", (None,)),
    ArrayRule("tree_right", "<i2", (None,)),
    ArrayRule("made_from", "<i4", (2,)),
)
PART_RULES: Mapping[str, tuple[ArrayRule, ...]] = {
    "basis": BASIS_RULES,
    "weights": (ArrayRule("weights", "<f8", (None,)),),
    "evidence": CELLS_RULES,
}

Part = Basis | EvidenceCells | NDArray[np.float64]
PartT = TypeVar("PartT", Basis, EvidenceCells, NDArray[np.float64])
HeaderT = TypeVar("HeaderT", ReleasePartHeader, ReleaseManifestHeader)


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
            header, _ = _pack_part(part, name=name, number=number, consortium="", key_id="")
            known = (part, part_hash(header))
            self._known[id(part)] = known
        return known[1]

    def keep_only(self, release: Release) -> None:
        """Forget all parts but those of ``release``."""
        parts = (release.basis, release.weights, release.next_basis, *release.evidence.values())
        wanted = {id(part) for part in parts}
        self._known = {key: value for key, value in self._known.items() if key in wanted}


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHashes:
    """Content hashes of a release's parts."""

    basis: str | None
    weights: str | None
    next_basis: str | None
    evidence: tuple[tuple[int, str], ...]

    def all(self) -> frozenset[str]:
        """Return every hash that is set."""
        single = {self.basis, self.weights, self.next_basis} - {None}
        return frozenset(h for h in single if h) | {h for _, h in self.evidence}


def part_hashes(release: Release, digests: Digests | None = None) -> PartHashes:
    """Return the content hash of each part."""
    digests = Digests() if digests is None else digests
    return PartHashes(
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
    canonical = msgspec.msgpack.encode(
        [
            "amalgam-release-1",
            epoch,
            [tuple(source) for source in sources],
            hashes.basis,
            hashes.weights,
            hashes.next_basis,
            hashes.evidence,
        ]
    )
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
            header, body = _pack_part(
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
        body_sha256=_EMPTY_SHA256,
    )
    records.append((MANIFEST_KEY, seal(Kind.RELEASE_MANIFEST, manifest, b"", signer)))
    return records


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
            self._parts[part_hash(part_header)] = _unpack_part(
                part_header, envelope.body, self._schema
            )
        elif envelope.kind is Kind.RELEASE_MANIFEST:
            manifest = self._verified(envelope, ReleaseManifestHeader)
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
        basis = _typed(self._parts, manifest.basis, Basis)
        weights = _typed(self._parts, manifest.weights, np.ndarray)
        if (basis is None) != (weights is None) or (
            basis is not None and weights is not None and len(weights) != basis.n_weights
        ):
            raise QuarantinedError("shape", "weights: expected one per weight of the basis")
        evidence = {}
        for day, address in manifest.evidence:
            cells = _typed(self._parts, address, EvidenceCells)
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
            next_basis=_typed(self._parts, manifest.next_basis, Basis),
            evidence=evidence,
        )


def _typed(parts: Mapping[str, Part], address: str | None, part_type: type[PartT]) -> PartT | None:
    if address is None:
        return None
    part = parts[address]
    if not isinstance(part, part_type):
        raise QuarantinedError("part", f"expected a {part_type.__name__} at its place")
    return part


def _basis_hash(basis: Basis | None, digests: Digests) -> str | None:
    return None if basis is None else digests.of(basis, name="basis", number=basis.number)


def _parts(release: Release, hashes: PartHashes) -> list[tuple[Part, str, int, str]]:
    """Return (part, name, number, address) of every part, the scorer first."""
    parts: list[tuple[Part, str, int, str]] = []
    if release.basis is not None and hashes.basis is not None:
        parts.append((release.basis, "basis", release.basis.number, hashes.basis))
    if release.next_basis is not None and hashes.next_basis is not None:
        parts.append((release.next_basis, "basis", release.next_basis.number, hashes.next_basis))
    if release.weights is not None and hashes.weights is not None:
        parts.append((release.weights, "weights", 0, hashes.weights))
    parts.extend(
        (release.evidence[day], "evidence", day, address) for day, address in hashes.evidence
    )
    return parts


def _pack_part(
    part: Part, *, name: str, number: int, consortium: str, key_id: str
) -> tuple[ReleasePartHeader, bytes]:
    schema_hash = part.schema_hash if isinstance(part, Basis) else ""
    headers, body = pack_arrays(_arrays_of(part), PART_RULES[name])
    header = ReleasePartHeader(
        consortium=consortium,
        key_id=key_id,
        part=name,
        number=number,
        schema_hash=schema_hash,
        arrays=headers,
        body_sha256=hashlib.sha256(body).digest(),
    )
    return header, body


def _arrays_of(part: Part) -> dict[str, NDArray[np.generic]]:
    return {"weights": part} if isinstance(part, np.ndarray) else part.arrays()


def _unpack_part(header: ReleasePartHeader, body: memoryview, schema: Schema) -> Part:
    rules = PART_RULES.get(header.part)
    if rules is None:
        raise QuarantinedError("part", f"expected one of {', '.join(PART_RULES)}")
    check_layout(header.arrays, rules, len(body))
    arrays = unpack_arrays(header.arrays, body)
    check_finite(arrays)
    if header.part == "evidence":
        check_cells(arrays, len(schema.entity_kinds))
        return EvidenceCells(**arrays)  # type: ignore[arg-type]  # dtypes were checked by the rules
    if header.part == "weights":
        return arrays["weights"].astype(np.float64, copy=False)
    return _unpack_basis(header, arrays, schema)


def _unpack_basis(
    header: ReleasePartHeader, arrays: Mapping[str, NDArray[np.generic]], schema: Schema
) -> Basis:
    if header.schema_hash != schema.hash or len(arrays["n_edges"]) != len(schema.feature_names):
        raise QuarantinedError("schema", f"expected a basis of schema {schema.hash}")
    try:
        return Basis.from_arrays(header.number, header.schema_hash, arrays)
    except InvalidInputError as error:
        raise QuarantinedError("range", "expected a basis with ascending edges") from error
