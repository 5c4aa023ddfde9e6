"""The benchmark of scale: what workers of many accounts read, and what members' folds hold."""

import os
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from deploy.bench import __main__ as bench
from deploy.bench import fold_scale, scale
from deploy.bench.fold_scale import FoldSize, Ready, fold_anew, make_ready
from deploy.bench.own_process import in_own_process, with_peak_growth
from deploy.bench.pieces import make_workload
from deploy.bench.scale import AccountsConfig, Payments, measure_accounts
from deploy.demo import KINDS
from deploy.results import Results, write_results
from models.decoding import TransactionDecoder
from models.errors import InvalidInputError, UnavailableError
from models.features.accounts import ACCOUNT
from models.features.entities import ENTITY
from models.schema import ACCOUNT_FEATURES, ENTITY_FEATURES
from models.topics import BankTopics

N = 60
PER_DAY = 400
SMALL = AccountsConfig(customers=150, warm=80, timed=50, rounds=2, per_day=PER_DAY)
MEMBERS = 4
SIZE = FoldSize(plain_weights=80, cells=40, days=3, rows=1_500)


@pytest.fixture(scope="module")
def workload():
    """Return a small bank's worker after a month."""
    return make_workload(SMALL.customers)


@pytest.fixture(scope="module")
def ready() -> Ready:
    """Return an amalgamator that holds what a few members published."""
    return make_ready(MEMBERS, SIZE)


def decoded(workload, sizes: list[int]):
    """Return a batch of the bank's decoder for each of some calls."""
    payments = Payments(
        workload.mapping,
        BankTopics("bench").transactions,
        start_ms=1_772_323_200_000,  # a midnight
        n_accounts=N,
        per_day=PER_DAY,
    )
    decoder = TransactionDecoder(workload.mapping)
    found = [decoder.decode([record.value for record in payments.next(n)]) for n in sizes]
    assert not any(one.errors for one in found)
    assert payments.end_ms() == found[-1].batch.event_time_ms[-1]
    return [one.batch for one in found]


def test_every_account_pays_once_and_then_known_ones_alone(workload) -> None:
    """A chunk that holds the last new account goes on with known ones."""
    batches = decoded(workload, [40, 40, 40])
    accounts = [account for batch in batches for account in batch.account_id]
    everybody = {f"N{i:07d}" for i in range(N)}
    assert len(set(accounts[:N])) == N
    assert set(accounts) == everybody
    ids = [one for batch in batches for one in batch.transaction_id]
    assert len(set(ids)) == len(ids)


def test_so_many_payments_make_a_day(workload) -> None:
    """The first after so many is at the next midnight, and none goes back in time."""
    times = np.concatenate([batch.event_time_ms for batch in decoded(workload, [PER_DAY, 1])])
    assert times[-1] - times[0] == 86_400_000
    assert times[-2] - times[0] < 86_400_000
    assert bool((np.diff(times) >= 0).all())


def test_three_quarters_of_an_entity_an_account(workload) -> None:
    """Terminals, merchants and devices together; only some payments name a device."""
    (batch,) = decoded(workload, [5_000])
    named = {kind: set(batch.entities[kind]) - {None} for kind in KINDS}
    assert sum(map(len, named.values())) == N * 0.75
    assert None not in batch.entities["terminal"]
    assert None in batch.entities["device"]


def test_no_day_may_end_among_the_timed_payments() -> None:
    """The work of a day's end would be counted at some sizes of a round and not at others."""
    AccountsConfig(warm=80, timed=10, rounds=2, per_day=100)
    with pytest.raises(InvalidInputError, match="one day of 99 payments"):
        AccountsConfig(warm=80, timed=10, rounds=2, per_day=99)


