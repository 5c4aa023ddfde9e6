"""Plans of topics; that they can be created is for the tests with a broker."""

import pytest

from deploy.topics import bank_plan, consortium_plan
from models.errors import InvalidInputError


def test_streams_that_meet_on_a_worker_have_equal_partition_counts() -> None:
    """Transactions and labels of an account must come to the same worker."""
    plans = {plan.name: plan for plan in bank_plan("a", partitions=6)}
    assert plans["a.transactions"].partitions == plans["a.labels"].partitions == 6
    assert set(plans) == {f"a.{s}" for s in ("transactions", "labels", "decisions", "alerts")} | {
        "a.dead-letters",
        "a.changelog.0",
        "a.workers",
    }


def test_retention_is_given_to_kafka_in_milliseconds() -> None:
    """Two days are 172,800,000 ms."""
    for plan in bank_plan("a", partitions=1, retention_d=2)[:-1]:
        assert plan.settings["retention.ms"] == "172800000"


def test_a_dead_letter_may_be_larger_than_the_record_it_holds() -> None:
    """Kafka's own limit on a record is 1,048,588 bytes; base64 adds a third."""
    (letters,) = (one for one in bank_plan("a", partitions=1) if one.name == "a.dead-letters")
    assert int(letters.settings["max.message.bytes"]) > 1_048_588 * 4 / 3


def test_each_worker_has_a_compacted_changelog_of_one_partition() -> None:
    """A page has up to 256 KB; the manifest, 9 bytes a page of 16 KB, passes 1 MB with 2 GB."""
    plans = bank_plan("a", partitions=6, workers=("0", "east"))
    found = [plan for plan in plans if ".changelog." in plan.name]
    assert [plan.name for plan in found] == ["a.changelog.0", "a.changelog.east"]
    for plan in found:
        assert plan.partitions == 1
        assert plan.settings["cleanup.policy"] == "compact"
        assert "retention.ms" not in plan.settings
        assert int(plan.settings["max.message.bytes"]) > 9 * 2**31 / 16_384


def test_summaries_and_releases_are_compacted_and_refusals_kept() -> None:
    """The newest per key is all that a fold needs; a refusal is evidence."""
    plans = {plan.name: plan.settings for plan in consortium_plan("amalgam", ["a", "b"])}
    compacted = {name for name, found in plans.items() if found.get("cleanup.policy") == "compact"}
    assert compacted == {"amalgam.summaries.a", "amalgam.summaries.b", "amalgam.releases"}
    assert plans["amalgam.quarantine"] == {"retention.ms": "-1"}


def test_every_topic_of_the_consortium_has_one_partition() -> None:
    """Order within a member's contributions is part of the protocol."""
    assert {plan.partitions for plan in consortium_plan("amalgam", ["a"])} == {1}


def test_workers_have_a_topic_of_one_partition_each() -> None:
    """Whose partition it is runs the worker; and no more of them than partitions to read."""
    plans = {plan.name: plan for plan in bank_plan("a", partitions=4, workers=("0", "1", "2"))}
    assert plans["a.workers"].partitions == 3
    with pytest.raises(
        InvalidInputError, match="workers: expected at most 2, the partitions, got 3"
    ):
        bank_plan("a", partitions=2, workers=("0", "1", "2"))
