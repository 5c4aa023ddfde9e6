"""A back-test is repeatable, looks at no outcome before it is known, and refuses wrong settings."""

import multiprocessing

import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy import backtest
from deploy.backtest import run_backtest
from deploy.splits import parse_split
from models.errors import AmalgamError, InvalidInputError
from stream.experts import LearningPolicy
from tests.unit.deploy.small_backtest import (
    BANKS,
    DAY_MS,
    DELAY_D,
    SYSTEMS,
    InlineContext,
    small_config,
    with_column,
    write_small,
)

PRIOR = LearningPolicy().prior_logit


def nothing(_):
    """Show no progress."""


def run_inline(config, on_progress=nothing):
    """Run a back-test without its second process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", InlineContext)
        return run_backtest(config, on_progress)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Return the file that the tests share."""
    return write_small(tmp_path_factory.mktemp("backtest") / "small.parquet")


@pytest.fixture(scope="module")
def base(file):
    """Return its result and the progress that was shown."""
    shown = []
    return run_inline(small_config(file), shown.append), shown


@pytest.fixture
def rows(file):
    """Return the file's columns."""
    table = pq.read_table(file)
    return {name: table[name].to_numpy() for name in table.column_names}


def test_same_file_gives_the_same_result_to_the_bit(file, base):
    """Scores, alerts, releases and blends; also where pooled data run in a process of their own."""
    first, again = base[0], run_backtest(small_config(file), nothing)
    for name in (*SYSTEMS, "alert", "bank", "evaluated", "account", "event_ms"):
        assert getattr(again, name).tobytes() == getattr(first, name).tobytes(), name
    for name in ("release_id", "n_releases", "releases", "blends", "reasons", "refused", "banks"):
        assert getattr(again, name) == getattr(first, name), name


