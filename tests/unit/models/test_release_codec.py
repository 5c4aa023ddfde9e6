"""Releases as bytes: content hash, parts sent once, refusals."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.basis import Basis
from models.entity_risk import EvidenceCells
from models.envelope import Kind, ReleaseManifestHeader, ReleasePartHeader, open_envelope, seal
from models.errors import InvalidInputError, QuarantinedError
from models.families.network import n_parameters
from models.keys import Signer, Verifier
from models.release import ProbeSet, Release, Source, Student, StudentNetwork
from models.release_codec import ReleaseAssembler, encode_release
from models.release_hashes import Digests, part_hashes, release_id_of, seal_release
from tests.consortium import AMALGAMATOR, CONSORTIUM, NOW_MS, SCHEMA, evidence

GOLDEN = Path(__file__).parents[2] / "golden"
N_FEATURES = len(SCHEMA.feature_names)


def basis_of(number: int) -> Basis:
    """Return a basis with one edge per feature and one cross."""
    return Basis(
        number=number,
        schema_hash=SCHEMA.hash,
        edges=np.arange(N_FEATURES, dtype=np.float32),
        n_edges=np.ones(N_FEATURES, np.int32),
        coarse_edges=np.array([0.5], np.float32),
        n_coarse_edges=np.eye(1, N_FEATURES, dtype=np.int32)[0],
        selected=np.arange(N_FEATURES, dtype=np.int32),
        crosses=np.array([[0, 1]], np.int32),
        n_categories=np.zeros(N_FEATURES, np.int32),
    )


def cells_of(seed: int) -> EvidenceCells:
    """Return a few merged cells."""
    arrays = evidence("alpha", 20_000, seed=seed, n_cells=5).arrays
    return EvidenceCells(**arrays)  # type: ignore[arg-type]  # as the contribution has them


def a_release(number: int = 1) -> Release:
    """Return a sealed release with every part."""
    basis = basis_of(1)
    return seal_release(
        Release(
            number=number,
            epoch=17,
            created_ms=NOW_MS,
            release_id="",
            sources=(Source("alpha", "0", 5, 1.0, 1.0, 8), Source("beta", "0", 7, 0.5, 0.75, 8)),
            basis=basis,
            weights=np.arange(basis.n_weights) / 8.0,
            next_basis=basis_of(2),
            evidence={20_000: cells_of(1), 20_001: cells_of(2)},
        )
    )


def asking(number: int = 1, student_basis: int = 3) -> Release:
    """Return a sealed release with probes and a student on a basis of its own."""
    rng = np.random.default_rng(7)
    rows = rng.integers(-4, 5, (6, N_FEATURES)).astype(np.float32) / 2
    rows[1, 3] = np.nan
    network = StudentNetwork(
        number=20_001,
        answers=np.arange(32, dtype=np.uint8),
        parameters=(np.arange(n_parameters(2 * N_FEATURES)) % 7 / 8.0).astype(np.float32),
    )
    student = Student(basis_of(student_basis), network)
    probes = ProbeSet(number=20_015, rows=rows)
    return seal_release(replace(a_release(number), probes=probes, student=student))


def encoded(release: Release, previous: frozenset[str] = frozenset()) -> list[tuple[str, bytes]]:
    """Return the records of a release, signed by the test's amalgamator."""
    return encode_release(release, previous, AMALGAMATOR, consortium=CONSORTIUM)


def assembler() -> ReleaseAssembler:
    """Return a member's receiver."""
    return ReleaseAssembler(CONSORTIUM, SCHEMA, [Verifier(AMALGAMATOR.public_key)])


def received(records: list[tuple[str, bytes]], by: ReleaseAssembler) -> list[Release]:
    """Return the releases that records complete."""
    found = (by.add(raw) for _, raw in records)
    return [release for release in found if release is not None]


def assert_equal(left: Release, right: Release) -> None:
    """Compare two releases to the bit, by hash and by number."""
    assert left.release_id == right.release_id == seal_release(left).release_id
    assert (left.number, left.epoch, left.created_ms, left.sources) == (
        right.number,
        right.epoch,
        right.created_ms,
        right.sources,
    )
    assert part_hashes(left) == part_hashes(right)


def test_a_release_comes_back_whole_with_its_last_record() -> None:
    """Parts first, manifest last."""
    release = a_release()
    records = encoded(release)
    assert [key for key, _ in records] == [
        "basis|1",
        "basis|2",
        "weights|0",
        "evidence|20000",
        "evidence|20001",
        "manifest",
    ]
    by = assembler()
    assert received(records[:-1], by) == []
    (back,) = received(records[-1:], by)
    assert_equal(back, release)


