"""The gate: each reason of quarantine, one by one, and in the order of the checks."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from amalgamator.gate import DUPLICATE, REASONS, Accepted, Gate, GateLimits, Refused, Seen
from amalgamator.registry import Registry
from models.basis import Basis
from models.basis_builder import build_basis
from models.codec import encode_contribution
from models.envelope import ContributionHeader, Kind, open_envelope, seal
from models.histograms import add_rows, empty_counts
from models.keys import Signer
from models.schema import Schema
from models.summary import Contribution
from tests.consortium import (
    NOW_MS,
    SCHEMA,
    closing,
    context_of,
    envelopes,
    evidence,
    proposal,
    registry_of,
    signer_of,
    statistics,
)

EVIDENCE = evidence("alpha", 20_000, seed=1)


def a_basis() -> Basis:
    rows = np.random.default_rng(4).normal(size=(500, len(SCHEMA.feature_names)))
    counts = empty_counts(rows.shape[1])
    add_rows(counts, rows.astype(np.float32), np.arange(500) % 9 == 0)
    return build_basis(counts, SCHEMA, 1)


TREE_BASIS = a_basis()


def gate_of(registry: Registry | None = None, limits: GateLimits | None = None) -> Gate:
    """Return a gate of the test's consortium."""
    return Gate(registry or registry_of(), SCHEMA, limits or GateLimits())


def sealed(contribution: Contribution = EVIDENCE, *, seq: int = 1, prev_hash: bytes = b"") -> bytes:
    """Return a contribution in its member's envelope."""
    member = contribution.key.member
    context = context_of(seq=seq, prev_hash=prev_hash)
    return encode_contribution(contribution, context, signer_of(member))


def changed(signer: Signer | None = None, **fields: object) -> bytes:
    """Return an envelope of alpha with other header fields, signed again."""
    envelope = open_envelope(sealed())
    header = msgspec.msgpack.decode(envelope.header) | fields
    return seal(
        Kind.CONTRIBUTION,
        msgspec.convert(header, ContributionHeader),
        bytes(envelope.body),
        signer or signer_of("alpha"),
    )


def reason_of(raw: bytes, seen: Seen | None = None, gate: Gate | None = None) -> str:
    """Return why an envelope is refused, ``accepted`` if it is not."""
    outcome = (gate or gate_of()).check(raw, seen or Seen(), NOW_MS)
    return outcome.reason if isinstance(outcome, Refused) else "accepted"


def seen_after(raws: list[bytes]) -> Seen:
    """Return what a gate has seen after these envelopes were accepted."""
    seen, gate = Seen(), gate_of()
    for raw in raws:
        outcome = gate.check(raw, seen, NOW_MS)
        assert isinstance(outcome, Accepted)
        seen.record(outcome.contribution.key, outcome.seq, outcome.hash)
    return seen


def test_a_good_envelope_is_accepted_with_its_seq_and_hash() -> None:
    """Contribution, seq and hash are what was sent."""
    raw = sealed(seq=7)
    outcome = gate_of().check(raw, Seen(), NOW_MS)
    assert isinstance(outcome, Accepted)
    assert (outcome.contribution.key, outcome.seq) == (EVIDENCE.key, 7)
    assert outcome.hash == open_envelope(raw).hash


def test_too_large_or_too_small_is_refused_as_size() -> None:
    """Before anything is read."""
    raw = sealed()
    limits = GateLimits(max_envelope_bytes=len(raw) - 1)
    assert reason_of(raw, gate=gate_of(limits=limits)) == "size"
    assert reason_of(b"") == "size"
    assert reason_of(raw[:70]) == "size"


def test_another_magic_kind_or_header_length_is_refused() -> None:
    """The prefix must make sense."""
    raw = sealed()
    assert reason_of(b"AMS2" + raw[4:]) == "magic"
    assert reason_of(raw[:4] + b"\x09" + raw[5:]) == "kind"
    assert reason_of(raw[:5] + b"\x00\x00" + raw[7:]) == "header_length"
    assert reason_of(raw[:5] + b"\xff\xff" + raw[7:]) == "header_length"


def test_a_release_on_a_members_topic_is_refused_as_kind() -> None:
    """Members speak in contributions alone."""
    envelope = open_envelope(sealed())
    header = msgspec.msgpack.decode(envelope.header, type=ContributionHeader)
    assert reason_of(seal(Kind.RELEASE_PART, header, b"", signer_of("alpha"))) == "kind"


def test_a_header_that_is_none_is_refused() -> None:
    """Garbage where msgpack should be."""
    raw = sealed()
    assert reason_of(raw[:7] + b"\xc1" + raw[8:]) == "header"


def test_another_consortium_or_schema_is_refused() -> None:
    """Numbers of another meaning are never added."""
    assert reason_of(changed(consortium="other")) == "consortium"
    other = Schema(entity_kinds=("terminal", "merchant"))
    assert reason_of(changed(schema_hash=other.hash)) == "schema"


def test_an_unknown_member_or_worker_is_refused() -> None:
    """Only registered names count."""
    assert reason_of(changed(member="mallory")) == "member"
    assert reason_of(changed(worker="9")) == "member"


