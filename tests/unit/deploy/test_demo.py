"""The demonstration runs in one process where no broker can be had, and says so."""

import functools
import io

import pytest
from rich.console import Console

from deploy import demo
from deploy.demo import Demo, DemoConfig, DemoResult, bank_stream, stop_demo
from deploy.scenarios import FraudRates
from deploy.scoreboard import Scoreboard
from deploy.simulator import SimulationConfig
from models.errors import UnavailableError
from models.mapping import load_mapping
from stream.settings import pipeline_config, read_membership, read_settings
from tests.unit.deploy.test_scoreboard import filled

BANKS = ["alpenkasse", "costabanco", "nordbank", "polkabank", "rhinepay"]
DAYS = 10
RISKY = functools.partial(
    SimulationConfig,
    n_terminals=100,
    rates=FraudRates(terminals=1.0, customers=4.0, card_testing=2.0),
)


def config(folder, **changes):
    """Return a tiny demonstration."""
    values = {
        "directory": folder / "demo",
        "kafka_libs": folder / "libs",
        "days": DAYS,
        "customers": 600,
        "label_delay_d": 2,
    }
    return DemoConfig(**(values | changes))


@pytest.fixture(scope="module", autouse=True)
def more_frauds():
    """Let there be enough frauds for a scorecard within days."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SimulationConfig", RISKY)
        yield


def quiet():
    """Return a console that prints to memory, without a terminal."""
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def ran(more_frauds, tmp_path_factory):
    """Return a demonstration without a broker, its result, and what it said."""
    console = quiet()
    one = Demo(config(tmp_path_factory.mktemp("demo")), console)

    def refuse(*_):
        raise UnavailableError("no Java here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "resolve", refuse)
        result = one.run()
    return one, result, console.file.getvalue()


def test_missing_broker_is_said_in_one_line_with_its_reason(ran):
    """After the line that it was tried."""
    _, result, said = ran
    assert said.splitlines() == [
        "starting Apache Kafka ...",
        "No Kafka (no Java here); running in one process instead.",
    ]
    assert not result.is_on_kafka
    assert result.first_release_s is None


def test_every_payment_of_every_bank_is_answered_once(ran):
    """And every fraud of the simulation is known to the scoreboard alone."""
    one, result, _ = ran
    assert list(result.board.banks) == BANKS
    for bank, parts in one._parts.items():
        board = result.board.banks[bank]
        assert board.n_scored == sum(len(part.batch) for part in parts)
        assert len(board.frauds) == sum(int(part.is_fraud.sum()) for part in parts)


def test_a_release_comes_back_each_day(ran):
    """The last one has scored at every bank."""
    _, result, _ = ran
    assert result.board.n_releases == DAYS
    assert {board.release for board in result.board.banks.values()} == {DAYS}


def test_small_banks_alert_by_the_merged_scorecard(ran):
    """Below 3,000 known payments a bank has no scorecard of its own to compare with."""
    one, result, _ = ran
    known = {
        bank: sum(len(part.batch) for part in parts[: -one._config.label_delay_d])
        for bank, parts in one._parts.items()
    }
    small = [result.board.banks[bank] for bank in BANKS if known[bank] < 3_000]
    assert len(small) >= 2
    assert {board.n_compared for board in small} == {0}
    assert sum(board.n_alerts for board in small) > 0


def test_result_does_not_depend_on_the_keys(ran, tmp_path):
    """Keys and pseudonyms are drawn anew for each run; answers and alerts stay the same."""
    _, first, _ = ran
    again = Demo(config(tmp_path), quiet())._run_in_process()
    for bank in BANKS:
        mine, theirs = first.board.banks[bank], again.board.banks[bank]
        assert (mine.n_scored, mine.n_alerts) == (theirs.n_scored, theirs.n_alerts)

    def shown(result):
        return [(bank, one.transaction_id, one.y_score) for bank, one in result.board.latest]

    assert shown(first) == shown(again)


def test_files_of_the_run_are_those_of_a_replay(ran):
    """Each bank has its own settings, in lockstep by event time."""
    one, _, _ = ran
    for bank in BANKS:
        settings = read_settings(one._config.directory / bank / "bank.toml", {})
        assert (settings.member, settings.mode) == (bank, "replay")
        assert settings.label_horizon_s == 2 * 86_400


def test_no_two_banks_run_the_same_models(ran):
    """Each list is made as a worker makes it; torch is not needed."""
    one, _, _ = ran
    found = {}
    for bank in BANKS:
        settings = read_settings(one._config.directory / bank / "bank.toml", {})
        found[bank] = settings.families
        mapping = load_mapping(settings.mapping_file)
        config = pipeline_config(settings, read_membership(settings), mapping)
        assert config.families == settings.families
    assert len(set(found.values())) == len(BANKS)
    assert () in found.values()
    assert not any("mlp" in spec for specs in found.values() for spec in specs)


def test_what_lay_there_before_is_gone(tmp_path, monkeypatch):
    """A run never mixes with an earlier one; nothing else is touched."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "old.txt").write_text("old", encoding="utf-8")
    (tmp_path / "beside.txt").write_text("kept", encoding="utf-8")
    one = Demo(config(tmp_path, bootstrap="broker:1", days=1, customers=20), quiet())
    monkeypatch.setattr(one, "_run_on_kafka", lambda bootstrap: bootstrap)
    assert one.run() == "broker:1"
    assert list((tmp_path / "demo").iterdir()) == []
    assert (tmp_path / "beside.txt").exists()


def test_figures_leave_out_what_was_not_measured():
    """Neither a precision without a fraud nor the first release of a run without a broker."""
    board = Scoreboard({"north": frozenset({"P1"})})
    bare = DemoResult(board=board, first_release_s=None, services_s=3.5, is_on_kafka=False)
    assert bare.figures() == {"demo_seconds": 3.5, "n_transactions": 0.0, "n_releases": 0.0}


def test_figures_are_those_of_the_board():
    """With both means and the first release where they are known."""
    board, *_ = filled()
    board.n_releases = 4
    alone, together = board.macro()
    result = DemoResult(board=board, first_release_s=7.25, services_s=9.0, is_on_kafka=True)
    assert result.figures() == {
        "first_release_s": 7.25,
        "demo_seconds": 9.0,
        "n_transactions": 200.0,
        "n_releases": 4.0,
        "local_macro_ap": alone,
        "amalgamated_macro_ap": together,
    }


def test_result_is_shown_with_table_alerts_and_where_it_ran(ran, monkeypatch):
    """Every bank has its row."""
    one, result, _ = ran
    console = quiet()
    monkeypatch.setattr(one, "_console", console)
    one.show_result(result)
    said = console.file.getvalue()
    for bank in BANKS:
        assert bank in said
    assert f"{DAYS} releases came back" in said
    assert "in all on one process" in said


def test_stream_of_several_days_is_one_batch_with_delayed_labels(ran):
    """One label for each fraud, at its time and the delay."""
    one, _, _ = ran
    parts = one._parts["nordbank"]
    stream = bank_stream(parts, 1_000)
    assert len(stream.transactions) == sum(len(part.batch) for part in parts)
    expected = [
        (part.batch.transaction_id[i], int(part.batch.event_time_ms[i]) + 1_000)
        for part in parts
        for i in part.is_fraud.nonzero()[0]
    ]
    assert [(one.transaction_id, one.labelled_at_ms) for one in stream.labels] == expected
    assert expected


def test_nothing_kept_is_nothing_to_stop(tmp_path):
    """Neither services nor a broker."""
    assert stop_demo(tmp_path / "demo") == []