def test_the_first_release_of_all_may_be_empty() -> None:
    """No basis, no weights, no evidence."""
    release = seal_release(
        replace(a_release(), basis=None, weights=None, next_basis=None, evidence={}, sources=())
    )
    (back,) = received(encoded(release), assembler())
    assert_equal(back, release)


def test_parts_may_come_after_the_manifest() -> None:
    """Compaction and two slots can put them in any order."""
    release = a_release()
    (back,) = received(encoded(release)[::-1], assembler())
    assert_equal(back, release)


def test_parts_that_receivers_have_are_not_sent_again() -> None:
    """Only what changed, then the manifest; the receiver puts both together."""
    first = a_release()
    changed = {**first.evidence, 20_001: cells_of(3)}
    second = seal_release(replace(first, number=2, evidence=changed))
    records = encoded(second, part_hashes(first).all())
    assert [key for key, _ in records] == ["evidence|20001", "manifest"]
    by = assembler()
    received(encoded(first), by)
    (back,) = received(records, by)
    assert_equal(back, second)


def test_a_next_basis_that_takes_over_is_not_sent_again() -> None:
    """It is the same content in another place."""
    first = a_release()
    assert first.next_basis is not None
    weights = np.zeros(first.next_basis.n_weights)
    second = seal_release(
        replace(first, number=2, basis=first.next_basis, weights=weights, next_basis=None)
    )
    records = encoded(second, part_hashes(first).all())
    assert [key for key, _ in records] == ["weights|0", "manifest"]


def test_a_lower_or_repeated_number_changes_nothing() -> None:
    """A receiver never goes back."""
    by = assembler()
    received(encoded(a_release(5)), by)
    assert received(encoded(a_release(5)), by) == []
    assert received(encoded(a_release(4)), by) == []
    assert [r.number for r in received(encoded(a_release(6)), by)] == [6]


def test_numbers_that_begin_anew_are_taken_from_a_later_epoch() -> None:
    """As after the topic of releases was lost; what an earlier epoch still sends is not."""
    by = assembler()
    received(encoded(a_release(5)), by)
    later = seal_release(replace(a_release(1), epoch=18))
    assert [r.age for r in received(encoded(later), by)] == [(18, 1)]
    assert received(encoded(a_release(6)), by) == []


def test_number_and_time_are_not_part_of_the_release_id() -> None:
    """A rebuilt release has the same id."""
    release = a_release()
    again = seal_release(replace(release, number=9, created_ms=0))
    assert again.release_id == release.release_id
    assert len(release.release_id) == 32


def test_everything_else_is_part_of_the_release_id() -> None:
    """Epoch, sources and every part."""
    release = a_release()
    assert release.weights is not None
    changes: list[dict[str, object]] = [
        {"epoch": 18},
        {"sources": release.sources[:1]},
        {"sources": (*release.sources[:1], Source("beta", "0", 7, 0.25, 0.75, 8))},
        {"sources": (*release.sources[:1], Source("beta", "0", 7, 0.5, 0.25, 8))},
        {"sources": (*release.sources[:1], Source("beta", "0", 7, 0.5, 0.75, 9))},
        {"weights": np.nextafter(release.weights, 9.0)},
        {"basis": replace(basis_of(1), number=3)},
        {"next_basis": None},
        {"evidence": {20_000: cells_of(1)}},
        {"evidence": {20_000: cells_of(1), 20_002: cells_of(2)}},
    ]
    ids = {seal_release(replace(release, **change)).release_id for change in changes}  # type: ignore[arg-type]  # fields by name
    assert len(ids | {release.release_id}) == len(changes) + 1


def test_remembered_digests_do_not_change_the_release_id() -> None:
    """With and without a cache that saw other releases."""
    digests = Digests()
    seal_release(replace(a_release(), evidence={1: cells_of(8)}), digests)
    release = a_release()
    assert seal_release(release, digests).release_id == release.release_id
    digests.keep_only(release)
    assert seal_release(release, digests).release_id == release.release_id


def test_the_bytes_on_the_wire_are_those_of_the_golden_file() -> None:
    """A difference is a change of the format."""
    joined = b"".join(raw for _, raw in encoded(a_release()))
    assert joined == (GOLDEN / "release.bin").read_bytes()
    assert a_release().release_id == (GOLDEN / "release_id.txt").read_text().strip()