def test_a_revoked_key_is_refused_although_its_signature_is_right() -> None:
    """Revocation is by key id."""
    registry = registry_of()
    alpha = replace(registry.members["alpha"], revoked=frozenset({signer_of("alpha").key_id}))
    registry = replace(registry, members={**registry.members, "alpha": alpha})
    assert reason_of(sealed(), gate=gate_of(registry)) == "revoked"


def test_a_wrong_signature_is_refused() -> None:
    """A flipped bit, another member's key, another's key under alpha's key id."""
    raw = bytearray(sealed())
    signature_at = len(raw) - len(open_envelope(bytes(raw)).body) - 1
    raw[signature_at] ^= 1
    assert reason_of(bytes(raw)) == "signature"
    assert reason_of(changed(signer_of("beta"), key_id=signer_of("beta").key_id)) == "signature"
    assert reason_of(changed(signer_of("beta"))) == "signature"


def test_another_body_is_refused() -> None:
    """Changed, cut or lengthened after signing."""
    raw = sealed()
    for other in (raw[:-1] + bytes([raw[-1] ^ 1]), raw[:-1], raw + b"\x00"):
        assert reason_of(other) == "body_hash"


def test_the_same_envelope_again_is_a_duplicate_and_no_fault() -> None:
    """Delivery at least once is the normal case."""
    raw = sealed()
    assert reason_of(raw, seen_after([raw])) == DUPLICATE
    assert DUPLICATE not in REASONS


def test_an_older_envelope_of_the_same_key_is_a_replay() -> None:
    """The newest stays."""
    old, new = envelopes([EVIDENCE, replace(EVIDENCE, n=EVIDENCE.n + 1)])
    assert reason_of(old, seen_after([old, new])) == "replay"


def test_the_same_seq_with_other_content_is_a_fork() -> None:
    """Whether for the same key or for another."""
    seen = seen_after([sealed()])
    assert reason_of(changed(n=EVIDENCE.n + 1), seen) == "fork"
    assert reason_of(sealed(evidence("alpha", 20_001, seed=1)), seen) == "fork"
    assert reason_of(sealed(evidence("beta", 20_000, seed=1)), seen) == "accepted"


def test_a_gap_is_accepted_and_told() -> None:
    """Compaction removes predecessors."""
    first, second, third = envelopes(
        [EVIDENCE, evidence("alpha", 20_001, seed=2), evidence("alpha", 20_002, seed=3)]
    )
    seen = seen_after([first])
    told = [gate_of().check(raw, seen, NOW_MS) for raw in (second, third)]
    assert [isinstance(one, Accepted) and one.gap for one in told] == [False, True]


def test_a_contribution_from_the_future_is_refused_unless_clocks_mean_nothing() -> None:
    """Five minutes are forgiven, and everything in a replay."""
    late = changed(created_ms=NOW_MS + 300_001)
    assert reason_of(changed(created_ms=NOW_MS + 300_000)) == "accepted"
    assert reason_of(late) == "clock"
    assert reason_of(late, gate=gate_of(limits=GateLimits(clock_tolerance_ms=None))) == "accepted"


def test_evidence_of_a_day_far_ahead_is_refused_where_it_is_bounded() -> None:
    """It would push every other day out of the window."""
    today = NOW_MS // 86_400_000
    gate = gate_of(limits=GateLimits(max_days_ahead=1))
    assert reason_of(sealed(evidence("alpha", today + 1, seed=1)), gate=gate) == "accepted"
    assert reason_of(sealed(evidence("alpha", today + 2, seed=1)), gate=gate) == "clock"


def test_parts_that_are_not_registered_are_refused() -> None:
    """By name of the part."""
    assert reason_of(changed(part="pickle")) == "part"


def test_shapes_trailing_bytes_nan_and_ranges_are_refused() -> None:
    """Each by its own reason; the codec's tests have all cases."""
    arrays = dict(EVIDENCE.arrays)
    nan = {**arrays, "n": np.full_like(arrays["n"], np.nan)}
    negative = {**arrays, "f": np.full_like(arrays["f"], -1.0)}
    assert reason_of(sealed(replace(EVIDENCE, arrays=nan))) == "finite"
    assert reason_of(sealed(replace(EVIDENCE, arrays=negative))) == "range"
    ragged = {**arrays, "hour": arrays["hour"][:-1]}
    assert reason_of(sealed(replace(EVIDENCE, arrays=ragged))) == "shape"
    headers = msgspec.msgpack.decode(open_envelope(sealed()).header)["arrays"]
    headers[-1]["shape"] = [headers[-1]["shape"][0] - 1]
    assert reason_of(changed(arrays=headers)) == "trailing_bytes"


