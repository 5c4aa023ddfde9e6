"""The merged net in a release: it comes back with its basis, names the release, and may not lie."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from models.envelope import Kind, ReleaseManifestHeader, open_envelope, seal
from models.errors import QuarantinedError
from models.families.mlp_parameters import MlpSummary, n_parameters
from models.release import Former, FormerWeights, MergedNet, PersonalWeights, Release
from models.release_hashes import Digests, part_hashes, release_id_of, seal_release
from tests.consortium import AMALGAMATOR
from tests.unit.models.test_release_codec import (
    GOLDEN,
    N_FEATURES,
    a_release,
    asking,
    assembler,
    assert_equal,
    basis_of,
    encoded,
    received,
)


def a_summary(basis: int = 3, n: int = 900) -> MlpSummary:
    flat = (np.arange(n_parameters(N_FEATURES)) % 13 / 8.0 - 0.75).astype(np.float32)
    return MlpSummary(n=n, basis=basis, n_features=N_FEATURES, flat=flat)


def with_net(basis: int = 3, release: Release | None = None) -> Release:
    """Return a sealed release with a merged net on a basis of its own."""
    net = MergedNet(basis_of(basis), a_summary(basis))
    return seal_release(replace(release or a_release(), net=net))


def test_a_net_comes_back_with_its_own_basis() -> None:
    """Before the weights; the basis is sent once where it is one in force."""
    release = with_net()
    records = encoded(release)
    assert [key for key, _ in records][:5] == [
        "basis|1",
        "basis|2",
        "basis|3",
        "net|3",
        "weights|0",
    ]
    (back,) = received(records, assembler())
    assert_equal(back, release)
    assert back.net is not None
    assert back.net.is_same(release.net)
    assert (back.net.basis.number, back.net.summary.n) == (3, 900)
    keys = [key for key, _ in encoded(with_net(1))]
    assert keys.count("basis|1") == 1
    assert "basis|3" not in keys


def test_probes_student_and_net_come_back_together() -> None:
    """They know nothing of each other."""
    release = with_net(release=asking())
    (back,) = received(encoded(release), assembler())
    assert_equal(back, release)
    assert back.student is not None
    assert back.net is not None


def test_net_personal_weights_and_former_scorers_come_back_together() -> None:
    """A basis that was in force is sent once, also where the net reads it."""
    plain, basis = asking(), basis_of(9)
    assert plain.student is not None
    former = tuple(
        Former(one, FormerWeights(number=one.number, weights=np.full(one.n_weights, 0.5)))
        for one in (basis_of(3), basis_of(4))
    )
    rows = np.arange(2.0 * basis.n_weights).reshape(2, -1) / 16.0
    personal = PersonalWeights(members=("alpha", "beta"), weights=rows)
    all_of_it = replace(
        plain, basis=basis, weights=np.ones(basis.n_weights), personal=personal, former=former
    )
    release = with_net(release=all_of_it)
    records = encoded(release)
    assert [key for key, _ in records].count("basis|3") == 1
    (back,) = received(records, assembler())
    assert_equal(back, release)
    assert back.net is not None
    assert back.net.is_same(release.net)
    assert back.personal is not None
    assert back.personal.members == personal.members
    assert back.personal.weights.tolist() == rows.tolist()
    assert [one.basis.number for one in back.former] == [3, 4]
    assert seal_release(back).release_id == release.release_id
    bare = [with_net(release=replace(all_of_it, personal=None)), seal_release(all_of_it)]
    bare.append(with_net(release=replace(all_of_it, former=())))
    assert len({one.release_id for one in (*bare, release)}) == 4


def test_a_release_with_a_net_has_its_own_golden_file_and_id() -> None:
    """Without one nothing is written of it; parameters, rows and basis each change the id."""
    release = with_net()
    assert b"".join(raw for _, raw in encoded(release)) == (GOLDEN / "release_net.bin").read_bytes()
    assert release.net is not None
    summary = release.net.summary
    others = [
        MergedNet(basis_of(4), a_summary(4)),
        release.net._replace(summary=a_summary(n=901)),
        release.net._replace(summary=replace(summary, flat=summary.flat[::-1].copy())),
    ]
    ids = {seal_release(replace(release, net=net)).release_id for net in others}
    ids |= {release.release_id, a_release().release_id, with_net(release=asking()).release_id}
    assert len(ids) == 6
    assert seal_release(replace(release, net=None)).release_id == a_release().release_id


def test_the_digest_of_a_net_is_remembered() -> None:
    """As those of other parts."""
    digests, release = Digests(), with_net()
    assert seal_release(release, digests).release_id == release.release_id
    digests.keep_only(release)
    assert release.net is not None
    known = digests.of(release.net.summary, name="nothing", number=0)  # could not be packed
    assert known == part_hashes(release).net


def forged(net: MergedNet) -> Release:
    return seal_release(replace(a_release(), net=net))


@pytest.mark.parametrize(
    ("flat", "reason"),
    [
        (np.full(n_parameters(N_FEATURES), 2e4, np.float32), "range"),
        (np.full(n_parameters(N_FEATURES), -3e38, np.float32), "range"),
    ],
)
def test_parameters_out_of_bounds_are_refused(flat: np.ndarray, reason: str) -> None:
    """A member's border is as strict as the amalgamator's."""
    net = MergedNet(basis_of(3), replace(a_summary(), flat=flat))
    with pytest.raises(QuarantinedError) as refusal:
        received(encoded(forged(net)), assembler())
    assert refusal.value.reason == reason


def test_a_net_of_other_features_is_refused() -> None:
    """By what it says and by its length."""
    other = MlpSummary(n=5, basis=3, n_features=2, flat=np.zeros(n_parameters(2), np.float32))
    with pytest.raises(QuarantinedError) as refusal:
        received(encoded(forged(MergedNet(basis_of(3), other))), assembler())
    assert refusal.value.reason == "range"


def test_a_net_of_another_basis_than_it_brings_is_refused() -> None:
    """Its levels would mean something else."""
    net = MergedNet(basis_of(4), a_summary(3))
    with pytest.raises(QuarantinedError) as refusal:
        received(encoded(forged(net)), assembler())
    assert refusal.value.reason == "part"


def manifest_of(release: Release) -> ReleaseManifestHeader:
    envelope = open_envelope(encoded(release)[-1][1])
    assert envelope.kind is Kind.RELEASE_MANIFEST
    return msgspec.msgpack.decode(envelope.header, type=ReleaseManifestHeader)


def refused(release: Release, lie: ReleaseManifestHeader) -> str:
    """Return why a release is refused that comes with another manifest."""
    by = assembler()
    received(encoded(release)[:-1], by)
    with pytest.raises(QuarantinedError) as refusal:
        by.add(seal(Kind.RELEASE_MANIFEST, lie, b"", AMALGAMATOR))
    return refusal.value.reason


def test_a_manifest_s_net_must_be_a_net() -> None:
    """Weights at its place are refused by their type."""
    release = with_net()
    hashes = replace(part_hashes(release), net=part_hashes(release).weights)
    lie = msgspec.structs.replace(
        manifest_of(release),
        net=hashes.net,
        release_id=release_id_of(release.epoch, release.sources, hashes),
    )
    assert refused(release, lie) == "part"


@pytest.mark.parametrize("missing", ["net", "net_basis"])
def test_a_net_and_its_basis_come_together(missing: str) -> None:
    """A manifest that names one of the two is refused."""
    release = with_net()
    hashes = replace(part_hashes(release), **{missing: None})
    lie = msgspec.structs.replace(
        manifest_of(release),
        net=hashes.net,
        net_basis=hashes.net_basis,
        release_id=release_id_of(release.epoch, release.sources, hashes),
    )
    assert refused(release, lie) == "part"


def test_a_manifest_without_a_net_writes_nothing_of_one() -> None:
    """So releases of consortia without nets keep their bytes."""
    plain = open_envelope(encoded(a_release())[-1][1])
    assert not {"net", "net_basis"} & msgspec.msgpack.decode(plain.header).keys()
    held = msgspec.msgpack.decode(open_envelope(encoded(with_net())[-1][1]).header)
    assert {"net", "net_basis"} <= held.keys()


def test_every_flipped_byte_of_a_manifest_with_a_net_is_refused() -> None:
    """As of any."""
    raw = encoded(with_net())[-1][1]
    for i in range(len(raw)):
        with pytest.raises(QuarantinedError):
            assembler().add(raw[:i] + bytes([raw[i] ^ 0xFF]) + raw[i + 1 :])