def test_probes_and_student_come_back_with_the_student_s_own_basis() -> None:
    """Before the weights; the basis is sent once where it is one in force."""
    release = asking()
    records = encoded(release)
    keys = ["basis|1", "basis|2", "basis|3", "student|20001", "probes|20015", "weights|0"]
    assert [key for key, _ in records][:6] == keys
    (back,) = received(records, assembler())
    assert_equal(back, release)
    assert back.probes is not None
    assert back.student is not None
    assert back.probes.rows.tobytes() == asking().probes.rows.tobytes()  # type: ignore[union-attr]  # given above
    assert back.student.network.is_same(asking().student.network)  # type: ignore[union-attr]  # given above
    assert back.student.basis.number == 3
    keys = [key for key, _ in encoded(asking(student_basis=1))]
    assert keys.count("basis|1") == 1
    assert "basis|3" not in keys


def test_a_release_with_probes_has_its_own_golden_file_and_id() -> None:
    """Without them nothing is written of them; each of their parts changes the id."""
    release = asking()
    joined = b"".join(raw for _, raw in encoded(release))
    assert joined == (GOLDEN / "release_probes.bin").read_bytes()
    assert release.probes is not None
    assert release.student is not None
    network = release.student.network
    others: list[dict[str, object]] = [
        {"probes": None},
        {"student": None},
        {"probes": replace(release.probes, rows=release.probes.rows[1:])},
        {"student": release.student._replace(basis=basis_of(4))},
        {
            "student": release.student._replace(
                network=replace(network, answers=network.answers[::-1])
            )
        },
    ]
    ids = {seal_release(replace(release, **change)).release_id for change in others}  # type: ignore[arg-type]  # fields by name
    assert len(ids | {release.release_id, a_release().release_id}) == 7
    assert seal_release(replace(release, probes=None, student=None)).release_id == (
        a_release().release_id
    )


def test_digests_of_probes_and_student_are_remembered() -> None:
    """As those of other parts."""
    digests, release = Digests(), asking()
    assert seal_release(release, digests).release_id == release.release_id
    digests.keep_only(release)
    assert release.probes is not None
    known = digests.of(release.probes, name="nothing", number=0)  # a name that could not be packed
    assert known == part_hashes(release).probes


def spoilt_release(**changes: object) -> Release:
    """Return a release whose probes or student cannot be."""
    release = asking()
    assert release.student is not None
    network = replace(release.student.network, **changes)  # type: ignore[arg-type]  # fields by name
    return seal_release(replace(release, student=release.student._replace(network=network)))


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (np.zeros(5, np.float32), "range"),
        (np.full(n_parameters(2 * N_FEATURES), 2e4, np.float32), "range"),
        (np.full(n_parameters(2 * N_FEATURES), np.nan, np.float32), "finite"),
    ],
)
def test_a_student_that_cannot_be_is_refused(parameters: np.ndarray, reason: str) -> None:
    """Of another size, beyond bounds, or not a number."""
    with pytest.raises(QuarantinedError) as refusal:
        received(encoded(spoilt_release(parameters=parameters)), assembler())
    assert refusal.value.reason == reason


def test_probes_of_other_features_or_without_bound_are_refused() -> None:
    """Absent is fine, infinite is not."""
    for rows in (np.zeros((3, N_FEATURES - 1), np.float32),):
        wrong = seal_release(replace(asking(), probes=ProbeSet(number=5, rows=rows)))
        with pytest.raises(QuarantinedError) as refusal:
            received(encoded(wrong), assembler())
        assert refusal.value.reason == "range"
    for number, value in ((5, np.inf), (0, 0.0)):
        with pytest.raises(InvalidInputError, match="probes"):
            ProbeSet(number=number, rows=np.full((1, N_FEATURES), value, np.float32))


def test_a_student_without_its_basis_is_refused() -> None:
    """The network's inputs are bins of that basis."""
    release = asking()
    hashes = replace(part_hashes(release), student_basis=None)
    lie = release_id_of(release.epoch, release.sources, hashes)
    envelope = open_envelope(encoded(release)[-1][1])
    header = msgspec.msgpack.decode(envelope.header, type=ReleaseManifestHeader)
    header = msgspec.structs.replace(header, student_basis=None, release_id=lie)
    by = assembler()
    received(encoded(release)[:-1], by)
    with pytest.raises(QuarantinedError) as refusal:
        by.add(seal(Kind.RELEASE_MANIFEST, header, b"", AMALGAMATOR))
    assert refusal.value.reason == "part"


