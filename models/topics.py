"""Names of the Kafka topics, in one place for every part."""

import re
from dataclasses import dataclass

from models.errors import InvalidInputError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{what}: expected 1 to 64 lower-case letters, digits, '-' or '_', got {name!r}"
        )
    return name


@dataclass(frozen=True, slots=True)
class BankTopics:
    """Topics on one bank's own cluster.

    Parameters
    ----------
    bank
        Prefix of the names.
    """

    bank: str

    def __post_init__(self) -> None:
        _checked(self.bank, "bank")

    @property
    def transactions(self) -> str:
        """The bank's records, in its own format."""
        return f"{self.bank}.transactions"

    @property
    def labels(self) -> str:
        """What transactions turned out to be, in its own format."""
        return f"{self.bank}.labels"

    @property
    def decisions(self) -> str:
        """One answer a transaction."""
        return f"{self.bank}.decisions"

    @property
    def alerts(self) -> str:
        """What an analyst should see."""
        return f"{self.bank}.alerts"

    @property
    def dead_letters(self) -> str:
        """Records that were not used, and why."""
        return f"{self.bank}.dead-letters"

    @property
    def workers(self) -> str:
        """One partition a worker and no records: whose it is runs that worker."""
        return f"{self.bank}.workers"

    def changelog(self, worker: str) -> str:
        """Return the topic of one worker's state, from which another host takes it over."""
        return f"{self.bank}.changelog.{_checked(worker, 'worker')}"


@dataclass(frozen=True, slots=True)
class ConsortiumTopics:
    """Topics on the consortium's cluster.

    Parameters
    ----------
    consortium
        Prefix of the names.
    """

    consortium: str = "amalgam"

    def __post_init__(self) -> None:
        _checked(self.consortium, "consortium")

    def summaries(self, member: str) -> str:
        """Return the topic that one member alone writes."""
        return f"{self.consortium}.summaries.{_checked(member, 'member')}"

    @property
    def releases(self) -> str:
        """What the amalgamator pushes back."""
        return f"{self.consortium}.releases"

    @property
    def quarantine(self) -> str:
        """Hashes and offsets of refused messages, with reasons."""
        return f"{self.consortium}.quarantine"
