"""The watch finds what was changed, keeps still over weekends, and goes on where it was left."""

from collections.abc import Callable

import numpy as np
import pytest

from models.errors import InvalidInputError, StateError
from models.schema import Schema
from stream.drift import DriftWatch
from stream.drift_policy import DETECTORS, DriftAlarm, DriftPolicy, watched_columns
from stream.drift_tracks import Tracks

FIRST = 20_000
COLUMNS = np.array([0, 2])
EXPERTS = ("own", "merged")
POLICY = DriftPolicy(settle_d=7)
EVERY = DriftPolicy(settle_d=7, calibration_detectors=DETECTORS, feature_detectors=DETECTORS)
CHANGE = 60

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


def quiet(rng: np.random.Generator, age: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw rows, scores and outcomes of a day; weekends are otherwise, scores are calibrated."""
    n = 800
    weekend = age % 7 >= 5
    rows = rng.normal(3.0 + weekend, 1.0, (n, 3)).astype(np.float32)
    z = rng.normal(-4.5 + weekend, 1.5, (n, 2))
    z[:, 1] = z[:, 0]
    is_fraud = rng.random(n) < 1.0 / (1.0 + np.exp(-z[:, 0]))
    return rows, z, is_fraud


def a_watch(policy: DriftPolicy = POLICY) -> DriftWatch:
    return DriftWatch(policy, COLUMNS, EXPERTS)


def run(watch: DriftWatch, draw: Draw, ages: range, seed: int = 1) -> list[DriftAlarm]:
    """Run days, each drawn from its own seed."""
    alarms = []
    for age in ages:
        rows, scores, is_fraud = draw(np.random.default_rng([seed, age]), age)
        for piece in np.split(np.arange(len(rows)), [10, 300]):
            watch.observe_scored(rows[piece])
            watch.observe_matured(scores[piece], is_fraud[piece])
        alarms += watch.end_day(FIRST + age)
    return alarms


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nights_and_weekends_are_no_drift(seed: int) -> None:
    """Every weekend moves a feature by a standard deviation and doubles the frauds."""
    watch = a_watch(EVERY)
    assert run(watch, quiet, range(120), seed) == []
    assert watch.psi_max() < 0.1
    assert watch.calibration_ratio(0) == pytest.approx(1.0, abs=0.25)
    assert (watch.forgetting(0), watch.blend_window()) == (1.0, 1.0)


def shifted(rng: np.random.Generator, age: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, scores, is_fraud = quiet(rng, age)
    rows[:, 2] += 1.0
    return rows, scores, is_fraud


@pytest.mark.parametrize(("detector", "days"), [("page_hinkley", 3), ("adwin", 6), ("kswin", 9)])
def test_a_feature_that_moves_alarms_once_by_its_column(detector: str, days: int) -> None:
    """Column 2 of the row, not the second of those watched; then it is the new normal."""
    watch = a_watch(DriftPolicy(settle_d=7, feature_detectors=(detector,)))
    assert run(watch, quiet, range(CHANGE)) == []
    alarms = run(watch, shifted, range(CHANGE, CHANGE + 50))
    assert [(a.kind, a.subject, a.detector, a.signal) for a in alarms] == [
        ("feature", 2, detector, "psi")
    ]
    assert FIRST + CHANGE <= alarms[0].day < FIRST + CHANGE + days
    assert alarms[0].magnitude > 0.5


def test_one_odd_day_is_no_drift() -> None:
    """A holiday, an outage of an hour."""
    watch = a_watch()
    run(watch, quiet, range(CHANGE))
    assert run(watch, shifted, range(CHANGE, CHANGE + 1)) == []
    assert watch.psi_max() > 0.5
    assert run(watch, quiet, range(CHANGE + 1, CHANGE + 30)) == []


def decalibrated(rng: np.random.Generator, age: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, scores, is_fraud = quiet(rng, age)
    is_fraud = is_fraud | (rng.random(len(rows)) < 0.03)
    scores[:, 1] = np.where(is_fraud, 2.0, -6.0)  # the other expert knows
    return rows, scores, is_fraud


@pytest.mark.parametrize("detector", DETECTORS)
def test_frauds_that_an_expert_misses_make_it_forget_faster(detector: str) -> None:
    """The factor holds for the cooling time and then goes back to 1."""
    watch = a_watch(DriftPolicy(settle_d=7, calibration_detectors=(detector,)))
    assert run(watch, quiet, range(CHANGE)) == []
    alarms, age = [], CHANGE
    while not alarms and age < CHANGE + 21:
        alarms = run(watch, decalibrated, range(age, age + 1))
        age += 1
    assert {(a.kind, a.subject, a.detector) for a in alarms} == {("calibration", 0, detector)}
    assert (watch.forgetting(0), watch.forgetting(1)) == (POLICY.forgetting, 1.0)
    assert watch.blend_window() == POLICY.blend_window
    assert watch.calibration_ratio(0) > 1.2
    for _ in range(POLICY.cooling_d - 1):
        run(watch, quiet, range(age, age + 1))
        age += 1
        assert watch.forgetting(0) == POLICY.forgetting
    run(watch, quiet, range(age, age + 1))
    assert (watch.forgetting(0), watch.blend_window()) == (1.0, 1.0)


def test_a_smaller_loss_is_no_trouble() -> None:
    """An expert that gets better: sharper scores, as many frauds as it expects."""

    def sharper(rng: np.random.Generator, age: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, scores, is_fraud = quiet(rng, age)
        scores[:] = np.where(is_fraud, 1.5, scores[:, 0] - 0.25)[:, None]
        return rows, scores, is_fraud

    watch = a_watch(EVERY)
    run(watch, quiet, range(CHANGE))
    assert [a for a in run(watch, sharper, range(CHANGE, CHANGE + 20)) if a.signal == "loss"] == []


def test_a_bank_with_few_frauds_gathers_days_to_a_point() -> None:
    """Points need five frauds, seen or expected."""
    watch = a_watch()

    def few(rng: np.random.Generator, age: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = rng.normal(size=(20, 3)).astype(np.float32)
        return rows, np.full((20, 2), np.log(0.05 / 0.95)), np.arange(20) < 1

    run(watch, few, range(4))
    assert np.isnan(watch.calibration_ratio(0))
    run(watch, few, range(4, 5))
    assert watch.calibration_ratio(0) == pytest.approx(1.0)
    assert np.isnan(watch.psi_max())  # 20 rows a day are too few


def test_an_expert_without_scores_is_not_judged() -> None:
    watch = a_watch()
    for age in range(40):
        _, _, is_fraud = quiet(np.random.default_rng(age), age)
        watch.observe_matured(np.full((len(is_fraud), 2), np.nan), is_fraud)
        assert watch.end_day(FIRST + age) == []
    assert np.isnan(watch.calibration_ratio(1))


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_restored_watch_goes_on_to_the_bit(detector: str) -> None:
    """Cut at many days, in the middle of a day too: the same alarms, the same state."""
    policy = DriftPolicy(
        settle_d=7, calibration_detectors=(detector,), feature_detectors=(detector,), memory=35
    )

    def both(rng: np.random.Generator, age: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, scores, is_fraud = (decalibrated if age >= 105 else quiet)(rng, age)
        rows[:, 2] += age >= 105
        return rows, scores, is_fraud

    whole = a_watch(policy)
    alarms = run(whole, both, range(145))
    assert {a.kind for a in alarms} == {"calibration", "feature"}
    cut, found = a_watch(policy), []
    for age in range(145):
        rows, scores, is_fraud = both(np.random.default_rng([1, age]), age)
        cut.observe_scored(rows[:100])
        if age % 9 == 0:
            state = {name: array.copy() for name, array in cut.arrays().items()}
            cut = a_watch(policy)
            cut.load(state)
        cut.observe_scored(rows[100:])
        cut.observe_matured(scores, is_fraud)
        found += cut.end_day(FIRST + age)
    assert found == alarms
    for name, array in whole.arrays().items():
        assert cut.arrays()[name].tobytes() == array.tobytes(), name


def test_a_state_of_other_features_is_refused() -> None:
    with pytest.raises(StateError, match="drift/open: expected shape"):
        a_watch().load(DriftWatch(POLICY, np.arange(3), EXPERTS).arrays())
    other = DriftPolicy(memory=50)
    with pytest.raises(StateError, match="series of shape"):
        a_watch().load(a_watch(other).arrays())


class Counting:
    """A detector that speaks at every third point it was told."""

    def __init__(self) -> None:
        self.n = 0

    def update(self, _: float) -> bool:
        self.n += 1
        return self.n % 3 == 0


def test_detectors_are_made_anew_from_the_newer_half() -> None:
    """With a memory of 4: 8 points, then the last 4 are told again to a new one, in silence."""
    tracks = Tracks(1, ("a",), lambda _: Counting(), 4)
    spoke = [bool(tracks.push(0, float(i))) for i in range(10)]
    assert spoke == [False, False, True] * 2 + [False, False, False, True]  # the 9th is its 5th
    assert tracks.values[0, :6].tolist() == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]


def test_the_features_that_payments_make_are_watched() -> None:
    schema = Schema(entity_kinds=("terminal", "device"))
    names = [schema.feature_names[i] for i in watched_columns(schema)]
    assert {"log_amount", "night", "n_30d", "z_30d", "gap_d", "device.n_7d"} <= set(names)
    assert not [
        n
        for n in names
        if "fraud" in n or "spike" in n or "risk" in n or ".f_" in n or "label" in n
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"feature_detectors": ("ddm",)},
        {"psi_floor": 0.0},
        {"psi_floor": float("nan")},
        {"ratio_floor": 1.0},
        {"forgetting": 0.5},
        {"blend_window": 0.0},
        {"memory": 34},
        {"settle_d": -1},
    ],
)
def test_a_policy_outside_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        DriftPolicy(**wrong)  # type: ignore[arg-type]  # names are the fields'