def test_an_absent_part_may_not_be_written_as_none() -> None:
    """One canonical encoding: a manifest that spells out a default is refused."""
    envelope = open_envelope(encoded(a_release())[-1][1])
    fields = msgspec.msgpack.decode(envelope.header) | {"probes": None}
    body = msgspec.msgpack.encode(fields)
    head = b"AMS1" + bytes([Kind.RELEASE_MANIFEST]) + len(body).to_bytes(2, "little") + body
    with pytest.raises(QuarantinedError) as refusal:
        assembler().add(head + AMALGAMATOR.sign(head))
    assert refusal.value.reason == "header"


def test_every_flipped_byte_is_refused() -> None:
    """In a part and in the manifest."""
    records = dict(encoded(a_release()))
    for key in ("weights|0", "manifest"):
        raw = records[key]
        for i in range(len(raw)):
            with pytest.raises(QuarantinedError):
                assembler().add(raw[:i] + bytes([raw[i] ^ 0xFF]) + raw[i + 1 :])


def test_a_release_signed_by_another_is_refused() -> None:
    """A member cannot speak for the amalgamator."""
    records = encode_release(a_release(), (), Signer(bytes([5]) * 32), consortium=CONSORTIUM)
    for _, raw in records:
        with pytest.raises(QuarantinedError) as refusal:
            assembler().add(raw)
        assert refusal.value.reason == "signature"


def test_a_release_of_another_consortium_is_refused() -> None:
    """Also if both have the same amalgamator."""
    _, raw = encode_release(a_release(), (), AMALGAMATOR, consortium="elsewhere")[-1]
    with pytest.raises(QuarantinedError) as refusal:
        assembler().add(raw)
    assert refusal.value.reason == "consortium"


def resealed_part(key: str, **changes: object) -> bytes:
    """Return a part whose header says something else, signed by the amalgamator."""
    envelope = open_envelope(dict(encoded(a_release()))[key])
    fields = msgspec.msgpack.decode(envelope.header) | changes
    header = msgspec.convert(fields, ReleasePartHeader)
    return seal(Kind.RELEASE_PART, header, bytes(envelope.body), AMALGAMATOR)


@pytest.mark.parametrize(
    ("key", "changes", "reason"),
    [
        ("weights|0", {"part": "code"}, "part"),
        ("weights|0", {"part": "evidence"}, "part"),
        ("weights|0", {"arrays": []}, "part"),
        ("basis|1", {"schema_hash": "other"}, "schema"),
        ("basis|1", {"number": 0}, "range"),
    ],
)
def test_a_part_that_lies_is_refused(key: str, changes: dict[str, object], reason: str) -> None:
    """A bug in the amalgamator stops at the member's border."""
    with pytest.raises(QuarantinedError) as refusal:
        assembler().add(resealed_part(key, **changes))
    assert refusal.value.reason == reason


def test_a_manifest_whose_id_is_not_its_content_is_refused_and_forgotten() -> None:
    """The next good release is installed."""
    records = encoded(a_release())
    envelope = open_envelope(records[-1][1])
    header = msgspec.msgpack.decode(envelope.header, type=ReleaseManifestHeader)
    lie = msgspec.structs.replace(header, release_id="0" * 32)
    by = assembler()
    received(records[:-1], by)
    with pytest.raises(QuarantinedError) as refusal:
        by.add(seal(Kind.RELEASE_MANIFEST, lie, b"", AMALGAMATOR))
    assert refusal.value.reason == "release_id"
    assert len(received(records, by)) == 1


def test_weights_of_another_length_than_the_basis_are_refused() -> None:
    """A scorer that would read past its weights is never installed."""
    release = a_release()
    assert release.weights is not None
    wrong = seal_release(replace(release, weights=release.weights[:-1]))
    with pytest.raises(QuarantinedError) as refusal:
        received(encoded(wrong), assembler())
    assert refusal.value.reason == "shape"


def test_an_unsealed_release_is_not_encoded() -> None:
    """The id must be that of the content."""
    with pytest.raises(InvalidInputError, match="sealed"):
        encoded(replace(a_release(), epoch=18))


def test_a_contribution_is_no_release() -> None:
    """A member's envelope on the releases topic is refused by its kind."""
    raw = (GOLDEN / "contribution_epoch.bin").read_bytes()
    with pytest.raises(QuarantinedError) as refusal:
        assembler().add(raw)
    assert refusal.value.reason == "kind"
