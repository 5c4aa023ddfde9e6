"""Boosting: when it is refitted, what it is told to leave over, what it proposes."""

from dataclasses import replace

import numpy as np
import pytest

from models.basis import Basis
from models.errors import InvalidInputError
from models.evaluation import average_precision
from models.families import batch
from models.families.batch import BatchFamily, BatchOptions, grow_trees
from models.families.ordinals import Binning, ordinals
from models.families.scorecard import is_kept, thinned
from models.matured import Matured
from models.tree_checks import TreeLimits, check_trees, tree_hashes
from models.trees import TreeList, leaves_of
from tests.contract.test_families import BASIS, FIRST, OTHER_BASIS, SECOND, TEST

OPTIONS = BatchOptions(n_trees=5, min_n=500, refit_d=3)
BINNING = Binning.of(BASIS)


def a_family(**options: object) -> BatchFamily:
    family = BatchFamily(replace(OPTIONS, **options), seed=1)
    family.install(BASIS)
    return family


def fitted_on(family: BatchFamily, day: int, matured: Matured) -> bool:
    """Tell whether the retained rows were asked for."""
    asked = []
    family.end_day(day, lambda: asked.append(day) or matured)  # type: ignore[func-returns-value]
    return bool(asked)


def test_it_is_refitted_every_so_many_days() -> None:
    """And does not ask for retained rows in between, which are costly."""
    family = a_family()
    assert [day for day in range(10, 20) if fitted_on(family, day, FIRST)] == [10, 13, 16, 19]


def test_it_scores_as_the_library_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of leaves are kept as float32; ways through the trees are the same."""
    fitted, boost = [], batch._boosted

    def recorded(*args: object, **kwargs: object) -> object:
        fitted.append(boost(*args, **kwargs))  # type: ignore[arg-type]  # handed on
        return fitted[-1]

    monkeypatch.setattr(batch, "_boosted", recorded)
    family = a_family(n_trees=60)
    family.end_day(1, lambda: FIRST)
    columns = ordinals(Binning.of_cuts(BASIS), TEST.features)
    expected = fitted[0].predict(columns, raw_score=True)
    np.testing.assert_allclose(family.score(TEST.features), expected, rtol=0, atol=1e-5)
    assert family.score(TEST.features[:0]).shape == (0,)


def test_it_waits_for_a_basis_and_for_enough() -> None:
    """Then starts on the first day that has both."""
    without = BatchFamily(OPTIONS, seed=1)
    assert not fitted_on(without, 1, FIRST)
    family = a_family(min_frauds=int(SECOND.is_fraud.sum()) + 1)
    family.end_day(1, lambda: SECOND)
    assert np.isnan(family.score(TEST.features)).all()
    family.end_day(2, lambda: FIRST)
    assert np.isfinite(family.score(TEST.features)).all()


def test_a_refit_without_enough_keeps_the_model() -> None:
    """An old model is better than none."""
    family = a_family()
    family.end_day(1, lambda: FIRST)
    before = family.score(TEST.features)
    family.end_day(9, lambda: SECOND.take(slice(0, 100)))
    np.testing.assert_array_equal(family.score(TEST.features), before)


def test_on_the_residual_it_adds_nothing_to_a_perfect_scorer() -> None:
    """What the consortium's scorer knows already is not learnt again."""
    knows = np.where(FIRST.is_fraud, 8.0, -8.0)
    matured = replace(FIRST, base_logits=knows)
    alone, after = a_family(), a_family(on_residual=True)
    for family in (alone, after):
        family.end_day(1, lambda: matured)
    assert np.ptp(after.score(TEST.features)) < 0.02 * np.ptp(alone.score(TEST.features))


def test_rows_that_the_consortium_did_not_score_count_with_the_own_rate() -> None:
    """A scorer that came lately does not hide the rows before it."""
    z = np.where(np.arange(len(FIRST)) % 2 == 0, np.nan, 1.0)
    rate = FIRST.is_fraud.mean()
    filled = np.where(np.isnan(z), np.log(rate / (1 - rate)), z)
    one, other = a_family(on_residual=True), a_family(on_residual=True)
    one.end_day(1, lambda: replace(FIRST, base_logits=z))
    other.end_day(1, lambda: replace(FIRST, base_logits=filled))
    np.testing.assert_array_equal(one.score(TEST.features), other.score(TEST.features))


def grown(family: BatchFamily, basis: Basis, matured: Matured) -> TreeList | None:
    """Return four trees at most of one day."""
    grow = family.propose(basis, n_trees=4, day=1)
    assert grow is not None
    return grow(matured)


