"""The service on the in-memory bus: quarantine, publication, restarts, failures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from amalgamator.core import Amalgamator
from amalgamator.fold import BasisPolicy, FoldConfig
from amalgamator.memory_bus import (
    MemoryBus,
    MemoryQuarantineSink,
    MemoryReleaseSink,
    MemorySummarySource,
)
from amalgamator.ports import ReleaseSink
from amalgamator.release_log import ReleaseLog
from amalgamator.service import Pace, Ports, Service
from amalgamator.telemetry import Telemetry
from amalgamator.trust import MemberTrust, TrustReport
from models.errors import UnavailableError
from models.fragments import FragmentRecord, Reassembler, Splitter
from models.keys import Verifier
from models.release import Release
from models.release_codec import ReleaseAssembler
from models.summary import Contribution
from models.topics import ConsortiumTopics
from tests.consortium import (
    AMALGAMATOR,
    CONSORTIUM,
    MEMBERS,
    NOW_MS,
    SCHEMA,
    a_log,
    closing,
    envelopes,
    evidence,
    registry_of,
)

TOPICS = ConsortiumTopics()
CONFIG = FoldConfig(schema=SCHEMA, basis=BasisPolicy(min_n=300, min_frauds=10, growth=2.0))


@dataclass
class FakeClock:
    """A clock that moves when told."""

    monotonic: float = 0.0

    def now_ms(self) -> int:
        """Return the test's time."""
        return NOW_MS

    def monotonic_s(self) -> float:
        """Return what was set."""
        return self.monotonic

    def sleep(self, duration_s: float) -> None:
        """Let time pass at once."""
        self.monotonic += duration_s


