"""Statistics on another basis, held to sums over rows in plain NumPy."""

import numpy as np
import pytest

from models.basis import MISSING
from models.basis_overlap import places_in
from models.families.embedding import embed
from models.families.solver import unpack
from tests.two_bases import dense, logits_of, new_basis, old_basis, rows, statistics_of

OLD, NEW = old_basis(), new_basis()
PLACES = places_in(OLD, NEW)
SEED, N = 11, 80
WEIGHTS = np.random.default_rng(5).normal(size=OLD.n_weights)


def embedded(places=PLACES, n_weights=NEW.n_weights, weights=WEIGHTS):
    """Return (square A, b) of the rows' statistics on the new basis."""
    arrays = statistics_of("alpha", 3, OLD, seed=SEED, n=N).arrays
    packed, gradient = embed(
        arrays["curvature"],
        arrays["gradient"],
        weights=weights,
        places=places,
        n_weights=n_weights,
    )
    upper = unpack(packed, n_weights)
    return upper + np.triu(upper, 1).T, gradient


def by_rows(common_only_z):
    """Return sums over rows of what is active in both bases, by definition.

    The working response is that of the common weights: z without what the others add to it.
    """
    features, y = rows(N, SEED)
    z = logits_of(N, SEED)
    p = 1.0 / (1.0 + np.exp(-z))
    h = np.maximum(p * (1.0 - p), np.abs(y - p) / 10.0)
    before, after = dense(OLD, features), dense(NEW, features)
    is_common = np.isin(np.arange(NEW.n_weights), PLACES)
    x = after * is_common
    others = before[:, PLACES == MISSING] @ WEIGHTS[PLACES == MISSING]
    response = z - others if common_only_z else z
    return x.T @ (h[:, None] * x), x.T @ ((y - p) + h * response)


def test_embedded_statistics_are_sums_over_rows_of_what_is_common():
    """To the rounding of A to float32: 80 rows of h <= .25, |w| < 4, a dozen weights a row."""
    curvature, gradient = embedded()
    expected = by_rows(common_only_z=True)
    np.testing.assert_allclose(curvature, expected[0], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-4)


def test_what_is_left_out_stays_where_it_was():
    """Dropping its columns instead would make the common weights take over its part."""
    _, gradient = embedded()
    assert np.abs(gradient - by_rows(common_only_z=False)[1]).max() > 0.1
    _, without = embedded(weights=np.where(PLACES == MISSING, 0.0, WEIGHTS))
    np.testing.assert_allclose(without, by_rows(common_only_z=False)[1], atol=1e-4)


def test_weights_of_what_stays_do_not_matter():
    """Only those that are left out are held."""
    changed = np.where(PLACES == MISSING, WEIGHTS, 100.0)
    np.testing.assert_array_equal(embedded(weights=changed)[1], embedded()[1])


def test_onto_the_same_basis_they_stay_to_the_bit():
    """Every place is its own."""
    arrays = statistics_of("alpha", 3, OLD, seed=SEED, n=N).arrays
    n = OLD.n_weights
    packed, gradient = embed(
        arrays["curvature"], arrays["gradient"], weights=WEIGHTS, places=np.arange(n), n_weights=n
    )
    assert packed.dtype == np.float32
    np.testing.assert_array_equal(packed, arrays["curvature"])
    np.testing.assert_array_equal(gradient, arrays["gradient"])


@pytest.mark.parametrize("seed", range(5))
def test_a_change_of_order_moves_every_element_to_its_place(seed):
    """A permutation of the weights permutes A and b."""
    order = np.random.default_rng(seed).permutation(OLD.n_weights)
    curvature, gradient = embedded(order, OLD.n_weights)
    plain = embedded(np.arange(OLD.n_weights), OLD.n_weights)
    np.testing.assert_array_equal(curvature[np.ix_(order, order)], plain[0])
    np.testing.assert_array_equal(gradient[order], plain[1])