@pytest.mark.slow
def test_flipped_labels_change_no_score_before_they_are_known(file, base, rows, tmp_path):
    """From day 6 on all outcomes are reversed: nothing changes before day 6 + delay, but then."""
    cut_ms = int(rows["event_time_ms"].min() // DAY_MS + 6) * DAY_MS
    late = rows["event_time_ms"] >= cut_ms
    flipped = np.where(late, 1 - rows["fraud"], rows["fraud"])
    other = run_inline(
        small_config(with_column(file, "fraud", flipped, tmp_path / "flipped.parquet"))
    )
    first = base[0]
    known_ms = cut_ms + DELAY_D * DAY_MS
    before = first.event_ms < known_ms
    next_day = ~before & (first.event_ms < known_ms + DAY_MS)
    for name in (*SYSTEMS, "alert"):
        mine, theirs = getattr(first, name), getattr(other, name)
        assert mine[before].tobytes() == theirs[before].tobytes(), name
        assert not np.array_equal(mine[next_day], theirs[next_day]), name
    assert not np.array_equal(first.is_fraud, other.is_fraud)


@pytest.mark.slow
def test_split_and_column_that_say_the_same_give_the_same(tmp_path):
    """Accounts that a split gives to banks score as where a column names these banks."""
    text = "5:0.6,0.4"
    file = write_small(tmp_path / "small.parquet", n_days=8)
    accounts = pq.read_table(file)["account_id"].to_pylist()
    named = [BANKS[i] for i in parse_split(text).banks(accounts)]
    assert named != pq.read_table(file)["bank"].to_pylist()
    by_split = run_inline(small_config(file, split=text))
    by_column = run_inline(small_config(with_column(file, "bank", named, tmp_path / "b.parquet")))
    assert by_split.banks == by_column.banks == BANKS
    for name in (*SYSTEMS, "bank", "alert"):
        assert np.array_equal(getattr(by_split, name), getattr(by_column, name)), name
    for name in ("merged", "amalgamated", "pooled"):
        assert (getattr(by_split, name) != PRIOR).any(), name


def test_alone_is_pooled_where_there_is_one_bank(tmp_path):
    """Its own scorecard has all data: the same scores to the bit, and merged ones beside them."""
    file = write_small(tmp_path / "small.parquet", n_days=8, n_customers=500)
    found = run_inline(small_config(file, split="1:1"))
    assert found.banks == ("bank-1",)
    assert (found.local != PRIOR).any()
    assert found.local.tobytes() == found.pooled.tobytes()
    assert found.merged.tobytes() != found.local.tobytes()


def test_rows_are_those_of_the_file(base, rows):
    """Bank, time, amount, account and outcome stand beside each score."""
    found = base[0]
    assert [found.banks[i] for i in found.bank] == rows["bank"].tolist()
    assert np.array_equal(found.event_ms, rows["event_time_ms"])
    assert np.array_equal(found.is_fraud, rows["fraud"] == 1)
    assert found.amount == pytest.approx(rows["amount"].astype(float), abs=0.005)
    pairs = set(zip(found.account.tolist(), rows["account_id"].tolist(), strict=True))
    assert len(pairs) == len(set(rows["account_id"].tolist())) == len(set(found.account.tolist()))
    assert found.evaluated.all()
    assert found.refused.total() == 0


def test_nothing_is_known_before_the_delay_and_merging_knows_first(base):
    """Until the first outcomes all score the prior; the merged scorecard comes before any own."""
    found = base[0]
    first_known = (found.event_ms.min() // DAY_MS + DELAY_D) * DAY_MS
    since = {}
    for name in SYSTEMS:
        scores = getattr(found, name)
        assert (scores[found.event_ms < first_known] == PRIOR).all(), name
        since[name] = found.event_ms[scores != PRIOR].min()
    assert since["merged"] <= since["local"]
    assert found.alert.any()
    assert not found.alert[found.event_ms < first_known].any()


def test_scores_find_frauds(base):
    """Frauds score above the rest by more than five standard errors of a ranking by chance."""
    found = base[0]
    for name in SYSTEMS:
        scores = getattr(found, name)
        known = scores != PRIOR
        fraud, legit = scores[known & found.is_fraud], scores[known & ~found.is_fraud]
        n, m = len(fraud), len(legit)
        share = (fraud[:, None] > legit[None, :]).mean()
        assert share > 0.5 + 5 * np.sqrt((n + m + 1) / (12 * n * m)), name


def test_notes_count_releases_bases_and_blends(base):
    """A release a day, each basis once and in order, a blend a bank and day that sums to 1."""
    found = base[0]
    days = np.unique(found.event_ms // DAY_MS)
    assert found.n_releases == len(days)
    assert [note.basis for note in found.releases] == list(range(1, len(found.releases) + 1))
    assert all(note.since_ms % DAY_MS == 0 and note.n_weights > 0 for note in found.releases)
    assert [(note.day_ms, note.bank) for note in found.blends] == [
        (day * DAY_MS, bank) for day in days.tolist() for bank in range(2)
    ]
    assert len(found.release_id) == 32


def test_progress_rises_to_one(base):
    """It is a share of the rows."""
    shown = base[1]
    assert shown == sorted(shown)
    assert all(0.0 < part <= 1.0 for part in shown)
    assert shown[-1] == 1.0


def test_days_evaluated_include_both_ends(file, rows):
    """From the third to the fourth day of the file."""
    day = rows["event_time_ms"] // DAY_MS
    first = int(day.min()) + 2
    config = small_config(file, scored_from=first, scored_to=first + 1)
    data = backtest._read(config)
    found = backtest._empty_result(config, data)
    assert np.array_equal(found.evaluated, (day == first) | (day == first + 1))


def test_dates_without_a_row_are_refused(file, rows):
    """The message says which days were asked for and which the file has."""
    days = rows["event_time_ms"] // DAY_MS
    after = int(days.max()) + 1
    with pytest.raises(InvalidInputError, match="rows to evaluate") as caught:
        run_inline(small_config(file, scored_from=after, scored_to=after + 3))
    for day in (after, after + 3, int(days.min()), int(days.max())):
        assert str(np.datetime64(day, "D")) in str(caught.value)


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("label delay", {"label_delay_d": 0.0}),
        ("label delay", {"label_delay_d": -1.0}),
        ("label delay", {"label_delay_d": float("nan")}),
        ("label delay", {"label_delay_d": float("inf")}),
        ("alert rate", {"alert_rate": 0.0}),
        ("alert rate", {"alert_rate": 1.0}),
        ("alert rate", {"alert_rate": float("nan")}),
        ("cadence", {"cadence_s": 1_800.0, "tick_s": 3_600.0}),
        ("cadence", {"cadence_s": float("nan")}),
        ("cadence", {"cadence_s": float("inf")}),
        ("cadence", {"tick_s": 0.0}),
    ],
)
def test_wrong_settings_are_refused(tmp_path, word, changes):
    """Before anything is read; the message names the setting."""
    with pytest.raises(InvalidInputError, match=word):
        small_config(tmp_path / "none.csv", **changes)


def test_cadence_between_ticks_is_refused(tmp_path):
    """An hour and a half is no multiple of an hour."""
    file = write_small(tmp_path / "tiny.parquet", n_days=1, n_customers=40)
    with pytest.raises(InvalidInputError, match="multiple"):
        run_inline(small_config(file, cadence_s=5_400.0, tick_s=3_600.0))


def test_death_of_the_second_process_is_said_with_its_code(tmp_path, monkeypatch):
    """A run on pooled data that was killed leaves no result that looks whole."""

    class Killed(InlineContext):
        class Process(InlineContext.Process):
            exitcode = -9

            def start(self):
                """Write nothing."""

    monkeypatch.setattr(multiprocessing, "get_context", Killed)
    file = write_small(tmp_path / "tiny.parquet", n_days=1, n_customers=40)
    with pytest.raises(AmalgamError, match="code -9"):
        run_backtest(small_config(file), nothing)


def test_rows_that_pooled_data_refuse_are_not_evaluated(tmp_path, monkeypatch):
    """All systems are compared on the same rows: those without a pooled score are left out."""

    def some(config, path):
        n = len(backtest._read(config).batch)
        np.save(path, np.where(np.arange(n) % 5 == 0, np.nan, -1.0))

    monkeypatch.setattr(backtest, "pooled_scores", some)
    file = write_small(tmp_path / "tiny.parquet", n_days=1, n_customers=40)
    found = run_inline(small_config(file))
    is_refused = np.arange(len(found.bank)) % 5 == 0
    assert np.array_equal(found.evaluated, ~is_refused)
    assert np.array_equal(found.pooled, np.where(is_refused, PRIOR, -1.0))
