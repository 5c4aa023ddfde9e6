"""The fold: exact sums, independent of order, and a basis that changes by rule."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amalgamator.evidence import merge_cells
from amalgamator.fold import BasisPolicy, FoldConfig, Folder, FoldState, fold
from amalgamator.policy import TrustPolicy
from models.entity_risk import EvidenceCells, most_telling
from models.errors import InvalidInputError
from models.release import Release, Source
from models.summary import Contribution
from tests.consortium import MEMBERS, SCHEMA, a_log, closing, evidence, histograms, statistics

CONFIG = FoldConfig(schema=SCHEMA, ridge=4.0, half_life_d=100.0)
CAP = TrustPolicy().max_frauds
SMALL = replace(CONFIG, basis=BasisPolicy(min_n=300, min_frauds=10, growth=2.0))


def state_of(log: Sequence[tuple[Contribution, int]]) -> FoldState:
    """Return the state after a log of (contribution, seq)."""
    state = FoldState()
    for contribution, seq in log:
        state = state.add(contribution, seq)
    return state


def numbered(contributions: Sequence[Contribution]) -> list[tuple[Contribution, int]]:
    """Return contributions with the seqs of their members."""
    last: dict[str, int] = defaultdict(int)
    log = []
    for contribution in contributions:
        last[contribution.key.member] += 1
        log.append((contribution, last[contribution.key.member]))
    return log


def versions() -> list[tuple[Contribution, int]]:
    """Return a log in which some keys come in several versions."""
    return numbered(
        [
            evidence(member, day, seed=100 * epoch + 10 * i + day % 10, epoch=epoch)
            for epoch in (1, 2)
            for i, member in enumerate(MEMBERS)
            for day in (20_000, 20_001)
        ]
    )


LOG = versions()
RELEASE_ID = fold(state_of(LOG), CONFIG, 2, None).release_id


def dictionary_of(cells: EvidenceCells) -> dict[tuple[bytes, int, int], tuple[float, ...]]:
    """Return cells as a dictionary by (name, kind, hour)."""
    return {
        (cells.name[i].tobytes(), int(cells.kind[i]), int(cells.hour[i])): (
            float(cells.n[i]),
            float(cells.f[i]),
            int(cells.first_fraud_ms[i]),
            int(cells.last_fraud_ms[i]),
            int(cells.last_legit_ms[i]),
        )
        for i in range(len(cells))
    }


def merged_by_hand(
    parts: Sequence[tuple[EvidenceCells, float]],
) -> dict[tuple[bytes, int, int], tuple[float, ...]]:
    """Add cells up one by one, as the definition says."""
    total: dict[tuple[bytes, int, int], tuple[float, ...]] = {}
    for cells, weight in parts:
        for key, (n, f, first, last, legit) in dictionary_of(cells).items():
            old = total.get(key, (0.0, 0.0, -1, -1, -1))
            firsts = [one for one in (old[2], first) if one >= 0]
            total[key] = (
                old[0] + weight * n,
                old[1] + weight * f,
                min(firsts, default=-1),
                max(old[3], last),
                max(old[4], legit),
            )
    return total


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 40)), max_size=5))
def test_merged_cells_are_the_sums_of_the_definition(shapes: list[tuple[int, int]]) -> None:
    """Counts add, first is the least, last the greatest, the order is (name, kind, hour)."""
    parts = [
        (EvidenceCells(**evidence("alpha", 20_000, seed=seed, n_cells=n).arrays), weight)  # type: ignore[arg-type]  # as made
        for (seed, n), weight in zip(shapes, (1.0, 0.5, 0.25, 1.0, 2.0), strict=False)
    ]
    merged = merge_cells([(cells.arrays(), weight) for cells, weight in parts])
    assert dictionary_of(merged) == merged_by_hand(parts)
    assert list(dictionary_of(merged)) == sorted(dictionary_of(merged))


def test_kinds_are_kept_apart_and_sorted_before_hours() -> None:
    """Two kinds may use one name; hour 0 of kind 1 comes after hour 23 of kind 0."""
    arrays = {
        "name": np.zeros((2, 16), np.uint8),
        "kind": np.array([0, 1], np.uint8),
        "hour": np.array([23, 0], np.uint8),
        "n": np.ones(2, np.float32),
        "f": np.zeros(2, np.float32),
        "first_fraud_ms": np.full(2, -1),
        "last_fraud_ms": np.full(2, -1),
        "last_legit_ms": np.zeros(2, np.int64),
    }
    merged = merge_cells([(arrays, 1.0), (arrays, 1.0)])
    assert merged.kind.tolist() == [0, 1]
    assert merged.n.tolist() == [2.0, 2.0]


def test_a_member_of_weight_zero_leaves_no_cell() -> None:
    """As if it had never spoken."""
    arrays = evidence("alpha", 20_000, seed=1).arrays
    assert len(merge_cells([(arrays, 0.0)])) == 0
    assert len(merge_cells([])) == 0


@settings(max_examples=40, deadline=None)
@given(st.permutations(LOG), st.lists(st.sampled_from(LOG), max_size=6))
def test_any_order_and_any_repetition_give_the_same_release(
    log: list[tuple[Contribution, int]], again: list[tuple[Contribution, int]]
) -> None:
    """The newest per key wins, whenever it came."""
    assert fold(state_of(log + again), CONFIG, 2, None).release_id == RELEASE_ID


STATES = st.lists(st.sampled_from(LOG), max_size=8).map(state_of)


def keyed(state: FoldState) -> dict[object, int]:
    """Return the seq held of each key."""
    return {key: held.seq for key, held in state.newest.items()}


@settings(deadline=None)
@given(STATES, STATES, STATES)
def test_states_merge_like_sets(a: FoldState, b: FoldState, c: FoldState) -> None:
    """Commutative, associative, idempotent, with the empty state as identity."""
    assert keyed(a.merge(b)) == keyed(b.merge(a))
    assert keyed(a.merge(b).merge(c)) == keyed(a.merge(b.merge(c)))
    assert keyed(a.merge(a)) == keyed(a)
    assert keyed(a.merge(FoldState())) == keyed(FoldState().merge(a)) == keyed(a)


def test_merging_leaves_its_operands_untouched() -> None:
    """States are values."""
    a, b = state_of(LOG[:3]), state_of(LOG[3:])
    before = keyed(a), keyed(b)
    a.merge(b)
    a.add(*LOG[-1])
    assert (keyed(a), keyed(b)) == before


@pytest.mark.parametrize("gone", MEMBERS)
def test_a_member_that_leaves_is_as_one_that_never_was(gone: str) -> None:
    """Removal is exact: the same hash."""
    without = [(c, seq) for c, seq in LOG if c.key.member != gone]
    left = state_of(LOG).without(frozenset({gone}))
    assert (
        fold(left, CONFIG, 2, None).release_id
        == fold(state_of(without), CONFIG, 2, None).release_id
    )
    assert fold(left, CONFIG, 2, None).release_id != RELEASE_ID


def test_a_release_names_the_newest_seq_of_each_worker() -> None:
    """Exactly what was folded, sorted; closing an epoch is no source."""
    log = [*LOG, (closing("alpha", 2), 99)]
    sources = fold(state_of(log), replace(CONFIG, weights={"beta": 0.5}), 2, None).sources
    assert sources == (
        Source("alpha", "0", 4, 1.0, 1.0, CAP),
        Source("beta", "0", 4, 0.5, 0.5, CAP),
        Source("gamma", "0", 4, 1.0, 1.0, CAP),
    )


def test_only_the_newest_days_of_evidence_are_kept() -> None:
    """32 days by default, counted back from the newest day of any member."""
    log = numbered([evidence("alpha", 20_000 + day, seed=day) for day in (0, 8, 9, 40)])
    release = fold(state_of(log), CONFIG, 1, None)
    assert sorted(release.evidence) == [20_009, 20_040]


def test_a_day_with_more_cells_than_an_envelope_takes_keeps_the_most_telling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else no reader would take it."""
    whole = fold(state_of(LOG), CONFIG, 2, None).evidence[20_000]
    monkeypatch.setattr("amalgamator.fold.MAX_CELLS", len(whole) - 3)
    cut = fold(state_of(LOG), CONFIG, 2, None).evidence[20_000]
    assert dictionary_of(cut) == dictionary_of(most_telling(whole, len(whole) - 3))


