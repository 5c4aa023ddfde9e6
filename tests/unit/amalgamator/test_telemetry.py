"""Metrics: every series exists from the start, names follow the conventions."""

import re
from dataclasses import replace

from prometheus_client import CollectorRegistry

from amalgamator.gate import REASONS, Refused
from amalgamator.telemetry import Telemetry
from models.codec import PART_NAMES
from models.release import Release, Source


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


def test_weights_of_members_are_those_of_the_release() -> None:
    """By part; a member that is gone leaves no series."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry)
    release = Release(
        number=1,
        epoch=1,
        created_ms=0,
        release_id="",
        sources=(Source("alpha", "0", 5, 0.75, 0.0, 8), Source("beta", "0", 7, 1.0, 1.0, 8)),
        basis=None,
        weights=None,
        next_basis=None,
        evidence={},
    )
    telemetry.in_force(release)

    def weight(member: str, part: str) -> float | None:
        name = "amalgam_amalgamator_member_weight"
        return registry.get_sample_value(name, {"member": member, "part": part})

    assert (weight("alpha", "evidence"), weight("alpha", "statistics")) == (0.75, 0.0)
    assert weight("beta", "statistics") == 1.0
    telemetry.in_force(replace(release, sources=release.sources[:1]))
    assert weight("beta", "statistics") is None
