"""The amalgamator's loop: read, check, hold, fold when due, publish; all else is behind ports."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amalgamator.core import Amalgamator
from amalgamator.gate import DUPLICATE, Accepted, Refused
from amalgamator.ports import (
    Clock,
    QuarantineEntry,
    QuarantineSink,
    ReleaseSink,
    SourceRecord,
    SummarySource,
)
from amalgamator.release_log import ReleaseLog
from amalgamator.telemetry import Telemetry
from amalgamator.trust import MemberTrust
from models.errors import DecodeError, UnavailableError
from models.fragments import FragmentRecord, Reassembler
from models.release import Release

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often things happen, in seconds.

    Parameters
    ----------
    fold_every_s
        Between folds in live mode; 0 folds after every poll, as lockstep needs.
    poll_s
        Longest wait for records.
    deadline_s
        How long an unreachable broker is tried.
    """

    fold_every_s: float
    poll_s: float
    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The service's surroundings."""

    source: SummarySource
    releases: ReleaseSink
    quarantine: QuarantineSink
    clock: Clock


class Service:
    """Runs an `Amalgamator` on its ports, in one thread.

    Parameters
    ----------
    amalgamator
        New; its state is rebuilt from the topics.
    release_log
        Of the same consortium.
    ports, pace, telemetry
        See there.
    """

    def __init__(
        self,
        amalgamator: Amalgamator,
        release_log: ReleaseLog,
        *,
        ports: Ports,
        pace: Pace,
        telemetry: Telemetry,
    ) -> None:
        self._amalgamator = amalgamator
        self._release_log = release_log
        self._ports = ports
        self._pace = pace
        self._telemetry = telemetry
        self._reassemblers: dict[str, Reassembler] = {}
        self._unquarantined: list[QuarantineEntry] = []
        self._unpublished: list[FragmentRecord] = []
        self._doubted: dict[str, MemberTrust] = {}
        self._is_caught_up = False
        self._last_fold_s = -float("inf")
        self._failing_since_s: float | None = None
        self._last_step_s = ports.clock.monotonic_s()

    def ready(self) -> str | None:
        """Return why not: the topics are not read yet, or the broker is away."""
        if self._failing_since_s is not None:
            return "the broker is unavailable"
        return None if self._is_caught_up else "reading the topics"

    def live(self) -> str | None:
        """Return why not: the loop must turn within the deadline, a blocked call shows here."""
        silent_s = self._ports.clock.monotonic_s() - self._last_step_s
        if silent_s <= self._pace.deadline_s:
            return None
        return f"no turn of the loop for {silent_s:.0f} s"

    def start(self) -> None:
        """Take up the last release, so that numbering goes on."""
        previous = self._release_log.restore(self._ports.releases.history())
        if previous is not None:
            self._amalgamator.resume(previous)
            self._telemetry.in_force(previous)
            log.info("resumed release=%d id=%s", previous.number, previous.release_id)

    def run(self, is_stopped: Callable[[], bool], sleep: Callable[[float], None]) -> None:
        """Turn until told to stop; a broker that stays away past the deadline ends the loop.

        Raises
        ------
        UnavailableError
            When the deadline has passed; the process should exit and be started again.
        """
        while not is_stopped():
            try:
                self.step()
                self._failing_since_s = None
            except UnavailableError as error:
                now_s = self._ports.clock.monotonic_s()
                if self._failing_since_s is None:
                    self._failing_since_s = now_s
                if not now_s - self._failing_since_s <= self._pace.deadline_s:
                    raise
                log.warning("broker unavailable: %s", error)
                sleep(self._pace.poll_s)
            self._last_step_s = self._ports.clock.monotonic_s()
        self._ports.source.close()

    def step(self) -> Release | None:
        """Read once, fold if due; return the release that was published, if any."""
        self._last_step_s = self._ports.clock.monotonic_s()
        self._flush()
        self._take(self._ports.source.poll(self._pace.poll_s))
        if not self._is_caught_up and self._ports.source.is_caught_up():
            self._report_restart()
            self._is_caught_up = True
        if not self._is_caught_up:
            return None
        return self._fold_if_due()

    def _take(self, records: Sequence[SourceRecord]) -> None:
        refused = []
        for record in records:
            outcome = self._judge(record)
            if isinstance(outcome, Refused) and outcome.reason != DUPLICATE:
                refused.append(self._entry(outcome, record))
        for entry in refused:
            log.warning(
                "quarantined reason=%s topic=%s partition=%d offset=%d",
                entry.reason,
                entry.topic,
                entry.partition,
                entry.offset,
            )
        self._unquarantined += refused
        self._flush()

    def _flush(self) -> None:
        """Send what is waiting; what fails stays, in order, for the next turn."""
        if self._unquarantined:
            self._ports.quarantine.put(self._unquarantined)
            self._unquarantined = []
        if self._unpublished:
            self._ports.releases.publish(self._unpublished)
            self._unpublished = []

    def _judge(self, record: SourceRecord) -> Accepted | Refused | None:
        outcome: Accepted | Refused
        size_bytes = 0
        try:
            raw = self._reassembler_of(record.topic).add(record.record)
            if raw is None:
                return None
            size_bytes = len(raw)
            outcome = self._amalgamator.receive(raw, self._ports.clock.now_ms())
        except DecodeError as error:
            outcome = Refused(error.reason, error.detail)
        self._telemetry.received(outcome, size_bytes)
        return outcome

    def _reassembler_of(self, topic: str) -> Reassembler:
        return self._reassemblers.setdefault(topic, Reassembler())

    def _entry(self, refused: Refused, record: SourceRecord) -> QuarantineEntry:
        return QuarantineEntry(
            reason=refused.reason,
            detail=refused.detail,
            envelope_hash=refused.hash.hex(),
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            refused_at_ms=self._ports.clock.now_ms(),
        )

    def _report_restart(self) -> None:
        """Say whether the log still folds to the last release; new contributions change it."""
        previous, again = self._amalgamator.previous, self._amalgamator.refold()
        if previous is not None and again is not None:
            log.info(
                "caught up release=%d same_content=%s",
                previous.number,
                again.release_id == previous.release_id,
            )

    def _fold_if_due(self) -> Release | None:
        started_s = self._ports.clock.monotonic_s()
        if not started_s - self._last_fold_s >= self._pace.fold_every_s:
            return None
        epoch = self._amalgamator.due_epoch()
        if epoch is None:
            return None
        self._last_fold_s = started_s
        release = self._amalgamator.close_epoch(epoch, self._ports.clock.now_ms())
        duration_s = self._ports.clock.monotonic_s() - started_s
        self._telemetry.folded(duration_s, changed=release is not None)
        state = self._amalgamator.state
        self._telemetry.holds(len(state.newest), len(self._amalgamator.registry.active()))
        if release is not None:
            self._publish(release, duration_s)
        return release

    def _publish(self, release: Release, fold_s: float) -> None:
        self._unpublished = self._release_log.encode(release)
        size_bytes = sum(len(record.value or b"") for record in self._unpublished)
        self._flush()
        self._telemetry.released(release, size_bytes)
        self._report_trust()
        log.info(
            "released number=%d epoch=%d id=%s sources=%d size_bytes=%d fold_s=%.3f",
            release.number,
            release.epoch,
            release.release_id,
            len(release.sources),
            size_bytes,
            fold_s,
        )

    def _report_trust(self) -> None:
        """Say which members count otherwise than in the release before, and why."""
        doubted = {one.member: one for one in self._amalgamator.trust.doubted()}
        for member in sorted(doubted.keys() | self._doubted.keys()):
            one = doubted.get(member, MemberTrust(member=member))
            before = self._doubted.get(member, MemberTrust(member=member))
            if (one.evidence, one.statistics) != (before.evidence, before.statistics):
                log.warning(
                    "trust member=%s evidence=%.3f statistics=%.3f why=%s",
                    member,
                    one.evidence,
                    one.statistics,
                    ",".join(one.why) or "-",
                )
        self._doubted = doubted
