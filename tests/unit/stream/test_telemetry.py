"""Metrics: every series exists from the start, under names that dashboards may rely on."""

import math
import re

from prometheus_client import CollectorRegistry

from models.fields import REASONS
from stream.drift_policy import DriftAlarm
from stream.telemetry import DEAD_LETTER_REASONS, LABEL_OUTCOMES, Telemetry


def test_every_series_exists_before_anything_happened() -> None:
    """A rate over a series that appears late misses its first event."""
    registry = CollectorRegistry()
    Telemetry(registry, ("own", "merged", "lightgbm"))
    series = [
        ("transactions_scored_total", "decision", ("alert", "pass")),
        ("dead_letters_total", "reason", DEAD_LETTER_REASONS),
        ("labels_total", "outcome", LABEL_OUTCOMES),
        ("expert_weight", "expert", ("own", "merged", "lightgbm")),
        ("expert_calibration_ratio", "expert", ("own", "merged", "lightgbm")),
    ]
    for name, label, values in series:
        for value in values:
            assert registry.get_sample_value(f"amalgam_stream_{name}", {label: value}) == 0
    for gauge in ("unit_factor", "drift_psi_max"):
        assert registry.get_sample_value(f"amalgam_stream_{gauge}") == 0


def test_drift_is_counted_by_kind_and_detector_and_only_numbers_are_shown() -> None:
    """A gauge that was set to NaN would hide the last known value."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry).drift
    seen = {"kind": "calibration", "detector": "adwin"}
    assert registry.get_sample_value("amalgam_stream_drift_alarms_total", seen) == 0
    alarm = DriftAlarm(
        kind="calibration", subject=0, detector="adwin", signal="loss", day=1, magnitude=0.5
    )
    telemetry.drifted([alarm, alarm])
    assert registry.get_sample_value("amalgam_stream_drift_alarms_total", seen) == 2
    own = {"expert": "own"}
    assert registry.get_sample_value("amalgam_stream_expert_forgetting_ratio", own) == 1
    for ratio, psi, forgetting in ((1.5, 0.2, 8.0), (math.nan, math.nan, 1.0)):
        telemetry.calibrated("own", ratio=ratio, forgetting=forgetting)
        telemetry.stable(psi)
    assert registry.get_sample_value("amalgam_stream_expert_calibration_ratio", own) == 1.5
    assert registry.get_sample_value("amalgam_stream_expert_forgetting_ratio", own) == 1
    assert registry.get_sample_value("amalgam_stream_drift_psi_max") == 0.2


def test_every_reason_of_decoding_is_one_of_a_dead_letter() -> None:
    """And none is listed twice."""
    assert set(REASONS) < set(DEAD_LETTER_REASONS)
    assert len(set(DEAD_LETTER_REASONS)) == len(DEAD_LETTER_REASONS)


def test_names_have_our_prefix_and_only_counters_end_in_total() -> None:
    """As dashboards expect; durations are in seconds."""
    registry = CollectorRegistry()
    Telemetry(registry)
    metrics = list(registry.collect())
    assert len(metrics) >= 15
    for metric in metrics:
        assert re.fullmatch(r"amalgam_stream_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total")
        assert (metric.type != "histogram") | metric.name.endswith("_seconds")
        for sample in metric.samples:
            assert sample.name.endswith("_total") <= (metric.type == "counter")


def test_two_workers_of_one_process_do_not_share_numbers() -> None:
    """Each has its own registry."""
    one, other = Telemetry(CollectorRegistry()), Telemetry(CollectorRegistry())
    one.summaries.inc(3)
    assert b"amalgam_stream_summaries_published_total 3.0" in one.render()
    assert b"amalgam_stream_summaries_published_total 0.0" in other.render()
