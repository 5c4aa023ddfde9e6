"""Content hashes of a release's parts, and of the release; pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from models.basis import Basis
from models.envelope import ReleasePartHeader
from models.release import Release, Source
from models.release_parts import Part, pack_part

RELEASE_ID_DIGITS = 32


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
    personal: str | None = None
    personal_members: tuple[str, ...] = ()
    former: tuple[tuple[str, str], ...] = ()
    net: str | None = None
    net_basis: str | None = None

    def all(self) -> frozenset[str]:
        """Return every hash that is set."""
        single = {self.basis, self.weights, self.next_basis, self.personal}
        of_pairs = {h for pair in (*self.former, self.of_net()) for h in pair}
        found = single | of_pairs | {*self.of_probes()}
        return frozenset(h for h in found if h) | {h for _, h in self.evidence}

    def of_probes(self) -> tuple[str | None, str | None, str | None]:
        """Return the hashes of probes, student and the student's basis."""
        return self.probes, self.student, self.student_basis

    def of_net(self) -> tuple[str | None, str | None]:
        """Return the hashes of the merged net and its basis."""
        return self.net, self.net_basis

    def optional(self) -> list[object]:
        """Return what enters a release's id only where it is set: absent, not empty."""
        out: list[object] = [self.of_probes()] if any(self.of_probes()) else []
        if self.personal is not None:
            out.append(("personal", self.personal, self.personal_members))
        if self.former:
            out.append(("former", self.former))
        if any(self.of_net()):
            out.append(("net", self.of_net()))
        return out


def part_hashes(release: Release, digests: Digests | None = None) -> PartHashes:
    """Return the content hash of each part."""
    digests = Digests() if digests is None else digests
    probes, student, personal = release.probes, release.student, release.personal
    net = release.net
    return PartHashes(
        net=None if net is None else digests.of(net.summary, name="net", number=net.summary.basis),
        net_basis=_basis_hash(None if net is None else net.basis, digests),
        personal=None
        if personal is None
        else digests.of(personal.weights, name="personal", number=0),
        personal_members=() if personal is None else personal.members,
        former=tuple(
            (
                digests.of(basis, name="basis", number=basis.number),
                digests.of(last, name="former", number=last.number),
            )
            for basis, last in release.former
        ),
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
    canonical = msgspec.msgpack.encode(content + hashes.optional())
    return hashlib.sha256(canonical).hexdigest()[:RELEASE_ID_DIGITS]


def part_hash(header: ReleasePartHeader) -> str:
    """Return the address of a part: what it is and what it holds, not who signed it."""
    canonical = msgspec.structs.replace(header, consortium="-", key_id="-")
    return hashlib.sha256(msgspec.msgpack.encode(canonical)).hexdigest()


def _parts_of(release: Release) -> list[Part]:
    """Return every part that there is."""
    personal = release.personal
    of_members = None if personal is None else personal.weights
    single = (release.basis, release.weights, release.next_basis, release.probes, of_members)
    pairs = [*(release.student or ()), *(release.net or ())]
    former = [part for one in release.former for part in one]
    return [
        *(part for part in single if part is not None),
        *pairs,
        *former,
        *release.evidence.values(),
    ]


def _basis_hash(basis: Basis | None, digests: Digests) -> str | None:
    return None if basis is None else digests.of(basis, name="basis", number=basis.number)