def test_days_that_did_not_change_are_the_same_objects() -> None:
    """So that neither their hash nor their bytes are made again."""
    folder = Folder(CONFIG)
    state = state_of(LOG)
    first = folder.fold(state, 1, None)
    later = evidence("alpha", 20_001, seed=77, epoch=3)
    second = folder.fold(state.add(later, 50), 2, first)
    assert second.evidence[20_000] is first.evidence[20_000]
    assert second.evidence[20_001] is not first.evidence[20_001]


def full_log(previous: Release, seed: int = 0) -> list[Contribution]:
    """Return statistics of all members, two buckets each, for the basis asked for."""
    basis = previous.asked_basis
    assert basis is not None
    return [
        statistics(
            m, bucket, basis=basis.number, n_weights=basis.n_weights, seed=seed + 7 * i + bucket
        )
        for i, m in enumerate(MEMBERS)
        for bucket in (700, 701)
    ]


def the_first_three() -> tuple[FoldState, list[Release]]:
    """Return three folds: a basis is proposed, its statistics come, they are folded again."""
    log = numbered([histograms(m, n=150, n_frauds=5, seed=i) for i, m in enumerate(MEMBERS)])
    state = state_of(log)
    first = fold(state, SMALL, 1, None)
    for contribution in full_log(first):
        state = state.add(contribution, 10 + contribution.key.bucket)
    second = fold(state, SMALL, 2, first)
    return state, [first, second, fold(state, SMALL, 2, second)]


