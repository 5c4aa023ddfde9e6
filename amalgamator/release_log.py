"""The releases topic as a log that can be taken up again: parts, manifest, clean-up; pure."""

from collections.abc import Iterable

from models.errors import DecodeError, QuarantinedError
from models.fragments import FragmentRecord, Reassembler, Splitter
from models.keys import Signer, Verifier
from models.release import Release
from models.release_codec import MANIFEST_KEY, ReleaseAssembler, encode_release
from models.release_hashes import Digests, part_hashes
from models.schema import Schema


class ReleaseLog:
    """Turns releases into records of the topic, each part only when it is new.

    Parts that no release needs any more are deleted by a tombstone after the manifest that does
    without them. What a crash left half published is overwritten; the last whole release is not.
    """

    def __init__(self, consortium: str, schema: Schema, signer: Signer) -> None:
        self._consortium = consortium
        self._schema = schema
        self._signer = signer
        self._splitter = Splitter()
        self._digests = Digests()
        self._sent: frozenset[str] = frozenset()
        self._keys_of: dict[str, set[bytes]] = {}

    def restore(self, records: Iterable[FragmentRecord]) -> Release | None:
        """Return the last whole release of the topic and go on after it.

        Records that are not the amalgamator's own are passed over.
        """
        assembler = ReleaseAssembler(
            self._consortium, self._schema, [Verifier(self._signer.public_key)]
        )
        reassembler = Reassembler()
        last: Release | None = None
        since_last: list[bytes] = []
        for record in records:
            since_last.append(record.key)
            try:
                envelope = reassembler.add(record)
                release = None if envelope is None else assembler.add(envelope)
            except (DecodeError, QuarantinedError):
                continue
            if release is not None:
                last = release
                self._observe(since_last)
                since_last = []
        if last is not None:
            self._sent = part_hashes(last).all()
        return last

    def encode(self, release: Release) -> list[FragmentRecord]:
        """Return the records that bring the topic from the last release to this one."""
        records: list[FragmentRecord] = []
        for key, envelope in encode_release(
            release,
            self._sent,
            self._signer,
            consortium=self._consortium,
            digests=self._digests,
        ):
            pieces = self._splitter.split(envelope, key.encode(), release.number)
            self._keys_of.setdefault(key, set()).update(piece.key for piece in pieces)
            records += pieces
        self._sent = part_hashes(release, self._digests).all()
        self._digests.keep_only(release)
        return records + self._tombstones(release)

    def _observe(self, record_keys: Iterable[bytes]) -> None:
        for record_key in record_keys:
            try:
                self._splitter.observe(record_key)
            except DecodeError:
                continue
            key = record_key.rsplit(b"|", 2)[0].decode(errors="replace")
            self._keys_of.setdefault(key, set()).add(record_key)

    def _tombstones(self, release: Release) -> list[FragmentRecord]:
        student, probes, net = release.student, release.probes, release.net
        bases = [release.basis, release.next_basis]
        bases += [carried.basis for carried in (student, net) if carried is not None]
        bases += [former.basis for former in release.former]
        needed = {MANIFEST_KEY, "weights|0"}
        needed |= set() if release.personal is None else {"personal|0"}
        needed |= {f"former|{former.basis.number}" for former in release.former}
        needed |= set() if student is None else {f"student|{student.network.number}"}
        needed |= set() if probes is None else {f"probes|{probes.number}"}
        needed |= set() if net is None else {f"net|{net.summary.basis}"}
        needed |= {f"basis|{basis.number}" for basis in bases if basis is not None}
        needed |= {f"evidence|{day}" for day in release.evidence}
        outdated = sorted(self._keys_of.keys() - needed)
        keys = [record_key for key in outdated for record_key in sorted(self._keys_of.pop(key))]
        return [FragmentRecord(record_key, None, ()) for record_key in keys]