def test_proposals_keep_within_the_consortiums_bounds() -> None:
    """On the basis that is asked for, with accounts counted; without them nothing is grown."""
    family = a_family()
    found = grown(family, BASIS, FIRST)
    assert found is not None
    assert 0 < len(found) <= 4
    check_trees(found, BASIS, TreeLimits(max_trees=4))
    assert found.leaf_value is None
    other = grown(family, OTHER_BASIS, FIRST)
    assert other is not None
    check_trees(other, OTHER_BASIS, TreeLimits(max_trees=4))
    with pytest.raises(InvalidInputError, match="accounts"):
        grown(family, BASIS, replace(FIRST, accounts=None))


def test_trees_split_at_cuts_finer_than_bins() -> None:
    """Own trees and proposals alike tell more apart than the basis has bins."""
    j = int(np.argmax(BASIS.n_edges))
    first = int(BASIS.n_edges[:j].sum())
    few = replace(
        BASIS,
        cuts=BASIS.edges,
        n_cuts=BASIS.n_edges,
        edges=np.delete(BASIS.edges, np.s_[first : first + BASIS.n_edges[j]]),
        n_edges=np.where(np.arange(BASIS.n_features) == j, 0, BASIS.n_edges).astype(np.int32),
        ranks=np.empty(0, np.float32),
    )
    one, other = a_family(), BatchFamily(OPTIONS, seed=1)
    other.install(few)
    for family in (one, other):
        family.end_day(1, lambda: FIRST)
    np.testing.assert_array_equal(one.score(TEST.features), other.score(TEST.features))
    found = grown(other, few, FIRST)
    assert found is not None
    check_trees(found, few, TreeLimits(max_trees=4))
    assert j in found.feature


def test_dull_rows_are_thinned_to_a_tenth_of_ten_times_the_weight() -> None:
    """Frauds, and what the consortium's scorer finds suspicious or gave no score, all stay."""
    z = np.array([-9.0, -9.0, -9.0, 1.0, np.nan, -9.0])
    some = FIRST.take(np.arange(6))
    hashes = np.arange(2_000, dtype=np.uint64)
    kept, not_kept = hashes[is_kept(hashes)][:2], hashes[~is_kept(hashes)][:4]
    rows = replace(
        some,
        is_fraud=np.array([False, False, True, False, False, False]),
        hashes=np.array([kept[0], not_kept[0], not_kept[1], not_kept[2], not_kept[3], kept[1]]),
        base_logits=z,
    )
    found, weights = thinned(rows)
    assert found.hashes.tolist() == [rows.hashes[i] for i in (0, 2, 3, 4, 5)]
    assert weights.tolist() == [10.0, 1.0, 1.0, 1.0, 10.0]


def leaf_rates(trees: TreeList) -> np.ndarray:
    """Return the average precision of the shares of frauds in leaves, tree by tree, on TEST."""
    train, test = leaves_of(trees, FIRST.features), leaves_of(trees, TEST.features)
    found = []
    for tree in range(len(trees)):
        n = np.bincount(train[:, tree], minlength=int(trees.n_leaves[tree]))
        f = np.bincount(train[FIRST.is_fraud, tree], minlength=len(n))
        ap = average_precision(TEST.is_fraud, (f / n)[test[:, tree]])
        assert ap is not None
        found.append(ap)
    return np.array(found)


def test_grown_trees_tell_frauds() -> None:
    """Leaves as features are worth something to others."""
    trees = grow_trees(BINNING, FIRST, n_trees=6, seed=1)
    assert trees is not None
    assert leaf_rates(trees).max() > 4 * TEST.is_fraud.mean()


def test_trees_grow_on_outcomes_whatever_the_scorer_said() -> None:
    """What a scorer gives to rows that are not dull changes nothing."""
    matured = replace(FIRST, base_logits=np.full(len(FIRST), 1.0))
    before = grow_trees(BINNING, FIRST, n_trees=10, seed=1)
    after = grow_trees(BINNING, matured, n_trees=10, seed=1)
    assert before is not None
    assert after is not None
    assert tree_hashes(before) == tree_hashes(after)


def test_trees_need_accounts_and_both_outcomes() -> None:
    """Else nothing vouches for who is in a leaf, or there is nothing to tell apart."""
    with pytest.raises(InvalidInputError, match="accounts"):
        grow_trees(BINNING, replace(FIRST, accounts=None), n_trees=2, seed=1)
    legit = FIRST.take(np.flatnonzero(~FIRST.is_fraud))
    with pytest.raises(InvalidInputError, match="both outcomes"):
        grow_trees(BINNING, legit, n_trees=2, seed=1)