@dataclass
class World:
    """A bus that outlives services, and what members do on it."""

    bus: MemoryBus = field(default_factory=MemoryBus)
    clock: FakeClock = field(default_factory=FakeClock)
    splitters: dict[str, Splitter] = field(default_factory=dict)
    quarantine: MemoryQuarantineSink = field(default_factory=MemoryQuarantineSink)
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)

    def publish(self, contributions: Sequence[Contribution], raws: Sequence[bytes]) -> None:
        """Put envelopes on their members' topics."""
        for contribution, raw in zip(contributions, raws, strict=True):
            key = contribution.key
            splitter = self.splitters.setdefault(key.member, Splitter())
            name = f"{key.worker}|{key.part}|{key.bucket}".encode()
            self.bus.append(TOPICS.summaries(key.member), splitter.split(raw, name, 1))

    def service(self, *, lockstep: bool = True, releases: ReleaseSink | None = None) -> Service:
        """Start a service on the bus."""
        self.metrics = CollectorRegistry()
        service = Service(
            Amalgamator(registry_of(), CONFIG, lockstep=lockstep),
            ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR),
            ports=Ports(
                source=MemorySummarySource(self.bus, [TOPICS.summaries(m) for m in MEMBERS]),
                releases=releases or MemoryReleaseSink(self.bus, TOPICS.releases),
                quarantine=self.quarantine,
                clock=self.clock,
            ),
            pace=Pace(fold_every_s=0.0 if lockstep else 10.0, poll_s=0.5, deadline_s=30.0),
            telemetry=Telemetry(self.metrics),
        )
        service.start()
        return service

    def received(self) -> list[Release]:
        """Return the releases that a new member finds on the topic."""
        reassembler = Reassembler()
        assembler = ReleaseAssembler(CONSORTIUM, SCHEMA, [Verifier(AMALGAMATOR.public_key)])
        envelopes_ = (reassembler.add(r) for _, r in self.bus.read(TOPICS.releases, 0))
        found = (assembler.add(raw) for raw in envelopes_ if raw is not None)
        return [release for release in found if release is not None]

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a sample of the last service."""
        return self.metrics.get_sample_value(f"amalgam_amalgamator_{name}", labels)


LOG = [*a_log(), *(evidence(m, 20_002, seed=60 + i, epoch=2) for i, m in enumerate(MEMBERS))]
LOG += [closing(member, 2) for member in MEMBERS]
RAW = envelopes(LOG)
N_FIRST = len(a_log())


def a_world(n: int = N_FIRST) -> World:
    """Return a world in which the first n contributions were published."""
    world = World()
    world.publish(LOG[:n], RAW[:n])
    return world


def test_a_closed_epoch_becomes_a_release_on_the_topic() -> None:
    """One turn of the loop: read, check, fold, publish."""
    world = a_world()
    release = world.service().step()
    assert release is not None
    (received,) = world.received()
    assert (received.number, received.epoch) == (1, 1)
    assert received.release_id == release.release_id
    assert world.metric("summaries_accepted_total", part="evidence") == 9
    assert world.metric("releases_total") == 1
    assert world.metric("release_number") == 1
    assert world.metric("last_merge_timestamp_seconds") == NOW_MS / 1_000


def test_a_service_is_ready_once_it_has_read_the_topics() -> None:
    """And says why before."""
    service = a_world().service()
    assert service.ready() == "reading the topics"
    service.step()
    assert service.ready() is None


def test_refused_envelopes_go_to_quarantine_with_place_and_reason_but_no_content() -> None:
    """A damaged body, and a record that is no fragment."""
    world = a_world(0)
    world.publish(LOG[:1], [RAW[0][:-1] + bytes([RAW[0][-1] ^ 1])])
    world.bus.append(TOPICS.summaries("beta"), [FragmentRecord(b"junk", b"secret", ())])
    world.service().step()
    found = [(e.reason, e.topic, e.partition, e.offset) for e in world.quarantine.entries]
    assert found == [
        ("body_hash", TOPICS.summaries("alpha"), 0, 0),
        ("fragment", TOPICS.summaries("beta"), 0, 0),
    ]
    assert len(world.quarantine.entries[0].envelope_hash) == 64
    assert "secret" not in repr(world.quarantine.entries)
    assert world.metric("summaries_rejected_total", reason="body_hash") == 1
    assert world.metric("summaries_rejected_total", reason="fork") == 0


def test_envelopes_that_come_again_are_counted_and_not_quarantined() -> None:
    """At-least-once delivery is no fault."""
    world = a_world()
    world.publish(LOG[:2], RAW[:2])
    world.service().step()
    assert world.quarantine.entries == []
    assert world.metric("summaries_duplicated_total") == 2


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("n", range(N_FIRST, len(LOG) + 1, 2))
def test_a_restart_at_any_point_gives_the_releases_of_an_undisturbed_run(
    n: int, compacted: bool
) -> None:
    """Same numbers, same hashes, from plain and from compacted topics."""
    undisturbed = a_world()
    service = undisturbed.service()
    service.step()
    undisturbed.publish(LOG[N_FIRST:], RAW[N_FIRST:])
    expected = service.step()
    world = a_world()
    world.service().step()
    world.publish(LOG[N_FIRST:n], RAW[N_FIRST:n])
    if compacted:
        for topic in (TOPICS.releases, *(TOPICS.summaries(m) for m in MEMBERS)):
            world.bus.compact(topic)
    restarted = world.service()
    restarted.step()
    world.publish(LOG[n:], RAW[n:])
    restarted.step()
    last = world.received()[-1]
    assert expected is not None
    assert (last.number, last.epoch) == (2, 2)
    assert last.release_id == expected.release_id


def test_a_live_service_folds_at_its_pace_and_only_what_changed() -> None:
    """Ten seconds apart; a fold without change is counted and publishes nothing."""
    world = a_world()
    service = world.service(lockstep=False)
    assert service.step() is not None
    world.publish(LOG[N_FIRST:], RAW[N_FIRST:])
    assert service.step() is None
    world.clock.sleep(10.0)
    assert service.step() is not None
    world.clock.sleep(10.0)
    assert service.step() is None
    assert world.metric("folds_unchanged_total") == 1
    assert [release.number for release in world.received()] == [1, 2]


@dataclass
class FailingReleases:
    """A releases topic that cannot be reached at first."""

    inner: MemoryReleaseSink
    failures: int

    def history(self) -> Sequence[FragmentRecord]:
        """Return what is there."""
        return self.inner.history()

    def publish(self, records: Sequence[FragmentRecord]) -> None:
        """Publish half and fail, while failures are left."""
        if self.failures:
            self.failures -= 1
            self.inner.publish(records[:1])
            raise UnavailableError("no broker")
        self.inner.publish(records)


def until(n_turns: int) -> Callable[[], bool]:
    """Return a stop signal that comes after some turns."""
    turns = iter([False] * n_turns)
    return lambda: next(turns, True)


def test_a_release_that_could_not_be_confirmed_is_published_again() -> None:
    """The same release, whole, once the broker is back."""
    world = a_world()
    sink = FailingReleases(MemoryReleaseSink(world.bus, TOPICS.releases), failures=3)
    world.service(releases=sink).run(until(6), world.clock.sleep)
    assert [release.number for release in world.received()] == [1]


def test_a_service_is_not_ready_while_its_broker_is_away() -> None:
    """Though it was: three turns fail, the fourth does not."""
    world = a_world()
    sink = FailingReleases(MemoryReleaseSink(world.bus, TOPICS.releases), failures=3)
    service = world.service(releases=sink)
    said = []

    def sleep(duration_s: float) -> None:
        said.append(service.ready())
        world.clock.sleep(duration_s)

    service.run(until(6), sleep)
    assert said == ["the broker is unavailable"] * 3
    assert service.ready() is None


def test_a_broker_that_stays_away_ends_the_service() -> None:
    """After the deadline, not before."""
    world = a_world()
    sink = FailingReleases(MemoryReleaseSink(world.bus, TOPICS.releases), failures=1_000)
    with pytest.raises(UnavailableError):
        world.service(releases=sink).run(until(1_000), world.clock.sleep)
    assert world.clock.monotonic == pytest.approx(30.5)


def test_a_loop_that_stands_still_is_not_live() -> None:
    """A client call that never returns is seen from outside."""
    world = a_world()
    service = world.service()
    service.step()
    assert service.live() is None
    world.clock.sleep(31.0)
    assert service.live() == "no turn of the loop for 31 s"


def test_days_that_no_release_needs_are_deleted_from_the_topic() -> None:
    """A compacted releases topic stays as small as the last release."""
    world = a_world()
    service = world.service()
    service.step()
    far = [evidence(m, 20_500, seed=i, epoch=2) for i, m in enumerate(MEMBERS)]
    far += [closing(member, 2) for member in MEMBERS]
    raws = envelopes([*LOG[:N_FIRST], *far])[N_FIRST:]
    world.publish(far, raws)
    service.step()
    world.bus.compact(TOPICS.releases)
    keys = {record.key.rsplit(b"|", 2)[0] for _, record in world.bus.read(TOPICS.releases, 0)}
    assert keys == {b"basis|4", b"evidence|20500", b"manifest"}
    (last,) = world.received()
    assert (last.number, sorted(last.evidence)) == (2, [20_500])


def test_a_half_published_release_does_not_hide_the_last_whole_one() -> None:
    """Crash between parts and manifest, twice, then compaction: a new member still has one."""
    world = a_world()
    world.service().step()
    for seed in (1, 2):
        log = ReleaseLog(CONSORTIUM, SCHEMA, AMALGAMATOR)
        previous = log.restore(MemoryReleaseSink(world.bus, TOPICS.releases).history())
        assert previous is not None
        one = Amalgamator(registry_of(), CONFIG, lockstep=True, previous=previous)
        for contribution in LOG[:N_FIRST]:
            one.accept(contribution, 1)
        for member in MEMBERS:
            for day in (20_000, 20_001, 20_002):
                one.accept(evidence(member, day, seed=seed, epoch=2), 90 + seed)
        release = one.close_epoch(2)
        assert release is not None
        torn = [r for r in log.encode(release) if not r.key.startswith(b"manifest")]
        world.bus.append(TOPICS.releases, torn)
    world.bus.compact(TOPICS.releases)
    assert [release.number for release in world.received()] == [1]


def test_a_release_is_published_once() -> None:
    """Later turns of the loop add nothing to the topic."""
    world = a_world()
    service = world.service()
    service.step()
    end = world.bus.end_offset(TOPICS.releases)
    service.step()
    assert world.bus.end_offset(TOPICS.releases) == end


def test_a_restart_does_not_send_parts_again_that_receivers_have() -> None:
    """Only what changed since the last release, and the manifest."""
    world = a_world()
    world.service().step()
    end = world.bus.end_offset(TOPICS.releases)
    world.publish(LOG[N_FIRST:], RAW[N_FIRST:])
    world.service().step()
    new = [record.key.rsplit(b"|", 2)[0] for _, record in world.bus.read(TOPICS.releases, end)]
    assert new == [b"evidence|20002", b"manifest"]


def test_a_member_that_begins_to_count_otherwise_is_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And again when it counts in full."""
    service = a_world().service()
    reports = [(0.0, ("flags",)), (0.0, ("flags",)), (1.0, ())]
    with caplog.at_level("WARNING", logger="amalgamator.service"):
        for evidence_weight, why in reports:
            member = MemberTrust(member="alpha", evidence=evidence_weight, why=why)
            service._amalgamator = SimpleNamespace(trust=TrustReport((member,)))  # type: ignore[assignment]  # its report alone
            service._report_trust()
    assert [record.getMessage() for record in caplog.records] == [
        "trust member=alpha evidence=0.000 statistics=1.000 why=flags",
        "trust member=alpha evidence=1.000 statistics=1.000 why=-",
    ]
