"""What the service needs from the outside world; Kafka, memory and tests each provide it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

from models.fragments import FragmentRecord


class SourceRecord(NamedTuple):
    """A record of a summaries topic and where it was."""

    topic: str
    partition: int
    offset: int
    record: FragmentRecord


class QuarantineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Why an envelope was refused and where it lies; never what it held."""

    reason: str
    detail: str
    envelope_hash: str
    topic: str
    partition: int
    offset: int
    refused_at_ms: int


class SummarySource(Protocol):
    """The members' topics, read from their start at every start of the service."""

    def poll(self, timeout_s: float) -> Sequence[SourceRecord]:
        """Return the records that came, waiting at most ``timeout_s`` for the first.

        Raises `models.errors.UnavailableError` while the broker cannot be reached.
        """

    def is_caught_up(self) -> bool:
        """Return whether everything that was there at the start has been given out."""

    def close(self) -> None:
        """Let go of connections."""


class ReleaseSink(Protocol):
    """The releases topic."""

    def history(self) -> Sequence[FragmentRecord]:
        """Return all records that the topic holds, oldest first."""

    def publish(self, records: Sequence[FragmentRecord]) -> None:
        """Append records in order; they are durable on return.

        Raises `models.errors.UnavailableError` if that could not be confirmed.
        """


class QuarantineSink(Protocol):
    """The quarantine topic."""

    def put(self, entries: Sequence[QuarantineEntry]) -> None:
        """Append entries; they are durable on return."""


class Clock(Protocol):
    """Wall clock and a clock that never goes back."""

    def now_ms(self) -> int:
        """Return milliseconds since 1970 UTC."""

    def monotonic_s(self) -> float:
        """Return seconds since some instant."""
