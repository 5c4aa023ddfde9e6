"""Creates the topics of a bank and of a consortium; what exists already is left as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from models.errors import InvalidInputError, UnavailableError
from models.topics import BankTopics, ConsortiumTopics

_DAY_MS = 86_400_000
# a fragment of an envelope has up to 0.9 MB; a dead letter holds a record of up to 1 MB and more
_MAX_RECORD_BYTES = 4_000_000
_LARGE = {"max.message.bytes": str(_MAX_RECORD_BYTES)}
_COMPACTED = {"cleanup.policy": "compact", **_LARGE}
# of a changelog: small segments, since the one that is written to is not compacted; a head grows
# by 9 bytes a page of 16 KB
_CHANGELOG = {
    "cleanup.policy": "compact",
    "max.message.bytes": "16000000",
    "segment.bytes": str(64 * 2**20),
    "min.cleanable.dirty.ratio": "0.3",
}
_ANSWER_TIMEOUT_MS = 10_000
_BROKERS_OWN = -1


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic to be: its name, partitions and settings; copies as the cluster has them set."""

    name: str
    partitions: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)


def bank_plan(
    bank: str, *, partitions: int, retention_d: int = 30, workers: Sequence[str] = ("0",)
) -> list[TopicPlan]:
    """Return the topics on a bank's own cluster; all of one partition count, to be co-located.

    Parameters
    ----------
    bank
        Prefix of the names.
    partitions
        How many workers can share the bank's stream at most.
    retention_d
        Days until Kafka deletes a record, counted from when it was produced.
    workers
        Names of the bank's workers, each of which has a changelog.

    Raises
    ------
    InvalidInputError
        If some of them would have no partition to read.
    """
    if not workers:
        raise InvalidInputError("workers: expected 1 or more, got none")
    if len(workers) > partitions:
        raise InvalidInputError(
            f"workers: expected at most {partitions}, the partitions, got {len(workers)}"
        )
    topics = BankTopics(bank)
    keep = {"retention.ms": str(retention_d * _DAY_MS)}
    streams = (topics.transactions, topics.labels, topics.decisions, topics.alerts)
    return [
        *(TopicPlan(name, partitions, keep) for name in streams),
        TopicPlan(topics.dead_letters, 1, {**keep, **_LARGE}),
        TopicPlan(topics.workers, len(workers), keep),
        *(TopicPlan(topics.changelog(worker), 1, _CHANGELOG) for worker in workers),
    ]


def consortium_plan(consortium: str, members: Sequence[str]) -> list[TopicPlan]:
    """Return the topics on the consortium's cluster; of one partition each, so that order holds."""
    topics = ConsortiumTopics(consortium)
    compacted = [*(topics.summaries(member) for member in members), topics.releases]
    return [
        *(TopicPlan(name, 1, _COMPACTED) for name in compacted),
        TopicPlan(topics.quarantine, 1, {"retention.ms": "-1"}),
    ]


def create_topics(bootstrap: str, plans: Sequence[TopicPlan]) -> list[str]:
    """Create what is missing, wait until it can be used, and return the names that were created.

    Raises
    ------
    UnavailableError
        If the cluster does not answer, or refuses a topic.
    """
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap, bootstrap_timeout_ms=_ANSWER_TIMEOUT_MS
        )
    except KafkaError as error:
        raise UnavailableError(f"Kafka at {bootstrap} does not answer: {error}") from error
    try:
        return _create_missing(admin, plans)
    except KafkaError as error:
        raise UnavailableError(f"topics could not be created at {bootstrap}: {error}") from error
    finally:
        admin.close()


def _create_missing(admin: KafkaAdminClient, plans: Sequence[TopicPlan]) -> list[str]:
    existing = set(admin.list_topics())
    wanted = {
        plan.name: {
            "num_partitions": plan.partitions,
            "replication_factor": _BROKERS_OWN,
            "configs": dict(plan.settings),
        }
        for plan in plans
        if plan.name not in existing
    }
    if not wanted:
        return []
    answer = admin.create_topics(wanted, raise_errors=False, wait_for_metadata=False)
    created = []
    for topic in answer["topics"]:
        error = for_code(topic["error_code"])
        if error is NoError:
            created.append(topic["name"])
        elif error is not TopicAlreadyExistsError:  # another process may have been first
            raise error(f"{topic['name']}: {topic.get('error_message')}")
    admin.wait_for_topics(list(wanted), timeout_ms=_ANSWER_TIMEOUT_MS)
    return created
