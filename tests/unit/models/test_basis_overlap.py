"""What two bases have in common: held to what they make of rows."""

from dataclasses import replace

import numpy as np
import pytest

from models.basis import MISSING, Basis, encode
from models.basis_overlap import places_in
from tests.two_bases import EDGES, basis_with, new_basis, old_basis, rows, stump, three_leaves


def common_columns(old: Basis, new: Basis) -> int:
    """Check that what is common is active together, row by row; return how many transforms are."""
    places = places_in(old, new)
    assert places.shape == (old.n_weights,)
    assert not places.flags.writeable
    features, _ = rows(400, 3)
    before, after = encode(old, features), encode(new, features)
    n_common = 0
    for column, (a, b) in enumerate(zip(old.offsets[:-1], old.offsets[1:], strict=True)):
        is_common = places[a:b] != MISSING
        assert is_common.all() or not is_common.any()
        if is_common.all():
            n_common += 1
            there = before[:, column] >= 0
            expected = np.where(there, places[before[:, column]], MISSING)
            first = np.searchsorted(new.offsets, places[a], side="right") - 1
            np.testing.assert_array_equal(after[:, first], expected)
    assert len(np.unique(places[places >= 0])) == np.count_nonzero(places >= 0)
    return n_common


def test_bins_crosses_and_the_same_trees_are_common_however_they_are_numbered() -> None:
    """Bias, three features, two crosses, a stump and a tree; one stump is gone."""
    assert common_columns(old_basis(), new_basis()) == 8
    first_tree = old_basis().offsets[6:8].tolist()
    assert (places_in(old_basis(), new_basis())[slice(*first_tree)] == MISSING).all()


def test_a_basis_is_common_with_itself_in_place() -> None:
    """Under any number."""
    basis = old_basis()
    places = places_in(basis, replace(basis, number=7))
    np.testing.assert_array_equal(places, np.arange(basis.n_weights))


def test_other_edges_are_another_feature_and_take_crosses_with_them() -> None:
    """Trees have thresholds, so they stay; feature 5 and its cross do not."""
    moved = (*EDGES[:2], (5, (-0.5, 1.0, 2.0)))
    other = basis_with(2, [three_leaves()], moved)
    assert common_columns(basis_with(1, [three_leaves()]), other) == 5
    nudged = (*EDGES[:2], (5, (-0.5, float(np.nextafter(np.float32(1), np.float32(2))))))
    assert common_columns(basis_with(1, []), basis_with(2, [], nudged)) == 4


@pytest.mark.parametrize(
    "tree", [stump(5, 1.0), stump(5, -0.5, absent_left=True), stump(0, 0.5, absent_left=True)]
)
def test_a_tree_that_differs_in_one_thing_is_another(tree) -> None:
    """Feature, threshold, and where the absent goes."""
    known = basis_with(1, [stump(5, 1.0, absent_left=True)])
    assert common_columns(known, basis_with(2, [tree])) == 6


def categorical(number: int, logits: tuple[float, float]) -> Basis:
    """Return a basis whose feature 0 holds two categories with these numbers for them."""
    basis = basis_with(number, [stump(0, 0.5), stump(5, 1.0)])
    counts = np.zeros(basis.n_features, np.int32)
    counts[0] = 2
    return replace(
        basis,
        category_cells=np.array([5_000, 5_100], np.int16),
        category_logits=np.array(logits, np.float32),
        n_categories=counts,
    )


def test_other_numbers_for_categories_are_another_feature() -> None:
    """Bins, both crosses and the stump on feature 0 go; bias, two features, a stump stay."""
    assert common_columns(categorical(1, (-1.0, 1.0)), categorical(2, (-1.0, 1.0))) == 8
    assert common_columns(categorical(1, (-1.0, 1.0)), categorical(2, (-1.0, 1.5))) == 4


def test_nothing_is_common_with_another_schema() -> None:
    """Positions mean something else there."""
    other = replace(new_basis(), schema_hash="another")
    assert (places_in(old_basis(), other) == MISSING).all()