def test_state_costs_the_bytes_of_its_rows(workload, monkeypatch) -> None:
    """An account its state and key, an entity state, name and kind, a payment its log's columns."""
    monkeypatch.setattr(scale, "make_workload", lambda _: workload)
    figures = measure_accounts("60", N, SMALL)
    assert figures.pop("us_per_tx_60_accounts") > 0.0
    n_own = len(KINDS) * len(ENTITY_FEATURES)
    features = 4 * (len(ACCOUNT_FEATURES) + n_own) + 4 * n_own
    numbers = 8 + 3 * 8 + 1 + 4 + 4 * len(KINDS)  # id, times, outcome, account, entities
    assert figures == {
        "state_bytes_per_account": ACCOUNT.itemsize + 8,
        "state_bytes_per_entity": ENTITY.itemsize + 16 + 1,
        "state_bytes_per_logged_tx": features + numbers + 2 * 4,  # two experts' scores
    }


def test_accounts_that_have_not_paid_are_told(workload, monkeypatch) -> None:
    """What would be timed then is not a worker that knows them all."""
    monkeypatch.setattr(scale, "make_workload", lambda _: workload)
    with pytest.raises(UnavailableError, match="accounts, got"):
        measure_accounts("many", SMALL.warm + 1, SMALL)


def test_a_release_holds_every_member_once(ready) -> None:
    """Each under the number of its last envelope: histograms, statistics, a day after another."""
    release = fold_anew(ready)
    assert [(s.member, s.seq) for s in release.sources] == [
        (f"member-{i + 1:04d}", 2 + SIZE.days) for i in range(MEMBERS)
    ]
    assert {(s.weight, s.statistics_weight) for s in release.sources} == {(1.0, 1.0)}
    assert sorted(release.evidence) == list(range(20_454, 20_454 + SIZE.days))
    held = ready.amalgamator.state.newest
    outcomes = sum(h.contribution.n for key, h in held.items() if key.part == "evidence")
    assert sum(float(cells.n.sum()) for cells in release.evidence.values()) == outcomes


def test_each_fold_begins_from_nothing_and_gives_the_same(ready) -> None:
    """The numbers of the release before are those of the founding one again."""
    first, again = fold_anew(ready), fold_anew(ready)
    assert first.release_id == again.release_id
    assert first.number == again.number == ready.founding.number + 1


def test_summaries_are_as_large_as_their_arrays(ready) -> None:
    """A curvature of w (w + 1) / 2 float32, a gradient of w float64, 50 bytes a cell."""
    held = ready.amalgamator.state.newest
    w = ready.founding.next_basis.n_weights
    sizes = {
        key.part: sum(array.nbytes for array in one.contribution.arrays.values())
        for key, one in held.items()
    }
    assert sizes["statistics"] == 4 * w * (w + 1) // 2 + 8 * w
    cells = [one.contribution.arrays for key, one in held.items() if key.part == "evidence"]
    assert {sum(a.nbytes for a in one.values()) / len(one["n"]) for one in cells} == {50.0}
    bodies = sum(
        array.nbytes for one in held.values() for array in one.contribution.arrays.values()
    )
    n_envelopes = MEMBERS * (2 + SIZE.days)
    assert bodies < ready.summary_bytes < bodies + n_envelopes * 2_000  # headers and signatures


def test_a_summary_of_the_benchmark_is_about_a_megabyte() -> None:
    """The figures say so in their names."""
    assert make_ready(2).summary_bytes / 2 == pytest.approx(1e6, rel=0.15)


def test_a_refused_summary_ends_the_measurement(ready, monkeypatch) -> None:
    """Here the same envelope twice."""
    sent: list[bytes] = []
    receive = fold_scale._receive
    monkeypatch.setattr(fold_scale, "_receive", lambda a, raw: (sent.append(raw), receive(a, raw)))
    made = make_ready(2, SIZE)
    with pytest.raises(UnavailableError, match="duplicate"):
        receive(made.amalgamator, sent[-1])


def test_a_doubted_member_ends_the_measurement(ready, monkeypatch) -> None:
    """Whoever does not count in full is not folded, so its time would be missing."""
    with monkeypatch.context() as patched:
        patched.setattr(fold_scale, "_BAD_EVERY", 1)  # an outcome in two is a fraud everywhere
        cells = fold_scale.MadeMember._cells
        patched.setattr(
            fold_scale.MadeMember,
            "_cells",
            lambda self, day: cells(self, day) if self.name[-1] != "1" else _hidden(self, day),
        )
        made = make_ready(MEMBERS, FoldSize(plain_weights=80, cells=600, days=6, rows=6_000))
    with pytest.raises(UnavailableError, match=r"doubted.*member-0001"):
        fold_anew(made)


