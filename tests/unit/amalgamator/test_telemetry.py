"""Metrics: every series exists from the start, names follow the conventions."""

import re

from prometheus_client import CollectorRegistry

from amalgamator.gate import REASONS, Refused
from amalgamator.telemetry import Telemetry
from models.codec import PART_NAMES


def test_every_series_exists_before_anything_happened() -> None:
    """A rate over a series that appears late misses its first event."""
    registry = CollectorRegistry()
    Telemetry(registry)
    for part in PART_NAMES:
        name = "amalgam_amalgamator_summaries_accepted_total"
        assert registry.get_sample_value(name, {"part": part}) == 0
    for reason in REASONS:
        name = "amalgam_amalgamator_summaries_rejected_total"
        assert registry.get_sample_value(name, {"reason": reason}) == 0


def test_names_have_our_prefix_and_only_counters_end_in_total() -> None:
    """As dashboards expect."""
    registry = CollectorRegistry()
    Telemetry(registry)
    for metric in registry.collect():
        assert re.fullmatch(r"amalgam_amalgamator_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total")
        for sample in metric.samples:
            assert sample.name.endswith("_total") <= (metric.type == "counter")


def test_a_refusal_is_counted_by_reason_with_its_bytes() -> None:
    """And shown as text."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry)
    telemetry.received(Refused("fork", "detail"), 100)
    assert (
        registry.get_sample_value(
            "amalgam_amalgamator_summaries_rejected_total", {"reason": "fork"}
        )
        == 1
    )
    assert b"amalgam_amalgamator_received_bytes_total 100.0" in telemetry.render()
