"""What a worker shows of its pipeline: every expert by its name, drift once and without records."""

import logging

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.blend import Blend
from models.schema import Schema, attribute_specs
from stream.drift_policy import DriftAlarm, DriftPolicy
from stream.gauges import show, tell_drift
from stream.pipeline import Pipeline
from stream.telemetry import Telemetry
from tests.unit.stream.small_bank import LEARNING, SCHEMA, a_config, a_log, feed, payments

RIVER = 'river {model = "river.linear_model.LogisticRegression"}'
FEATURE = SCHEMA.feature_names[3]


class Shown:
    """A pipeline with one family and drift watch, and what its metrics say."""

    def __init__(self, **changes: object) -> None:
        self.pipeline = Pipeline(a_config(families=(RIVER,), drift=DriftPolicy(), **changes))
        self.registry = CollectorRegistry()
        self.telemetry = Telemetry(self.registry, self.pipeline.panel.names)

    def value(self, name: str, **labels: str) -> float | None:
        """Return one sample."""
        return self.registry.get_sample_value(f"amalgam_stream_{name}", labels)


def an_alarm(**changes: object) -> DriftAlarm:
    """Return an alarm of calibration."""
    values: dict[str, object] = {
        "kind": "calibration",
        "subject": 2,
        "detector": "page_hinkley",
        "signal": "ratio",
        "day": 20_000,
        "magnitude": 1.75,
    }
    return DriftAlarm(**values | changes)  # type: ignore[arg-type]  # names are the fields'


def test_every_expert_is_shown_by_its_name() -> None:
    """Families after own and merged, in the order of the blend."""
    shown = Shown()
    shown.pipeline.judge.blend = Blend.from_arrays(
        {**shown.pipeline.judge.blend.arrays(), "weights": np.array([0.2, 0.3, 0.5])}
    )
    show(shown.telemetry, shown.pipeline)
    found = [shown.value("expert_weight", expert=name) for name in ("own", "merged", "river")]
    assert found == [0.2, 0.3, 0.5]


def test_size_and_event_time_are_those_of_the_pipeline() -> None:
    """And calibration where there is a point of it, else nothing."""
    shown = Shown()
    batch, labels = payments(0)
    feed(shown.pipeline, batch, a_log(batch, labels))
    show(shown.telemetry, shown.pipeline)
    assert shown.value("accounts") == len(set(batch.account_id))
    assert shown.value("entities") == len(set(batch.entities["terminal"]))
    assert shown.value("watermark_timestamp_seconds") == batch.event_time_ms[-1] / 1_000
    watch = shown.pipeline.drift
    assert watch
    ratio = watch.calibration_ratio(0)
    assert ratio > 0
    assert shown.value("expert_calibration_ratio", expert="own") == ratio
    assert shown.value("expert_calibration_ratio", expert="river") == 0
    assert shown.value("expert_forgetting_ratio", expert="river") == 1


def test_unit_factor_is_zero_until_aligned() -> None:
    """And one where the mapping knows the rate."""
    known, unknown = Shown(), Shown(is_unit_known=False)
    for each in (known, unknown):
        show(each.telemetry, each.pipeline)
    assert known.value("unit_factor") == 1
    assert unknown.value("unit_factor") == 0
    unknown.pipeline.units.factor, unknown.pipeline.units.is_aligned = 0.25, True
    show(unknown.telemetry, unknown.pipeline)
    assert unknown.value("unit_factor") == 0.25


def test_attributes_of_unknown_scale_are_shown_by_how_they_are_read() -> None:
    """All are pending before the first basis; none is counted where all scales are known."""
    schema = Schema(entity_kinds=("terminal",), attributes=attribute_specs({"a": "number"}))
    known = Shown(schema=schema)
    unknown = Shown(schema=schema, unknown_scales=frozenset({"a"}))
    for each, n in ((known, 0), (unknown, 1)):
        show(each.telemetry, each.pipeline)
        assert each.value("attribute_scales", way="pending") == n
        assert each.value("attribute_scales", way="ranked") == 0
        assert each.value("attribute_scales", way="own") == 0


def test_a_pipeline_without_watch_is_shown_without_drift() -> None:
    """Gauges stay as they were touched."""
    pipeline, registry = Pipeline(a_config(learning=LEARNING)), CollectorRegistry()
    show(Telemetry(registry, pipeline.panel.names), pipeline)
    assert registry.get_sample_value("amalgam_stream_drift_psi_max") == 0


def test_an_alarm_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the name of the expert or of the feature."""
    shown = Shown()
    of_feature = an_alarm(kind="feature", subject=3, signal="psi", detector="adwin")
    shown.pipeline.drift_alarms += [an_alarm(), of_feature]
    with caplog.at_level(logging.INFO, "stream.gauges"):
        for _ in range(2):
            tell_drift(shown.telemetry, shown.pipeline)
    end = "magnitude 1.75, on day 20000 since 1970"
    assert caplog.messages == [
        f"drift of expert river: ratio by page_hinkley, {end}",
        f"drift of feature {FEATURE}: psi by adwin, {end}",
    ]
    counted = {"kind": "calibration", "detector": "page_hinkley"}
    assert shown.value("drift_alarms_total", **counted) == 1
    assert shown.value("drift_alarms_total", kind="feature", detector="adwin") == 1
    assert shown.pipeline.drift_alarms == []
