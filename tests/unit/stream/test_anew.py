"""Beginning anew: what was published before a rebuild counts no second time."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from amalgamator.core import Amalgamator
from amalgamator.fold import BasisPolicy, FoldConfig
from amalgamator.gate import Accepted
from models.errors import StateError
from models.fragments import Splitter
from models.summary import ContributionKey
from stream.anew import COUNTED, Anew, Published, first_places, leave_marker, read_marker
from stream.app import BankApp
from stream.outbox import Outbox
from stream.pipeline import Pipeline
from stream.publishing import Publisher
from tests.consortium import (
    CONSORTIUM,
    NOW_MS,
    SCHEMA,
    closing,
    evidence,
    histograms,
    moments,
    registry_of,
    signer_of,
    statistics,
)
from tests.unit.stream.small_bank import Exchange as Epoch
from tests.unit.stream.small_bank import a_config, a_log, feed, payments

BATCH, LABELS = payments(0)
LOG = a_log(BATCH, LABELS)


class Consortium:
    """The amalgamator, a member's topic, and the member's outbox as its last state had it."""

    def __init__(self) -> None:
        config = FoldConfig(schema=SCHEMA, basis=BasisPolicy(min_n=300, min_frauds=10))
        self.amalgamator = Amalgamator(registry_of(["north"]), config)
        self.published = Published()
        self.splitter = Splitter()
        self.outbox = Outbox(CONSORTIUM, SCHEMA, signer_of("north"), lambda: NOW_MS)

    def send(self) -> None:
        """Deliver what is in the outbox; every summary must pass the gate."""
        for letter in self.outbox.letters:
            outcome = self.amalgamator.receive(letter.raw, NOW_MS)
            assert isinstance(outcome, Accepted), outcome
            for record in self.splitter.split(letter.raw, letter.key, letter.seq):
                self.published.add(record)
            self.outbox.confirm(letter)

    def lose(self) -> None:
        """Begin with a new outbox that goes on after the topic's last number."""
        seq = int(self.outbox.arrays()["seq"][0])
        self.outbox = Outbox(CONSORTIUM, SCHEMA, signer_of("north"), lambda: NOW_MS)
        self.outbox.begin_anew()
        self.outbox.take_up(seq)

    def counts(self) -> dict[ContributionKey, tuple[int, dict[str, bytes]]]:
        """Return what is held of every key that counts and is not empty."""
        return {
            key: (
                held.contribution.n,
                {k: v.tobytes() for k, v in held.contribution.arrays.items()},
            )
            for key, held in self.amalgamator.state.newest.items()
            if key.part in COUNTED and held.contribution.n
        }


def an_app(pipeline: Pipeline, one: Consortium) -> BankApp:
    """Return the shell without its connections, for what it does with them."""
    app = object.__new__(BankApp)
    app.settings = SimpleNamespace(worker="0", member="north")
    app.worker = SimpleNamespace(pipeline=pipeline)
    app.outbox = one.outbox
    app.exchange = SimpleNamespace(published=one.published)
    app._publisher = Publisher(pipeline, one.outbox, app.exchange, worker="0")
    app.telemetry = SimpleNamespace(summary_s=SimpleNamespace(observe=lambda _: None))

    async def checkpoint() -> None:
        """Store nothing."""

    app._checkpoint = checkpoint
    return app


def published(pipeline: Pipeline, log: list[object], one: Consortium) -> None:
    """Run a log; publish at each of its midnights as the shell does."""
    for event_log in _at_exchanges(log):
        feed(pipeline, BATCH, event_log)
        asyncio.run(an_app(pipeline, one)._publish(epoch=1))
        one.send()


def _at_exchanges(log: list[object]) -> list[list[object]]:
    """Cut a log at its exchanges, which are taken out: the shell does them."""
    out: list[list[object]] = [[]]
    for event in log:
        if isinstance(event, Epoch):
            out.append([])
        else:
            out[-1].append(event)
    return [piece for piece in out if piece]


def test_the_same_stream_read_anew_leaves_the_consortium_as_it_was() -> None:
    """Every sum to the bit, under higher numbers; nothing is refused as a replay or a fork."""
    one, other = Consortium(), Consortium()
    published(Pipeline(a_config()), LOG, one)
    published(Pipeline(a_config()), LOG, other)
    one.lose()
    again = Pipeline(a_config())
    for piece in _at_exchanges(LOG):
        feed(again, BATCH, piece)
    asyncio.run(an_app(again, one)._publish(epoch=1))
    one.send()
    assert one.counts() == other.counts()
    seqs = {held.seq for key, held in one.amalgamator.state.newest.items() if key.part in COUNTED}
    assert min(seqs) > int(other.outbox.arrays()["seq"][0])


