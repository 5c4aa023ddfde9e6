"""Trees of members in the basis: when they are due, which are chosen, how they take over."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amalgamator.fold import BasisPolicy, FoldConfig, FoldState, fold
from amalgamator.policy import StructurePolicy
from amalgamator.structure import Proposal, Standing, bare, choose_trees, standing_of
from models.basis import Basis
from models.basis_builder import build_basis
from models.errors import InvalidInputError
from models.histograms import add_rows, empty_counts
from models.release import Release
from models.summary import Contribution, proposed_trees
from models.tree_checks import tree_hashes
from models.trees import TreeList, take_trees, together
from tests.consortium import MEMBERS, SCHEMA, evidence, histograms, proposal, statistics

PERIOD_D = 10
PERIOD = 2_000
CONFIG = FoldConfig(
    schema=SCHEMA,
    basis=BasisPolicy(min_n=300, min_frauds=5, growth=2.0),
    structure=StructurePolicy(
        period_d=PERIOD_D, grace_d=1, max_trees=6, max_new=4, min_importance=0.0
    ),
)


def a_basis() -> Basis:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(500, len(SCHEMA.feature_names))).astype(np.float32)
    counts = empty_counts(rows.shape[1])
    add_rows(counts, rows, rng.random(500) < 0.1)
    return build_basis(counts, SCHEMA, 1)


BASIS = a_basis()


def trees_of(contribution: Contribution) -> TreeList:
    return proposed_trees(contribution.arrays)[0]


def proposals(shares: dict[str, float], n_trees: int = 5) -> list[Proposal]:
    return [
        Proposal(
            (member, "0"),
            PERIOD,
            trees_of(proposal(member, PERIOD, basis=BASIS, n_trees=n_trees, seed=i)),
            share,
        )
        for i, (member, share) in enumerate(shares.items())
    ]


def nothing() -> Standing:
    return Standing(together([]), np.empty(0))


def test_members_take_turns_by_their_share_and_by_their_own_gains() -> None:
    """4 to 1, of which the roots are 2 to 1: of three places two and one, by highest gains."""
    north, south = proposals({"north": 64.0, "south": 16.0})
    policy = StructurePolicy(max_trees=3, max_new=3)
    chosen = choose_trees(nothing(), [north, south], policy)
    expected = {*tree_hashes(north.trees)[:2], tree_hashes(south.trees)[0]}
    assert set(tree_hashes(chosen)) == expected
    assert len(chosen) == 3


def test_the_same_tree_is_taken_once_whoever_proposes_it() -> None:
    """A copy of another member's tree takes no place."""
    (north,) = proposals({"north": 1.0})
    again = north._replace(worker=("south", "0"))
    chosen = choose_trees(nothing(), [north, again], StructurePolicy(max_trees=64, max_new=64))
    assert sorted(tree_hashes(chosen)) == sorted(set(tree_hashes(north.trees)))


def test_trees_in_force_stay_by_what_they_carry() -> None:
    """The two most important of five stay, in their order; one below the least does not."""
    old = trees_of(proposal("north", PERIOD, basis=BASIS, n_trees=5, seed=8))
    standing = Standing(old, np.array([3.0, 0.5, 9.0, 4.0, 0.1]))
    policy = StructurePolicy(max_trees=4, max_new=2, min_importance=1.0)
    assert tree_hashes(choose_trees(standing, [], policy)) == tuple(
        tree_hashes(old)[i] for i in (2, 3)
    )
    wide = StructurePolicy(max_trees=9, max_new=2, min_importance=1.0)
    assert tree_hashes(choose_trees(standing, [], wide)) == tuple(
        tree_hashes(old)[i] for i in (0, 2, 3)
    )


def test_importance_is_curvature_times_weight_squared() -> None:
    """Summed over a tree's leaves, by the layout of weights."""
    basis = replace(BASIS, trees=bare(proposals({"north": 1.0}, 2)[0].trees), number=2)
    rng = np.random.default_rng(0)
    weights, diagonal = rng.normal(size=basis.n_weights), rng.random(basis.n_weights)
    standing = standing_of(basis, weights, diagonal)
    carried = (diagonal * weights**2)[-4:]
    assert standing.importance == pytest.approx([carried[:2].sum(), carried[2:].sum()])


def test_a_basis_says_nothing_of_who_grew_its_trees() -> None:
    """Counts of leaves and gains stay with the amalgamator."""
    chosen = choose_trees(nothing(), proposals({"north": 1.0}), StructurePolicy())
    assert len(chosen)
    for name in ("leaf_n", "leaf_accounts", "gain"):
        assert not getattr(chosen, name).any()


@given(order=st.permutations(["alpha", "beta", "gamma"]))
def test_the_choice_does_not_depend_on_the_order_of_arrival(order: list[str]) -> None:
    """Proposals are sorted by worker before they are ranked."""
    by_member = {p.worker[0]: p for p in proposals(dict.fromkeys(MEMBERS, 2.0))}
    sorted_ones = [by_member[m] for m in sorted(order)]
    chosen = choose_trees(nothing(), sorted_ones, CONFIG.structure)
    first = choose_trees(nothing(), [by_member[m] for m in order], CONFIG.structure)
    assert tree_hashes(chosen) == tree_hashes(first)


