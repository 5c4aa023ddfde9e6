"""The bench injects what it says, finds it, and sums up delays as written."""

from pathlib import Path

import numpy as np
import pytest

from deploy import drift_bench
from deploy.drift_bench import DRIFTS, DriftFigures, drift_table, measure_drift, summarise
from deploy.simulator import SimulationConfig
from models.errors import InvalidInputError
from models.mapping import load_mapping
from stream.drift_policy import DETECTORS, DriftAlarm

MAPPING = load_mapping(Path(drift_bench.__file__).parent / "mappings" / "simulated.toml")


def a_day(monkeypatch: pytest.MonkeyPatch) -> drift_bench.Day:
    config = SimulationConfig(bank_shares=(1.0,), n_days=9, n_customers=300, n_terminals=50)
    monkeypatch.setattr(drift_bench, "_SIMULATION", config)
    return list(drift_bench._days(MAPPING, 1, None, ""))[8]


def test_each_change_is_the_one_its_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    day = a_day(monkeypatch)
    amount, is_fraud = day[0].batch.amount, day[0].is_fraud

    def changed(name: str, age_d: int = 0) -> drift_bench.Day:
        return DRIFTS[name].change(day, age_d, np.random.default_rng(1))

    np.testing.assert_allclose(changed("spending x1.6")[0].batch.amount, 1.6 * amount)
    for age_d, factor in ((0, 1 + 0.6 / 28), (13, 1.3), (27, 1.6), (40, 1.6)):
        slowly = changed("spending x1.6 in 28 d", age_d)[0].batch.amount
        np.testing.assert_allclose(slowly, factor * amount)
    np.testing.assert_allclose(changed("attribute x100")[1][:, 0], 100 * day[1][:, 0], rtol=1e-6)
    assert np.ptp(changed("attribute constant")[1][:, 0]) == 0.0
    assert np.isnan(changed("attribute missing")[1][:, 1]).all()
    assert not np.isnan(day[1][:, 1]).all()
    pattern = changed("fraud pattern")[0]
    assert pattern.is_fraud.sum() == is_fraud.sum()
    frauds = set(np.array(day[0].batch.transaction_id)[is_fraud])
    still = set(np.array(pattern.batch.transaction_id)[pattern.is_fraud]) & frauds
    assert 0 < len(still) < len(frauds)
    rates = DRIFTS["fraud rate x3"].rates
    assert rates is not None
    assert rates.customers == pytest.approx(1.5)


def test_only_an_alarm_of_the_right_kind_and_feature_is_a_find() -> None:
    def alarm(kind, subject):
        return DriftAlarm(
            kind=kind, subject=subject, detector="adwin", signal="psi", day=1, magnitude=1.0
        )

    spending, pattern = DRIFTS["spending x1.6"], DRIFTS["fraud pattern"]
    assert drift_bench._finds(spending, alarm("feature", 0))
    assert not drift_bench._finds(spending, alarm("feature", 1))
    assert not drift_bench._finds(spending, alarm("calibration", 0))
    assert drift_bench._finds(pattern, alarm("calibration", 0))


def some_figures(delay: int | None, n_false: int) -> DriftFigures:
    name = "fraud pattern"
    return DriftFigures(
        delays={(name, detector): delay for detector in DETECTORS},
        false_alarms={(k, d): n_false for k in ("calibration", "feature") for d in DETECTORS},
        quiet_d=50,
    )


def test_a_miss_counts_as_the_whole_time_and_as_a_miss() -> None:
    """Delays 3, 5 and never: median 5, 90 % all of the 42 days."""
    figures = summarise([some_figures(3, 0), some_figures(None, 1), some_figures(5, 2)])
    name = "fraud pattern, page_hinkley"
    assert figures[f"delay_d_median, {name}"] == 5.0
    assert figures[f"delay_d_90, {name}"] == 42.0
    assert figures[f"missed_share, {name}"] == pytest.approx(1 / 3)
    assert figures["false_alarms_100d, feature, adwin"] == 2.0  # 3 in 150 days
    table = drift_table(figures)
    assert [column.header for column in table.columns] == ["", "adwin", "page-hinkley", "kswin"]
    assert table.row_count == 3


def test_what_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"got 1 and \['flood'\]"):
        measure_drift(1, ["flood"], lambda: None)
    with pytest.raises(InvalidInputError, match="got 0 and"):
        measure_drift(0, list(DRIFTS), lambda: None)


@pytest.mark.slow
def test_a_broken_attribute_is_found_within_days_through_the_real_pipeline() -> None:
    """The quiet weeks, a branch of the whole state, and the change."""
    figures = measure_drift(1, ["attribute missing"], lambda: None)
    assert figures["delay_d_median, attribute missing, page_hinkley"] <= 3.0
    assert figures["missed_share, attribute missing, kswin"] == 0.0
