"""What a run leaves behind: answers, alerts, states, the fold, the last release."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from amalgamator.state import Held
from models.records import Alert, Decision
from models.summary import ContributionKey
from stream.manifest import Arrays

Said = dict[str, list[bytes]]
"""Id -> what was said of it, each distinct text once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BankOutcome:
    """One bank's.

    Parameters
    ----------
    decisions
        Transaction -> distinct decisions.
    alerts
        Alert -> distinct texts.
    repeated
        Decisions that came again, word for word.
    arrays
        Of the stored state, the outbox and what a replay waits for left out.
    meta
        The stored state's scalars.
    seq
        Highest number that the outbox gave.
    letters
        Summaries still waiting in the outbox.
    faults
        What is wrong with the store by itself, one line each.
    """

    decisions: Said
    alerts: Said
    arrays: Arrays
    meta: bytes
    seq: int
    repeated: int = 0
    letters: int = 0
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """All banks' and the amalgamator's.

    Parameters
    ----------
    banks
        Bank -> its outcome.
    release
        Number and content hash of the last release.
    refolded
        Content hash of that release, folded again from what is held.
    held
        The newest contribution of every key.
    quarantined
        Reasons of what was refused.
    """

    banks: Mapping[str, BankOutcome]
    release: tuple[int, str]
    refolded: str
    held: Mapping[ContributionKey, Held]
    quarantined: tuple[str, ...] = field(default=())


def say(said: Said, one: Decision | Alert) -> bool:
    """Add a decision or an alert; return whether the same text was there already."""
    name = one.alert_id if isinstance(one, Alert) else one.transaction_id
    text = msgspec.json.encode(one)
    before = said.setdefault(name, [])
    if text in before:
        return True
    before.append(text)
    return False


def said_of(each: Iterable[Decision | Alert]) -> tuple[Said, int]:
    """Return what was said by id, and how many repeated what was said."""
    said: Said = {}
    repeated = sum(say(said, one) for one in each)
    return said, repeated
