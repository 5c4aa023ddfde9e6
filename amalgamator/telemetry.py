"""Every metric of the amalgamator, on a registry that is given; labels are closed sets."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from amalgamator.gate import DUPLICATE, REASONS, Accepted, Refused
from models.codec import PART_NAMES
from models.entity_risk import MAX_CELLS
from models.release import Release

_PREFIX = "amalgam_amalgamator"
_FOLD_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Telemetry:
    """Counters and gauges; one call for each thing that happens.

    Parameters
    ----------
    registry
        Where the metrics live.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._make_counters(registry)
        self._make_gauges(registry)
        for part in PART_NAMES:
            self._accepted.labels(part=part)
        for reason in REASONS:
            self._rejected.labels(reason=reason)

    def _make_counters(self, registry: CollectorRegistry) -> None:
        self._accepted = Counter(
            f"{_PREFIX}_summaries_accepted",
            "Contributions that passed the gate.",
            ["part"],
            registry=registry,
        )
        self._rejected = Counter(
            f"{_PREFIX}_summaries_rejected",
            "Envelopes sent to quarantine.",
            ["reason"],
            registry=registry,
        )
        self._duplicates = Counter(
            f"{_PREFIX}_summaries_duplicated", "Envelopes that came again.", registry=registry
        )
        self._gaps = Counter(
            f"{_PREFIX}_summary_gaps",
            "Contributions whose predecessor was not seen.",
            registry=registry,
        )
        self._received = Counter(
            f"{_PREFIX}_received_bytes", "Bytes of envelopes received.", registry=registry
        )
        self._releases = Counter(
            f"{_PREFIX}_releases", "Releases that were published.", registry=registry
        )
        self._unchanged = Counter(
            f"{_PREFIX}_folds_unchanged", "Folds that changed nothing.", registry=registry
        )
        self._published = Counter(
            f"{_PREFIX}_published_bytes", "Bytes of releases published.", registry=registry
        )
        self._fold_s = Histogram(
            f"{_PREFIX}_fold_duration_seconds",
            "Time of one fold.",
            buckets=_FOLD_BUCKETS_S,
            registry=registry,
        )

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        self._number = Gauge(f"{_PREFIX}_release_number", "Of the last release.", registry=registry)
        self._basis = Gauge(
            f"{_PREFIX}_basis_number", "Of the basis in force, 0 for none.", registry=registry
        )
        self._n_weights = Gauge(
            f"{_PREFIX}_scorer_weights", "Weights of the scorer in force.", registry=registry
        )
        self._cells = Gauge(
            f"{_PREFIX}_evidence_cells", "Cells of evidence in the last release.", registry=registry
        )
        self._full_days = Gauge(
            f"{_PREFIX}_evidence_full_days",
            "Days whose evidence had to be cut to fit the last release.",
            registry=registry,
        )
        self._members = Gauge(
            f"{_PREFIX}_members", "Registered members that count.", registry=registry
        )
        self._sources = Gauge(
            f"{_PREFIX}_release_sources", "Workers in the last release.", registry=registry
        )
        self._merged_at = Gauge(
            f"{_PREFIX}_last_merge_timestamp_seconds",
            "Wall clock of the last release.",
            registry=registry,
        )
        self._weights = Gauge(
            f"{_PREFIX}_member_weight",
            "Factor on a member's evidence and on its statistics, 0 to 1.",
            ["member", "part"],
            registry=registry,
        )
        self._contributions = Gauge(
            f"{_PREFIX}_contributions_held",
            "Keys that a contribution is held of.",
            registry=registry,
        )

    def received(self, outcome: Accepted | Refused, size_bytes: int) -> None:
        """Count what the gate said to one envelope."""
        self._received.inc(size_bytes)
        if isinstance(outcome, Accepted):
            self._accepted.labels(part=outcome.contribution.key.part).inc()
            self._gaps.inc(outcome.gap)
        elif outcome.reason == DUPLICATE:
            self._duplicates.inc()
        else:
            self._rejected.labels(reason=outcome.reason).inc()

    def folded(self, duration_s: float, *, changed: bool) -> None:
        """Record one fold."""
        self._fold_s.observe(duration_s)
        self._unchanged.inc(not changed)

    def released(self, release: Release, size_bytes: int) -> None:
        """Record a release that was published."""
        self._releases.inc()
        self._published.inc(size_bytes)
        self.in_force(release)

    def in_force(self, release: Release) -> None:
        """Show the last release, also one found at a restart."""
        self._number.set(release.number)
        self._basis.set(0 if release.basis is None else release.basis.number)
        self._n_weights.set(0 if release.weights is None else len(release.weights))
        self._cells.set(sum(len(cells) for cells in release.evidence.values()))
        self._full_days.set(sum(len(day) >= MAX_CELLS for day in release.evidence.values()))
        self._sources.set(len(release.sources))
        self._merged_at.set(release.created_ms / 1_000)
        self._weights.clear()
        for source in release.sources:
            self._weights.labels(source.member, "evidence").set(source.weight)
            self._weights.labels(source.member, "statistics").set(source.statistics_weight)

    def holds(self, n_contributions: int, n_members: int) -> None:
        """Show how much is held, and of how many members."""
        self._contributions.set(n_contributions)
        self._members.set(n_members)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
