"""Contributions as bytes: lossless, stable, and every corruption is refused."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.basis import MAX_WEIGHTS
from models.codec import RULES, Context, decode_contribution, encode_contribution
from models.entity_risk import MAX_CELLS
from models.envelope import (
    ContributionHeader,
    Kind,
    check_body_hash,
    check_signature,
    decode_header,
    open_envelope,
    seal,
)
from models.errors import InvalidInputError, QuarantinedError
from models.families.mlp_parameters import n_parameters
from models.keys import Verifier
from models.summary import Contribution, ContributionKey
from tests.consortium import (
    SCHEMA,
    closing,
    context_of,
    evidence,
    histograms,
    signer_of,
    statistics,
)

GOLDEN = Path(__file__).parents[2] / "golden"
SIGNER = signer_of("alpha")
N_PARAMETERS = n_parameters(len(SCHEMA.feature_names))


def decode(raw: bytes) -> Contribution:
    """Open, verify and decode as a receiver does."""
    envelope = open_envelope(raw)
    header = decode_header(envelope, ContributionHeader)
    check_signature(envelope, Verifier(SIGNER.public_key))
    check_body_hash(envelope, header.body_sha256)
    return decode_contribution(header, envelope.body, SCHEMA)


def assert_equal(left: Contribution, right: Contribution) -> None:
    """Compare two contributions to the bit."""
    assert (left.key, left.epoch, left.basis, left.n) == (
        right.key,
        right.epoch,
        right.basis,
        right.n,
    )
    assert left.arrays.keys() == right.arrays.keys()
    for name, array in left.arrays.items():
        other = right.arrays[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape)
        assert array.tobytes() == other.tobytes()


def two_rows() -> dict[str, np.ndarray]:
    """Return moments of a legitimate row, which counts ten times, and of a fraud."""
    d = len(SCHEMA.feature_names)
    z = np.array([np.arange(d) - 10, 20 - np.arange(d)])
    present = np.ones((2, d), np.int64)
    z[1, 0] = present[1, 0] = 0
    x, n = np.concatenate([z, present], axis=1), np.array([10, 1])
    upper = np.triu_indices(2 * d)
    products = [k * np.outer(row, row)[upper] for k, row in zip(n, x, strict=True)]
    return {"n": n, "sums": n[:, None] * x, "products": np.array(products)}


def golden_contributions() -> dict[str, Contribution]:
    """Return one small, fixed contribution of each part."""
    n_weights = 3
    fixed = {
        "histograms": {
            "feature": np.array([0, 0, 1], np.int16),
            "is_fraud": np.array([0, 1, 0], np.uint8),
            "cell": np.array([5, 4, 9_000], np.int16),
            "count": np.array([7, 1, 8], np.uint32),
        },
        "statistics": {
            "curvature": np.array([3, 1, 0.5, 2, 0.25, 1], np.float32),
            "gradient": np.array([0.5, -1.25, 3.0]),
        },
        "moments": two_rows(),
        "evidence": {
            "name": np.arange(n_weights * 16, dtype=np.uint8).reshape(n_weights, 16),
            "kind": np.zeros(n_weights, np.uint8),
            "hour": np.array([0, 12, 23], np.uint8),
            "n": np.array([4, 2, 1], np.float32),
            "f": np.array([1, 0, 1], np.float32),
            "first_fraud_ms": np.array([1_000, -1, 5_000]),
            "last_fraud_ms": np.array([2_000, -1, 5_000]),
            "last_legit_ms": np.array([3_000, 4_000, -1]),
        },
        "trees": {
            "n_nodes": np.array([2, 1], np.int32),
            "gain": np.array([9.5, 0.25], np.float32),
            "feature": np.array([0, 3, 1], np.int16),
            "threshold": np.array([0.5, -2, 1.5], np.float32),
            "absent_left": np.array([1, 0, 0], np.uint8),
            "left": np.array([1, -1, -1], np.int16),
            "right": np.array([-3, -2, -2], np.int16),
            "leaf_n": np.array([40, 30, 20, 50, 40], np.uint32),
            "leaf_accounts": np.array([25, 24, 20, 40, 31], np.uint32),
            "period": np.array([714], np.int32),
        },
        "answers": {"logit": np.array([-4.5, 0.25, 30], np.float32)},
        "net": {"flat": (np.arange(N_PARAMETERS) % 11 / 8.0 - 0.5).astype(np.float32)},
        "epoch": {
            "watermark_ms": np.array([86_400_000]),
            "n_contributions": np.array([3]),
        },
    }
    bucket = {"statistics": 700, "evidence": 20_000}
    return {
        part: Contribution(
            key=ContributionKey("alpha", "0", part, bucket.get(part, 0)),  # type: ignore[arg-type]  # names of parts
            epoch=17,
            basis=1 if part in ("statistics", "moments", "trees", "answers", "net") else 0,
            n=8,
            arrays=arrays,
        )
        for part, arrays in fixed.items()
    }


EVIDENCE = golden_contributions()["evidence"]
HISTOGRAMS = golden_contributions()["histograms"]
STATISTICS = golden_contributions()["statistics"]
MOMENTS = golden_contributions()["moments"]
ANSWERS = golden_contributions()["answers"]
NET = golden_contributions()["net"]


@pytest.mark.parametrize("part", sorted(RULES))
def test_the_bytes_on_the_wire_are_those_of_the_golden_file(part: str) -> None:
    """A difference is a change of the format: members and amalgamator would part."""
    raw = encode_contribution(golden_contributions()[part], context_of(seq=5), SIGNER)
    assert raw == (GOLDEN / f"contribution_{part}.bin").read_bytes()


@pytest.mark.parametrize("part", sorted(RULES))
def test_golden_files_decode_to_what_was_encoded(part: str) -> None:
    """Old bytes stay readable."""
    raw = (GOLDEN / f"contribution_{part}.bin").read_bytes()
    assert_equal(decode(raw), golden_contributions()[part])


@pytest.mark.parametrize(
    "contribution",
    [
        evidence("alpha", 20_000, seed=1, n_cells=200),
        evidence("alpha", 20_000, seed=1, n_cells=0),
        histograms("alpha", n=100, n_frauds=3, seed=1),
        histograms("alpha", n=0, n_frauds=0, seed=1),
        statistics("alpha", 700, basis=2, n_weights=50, seed=1),
        statistics("alpha", 700, basis=2, n_weights=1, seed=1),
        closing("alpha", 12),
    ],
)
def test_every_part_comes_back_to_the_bit(contribution: Contribution) -> None:
    """Empty, one-sample and larger ones."""
    raw = encode_contribution(contribution, context_of(), SIGNER)
    assert_equal(decode(raw), contribution)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
    st.integers(-(2**53), 2**53),
    st.integers(-(2**53), 2**53),
)
def test_any_finite_gradient_comes_back_to_the_bit(
    gradient: list[float], bucket: int, epoch: int
) -> None:
    """Subnormals, negative zero and the largest numbers too."""
    n = len(gradient)
    contribution = Contribution(
        key=ContributionKey("alpha", "w", "statistics", bucket),
        epoch=epoch,
        basis=1,
        n=n,
        arrays={
            "curvature": np.ones(n * (n + 1) // 2, np.float32),
            "gradient": np.array(gradient),
        },
    )
    assert_equal(decode(encode_contribution(contribution, context_of(), SIGNER)), contribution)


def places_in(raw: bytes) -> list[int]:
    """Return every place of an envelope; of a long body, which one hash covers, each 101st."""
    return [*range(min(len(raw), 1_500)), *range(1_500, len(raw), 101)]


@pytest.mark.parametrize("part", sorted(RULES))
def test_every_flipped_byte_is_refused(part: str) -> None:
    """Prefix, header, signature or body: no single byte can be changed."""
    raw = encode_contribution(golden_contributions()[part], context_of(), SIGNER)
    for i in places_in(raw):
        damaged = raw[:i] + bytes([raw[i] ^ 0xFF]) + raw[i + 1 :]
        with pytest.raises(QuarantinedError):
            decode(damaged)


@pytest.mark.parametrize("part", sorted(RULES))
def test_every_truncation_and_extension_is_refused(part: str) -> None:
    """An envelope has exactly one length."""
    raw = encode_contribution(golden_contributions()[part], context_of(), SIGNER)
    for wrong in [raw[:i] for i in places_in(raw)] + [raw + b"\x00"]:
        with pytest.raises(QuarantinedError):
            decode(wrong)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32, allow_nan=False), min_size=1, max_size=40),
    st.integers(1, 2**31),
)
def test_any_answers_come_back_to_the_bit(logit: list[float], number: int) -> None:
    """Within +-30, whatever the set's number."""
    answers = replace(ANSWERS, basis=number, arrays={"logit": np.array(logit, np.float32)})
    assert_equal(decode(encode_contribution(answers, context_of(), SIGNER)), answers)


