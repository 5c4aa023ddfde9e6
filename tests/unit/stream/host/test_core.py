"""What a host does with its workers: every rule of it, without a process, a broker or a clock."""

import pytest

from stream.host.core import (
    Answered,
    Assigned,
    Effect,
    Ended,
    Event,
    HostPolicy,
    HostState,
    Phase,
    Stopped,
    Ticked,
    step,
)

POLICY = HostPolicy()


class Run:
    """A host that is told one event after the other."""

    def __init__(self) -> None:
        self.state = HostState()

    def __call__(self, event: Event, now_s: float = 0.0) -> list[Effect]:
        self.state, effects = step(self.state, event, now_s, POLICY)
        return effects

    def phase(self, worker: str) -> Phase | None:
        slot = self.state.slots.get(worker)
        return None if slot is None else slot.phase


def assigned(*workers: str) -> Assigned:
    return Assigned(frozenset(workers))


@pytest.fixture
def host() -> Run:
    """Return a host to which workers 0 and 1 were assigned at second 0."""
    run = Run()
    assert run(assigned("1", "0")) == [Effect("start", "0"), Effect("start", "1")]
    return run


def test_what_stays_assigned_is_left_alone_and_the_rest_stops(host: Run) -> None:
    """A rebalance that changes nothing costs nothing."""
    assert host(assigned("0", "1")) == []
    assert host(assigned("1", "2")) == [Effect("terminate", "0"), Effect("start", "2")]
    assert host.phase("0") is Phase.STOPPING
    assert host(Ended("0", 0)) == []
    assert host.state.slots.keys() == {"1", "2"}


def test_a_worker_that_does_not_stop_is_killed_once_after_ten_seconds(host: Run) -> None:
    """And only then forgotten."""
    host(assigned("1"), 100.0)
    assert host(Ticked(), 109.9) == []
    assert host(Ticked(), 110.0) == [Effect("kill", "0")]
    assert host(Ticked(), 300.0) == []
    host(Ended("0", -9), 301.0)
    assert host.phase("0") is None


def test_a_worker_that_comes_back_while_it_stops_is_started_once_it_has(host: Run) -> None:
    """Two processes of it at once would only supersede each other."""
    host(assigned("1"))
    assert host(assigned("0", "1")) == []
    assert host(Ended("0", 0), 5.0) == [Effect("start", "0")]
    assert host.phase("0") is Phase.RUNNING


@pytest.mark.parametrize("code", [1, -9, 0, 137])
def test_a_crash_is_followed_by_ever_later_starts(host: Run, code: int) -> None:
    """After half a second, doubled each time, half a minute at most."""
    now_s = 0.0
    for wait_s in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        now_s += 1.0
        assert host(Ended("0", code), now_s) == []
        assert host(Ticked(), now_s + wait_s - 0.01) == []
        now_s += wait_s
        assert host(Ticked(), now_s) == [Effect("start", "0", "crash")]
    assert host.phase("1") is Phase.RUNNING


def test_a_process_that_ran_for_a_minute_had_no_failures(host: Run) -> None:
    """Its next wait is the first again."""
    for _ in range(5):
        host(Ended("0", 1), 1.0)
        host(Ticked(), 100.0)
    host(Ended("0", 1), 160.0)
    assert host(Ticked(), 160.5) == [Effect("start", "0", "crash")]


@pytest.mark.parametrize("code", [2, 3])
def test_refused_settings_or_state_keep_a_worker_down_and_no_other(host: Run, code: int) -> None:
    """Until it has been another host's and comes back."""
    assert host(Ended("0", code)) == []
    assert host.phase("0") is Phase.DOWN
    assert host(Ticked(), 1e9) == []
    assert host(assigned("0", "1")) == []
    assert host.phase("1") is Phase.RUNNING
    assert host(assigned("1")) == []
    assert host(assigned("0", "1")) == [Effect("start", "0")]


def test_a_superseded_worker_is_started_only_when_kafka_confirms(host: Run) -> None:
    """It is asked after the wait, and again, ever later, as long as it denies."""
    assert host(Ended("0", 4), 10.0) == []
    assert host(Ticked(), 10.4) == []
    assert host(Ticked(), 10.5) == [Effect("ask", "0")]
    assert host(Ticked(), 11.0) == []
    assert host(Answered("0", is_ours=False), 12.0) == []
    assert host(Ticked(), 12.5) == [Effect("ask", "0")]
    assert host(Answered("0", is_ours=True), 13.0) == [Effect("start", "0", "superseded")]
    assert host(Ended("0", 4), 14.0) == []
    assert host(Ticked(), 14.9) == []
    assert host(Ticked(), 15.0) == [Effect("ask", "0")]


def test_a_question_without_an_answer_is_asked_again(host: Run) -> None:
    """As where the cluster was away."""
    host(Ended("0", 4), 0.0)
    assert host(Ticked(), 0.5) == [Effect("ask", "0")]
    assert host(Ticked(), 10.4) == []
    assert host(Ticked(), 10.5) == [Effect("ask", "0")]


def test_an_answer_that_comes_too_late_starts_nothing(host: Run) -> None:
    """The worker is another host's by then, or runs already."""
    host(Ended("0", 4))
    host(assigned("1"))
    assert host(Answered("0", is_ours=True)) == []
    assert host(Answered("1", is_ours=True)) == []
    assert host.state.slots.keys() == {"1"}


def test_a_stop_ends_all_and_starts_nothing_any_more(host: Run) -> None:
    """Whatever comes meanwhile; after eight seconds by kill, so that ten are enough."""
    host(Ended("0", 1), 1.0)
    assert host(Stopped(), 2.0) == [Effect("terminate", "1")]
    assert host.state.slots.keys() == {"1"}
    assert not host.state.is_over
    assert host(assigned("0", "1", "2"), 3.0) == []
    assert host(Ticked(), 10.0) == [Effect("kill", "1")]
    assert host(Ended("1", -9), 10.1) == []
    assert host.state.is_over


def test_a_stop_shortens_the_patience_with_what_was_revoked(host: Run) -> None:
    """Ten seconds from the revocation would be too long."""
    host(assigned("1"), 100.0)
    host(Stopped(), 101.0)
    assert host(Ticked(), 109.0) == [Effect("kill", "0"), Effect("kill", "1")]


def test_a_host_without_workers_stops_at_once() -> None:
    """There may be more hosts than workers."""
    run = Run()
    assert run(assigned()) == []
    assert run(Stopped()) == []
    assert run.state.is_over
