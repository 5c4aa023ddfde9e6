"""Moments: plain sums of scores and presences, exact under any merge, and their checks."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.basis import Basis, encode, feature_weights
from models.copula import (
    MAX_SCORE,
    THINNING,
    UNIT,
    Moments,
    bin_scores,
    check_moments,
    is_sampled,
    unpacked,
)
from models.errors import InvalidInputError, QuarantinedError
from models.packed import diagonal_places

BASIS = Basis(
    number=1,
    schema_hash="0" * 16,
    edges=np.array([0.0, 1.0, 2.0, 5.0], np.float32),
    n_edges=np.array([3, 1, 0], np.int32),
    coarse_edges=np.array([1.0, 5.0], np.float32),
    n_coarse_edges=np.array([1, 1, 0], np.int32),
    selected=np.arange(3, dtype=np.int32),
    crosses=np.array([[0, 1]], np.int32),
    n_categories=np.zeros(3, np.int32),
)
SCORES = bin_scores(BASIS)
VALUE = st.sampled_from([-1.0, 0.5, 1.5, 3.0, 7.0, float("nan")])
ROWS = st.lists(st.tuples(VALUE, VALUE, VALUE, st.booleans(), st.booleans()), max_size=30)


def moments_of(rows):
    """Return the moments of drawn rows (three values, fraud, sampled)."""
    out = Moments.empty(3)
    x = np.array([row[:3] for row in rows], np.float32).reshape(-1, 3)
    y, sampled = (np.array([row[i] for row in rows], bool) for i in (3, 4))
    out.add(encode(BASIS, x), SCORES, y, sampled=sampled)
    return out


def same(a, b):
    return all(np.array_equal(x, b.arrays()[name]) for name, x in a.arrays().items())


def test_a_bin_scores_the_normal_quantile_of_its_middle_rank() -> None:
    """In 64ths; the bias and the crosses score nothing."""
    four = [NormalDist().inv_cdf((b + 0.5) / 4) for b in range(4)]
    two = [NormalDist().inv_cdf(p) for p in (0.25, 0.75)]
    expected = [0, *(round(UNIT * z) for z in [*four, *two, 0.0])]
    assert SCORES[: len(expected)].tolist() == expected
    assert not SCORES[len(expected) :].any()


@given(rows=ROWS)
def test_sums_are_those_of_a_plain_loop(rows) -> None:
    """Scores and presences, a fraud once, a sampled legitimate row ten times."""
    z_of = {-1.0: 0, 0.5: 1, 1.5: 2, 3.0: 3, 7.0: 3}
    n, sums, products = np.zeros(2), np.zeros((2, 6)), np.zeros((2, 6, 6))
    for *values, fraud, sampled in rows:
        v = 1 if fraud else THINNING * sampled
        there = ~np.isnan(values)
        first = SCORES[1 + z_of[values[0]]] if there[0] else 0
        second = SCORES[5 + (values[1] >= 5.0)] if there[1] else 0
        x = np.array([first, second, 0, *there.astype(float)])
        n[int(fraud)] += v
        sums[int(fraud)] += v * x
        products[int(fraud)] += v * np.outer(x, x)
    got = moments_of(rows)
    assert got.n.tolist() == n.tolist()
    assert got.sums.tolist() == sums.tolist()
    for c in (0, 1):
        assert unpacked(got.products[c], 6).tolist() == products[c].tolist()


@given(a=ROWS, b=ROWS, c=ROWS)
def test_merged_is_pooled_in_any_order(a, b, c) -> None:
    """Commutative, associative, with an identity, to the bit; operands stay as they were."""
    one, two, three = moments_of(a), moments_of(b), moments_of(c)
    before = {name: array.copy() for name, array in one.arrays().items()}
    pooled = moments_of(a + b + c)
    assert same(one.merged(two).merged(three), pooled)
    assert same(three.merged(one.merged(two)), pooled)
    assert same(two.merged(one), one.merged(two))
    assert same(one.merged(Moments.empty(3)), one)
    assert all(np.array_equal(array, before[name]) for name, array in one.arrays().items())


@given(rows=ROWS)
def test_a_feature_without_weights_counts_as_absent(rows) -> None:
    """Its column may then be anything; the others' sums stay as they were."""
    x = np.array([row[:3] for row in rows], np.float32).reshape(-1, 3)
    y, sampled = (np.array([row[i] for row in rows], bool) for i in (3, 4))
    narrow = replace(BASIS, selected=np.array([0, 2], np.int32))
    out = Moments.empty(3)
    encoded = feature_weights(narrow, encode(narrow, x))
    out.add(encoded, bin_scores(narrow), y, sampled=sampled)
    x[:, 1] = np.nan
    expected = Moments.empty(3)
    expected.add(encode(BASIS, x), SCORES, y, sampled=sampled)
    same(out, expected)


def test_other_features_do_not_merge() -> None:
    """The error says how many were expected."""
    with pytest.raises(InvalidInputError, match="expected 3 features, got 2"):
        Moments.empty(3).merged(Moments.empty(2))


def test_one_in_ten_is_sampled_and_always_the_same() -> None:
    """Within five standard deviations of the binomial share."""
    hashes = np.random.default_rng(0).integers(0, 2**63, 400_000).astype(np.uint64)
    taken = is_sampled(hashes)
    share = 1 / THINNING
    assert abs(taken.mean() - share) < 5 * np.sqrt(share * (1 - share) / len(hashes))
    assert np.array_equal(taken, is_sampled(hashes.copy()))


@given(rows=ROWS)
def test_what_rows_give_passes_the_check(rows) -> None:
    """Also after a round trip."""
    check_moments(Moments.load(moments_of(rows).arrays()).arrays(), 3)


def spoilt(name, place, value):
    """Return honest sums with one number changed."""
    rows = [(0.5, 7.0, 1.0, True, True), (3.0, float("nan"), 1.0, False, True)] * 5
    arrays = {key: array.copy() for key, array in moments_of(rows).arrays().items()}
    arrays[name][place] = value
    return arrays


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("n", 0, -1),
        ("n", 1, 2**41),
        ("sums", (1, 3), -1),
        ("sums", (1, 3), 10**6),
        ("sums", (0, 0), MAX_SCORE * 10**6),
        ("products", (0, 0), -1),
        ("products", (1, 1), 10**9),
        ("products", (1, int(diagonal_places(6)[4])), 0),
    ],
)
def test_sums_that_no_rows_give_are_refused(name, place, value) -> None:
    """Negative counts, more presence than rows, scores beyond 4, Cauchy's inequality."""
    with pytest.raises(QuarantinedError) as caught:
        check_moments(spoilt(name, place, value), 3)
    assert caught.value.reason == "range"


def test_another_number_of_features_is_refused() -> None:
    """By shape."""
    with pytest.raises(QuarantinedError) as caught:
        check_moments(Moments.empty(2).arrays(), 3)
    assert caught.value.reason == "shape"