@given(
    z=st.lists(st.lists(st.integers(-256, 256), min_size=4, max_size=4), min_size=1, max_size=9),
    n_frauds=st.integers(0, 9),
)
def test_any_moments_of_rows_come_back_to_the_bit(z: list[list[int]], n_frauds: int) -> None:
    """All that rows can give passes the checks: the first four features vary, one is absent."""
    d = len(SCHEMA.feature_names)
    scores, present = np.zeros((len(z), d), np.int64), np.ones((len(z), d), np.int64)
    scores[:, :4], present[:, 4] = z, 0
    x, upper = np.concatenate([scores, present], axis=1), np.triu_indices(2 * d)
    v = np.array([10, 1])
    classes = [x[n_frauds:], x[:n_frauds]]
    arrays = {
        "n": v * [len(one) for one in classes],
        "sums": np.array([k * one.sum(axis=0) for k, one in zip(v, classes, strict=True)]),
        "products": np.array([k * (one.T @ one)[upper] for k, one in zip(v, classes, strict=True)]),
    }
    moments = replace(MOMENTS, n=len(z), arrays=arrays)
    assert_equal(decode(encode_contribution(moments, context_of(), SIGNER)), moments)


@given(st.binary(max_size=400))
def test_random_bytes_are_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    """With and without a plausible beginning."""
    for candidate in (raw, b"AMS1\x01" + raw):
        with pytest.raises(QuarantinedError):
            decode(candidate)


