"""Plans of topics; that they can be created is for the tests with a broker."""

from deploy.topics import bank_plan, consortium_plan


def test_streams_that_meet_on_a_worker_have_equal_partition_counts() -> None:
    """Transactions and labels of an account must come to the same worker."""
    plans = {plan.name: plan for plan in bank_plan("a", partitions=6)}
    assert plans["a.transactions"].partitions == plans["a.labels"].partitions == 6
    assert set(plans) == {f"a.{s}" for s in ("transactions", "labels", "decisions", "alerts")} | {
        "a.dead-letters"
    }


def test_retention_is_given_to_kafka_in_milliseconds() -> None:
    """Two days are 172,800,000 ms."""
    for plan in bank_plan("a", partitions=1, retention_d=2):
        assert plan.settings["retention.ms"] == "172800000"


def test_a_dead_letter_may_be_larger_than_the_record_it_holds() -> None:
    """Kafka's own limit on a record is 1,048,588 bytes; base64 adds a third."""
    letters = bank_plan("a", partitions=1)[-1]
    assert int(letters.settings["max.message.bytes"]) > 1_048_588 * 4 / 3


def test_summaries_and_releases_are_compacted_and_refusals_kept() -> None:
    """The newest per key is all that a fold needs; a refusal is evidence."""
    plans = {plan.name: plan.settings for plan in consortium_plan("amalgam", ["a", "b"])}
    compacted = {name for name, found in plans.items() if found.get("cleanup.policy") == "compact"}
    assert compacted == {"amalgam.summaries.a", "amalgam.summaries.b", "amalgam.releases"}
    assert plans["amalgam.quarantine"] == {"retention.ms": "-1"}


def test_every_topic_of_the_consortium_has_one_partition() -> None:
    """Order within a member's contributions is part of the protocol."""
    assert {plan.partitions for plan in consortium_plan("amalgam", ["a"])} == {1}