def test_what_the_stream_no_longer_holds_is_taken_back() -> None:
    """Read from the middle on, the consortium holds what a bank that began there would publish."""
    one, fresh = Consortium(), Consortium()
    published(Pipeline(a_config()), LOG, one)
    before = one.counts()
    one.lose()
    rest = [event for event in LOG[len(LOG) // 2 :] if not isinstance(event, Epoch)]
    for consortium in (one, fresh):
        pipeline = Pipeline(a_config())
        feed(pipeline, BATCH, rest)
        asyncio.run(an_app(pipeline, consortium)._publish(epoch=1))
        consortium.send()
    assert fresh.counts()
    assert one.counts() == fresh.counts()
    gone = before.keys() - fresh.counts().keys()
    assert {key.part for key in gone} == {"evidence"}
    assert one.outbox.first_seq > 0


def test_releases_with_what_the_state_does_not_know_wait() -> None:
    """Until the first publication is in them; those without anything of ours do not."""
    one = Consortium()
    published(Pipeline(a_config()), LOG, one)
    old = one.amalgamator.close_epoch(1)
    assert old is not None
    one.lose()
    pipeline = Pipeline(a_config())
    app = an_app(pipeline, one)
    assert not app._knows_own(old)
    feed(pipeline, BATCH, _at_exchanges(LOG)[0] + _at_exchanges(LOG)[1])
    asyncio.run(app._publish(epoch=1))
    assert not app._knows_own(old)
    one.send()
    new = one.amalgamator.close_epoch(1)
    assert new is not None
    assert app._knows_own(new)
    app.settings = SimpleNamespace(worker="0", member="another")
    assert app._knows_own(old)


def test_every_part_that_counts_is_taken_back_by_what_the_gate_takes() -> None:
    """Of this worker alone, with nothing in it; opinions stay."""
    one = Consortium()
    first = [
        evidence("north", 20_000, seed=1), histograms("north", n=400, n_frauds=40, seed=2),
    ]  # fmt: skip
    one.outbox.put([*first, closing("north", 1)])
    one.send()
    release = one.amalgamator.close_epoch(1)
    assert release is not None
    basis = release.next_basis
    assert basis is not None
    second = [
        statistics("north", 700, basis=basis.number, n_weights=basis.n_weights, seed=3),
        moments("north", basis=basis, n=50, seed=4),
    ]
    one.outbox.put([*second, closing("north", 2)])
    one.send()
    assert {piece.key.part for piece in first + second} == set(COUNTED)
    one.lose()
    assert one.published.retractions("1", [], epoch=2) == []
    kept = [first[0].key]
    taken_back = one.published.retractions("0", kept, epoch=2)
    assert [piece.key.part for piece in taken_back] == ["histograms", "moments", "statistics"]
    one.outbox.put(taken_back)
    one.send()
    assert one.counts().keys() == set(kept)
    assert one.published.retractions("0", kept, epoch=2) == []


def test_partitions_are_read_from_their_first_record_once() -> None:
    """All that are assigned where the old state could not say which; else those that it said."""
    places = frozenset({("north.labels", 0), ("north.transactions", 1)})
    own, other = ("north.labels", 0), ("north.labels", 9)
    for anew, known, expected in (
        (Anew(None), {}, dict.fromkeys(places, 0)),
        (Anew(None), {own: 5}, {own: 5}),
        (Anew((own, other)), {own: 0, other: 0}, {own: 0}),  # 9 is not read from 0 later
        (Anew((own, other)), {own: 3, other: 4}, {own: 3, other: 4}),
        (Anew(()), {}, {}),
    ):
        assert first_places(anew, known, places) == expected


def test_a_marker_is_found_again_or_refused(tmp_path: Path) -> None:
    """What is no marker is not guessed at."""
    assert read_marker(tmp_path) is None
    for anew in (Anew(None), Anew((("a.transactions", 3),))):
        leave_marker(tmp_path, anew)
        assert read_marker(tmp_path) == anew
    (tmp_path / "anew.json").write_text("{}")
    with pytest.raises(StateError, match=r"anew\.json"):
        read_marker(tmp_path)