def resealed(part: str, change: Callable[[dict[str, object]], object]) -> bytes:
    """Return a golden envelope, its header fields changed, signed again by the member itself."""
    raw = encode_contribution(golden_contributions()[part], context_of(), SIGNER)
    envelope = open_envelope(raw)
    fields = msgspec.msgpack.decode(envelope.header)
    change(fields)
    header = msgspec.convert(fields, ContributionHeader)
    return seal(Kind.CONTRIBUTION, header, bytes(envelope.body), SIGNER)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.update(part="pickle"), "part"),
        (lambda f: f["arrays"][0].update(name="object"), "part"),
        (lambda f: f["arrays"][0].update(dtype="|O"), "part"),
        (lambda f: f["arrays"].pop(), "part"),
        (lambda f: f["arrays"].reverse(), "part"),
        (lambda f: f["arrays"][1].update(offset=0), "shape"),
        (lambda f: f["arrays"][1].update(shape=[2**40]), "shape"),
        (lambda f: f["arrays"][1].update(shape=[3, 1]), "shape"),
        (lambda f: f["arrays"][1].update(shape=[2]), "trailing_bytes"),
        (lambda f: f.update(basis=0), "range"),
        (lambda f: f.update(epsilon_spent=float("nan")), "range"),
        (lambda f: f.update(epsilon_spent=-1.0), "range"),
    ],
)
def test_a_signed_header_that_lies_is_refused(
    change: Callable[[dict[str, object]], object], reason: str
) -> None:
    """A member's own signature does not make its numbers believed."""
    with pytest.raises(QuarantinedError) as refusal:
        decode(resealed("statistics", change))
    assert refusal.value.reason == reason


