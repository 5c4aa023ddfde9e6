"""Input topics that are gone, came anew or lack records: what is read on from, and what is told."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from models.errors import UnavailableError
from models.topics import BankTopics
from stream import sources as module
from stream.share import Share
from stream.sources import Source, Sources, n_missed
from stream.telemetry import Telemetry

PAYMENTS, LABELS = ("bank.transactions", 0), ("bank.labels", 0)
OLD = {"bank.transactions": Source("a", 2), "bank.labels": Source("b", 2)}
IDS = {"bank.transactions": "a", "bank.labels": "b"}


class Cluster:
    """Answers for a broker, or does not."""

    def __init__(self) -> None:
        self.topics: dict[str, Source] | None = dict(OLD)

    def __call__(self, topics: object) -> dict[str, Source]:
        if self.topics is None:
            raise UnavailableError("away")
        return self.topics


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry(CollectorRegistry())


def sources_of(cluster: Cluster, telemetry: Telemetry, known: dict[str, str]) -> Sources:
    return Sources(BankTopics("bank"), known, cluster, telemetry)


def counted(telemetry: Telemetry, name: str, stream: str) -> float:
    sample = f'amalgam_stream_{name}{{stream="{stream}"}} '
    lines = telemetry.render().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(sample))


async def test_first_look_makes_topics_known_and_changes_nothing(
    cluster: Cluster, telemetry: Telemetry
) -> None:
    """A state without ids, as on a new disk, takes those that are there."""
    sources = sources_of(cluster, telemetry, {})
    await sources.look()
    assert (sources.missing(), sources.replaced()) == (None, ())
    stored = {PAYMENTS: 7, ("bank.labels", 5): 3}
    assert sources.take_up(stored, {PAYMENTS: 9, LABELS: 4}) == stored
    assert sources.known == IDS


async def test_topic_made_anew_is_read_from_its_start_and_counted_once(
    cluster: Cluster, telemetry: Telemetry
) -> None:
    """The other one goes on where it was; so it is before any partition of the new one is read."""
    cluster.topics = OLD | {"bank.transactions": Source("c", 2)}
    sources = sources_of(cluster, telemetry, IDS)
    await sources.watch()
    assert sources.replaced() == sources.replaced_by_now == ("bank.transactions",)
    ends = {PAYMENTS: 90, LABELS: 4}
    found = sources.take_up({PAYMENTS: 7, LABELS: 4}, ends)
    assert found == {PAYMENTS: 0, LABELS: 4}
    assert sources.replaced() == ()
    assert sources.take_up(found, ends) == found
    assert sources.known == IDS | {"bank.transactions": "c"}
    assert counted(telemetry, "topics_replaced_total", "transactions") == 1
    assert counted(telemetry, "topics_replaced_total", "labels") == 0


async def test_partition_that_lost_its_end_goes_on_there(
    cluster: Cluster, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """Else what comes next would be taken for read."""
    sources = sources_of(cluster, telemetry, IDS)
    await sources.look()
    assert sources.take_up({PAYMENTS: 7}, {PAYMENTS: 5}) == {PAYMENTS: 5}
    assert "lost its last 2 records" in caplog.text


async def test_what_is_known_stays_while_the_cluster_is_away(
    cluster: Cluster, telemetry: Telemetry
) -> None:
    """Nothing is missing because nobody answers."""
    sources = sources_of(cluster, telemetry, IDS)
    cluster.topics = None
    await sources.watch()
    assert (sources.missing(), sources.replaced()) == (None, ())
    assert sources.take_up({PAYMENTS: 7}, {}) == {PAYMENTS: 7}
    assert sources.known == IDS


async def test_cluster_that_never_answers_holds_nothing_up(
    cluster: Cluster, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread waits for it, however often it is asked; a late answer is taken."""
    answered = threading.Event()

    def ask(topics: object) -> dict[str, Source]:
        asked.append(topics)
        answered.wait()
        return OLD

    asked: list[object] = []
    monkeypatch.setattr(module, "_PATIENCE_S", 0.02)
    sources = Sources(BankTopics("bank"), IDS, ask, telemetry)
    for _ in range(3):
        await sources.look()
    assert len(asked) == 1
    assert sources.missing() is None
    answered.set()
    monkeypatch.setattr(module, "_PATIENCE_S", 5.0)
    await sources.look()
    assert len(asked) == 1
    assert sources.take_up({PAYMENTS: 7}, {}) == {PAYMENTS: 7}


async def test_topic_that_is_not_there_is_named_and_unread_partitions_too(
    cluster: Cluster, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the worker's share alone."""
    cluster.topics = {"bank.transactions": Source("a", 4)}
    sources = sources_of(cluster, telemetry, IDS)
    await sources.watch()
    assert sources.missing() == "bank.labels"
    assert "topic bank.labels is not there" in caplog.text
    unread = sources.unread(Share(1, 2), {("bank.transactions", 1)})
    assert unread == [("bank.transactions", 3)]


async def test_hole_is_explained_by_where_the_partition_begins(
    cluster: Cluster, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleted records count; marks of transactions and chunks that come twice do not."""
    sources = sources_of(cluster, telemetry, IDS)
    sources.take_up({PAYMENTS: 10}, {})
    begins = 0

    async def begin(place: tuple[str, int]) -> int:
        assert place == PAYMENTS
        return begins

    async def follow(first: int, last: int) -> float:
        sources.follow(PAYMENTS, (first, last), begin)
        await asyncio.gather(*sources._asking)
        return counted(telemetry, "records_missed_total", "transactions")

    assert await follow(10, 19) == 0
    assert await follow(21, 29) == 0  # 20 is a mark
    assert await follow(25, 29) == 0  # once more
    begins = 40
    assert await follow(41, 49) == 10
    assert await follow(50, 59) == 10
    assert "10 records from offset 30 on were deleted before they were read" in caplog.text


async def test_hole_that_nobody_explains_is_told(
    cluster: Cluster, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """By its offsets."""
    sources = sources_of(cluster, telemetry, IDS)
    sources.take_up({LABELS: 10}, {})

    async def begin(place: tuple[str, int]) -> int:
        raise TimeoutError

    sources.follow(LABELS, (15, 20), begin)
    await asyncio.gather(*sources._asking)
    assert "topic bank.labels/0: offsets 10 to 14" in caplog.text
    assert counted(telemetry, "records_missed_total", "labels") == 0


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 40))
def test_missed_records_are_those_that_the_broker_no_longer_has(
    marks: list[bool], begins: int
) -> None:
    """A partition of marks and records, deleted up to some offset: each hole counts what was there.

    Marks that were deleted too cannot be told from records, and count.
    """
    held = [i for i, is_mark in enumerate(marks) if not is_mark and i >= begins]
    found, expected = 0, 0
    for got in held:
        found += n_missed(expected, got, begins)
        expected = got + 1
    assert found == (min(begins, held[0]) if held else 0)


async def test_a_stop_that_comes_with_the_answer_is_heard(
    cluster: Cluster, telemetry: Telemetry
) -> None:
    """In one turn of the loop; else who looks for ever would never end."""
    sources = sources_of(cluster, telemetry, IDS)
    looking = asyncio.create_task(sources.look())
    while sources._looking is None:  # noqa: ASYNC110  # begun by the first step of `look`
        await asyncio.sleep(0)
    answered = asyncio.wrap_future(sources._looking)
    answered.add_done_callback(lambda _: looking.cancel())
    with pytest.raises(asyncio.CancelledError):
        await looking
