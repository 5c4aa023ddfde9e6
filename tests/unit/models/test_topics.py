"""Names of topics."""

import pytest

from models.errors import InvalidInputError
from models.topics import BankTopics, ConsortiumTopics


def test_a_banks_topics_begin_with_its_name() -> None:
    """Two banks may share a cluster."""
    topics = BankTopics("rhinepay")
    names = [topics.transactions, topics.labels, topics.decisions, topics.alerts]
    assert names == [f"rhinepay.{s}" for s in ("transactions", "labels", "decisions", "alerts")]
    assert topics.dead_letters == "rhinepay.dead-letters"


def test_each_member_writes_a_topic_of_its_own() -> None:
    """So that a broker's access rules can keep members apart."""
    topics = ConsortiumTopics()
    assert topics.summaries("a") == "amalgam.summaries.a"
    assert topics.summaries("b") == "amalgam.summaries.b"
    assert (topics.releases, topics.quarantine) == ("amalgam.releases", "amalgam.quarantine")


@pytest.mark.parametrize("name", ["", "A", "a.b", "a b", "-a", "ä", "a" * 65, "a\n"])
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    """A dot separates the parts, so no part holds one."""
    with pytest.raises(InvalidInputError, match="expected 1 to 64 lower-case"):
        BankTopics(name)
    with pytest.raises(InvalidInputError, match="member"):
        ConsortiumTopics().summaries(name)


@pytest.mark.parametrize("name", ["a", "0", "north-bank_2", "a" * 64])
def test_a_plain_name_is_taken(name: str) -> None:
    """Up to 64 letters, digits, dashes and underscores."""
    assert BankTopics(name).labels == f"{name}.labels"
