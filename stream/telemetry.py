"""Every metric of the worker, on a registry that is handed in."""

import math
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from models.fields import REASONS as DECODE_REASONS
from stream.drift_policy import DETECTORS, KINDS, DriftAlarm

PIPELINE_REASONS = (
    "duplicate_transaction",
    "late_event",
    "future_event",
    "contradicting_label",
    "watermark",
    "bug",
)
DEAD_LETTER_REASONS = tuple(dict.fromkeys((*DECODE_REASONS, *PIPELINE_REASONS)))
STREAMS = ("transactions", "labels")
LABEL_OUTCOMES = ("joined", "duplicate", "contradicting", "parked_dropped")
_CHUNK_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_EXCHANGE_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_DAY_BUCKETS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0)


class Telemetry:
    """Counters, gauges and histograms; every closed label is touched at the start.

    Parameters
    ----------
    registry
        Where they are registered.
    experts
        Names of all that this worker will ever have.
    """

    def __init__(
        self, registry: CollectorRegistry, experts: Sequence[str] = ("own", "merged")
    ) -> None:
        self._registry = registry
        prefix = "amalgam_stream_"

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(prefix + name, text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(prefix + name, text, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(prefix + name, text, registry=registry, buckets=buckets)

        self.scored = counter("transactions_scored_total", "Transactions scored.", "decision")
        self.dead_letters = counter("dead_letters_total", "Records not used.", "reason")
        self.labels = counter("labels_total", "Labels by what became of them.", "outcome")
        self.labels_parked = gauge("labels_parked", "Labels waiting for their transaction.")
        self.chunk_s = histogram(
            "chunk_duration_seconds", "Decode, score and learn one chunk.", _CHUNK_BUCKETS_S
        )
        self.install_s = histogram(
            "release_install_duration_seconds", "Swap a release in.", _EXCHANGE_BUCKETS_S
        )
        self.day_s = histogram(
            "day_duration_seconds", "Renew models at a day's end, beside.", _DAY_BUCKETS_S
        )
        self.summary_s = histogram(
            "summary_duration_seconds", "Export, sign and publish.", _EXCHANGE_BUCKETS_S
        )
        self.checkpoint_s = histogram(
            "checkpoint_duration_seconds", "Store state and offsets.", _EXCHANGE_BUCKETS_S
        )
        self.snapshot_s = histogram(
            "snapshot_duration_seconds", "Copy what changed; decisions wait.", _EXCHANGE_BUCKETS_S
        )
        self.checkpoint_cpu_s = counter(
            "checkpoint_cpu_seconds_total", "Processor time of checkpoints, the changelog's too."
        )
        self.checkpoint_bytes = counter("checkpoint_bytes_total", "Bytes of changed state pages.")
        self.changelog_bytes = counter("changelog_bytes_total", "Bytes sent to the changelog.")
        self.changelog_s = histogram(
            "changelog_duration_seconds", "Send a checkpoint, until confirmed.", _EXCHANGE_BUCKETS_S
        )
        self.summaries = counter("summaries_published_total", "Contributions sent.")
        self.summaries_waiting = gauge("summaries_waiting", "Contributions not sent yet.")
        self.summary_bytes = counter("summary_bytes_total", "Bytes of contributions sent.")
        self.releases_refused = counter("releases_refused_total", "Release records refused.")
        self.release = gauge("release_number", "Number of the release in force.")
        self.scorer = Info(prefix + "scorer", "Release in force.", registry=registry)
        self.watermark_s = gauge(
            "watermark_timestamp_seconds", "Event time up to which transactions were scored."
        )
        self.records_missed = counter(
            "records_missed_total", "Records deleted before they were read.", "stream"
        )
        self.topics_replaced = counter(
            "topics_replaced_total", "Input topics found to be made anew.", "stream"
        )
        self.lag = gauge("lag_records", "Records on the broker not yet read.")
        self.evidence_left_out = gauge(
            "evidence_cells_left_out", "Cells of evidence that the last summaries had no room for."
        )
        self.entities = gauge("entities", "Entities known, own and by releases.")
        self.accounts = gauge("accounts", "Accounts known.")
        self.expert_weight = Gauge(
            prefix + "expert_weight", "Weight in the blend.", ("expert",), registry=registry
        )
        self.drift = DriftTelemetry(registry, experts)
        self._touch(experts)

    def _touch(self, experts: Sequence[str]) -> None:
        for decision in ("alert", "pass"):
            self.scored.labels(decision)
        for reason in DEAD_LETTER_REASONS:
            self.dead_letters.labels(reason)
        for stream in STREAMS:
            self.records_missed.labels(stream)
            self.topics_replaced.labels(stream)
        for outcome in LABEL_OUTCOMES:
            self.labels.labels(outcome)
        for expert in experts:
            self.expert_weight.labels(expert)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class DriftTelemetry:
    """What a worker that watches for drift, or aligns its amounts, shows beside the rest.

    Parameters
    ----------
    registry
        Where the metrics are registered.
    experts
        Their names.
    """

    def __init__(self, registry: CollectorRegistry, experts: Sequence[str]) -> None:
        prefix = "amalgam_stream_"
        self.alarms = Counter(
            prefix + "drift_alarms_total",
            "Something is no longer as it was.",
            ("kind", "detector"),
            registry=registry,
        )
        self.psi_max = Gauge(
            prefix + "drift_psi_max",
            "Largest stability index of a feature on the last day.",
            registry=registry,
        )
        self.calibration_ratio = Gauge(
            prefix + "expert_calibration_ratio",
            "Frauds over expected frauds in the last week; 0 while not known.",
            ("expert",),
            registry=registry,
        )
        self.forgetting = Gauge(
            prefix + "expert_forgetting_ratio",
            "Factor on the rate of forgetting; 1 when quiet.",
            ("expert",),
            registry=registry,
        )
        self.unit_factor = Gauge(
            prefix + "unit_factor",
            "Reference currency per unit of an unknown one; 0 until aligned, 1 if known.",
            registry=registry,
        )
        self.attribute_scales = Gauge(
            prefix + "attribute_scales",
            "Attributes of unknown scale: pending, read by rank, or the first of their kind.",
            ("way",),
            registry=registry,
        )
        for expert in experts:
            self.calibration_ratio.labels(expert)
            self.forgetting.labels(expert).set(1.0)
        for kind in KINDS:
            for detector in DETECTORS:
                self.alarms.labels(kind, detector)

    def drifted(self, alarms: Iterable[DriftAlarm]) -> None:
        """Count alarms of a day's end."""
        for alarm in alarms:
            self.alarms.labels(alarm.kind, alarm.detector).inc()

    def calibrated(self, expert: str, *, ratio: float, forgetting: float) -> None:
        """Show an expert's calibration, and how much faster it forgets; NaN is not shown."""
        if math.isfinite(ratio):
            self.calibration_ratio.labels(expert).set(ratio)
        self.forgetting.labels(expert).set(forgetting)

    def stable(self, psi_max: float) -> None:
        """Show the largest stability index; NaN, where nothing was compared, is not shown."""
        if math.isfinite(psi_max):
            self.psi_max.set(psi_max)