def test_a_basis_is_proposed_once_there_is_enough_and_used_once_members_encode_for_it() -> None:
    """First the next basis, then the scorer on it."""
    _, (first, second, _) = the_first_three()
    assert first.basis is None
    assert first.weights is None
    assert first.next_basis is not None
    assert first.next_basis.number == 1
    assert second.basis is first.next_basis
    assert second.next_basis is None
    assert second.weights is not None
    assert len(second.weights) == first.next_basis.n_weights


def test_folding_the_same_state_after_its_own_release_gives_the_same_content() -> None:
    """What a restart relies on."""
    _, (_, second, third) = the_first_three()
    assert third.release_id == second.release_id
    assert third.number == second.number + 1


def test_weights_solve_the_pooled_normal_equations() -> None:
    """(sum of decayed A + ridge I) w = sum of decayed b + ridge w0, by numpy's general solver."""
    state, (_, second, _) = the_first_three()
    assert second.weights is not None
    n = len(second.weights)
    curvature, gradient = np.zeros((n, n)), np.zeros(n)
    for key, held in state.newest.items():
        if key.part == "statistics":
            decay = 0.5 ** ((701 - key.bucket) * 28 / 100)
            square = np.zeros((n, n))
            square[np.triu_indices(n)] = held.contribution.arrays["curvature"]
            curvature += decay * (square + np.triu(square, 1).T)
            gradient += decay * held.contribution.arrays["gradient"]
    prior = np.zeros(n)
    prior[0] = -4.5
    expected = np.linalg.solve(curvature + 4 * np.eye(n), gradient + 4 * prior)
    np.testing.assert_allclose(second.weights, expected, rtol=0, atol=1e-9)


def test_remembered_sums_give_the_bits_of_a_fold_from_nothing() -> None:
    """One member publishes one bucket anew; the folder has the others in memory."""
    state, (first, second, _) = the_first_three()
    folder = Folder(SMALL)
    folder.fold(state, 2, first)
    basis = second.basis
    assert basis is not None
    new = statistics("beta", 700, basis=1, n_weights=basis.n_weights, seed=5)
    changed = state.add(new, 5_000)
    remembered = folder.fold(changed, 3, second)
    assert remembered.release_id == fold(changed, SMALL, 3, second).release_id
    assert remembered.release_id != second.release_id


def test_the_old_scorer_stays_until_enough_members_encode_for_the_next_basis() -> None:
    """One of three covers a third; three of three cover all."""
    log = numbered([histograms(m, n=150, n_frauds=5, seed=i) for i, m in enumerate(MEMBERS)])
    state = state_of(log)
    first = fold(state, SMALL, 1, None)
    alone = [c for c in full_log(first) if c.key.member == "alpha"]
    for contribution in alone:
        state = state.add(contribution, 10 + contribution.key.bucket)
    second = fold(state, SMALL, 2, first)
    assert second.basis is None
    assert second.next_basis is first.next_basis


def test_a_second_basis_is_proposed_when_the_data_has_doubled() -> None:
    """450 transactions give basis 1, 900 give basis 2; the scorer on basis 1 stays meanwhile."""
    state, (_, second, _) = the_first_three()
    for i, member in enumerate(MEMBERS):
        state = state.add(histograms(member, n=300, n_frauds=9, seed=40 + i), 3_000)
    third = fold(state, SMALL, 3, second)
    assert third.basis is second.basis
    assert third.next_basis is not None
    assert third.next_basis.number == 2
    for contribution in full_log(third, seed=90):
        state = state.add(contribution, 4_000 + contribution.key.bucket)
    fourth = fold(state, SMALL, 4, third)
    assert fourth.basis is third.next_basis
    assert fold(state, SMALL, 4, fourth).release_id == fourth.release_id


