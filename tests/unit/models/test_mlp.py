"""The net: what a frozen one scores by plain NumPy, what training follows torch's own."""

import numpy as np
import pytest
import torch

from models.errors import IncompatibleSummaryError, InvalidInputError
from models.families.mlp import MlpFamily, MlpOptions, _Net
from models.families.mlp_parameters import MlpScorer, MlpSummary, layers, n_parameters
from models.families.ordinals import Binning
from tests.contract.test_families import BASIS, FIRST, N_FEATURES, SECOND, TEST

BINNING = Binning(
    number=3,
    edges=np.array([0.0, 1.0, 4.0, -1.0], np.float32),
    n_edges=np.array([3, 1, 0], np.int32),
)
X = np.array([[-1, -2, 5], [0, 0, np.nan], [0.5, np.nan, 1], [9, -1, 0], [np.nan] * 3], np.float32)
SEEN = np.array(  # levels of bins 0..n from -1 to 1, then flags of absence
    [
        [-1, -1, 0, 0, 0, 0],
        [-1 / 3, 1, 0, 0, 0, 1],
        [-1 / 3, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 1, 1],
    ]
)


def a_summary(seed: int = 1, basis: int = 3) -> MlpSummary:
    flat = np.random.default_rng(seed).normal(0, 0.3, n_parameters(3)).astype(np.float32)
    return MlpSummary(n=10, basis=basis, n_features=3, flat=flat)


def test_a_frozen_net_scores_what_its_formula_says() -> None:
    """Two rectified layers in float64; a sum of 64 float32 terms is off by 64 roundings."""
    summary = a_summary()
    w1, b1, w2, b2, w3, b3 = (part.astype(np.float64) for part in layers(summary.flat, 3))
    hidden = np.maximum(np.maximum(SEEN @ w1 + b1, 0) @ w2 + b2, 0)
    expected = hidden @ w3 + b3
    found = MlpScorer(summary, BINNING).score(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_log_odds_stay_within_thirty() -> None:
    """As the scorecard's do."""
    summary = a_summary()
    large = MlpSummary(n=1, basis=3, n_features=3, flat=summary.flat * 100)
    assert np.abs(MlpScorer(large, BINNING).score(X)).max() == 30.0


def test_a_net_of_another_basis_is_not_put_to_use() -> None:
    """Its ordinals would mean something else."""
    with pytest.raises(IncompatibleSummaryError, match="expected the basis"):
        MlpScorer(a_summary(basis=4), BINNING)


@pytest.mark.parametrize(
    ("n", "flat"),
    [
        (-1, np.empty(0, np.float32)),
        (1, np.empty(0, np.float32)),
        (1, np.zeros(n_parameters(3))),
        (1, np.full(n_parameters(3), np.nan, np.float32)),
    ],
)
def test_a_summary_that_is_none_is_refused(n: int, flat: np.ndarray) -> None:
    """Length, type and finiteness."""
    with pytest.raises(InvalidInputError):
        MlpSummary(n=n, basis=3, n_features=3, flat=flat)


def test_a_step_is_adams_on_the_mean_log_loss() -> None:
    """The first step of Adam moves each parameter by the rate against its gradient's sign."""
    net = _Net(3, 0.01, 5)
    before = net.flat.detach().numpy().copy()
    x = SEEN.astype(np.float32)
    y = np.array([True, False, True, False, False])
    parts = [p.astype(np.float64) for p in layers(before, 3)]

    def loss(flat: np.ndarray) -> float:
        w1, b1, w2, b2, w3, b3 = layers(flat, 3)
        z = np.maximum(np.maximum(SEEN @ w1 + b1, 0) @ w2 + b2, 0) @ w3 + b3
        return float(np.mean(np.logaddexp(0, z) - y * z))

    net.step(x, y)
    moved = net.flat.detach().numpy() - before
    flat = np.concatenate([part.ravel() for part in parts])
    for at in (0, 100, 500, len(flat) - 20, len(flat) - 1):
        step = np.zeros(len(flat))
        step[at] = 1e-5
        slope = (loss(flat + step) - loss(flat - step)) / 2e-5
        if abs(slope) > 1e-4:
            assert moved[at] == pytest.approx(-0.01 * np.sign(slope), rel=1e-2)
    assert (np.abs(moved) > 0.005).mean() > 0.2


def a_family(**options: object) -> MlpFamily:
    family = MlpFamily(MlpOptions(min_n=500, batch_n=64, **options), seed=3)
    family.install(BASIS)
    family.end_day(1, lambda: FIRST)
    return family


def test_a_contribution_scores_as_its_bank_does_and_counts_rows_once() -> None:
    """Whoever holds it needs no torch; passes over the same rows are no more rows."""
    family = a_family(epochs=2)
    family.learn(SECOND)
    given = family.contribution()
    assert (given.n, given.basis) == (len(FIRST) + len(SECOND), BASIS.number)
    found = MlpScorer(given, Binning.of(BASIS)).score(TEST.features)
    np.testing.assert_array_equal(found, family.score(TEST.features))


def test_the_bias_is_corrected_for_replay() -> None:
    """Four minibatches, each but those before the first fraud with 32 replayed."""
    options = MlpOptions(min_n=256, min_frauds=1, batch_n=64, epochs=1)
    family = MlpFamily(options, seed=3)
    family.install(BASIS)
    family.end_day(1, lambda: FIRST.take(slice(0, 256)))
    frauds = int(FIRST.is_fraud[:256].sum())
    given, learnt = family.contribution().flat, family.arrays()["flat"]
    np.testing.assert_array_equal(given[:-1], learnt[:-1])
    raised = [np.log((frauds + 32 * k + 0.5) / (frauds + 0.5)) for k in (2, 3)]
    assert any(learnt[-1] - given[-1] == pytest.approx(each, abs=1e-5) for each in raised)


def test_a_bank_goes_on_from_merged_parameters() -> None:
    """After adopting them it scores as they do, up to the rounding of the bias."""
    family, other = a_family(), MlpFamily(MlpOptions(min_n=500, min_frauds=5), seed=4)
    other.install(BASIS)
    other.end_day(1, lambda: SECOND)
    merged = other.contribution()
    family.adopt(merged)
    np.testing.assert_allclose(
        family.score(TEST.features), other.score(TEST.features), rtol=0, atol=1e-5
    )
    before = family.contribution().flat.copy()
    family.learn(SECOND)
    assert not np.array_equal(family.contribution().flat, before)


def test_parameters_of_another_basis_are_not_adopted() -> None:
    """Nor are any by a net that has not begun."""
    flat = np.zeros(n_parameters(N_FEATURES), np.float32)
    foreign = MlpSummary(n=1, basis=99, n_features=N_FEATURES, flat=flat)
    for family in (a_family(), MlpFamily(MlpOptions(), seed=1)):
        with pytest.raises(IncompatibleSummaryError, match="expected a net"):
            family.adopt(foreign)


def test_the_buffer_of_frauds_is_bounded_and_holds_the_newest() -> None:
    """By count, whatever comes."""
    family = a_family(buffer_n=20)
    family.learn(SECOND)
    assert family.arrays()["frauds"].shape == (20, N_FEATURES)


def test_torchs_threads_are_left_as_they_were() -> None:
    """Other code of the process keeps its own."""
    before = torch.get_num_threads()
    a_family()
    assert torch.get_num_threads() == before
