"""Creates the topics of a bank and of a consortium; what exists already is left as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from models.errors import UnavailableError
from models.topics import BankTopics, ConsortiumTopics

_DAY_MS = 86_400_000
_MAX_RECORD_BYTES = 1_500_000
_COMPACTED = {"cleanup.policy": "compact", "max.message.bytes": str(_MAX_RECORD_BYTES)}


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic to be: its name, partitions and settings."""

    name: str
    partitions: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


def bank_plan(bank: str, *, partitions: int, retention_d: int = 30) -> list[TopicPlan]:
    """Return the topics on a bank's own cluster; all of one partition count, to be co-located."""
    topics = BankTopics(bank)
    keep = {"retention.ms": str(retention_d * _DAY_MS)}
    streams = (topics.transactions, topics.labels, topics.decisions, topics.alerts)
    return [TopicPlan(name, partitions, keep) for name in streams] + [
        TopicPlan(topics.dead_letters, 1, keep)
    ]


def consortium_plan(consortium: str, members: Sequence[str]) -> list[TopicPlan]:
    """Return the topics on the consortium's cluster."""
    topics = ConsortiumTopics(consortium)
    summaries = [TopicPlan(topics.summaries(member), 1, _COMPACTED) for member in members]
    return [*summaries, TopicPlan(topics.releases, 1, _COMPACTED), TopicPlan(topics.quarantine)]


def create_topics(bootstrap: str, plans: Sequence[TopicPlan]) -> list[str]:
    """Create what is missing and return the names that were created.

    Raises
    ------
    UnavailableError
        If the cluster does not answer.
    """
    created = []
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    except KafkaError as error:
        raise UnavailableError(f"Kafka at {bootstrap} does not answer: {error}") from error
    try:
        for plan in plans:
            topic = NewTopic(plan.name, plan.partitions, 1, topic_configs=dict(plan.settings))
            try:
                admin.create_topics([topic])
            except TopicAlreadyExistsError:
                continue
            created.append(plan.name)
    except KafkaError as error:
        raise UnavailableError(f"topics could not be created at {bootstrap}: {error}") from error
    finally:
        admin.close()
    return created