def test_too_few_transactions_or_frauds_give_no_basis() -> None:
    """An empty consortium, one with little data, one without frauds."""
    assert fold(FoldState(), CONFIG, 1, None).next_basis is None
    few = state_of([(histograms("alpha", n=299, n_frauds=20, seed=1), 1)])
    assert fold(few, SMALL, 1, None).next_basis is None
    no_fraud = state_of([(histograms("alpha", n=600, n_frauds=9, seed=1), 1)])
    assert fold(no_fraud, SMALL, 1, None).next_basis is None


@pytest.mark.parametrize(
    ("n", "number"),
    [(0, 0), (2_999, 0), (3_000, 1), (5_999, 1), (6_000, 2), (12_000, 3), (1_500_000, 9)],
)
def test_the_number_of_a_basis_follows_from_the_data_alone(n: int, number: int) -> None:
    """3,000 and each doubling of it; a restart counts alike."""
    assert BasisPolicy(growth=2.0).number_due(n, 30) == number
    assert BasisPolicy(growth=2.0).number_due(n, 29) == 0


def test_statistics_of_the_wrong_size_are_left_out() -> None:
    """They cannot be of the basis whose number they name."""
    state, (_, second, _) = the_first_three()
    odd = replace(
        statistics("alpha", 702, basis=1, n_weights=3, seed=1),
        key=statistics("alpha", 699, basis=1, n_weights=3, seed=1).key,
    )
    after = fold(state.add(odd, 9_000), SMALL, 2, second)
    assert after.weights is not None
    assert second.weights is not None
    assert after.weights.tobytes() == second.weights.tobytes()


def test_statistics_of_another_basis_are_left_out_even_if_they_have_its_size() -> None:
    """Weights of another basis mean something else."""
    state, (_, second, _) = the_first_three()
    assert second.basis is not None
    assert second.weights is not None
    other = statistics("alpha", 699, basis=9, n_weights=second.basis.n_weights, seed=1)
    after = fold(state.add(other, 9_000), SMALL, 2, second)
    assert after.weights is not None
    assert after.weights.tobytes() == second.weights.tobytes()


def broken_statistics(n_weights: int) -> Contribution:
    """Return a sum that is not positive definite, whatever else is added."""
    bad = statistics("gamma", 701, basis=1, n_weights=n_weights, seed=1)
    curvature = np.array(bad.arrays["curvature"])
    curvature[1:9] = 1e6
    return replace(bad, arrays={**bad.arrays, "curvature": curvature})


def test_statistics_without_a_solution_leave_the_scorer_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Undefended: a matrix that is not positive definite stops neither the fold nor the members."""
    state, (_, second, _) = the_first_three()
    assert second.basis is not None
    broken = broken_statistics(second.basis.n_weights)
    after = fold(state.add(broken, 9_000), replace(SMALL, trust=None), 3, second)
    assert after.weights is second.weights
    assert "positive definite" in caplog.text


def test_a_member_without_a_solution_is_left_out_and_the_fold_goes_on() -> None:
    """The weights are those of the same log without it."""
    state, (_, second, _) = the_first_three()
    assert second.basis is not None
    folder = Folder(SMALL)
    broken = broken_statistics(second.basis.n_weights)
    after = folder.fold(state.add(broken, 9_000), 3, second)
    left = state.without(frozenset({"gamma"}))
    without = fold(left, replace(SMALL, trust=None), 3, second)
    assert after.weights is not None
    assert without.weights is not None
    assert after.weights.tobytes() == without.weights.tobytes()
    assert [(one.member, one.why) for one in folder.report.doubted()] == [("gamma", ("curvature",))]


@pytest.mark.parametrize(
    "change",
    [
        {"ridge": 0.0},
        {"ridge": float("nan")},
        {"half_life_d": -1.0},
        {"bucket_days": 0},
        {"evidence_days": 0},
    ],
)
def test_a_policy_out_of_range_is_refused(change: dict[str, float]) -> None:
    """NaN too."""
    with pytest.raises(InvalidInputError):
        replace(CONFIG, **change)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(InvalidInputError):
        BasisPolicy(growth=1.0)


def test_epochs_close_when_every_worker_closed_them() -> None:
    """The least of the latest; nothing while one has not spoken."""
    state = state_of([(closing("alpha", 3), 1), (closing("beta", 5), 1)])
    assert state.closed_epoch([("alpha", "0"), ("beta", "0")]) == 3
    assert state.closed_epoch([("alpha", "0"), ("gamma", "0")]) is None
    assert state.closed_epoch([]) is None
    assert state_of(numbered(a_log(epoch=4))).newest_epoch() == 4
    assert FoldState().newest_epoch() is None