def _hidden(member: fold_scale.MadeMember, day: int):
    """Return a day of a member on which none of its frauds is told."""
    n = len(member._names)
    return fold_scale.aggregate(
        fold_scale.EvidenceCells(
            name=member._names,
            kind=(np.arange(n) % len(KINDS)).astype(np.uint8),
            hour=np.full(n, 3, np.uint8),
            n=np.full(n, 4.0, np.float32),
            f=np.zeros(n, np.float32),
            first_fraud_ms=np.full(n, -1),
            last_fraud_ms=np.full(n, -1),
            last_legit_ms=np.full(n, day * 86_400_000),
        )
    )


def test_figures_of_a_fold_are_named_after_its_members(monkeypatch) -> None:
    """What is of one member has no number in its name."""
    figures = fold_scale.measure_fold(MEMBERS, 2, SIZE)
    assert set(figures) == {
        "fold_4_members_1mb_s",
        "fold_4_members_mb",
        "held_4_members_mb",
        "receive_member_ms",
        "summary_member_mb",
    }
    monkeypatch.setattr(
        fold_scale, "in_own_process", lambda _, n, rounds: {f"fold_{n}_members_1mb_s": n * 0.02}
    )
    assert fold_scale.measure_folds()["fold_500_vs_50"] == pytest.approx(10.0)


@pytest.mark.slow
def test_a_table_of_accounts_takes_at_least_its_rows() -> None:
    """In a process of its own; at most what half empty indices add."""
    figures = in_own_process(scale.measure_account_bytes, 100_000)
    assert ACCOUNT.itemsize + 8 < figures["bytes_per_account"] < 2 * ACCOUNT.itemsize
    figures = in_own_process(scale.measure_entity_bytes, 100_000)
    assert ENTITY.itemsize + 17 < figures["bytes_per_entity"] < 2 * ENTITY.itemsize


@pytest.mark.slow
def test_a_process_that_dies_is_no_figure() -> None:
    """It says how it ended."""
    with pytest.raises(UnavailableError, match="ended with code 7"):
        in_own_process(os._exit, 7)


def ones() -> dict[str, float]:
    total, grown = with_peak_growth(lambda: float(np.ones(8_000_000).sum()))
    return {"total": total, "grown": float(grown)}


def test_memory_that_is_let_go_again_counts_in_the_peak() -> None:
    """8 million numbers of 8 bytes; in a process of its own, as a tester's lets go of others'."""
    found = in_own_process(ones)
    assert found["total"] == 8_000_000
    assert found["grown"] == pytest.approx(64_000_000, rel=0.1)


def test_scale_stands_beside_the_other_speeds(tmp_path, monkeypatch) -> None:
    """Alone it leaves theirs as they were; with all they are measured together."""
    path = tmp_path / "speed.json"
    write_results(path, "python -m deploy.bench all", {"job": 80.0, "folds": 1.0}, now=_NOW)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "measure_scale", lambda: {"folds": 2.0})
    bench.run_scale()
    merged = msgspec.json.decode(path.read_bytes(), type=Results)
    assert merged.figures == {"job": 80.0, "folds": 2.0}
    assert merged.command == "python -m deploy.bench all && python -m deploy.bench scale"
    monkeypatch.setattr(bench, "run_pieces", dict)
    monkeypatch.setattr(bench, "run_on_kafka", lambda *_: {"job": 70.0})
    monkeypatch.setattr(bench, "draw_speed", lambda *_: None)
    bench.run_all(bench.BenchConfig())
    assert msgspec.json.decode(path.read_bytes(), type=Results).figures == {
        "job": 70.0,
        "folds": 2.0,
    }


_NOW = datetime(2026, 1, 31, tzinfo=UTC)