def numbered(state: FoldState, log: list[Contribution], seq: int) -> FoldState:
    for i, contribution in enumerate(log):
        state = state.add(contribution, seq + i)
    return state


def statistics_for(basis: Basis, seed: int) -> list[Contribution]:
    return [
        statistics(m, 700, basis=basis.number, n_weights=basis.n_weights, seed=seed + i)
        for i, m in enumerate(MEMBERS)
    ]


def in_force() -> tuple[FoldState, Release]:
    """Return a state and the release of its first scorer."""
    log = [histograms(m, n=150, n_frauds=5, seed=i) for i, m in enumerate(MEMBERS)]
    state = numbered(FoldState(), log, 1)
    first = fold(state, CONFIG, 1, None)
    assert first.next_basis is not None
    state = numbered(state, statistics_for(first.next_basis, 0), 100)
    return state, fold(state, CONFIG, 2, first)


def with_proposals(state: FoldState, basis: Basis, *, day: int, members: int = 3) -> FoldState:
    log = [
        proposal(m, PERIOD, basis=basis, n_trees=3, seed=50 + i)
        for i, m in enumerate(MEMBERS[:members])
    ]
    return numbered(state, [*log, evidence("alpha", day, seed=3)], 1_000)


def test_proposals_become_the_next_basis_a_day_into_their_period() -> None:
    """Not on the period's first day; edges and crosses stay, trees come, the number rises."""
    state, release = in_force()
    assert release.basis is not None
    early = with_proposals(state, release.basis, day=PERIOD * PERIOD_D)
    assert fold(early, CONFIG, 3, release).next_basis is None
    due = with_proposals(state, release.basis, day=PERIOD * PERIOD_D + 1)
    proposed = fold(due, CONFIG, 3, release).next_basis
    assert proposed is not None
    assert (proposed.number, proposed.grown, proposed.drawn) == (2, PERIOD, 1)
    assert proposed.edges is release.basis.edges
    assert 0 < len(proposed.trees) <= CONFIG.structure.max_new


def test_who_is_late_holds_up_nobody() -> None:
    """One of three proposed in time: its trees are taken."""
    state, release = in_force()
    assert release.basis is not None
    due = with_proposals(state, release.basis, day=PERIOD * PERIOD_D + 1, members=1)
    proposed = fold(due, CONFIG, 3, release).next_basis
    assert proposed is not None
    assert len(proposed.trees) == 3


def test_trees_take_over_once_members_publish_for_them_and_are_not_due_again() -> None:
    """The weights have a place for each leaf; the same log folds to the same content."""
    state, release = in_force()
    assert release.basis is not None
    state = with_proposals(state, release.basis, day=PERIOD * PERIOD_D + 1)
    third = fold(state, CONFIG, 3, release)
    assert third.next_basis is not None
    state = numbered(state, statistics_for(third.next_basis, 9), 5_000)
    fourth = fold(state, CONFIG, 4, third)
    assert fourth.basis is third.next_basis
    assert fourth.next_basis is None
    assert fourth.weights is not None
    assert (
        len(fourth.weights)
        == fourth.basis.n_weights
        == release.basis.n_weights + 2 * len(fourth.basis.trees)
    )
    assert fold(state, CONFIG, 4, fourth).release_id == fourth.release_id


def test_more_data_draw_new_edges_and_keep_the_trees() -> None:
    """900 transactions deserve edges of their own though trees raised the number before."""
    state, release = in_force()
    assert release.basis is not None
    state = with_proposals(state, release.basis, day=PERIOD * PERIOD_D + 1)
    third = fold(state, CONFIG, 3, release)
    assert third.next_basis is not None
    state = numbered(state, statistics_for(third.next_basis, 9), 5_000)
    fourth = fold(state, CONFIG, 4, third)
    more = [histograms(m, n=300, n_frauds=9, seed=40 + i) for i, m in enumerate(MEMBERS)]
    fifth = fold(numbered(state, more, 9_000), CONFIG, 5, fourth)
    assert fifth.next_basis is not None
    assert (fifth.next_basis.number, fifth.next_basis.drawn) == (3, 2)
    assert tree_hashes(fifth.next_basis.trees) == tree_hashes(third.next_basis.trees)


def test_a_member_without_weight_proposes_nothing() -> None:
    """As if it had never spoken."""
    state, release = in_force()
    assert release.basis is not None
    due = with_proposals(state, release.basis, day=PERIOD * PERIOD_D + 1, members=1)
    config = replace(CONFIG, weights={"alpha": 0.0})
    assert fold(due, config, 3, release).next_basis is None


@pytest.mark.parametrize("change", [{"period_d": 0}, {"grace_d": 28}, {"max_new": 129}])
def test_wrong_policies_are_refused(change: dict[str, int]) -> None:
    """Before anything is folded."""
    with pytest.raises(InvalidInputError, match="structure"):
        StructurePolicy(**change)  # type: ignore[arg-type]  # as in the test's table


def test_take_trees_keeps_what_is_asked_for() -> None:
    """A sanity check of the helper this module's expectations rest on."""
    trees = proposals({"north": 1.0})[0].trees
    assert tree_hashes(take_trees(trees, [3, 1])) == tuple(tree_hashes(trees)[i] for i in (3, 1))