def test_a_header_in_another_encoding_is_refused() -> None:
    """Same fields, other order: the one canonical encoding is demanded."""
    raw = encode_contribution(golden_contributions()["epoch"], context_of(), SIGNER)
    envelope = open_envelope(raw)
    fields = dict(reversed(msgspec.msgpack.decode(envelope.header).items()))
    for encoded in (
        msgspec.msgpack.encode(fields),
        msgspec.msgpack.encode(fields | {"more": 1}),
        envelope.header + b"\x00",
    ):
        head = raw[:5] + len(encoded).to_bytes(2, "little") + encoded
        with pytest.raises(QuarantinedError) as refusal:
            decode(head + SIGNER.sign(head) + bytes(envelope.body))
        assert refusal.value.reason == "header"


@pytest.mark.parametrize(
    ("contribution", "name", "position", "value", "reason"),
    [
        (EVIDENCE, "n", 0, np.nan, "finite"),
        (EVIDENCE, "n", 0, np.inf, "finite"),
        (EVIDENCE, "n", 0, 0.0, "range"),
        (EVIDENCE, "n", 0, 2.0**25, "range"),
        (EVIDENCE, "f", 0, -1.0, "range"),
        (EVIDENCE, "kind", 1, 1, "range"),
        (EVIDENCE, "hour", 1, 24, "range"),
        (EVIDENCE, "first_fraud_ms", 0, -2, "range"),
        (EVIDENCE, "first_fraud_ms", 0, 9_999, "range"),
        (EVIDENCE, "first_fraud_ms", 0, -1, "range"),
        (EVIDENCE, "last_legit_ms", 0, -2, "range"),
        (EVIDENCE, "name", 0, 255, "range"),
        (HISTOGRAMS, "feature", 0, -1, "range"),
        (HISTOGRAMS, "feature", 2, len(SCHEMA.feature_names), "range"),
        (HISTOGRAMS, "feature", 2, 0, "range"),
        (HISTOGRAMS, "is_fraud", 1, 2, "range"),
        (HISTOGRAMS, "cell", 0, -1, "range"),
        (HISTOGRAMS, "cell", 2, 9_729, "range"),
        (STATISTICS, "curvature", 0, np.nan, "finite"),
        (STATISTICS, "curvature", 0, -1.0, "range"),
        (STATISTICS, "curvature", 1, -0.5, "range"),
        (STATISTICS, "curvature", 1, 2.5, "range"),
        (STATISTICS, "curvature", 5, 0.1, "range"),
        (STATISTICS, "gradient", 0, -np.inf, "finite"),
        (MOMENTS, "n", 0, -1, "range"),
        (MOMENTS, "n", 0, 81, "range"),
        (MOMENTS, "n", 1, 9, "range"),
        (MOMENTS, "sums", (0, 0), 2_561, "range"),
        (MOMENTS, "sums", (1, -1), 2, "range"),
        (MOMENTS, "products", (0, 0), -1, "range"),
        (MOMENTS, "products", (0, 1), 901, "range"),
        (ANSWERS, "logit", 1, np.nan, "finite"),
        (ANSWERS, "logit", 1, -30.1, "range"),
        (NET, "flat", 0, np.nan, "finite"),
        (NET, "flat", N_PARAMETERS - 1, -np.inf, "finite"),
        (NET, "flat", 9, 10_001.0, "range"),
        (NET, "flat", 9, -3e38, "range"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    contribution: Contribution,
    name: str,
    position: int | tuple[int, int],
    value: float,
    reason: str,
) -> None:
    """One wrong entry in one array, honestly signed."""
    array = contribution.arrays[name].copy()
    array[position] = value
    wrong = replace(contribution, arrays={**contribution.arrays, name: array})
    with pytest.raises(QuarantinedError) as refusal:
        decode(encode_contribution(wrong, context_of(), SIGNER))
    assert refusal.value.reason == reason


def test_repeated_cells_are_refused() -> None:
    """Evidence on one (name, kind, hour) comes once."""
    arrays = {name: np.repeat(array, 2, axis=0) for name, array in EVIDENCE.arrays.items()}
    with pytest.raises(QuarantinedError) as refusal:
        decode(encode_contribution(replace(EVIDENCE, arrays=arrays), context_of(), SIGNER))
    assert refusal.value.reason == "range"


def test_arrays_of_different_lengths_are_refused() -> None:
    """Columns belong together."""
    arrays = {**HISTOGRAMS.arrays, "count": np.array([1], np.uint32)}
    with pytest.raises(QuarantinedError) as refusal:
        decode(encode_contribution(replace(HISTOGRAMS, arrays=arrays), context_of(), SIGNER))
    assert refusal.value.reason == "shape"


def test_curvature_of_another_size_than_the_gradient_is_refused() -> None:
    """W weights have w (w + 1) / 2 pairs."""
    arrays = {**STATISTICS.arrays, "gradient": np.zeros(4)}
    with pytest.raises(QuarantinedError) as refusal:
        decode(encode_contribution(replace(STATISTICS, arrays=arrays), context_of(), SIGNER))
    assert refusal.value.reason == "shape"


def test_moments_of_another_schema_or_key_are_refused() -> None:
    """Their length says how many features they are of; they have one bucket and a basis."""
    short = {**MOMENTS.arrays, "sums": MOMENTS.arrays["sums"][:, 2:]}
    with pytest.raises(QuarantinedError) as refusal:
        decode(encode_contribution(replace(MOMENTS, arrays=short), context_of(), SIGNER))
    assert refusal.value.reason == "shape"
    for change in ({"basis": 0}, {"bucket": 1}):
        with pytest.raises(QuarantinedError) as refusal:
            decode(resealed("moments", lambda fields, change=change: fields.update(change)))
        assert refusal.value.reason == "range"


@pytest.mark.parametrize("n", [0, 65_537])
def test_answers_to_no_probe_or_too_many_are_refused(n: int) -> None:
    """A set has 1 to 65,536."""
    arrays = {"logit": np.zeros(n, np.float32)}
    with pytest.raises(QuarantinedError) as refusal:
        decode(encode_contribution(replace(ANSWERS, arrays=arrays), context_of(), SIGNER))
    assert refusal.value.reason == "shape"


@pytest.mark.parametrize("change", [{"basis": 0}, {"bucket": 1}])
def test_answers_name_their_set_and_have_one_bucket(change: dict[str, int]) -> None:
    """The set's number stands where others name a basis."""
    with pytest.raises(QuarantinedError) as refusal:
        decode(resealed("answers", lambda fields: fields.update(change)))
    assert refusal.value.reason == "range"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    st.integers(1, 2**31),
    st.integers(1, 2**53),
)
def test_any_net_within_bounds_comes_back_to_the_bit(
    values: list[float], basis: int, n: int
) -> None:
    """Subnormals and negative zero too."""
    flat = np.resize(np.array(values, np.float32), N_PARAMETERS)
    net = replace(NET, basis=basis, n=n, arrays={"flat": flat})
    assert_equal(decode(encode_contribution(net, context_of(), SIGNER)), net)


@pytest.mark.parametrize("n", [0, 1, N_PARAMETERS - 1, N_PARAMETERS + 1, 2 * N_PARAMETERS])
def test_a_net_of_another_architecture_is_refused(n: int) -> None:
    """Its length is that of the one architecture on the schema's features."""
    wrong = replace(NET, arrays={"flat": np.zeros(n, np.float32)})
    with pytest.raises(QuarantinedError) as refusal:
        decode(encode_contribution(wrong, context_of(), SIGNER))
    assert refusal.value.reason == "shape"


@pytest.mark.parametrize("change", [{"basis": 0}, {"bucket": 1}, {"n": 0}])
def test_a_net_names_its_basis_and_rows_and_has_one_bucket(change: dict[str, int]) -> None:
    """One of no rows says nothing."""
    with pytest.raises(QuarantinedError) as refusal:
        decode(resealed("net", lambda fields: fields.update(change)))
    assert refusal.value.reason == "range"


@pytest.mark.parametrize("dtype", ["<f8", "|O", "<i4"])
def test_a_net_of_other_numbers_is_refused(dtype: str) -> None:
    """Before anything is read."""
    with pytest.raises(QuarantinedError) as refusal:
        decode(resealed("net", lambda fields: fields["arrays"][0].update(dtype=dtype)))
    assert refusal.value.reason == "part"


def test_encoding_refuses_arrays_that_are_not_registered() -> None:
    """A sender's mistake is found before anything is sent."""
    for arrays in (
        {"curvature": STATISTICS.arrays["curvature"]},
        {**STATISTICS.arrays, "more": np.zeros(1)},
        {**STATISTICS.arrays, "gradient": np.zeros(3, np.float32)},
        {**STATISTICS.arrays, "gradient": np.zeros((3, 1))},
    ):
        with pytest.raises(InvalidInputError):
            encode_contribution(replace(STATISTICS, arrays=arrays), context_of(), SIGNER)


def test_decoded_arrays_can_not_be_written() -> None:
    """What was signed stays what it was."""
    decoded = decode(encode_contribution(EVIDENCE, context_of(), SIGNER))
    assert not any(array.flags.writeable for array in decoded.arrays.values())


def test_the_hash_of_an_envelope_changes_with_body_header_and_signer() -> None:
    """It is what the next envelope names as the one before."""
    context = context_of()
    other = replace(EVIDENCE, n=EVIDENCE.n + 1)
    hashes = {
        open_envelope(encode_contribution(c, x, s)).hash
        for c, x, s in (
            (EVIDENCE, context, SIGNER),
            (HISTOGRAMS, context, SIGNER),
            (other, context, SIGNER),
            (EVIDENCE, replace(context, created_ms=context.created_ms + 1), SIGNER),
            (EVIDENCE, context, signer_of("beta")),
        )
    }
    assert len(hashes) == 5
    assert all(len(one) == hashlib.sha256().digest_size for one in hashes)


def test_context_defaults_are_those_of_the_exact_mode() -> None:
    """No privacy budget is spent and no release is named unless said."""
    context = Context(consortium="c", seq=1, prev_hash=b"", schema_hash="s", created_ms=0)
    assert (context.epsilon_spent, context.base_release, context.pseudonym_generation) == (0, "", 0)


def test_the_largest_evidence_and_statistics_fit_into_an_envelope() -> None:
    """A contribution that cannot be sent would end its worker, at each start anew."""
    zeros = {
        rule.name: np.zeros([size or MAX_CELLS for size in rule.shape], rule.dtype)
        for rule in RULES["evidence"]
    }
    n_packed = MAX_WEIGHTS * (MAX_WEIGHTS + 1) // 2
    sums = {"curvature": np.zeros(n_packed, np.float32), "gradient": np.zeros(MAX_WEIGHTS)}
    largest = {"evidence": zeros, "statistics": sums}
    for part, arrays in largest.items():
        one = replace(golden_contributions()[part], arrays=arrays)
        raw = encode_contribution(one, context_of(), SIGNER)
        assert len(open_envelope(raw).body) == sum(array.nbytes for array in arrays.values())