def test_statistics_of_another_size_than_the_known_basis_are_refused() -> None:
    """An unknown basis is let in, the fold does not use it."""
    basis = build_basis(empty_counts(len(SCHEMA.feature_names)), SCHEMA, 2)

    def of(n_weights: int) -> bytes:
        return sealed(statistics("alpha", 700, basis=2, n_weights=n_weights, seed=1))

    assert reason_of(of(basis.n_weights - 1), Seen(bases={2: basis})) == "shape"
    assert reason_of(of(basis.n_weights), Seen(bases={2: basis})) == "accepted"
    assert reason_of(of(basis.n_weights - 1), Seen(bases={3: basis})) == "accepted"


def broken(**changes: object) -> Contribution:
    """Return a proposal of three stumps of which some arrays are exchanged."""
    good = proposal("alpha", 7, basis=TREE_BASIS, n_trees=3, seed=1)
    arrays = {name: np.array(array) for name, array in good.arrays.items()}
    return replace(good, arrays=arrays | {k: np.asarray(v) for k, v in changes.items()})


def many(n_trees: int, n_nodes: int) -> Contribution:
    """Return trees that are chains of splits on one feature."""
    links = np.arange(1, n_nodes + 1, dtype=np.int16)
    links[-1] = -1 - n_nodes
    edge = TREE_BASIS.edges[0]
    n = n_trees * n_nodes
    return broken(
        n_nodes=np.full(n_trees, n_nodes, np.int32),
        gain=np.ones(n_trees, np.float32),
        feature=np.zeros(n, np.int16),
        threshold=np.full(n, edge, np.float32),
        absent_left=np.zeros(n, np.uint8),
        left=np.tile(-1 - np.arange(n_nodes, dtype=np.int16), n_trees),
        right=np.tile(links, n_trees),
        leaf_n=np.full(n + n_trees, 99, np.uint32),
        leaf_accounts=np.full(n + n_trees, 99, np.uint32),
    )


@pytest.mark.parametrize(
    ("contribution", "reason"),
    [
        (many(1, 9_999), "trees_too_many_leaves"),
        (many(1, 12), "trees_too_deep"),
        (many(129, 1), "trees_too_many_trees"),
        (many(64, 1), "trees_repeated"),
        (broken(feature=np.array([0, 0, 999], np.int16)), "trees_unknown_feature"),
        (broken(threshold=np.array([0.123, 4, 5], np.float32)), "trees_unknown_threshold"),
        (broken(leaf_accounts=np.array([30, 30, 1, 30, 30, 30], np.uint32)), "trees_small_leaf"),
        (broken(left=np.array([0, -1, -1], np.int16)), "trees_cycle"),
        (broken(left=np.array([-2, -1, -1], np.int16)), "trees_malformed"),
        (broken(leaf_n=np.array([60], np.uint32)), "trees_malformed"),
        (broken(gain=np.array([np.nan, 1, 1], np.float32)), "finite"),
    ],
)
def test_hostile_trees_are_refused_with_a_reason(contribution: Contribution, reason: str) -> None:
    """Too large, cyclic, of unknown features or edges, repeated, or singling accounts out."""
    assert reason_of(sealed(contribution), Seen(bases={1: TREE_BASIS})) == reason


def test_honest_trees_are_let_in() -> None:
    """So that the refusals above are for what they say."""
    good = proposal("alpha", 7, basis=TREE_BASIS, n_trees=9, seed=1)
    assert reason_of(sealed(good), Seen(bases={1: TREE_BASIS})) == "accepted"


def test_the_order_of_checks_is_that_of_the_design() -> None:
    """An envelope with every fault at once is refused for the first, then for the next, ..."""
    wrong = {
        "created_ms": NOW_MS * 2,
        "part": "pickle",
        "schema_hash": "other",
        "member": "mallory",
        "key_id": "0" * 16,
    }
    assert reason_of(changed(**wrong)) == "schema"
    del wrong["schema_hash"]
    assert reason_of(changed(**wrong)) == "member"
    del wrong["member"]
    assert reason_of(changed(**wrong)) == "signature"
    del wrong["key_id"]
    assert reason_of(changed(**wrong), seen_after([sealed()])) == "fork"
    assert reason_of(changed(**wrong)) == "clock"
    del wrong["created_ms"]
    assert reason_of(changed(**wrong)) == "part"


@pytest.mark.parametrize("contribution", [EVIDENCE, closing("alpha", 3)])
def test_every_reason_is_one_of_the_closed_set(contribution: Contribution) -> None:
    """Each byte flipped: a metric's label never takes an unknown value."""
    raw = sealed(contribution)
    gate, seen = gate_of(), Seen()
    for i in range(len(raw)):
        outcome = gate.check(raw[:i] + bytes([raw[i] ^ 0x5A]) + raw[i + 1 :], seen, NOW_MS)
        assert isinstance(outcome, Refused)
        assert outcome.reason in REASONS


def test_what_was_seen_of_a_member_can_be_forgotten() -> None:
    """An expelled member that comes back starts anew; others are untouched."""
    alpha, beta = sealed(), sealed(evidence("beta", 20_000, seed=1))
    seen = seen_after([alpha, beta])
    seen.forget(frozenset({"alpha"}))
    assert reason_of(alpha, seen) == "accepted"
    assert reason_of(beta, seen) == DUPLICATE
