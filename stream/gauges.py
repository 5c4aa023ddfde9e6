"""What a worker shows of its pipeline: gauges, and a line for each alarm of drift."""

import logging

from stream.drift_policy import DriftAlarm
from stream.pipeline import Pipeline
from stream.telemetry import Telemetry

log = logging.getLogger(__name__)


def show(telemetry: Telemetry, pipeline: Pipeline) -> None:
    """Set every gauge that the pipeline knows the value of."""
    telemetry.watermark_s.set(max(pipeline.watermark_ms, 0) / 1_000)
    telemetry.evidence_left_out.set(pipeline.summaries.left_out)
    telemetry.entities.set(pipeline.entities.size)
    telemetry.accounts.set(pipeline.accounts.size)
    names = pipeline.panel.names
    for expert, weight in zip(names, pipeline.judge.blend.weights.tolist(), strict=True):
        telemetry.expert_weight.labels(expert).set(weight)
    units = pipeline.units
    telemetry.drift.unit_factor.set(units.factor if units.is_aligned else 0.0)
    for way, n in pipeline.scales.ways().items():
        telemetry.drift.attribute_scales.labels(way).set(n)
    watch = pipeline.drift
    if watch:
        telemetry.drift.stable(watch.psi_max())
        for i, expert in enumerate(names):
            ratio, forgetting = watch.calibration_ratio(i), watch.forgetting(i)
            telemetry.drift.calibrated(expert, ratio=ratio, forgetting=forgetting)


def tell_drift(telemetry: Telemetry, pipeline: Pipeline) -> None:
    """Count the alarms since the last call and log a line for each; the pipeline lets go of them.

    A line names a feature or an expert, never a record.
    """
    alarms, pipeline.drift_alarms = pipeline.drift_alarms, []
    telemetry.drift.drifted(alarms)
    for alarm in alarms:
        log.info(
            "drift of %s: %s by %s, magnitude %.3g, on day %d since 1970",
            _subject(alarm, pipeline),
            alarm.signal,
            alarm.detector,
            alarm.magnitude,
            alarm.day,
        )


def _subject(alarm: DriftAlarm, pipeline: Pipeline) -> str:
    if alarm.kind == "calibration":
        return f"expert {pipeline.panel.names[alarm.subject]}"
    return f"feature {pipeline.config.schema.feature_names[alarm.subject]}"
