"""The command line: every command explains itself, works on small files, and errs in one line."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deploy import cli, cli_common, commands
from deploy.replay import Sent
from models.errors import UnavailableError
from models.mapping import load_mapping
from tests.unit.deploy.small_backtest import MAPPING
from tests.unit.deploy.test_scoreboard import alert


def leaves(command, words=()):
    """Yield each command's words and the command, groups included."""
    yield words, command
    for name, one in getattr(command, "commands", {}).items():
        yield from leaves(one, (*words, name))


COMMANDS = dict(leaves(typer.main.get_command(cli.app)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Run in a folder of its own, in which nothing is kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_common.console, "_width", 200, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def invoke(*words):
    """Run a command line; an error that is not ours fails the test."""
    return CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


def refused(*words):
    """Return the one line with which a command line is refused, by exit code 2."""
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    (line,) = [one for one in result.output.splitlines() if one.strip()]
    start, _, message = line.partition("error: ")
    assert start == ""
    return message


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command_reads(words):
    """It exits 0 and names each option and argument, with words for every one."""
    result = invoke(*words, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    command = COMMANDS[words]
    assert command.help
    for parameter in command.params:
        assert parameter.help, parameter.name
        for option in parameter.opts:
            assert option.startswith("-") == (parameter.param_type_name == "option")
            assert option in result.output or option.upper() in result.output


def test_commands_are_those_of_the_manual():
    """None is lost when the file is cut differently."""
    found = {" ".join(words) for words, one in COMMANDS.items() if not hasattr(one, "commands")}
    assert found >= {
        "demo", "demo-stop", "simulate", "foreign", "replay", "backtest", "attack", "label",
        "version", "kafka up",
        "kafka down", "topics create", "bank init", "bank run", "bank host", "amalgamator init",
        "amalgamator admit", "amalgamator run", "alerts tail",
        "state show", "state verify", "state rebuild",
    }  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("backtest",), ("amalgamator", "init", "eu"), ("simulate", "x.csv", "--no"),
     ("simulate", "x.csv", "--days", "many")],
)  # fmt: skip
def test_words_that_are_no_command_line_exit_2(words):
    """With the usage, and nothing is done."""
    result = invoke(*words)
    assert result.exit_code == 2
    assert "Usage:" in result.output
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("simulate", "x.txt"), "x.txt: expected a name that ends with .csv or .parquet"),
        (("simulate", "x.csv", "--days", "0"), "n_days"),
        (("simulate", "absent/x.csv", "--days", "1", "--customers", "9"), "absent/x.csv"),
        (("simulate", "absent.toml"), "absent.toml"),
        (("simulate", "absent.toml", "--bank", "6"), "--bank: expected 1 to 5, got 6"),
        (("backtest", "x.csv", "--mapping", "absent.toml"), "absent.toml"),
        (("backtest", "absent.csv", "--mapping", MAPPING), "absent.csv"),
        (("backtest", "x.csv", "--mapping", MAPPING, "--scored-from", "soon"), "'soon'"),
        (("backtest", "x.csv", "--mapping", MAPPING, "--alert-rate", "1"), "alert rate"),
        (("backtest", "x.csv", "--mapping", MAPPING, "--label-delay-d", "0"), "label delay"),
        (("backtest", "x.csv", "--mapping", MAPPING, "--cadence-s", "60"), "cadence"),
        (("backtest", "x.csv", "--mapping", MAPPING, "--family", "lightgmb"), "--family: family: "),
        (
            ("backtest", "x.csv", "--mapping", MAPPING, *("--family", "lightgbm") * 2),
            "--family: expected one family of a kind, got several of lightgbm",
        ),
        (("foreign", "x.csv"), "x.csv: expected a name that ends with .parquet"),
        (("foreign", "absent/x.parquet", "--rows", "900"), "absent/x.parquet"),
        (("foreign", "x.parquet", "--banks", "1"), "n_banks: expected 2 to 99, got 1"),
        (("bank", "init", "My Bank"), "'My Bank'"),
        (("amalgamator", "admit", "absent.toml", "one", "00"), "absent.toml"),
        (("amalgamator", "admit", "absent.toml", "one", "00", "--workers", "2"), "absent.toml"),
        (("topics", "create", "--bank", "a", "--workers", "5"), "workers: expected at most 4"),
        (("topics", "create", "--bank", "a", "--workers", "0"), "workers: expected 1 or more"),
        (
            ("topics", "create", "--bank", "a", "--workers", "2", "--worker", "b"),
            "--worker: expected none beside --workers",
        ),
        (("label", "absent.toml", "T", "A"), "absent.toml"),
        (("label", "absent.toml", "T", "A", "--at", "nonsense"), "--at: expected a time"),
        (("simulate", "x.csv", "--seed", "-1"), "--seed: expected 0 or more"),
        (("backtest", "[/x].csv", "--mapping", "absent[b].toml"), "absent[b].toml"),
        (("amalgamator", "init", "Big Name", "--entity-kind", "t"), "'Big Name'"),
        (("amalgamator", "init", "eu", "--entity-kind", 'te"r'), "--entity-kind"),
        (
            ("amalgamator", "init", "eu", "--entity-kind", "t", "--attribute", "age"),
            "ASCII letters",
        ),
        (
            ("amalgamator", "init", "eu", "--entity-kind", "t", "--attribute", "age=whole"),
            "attributes.age: expected 'number' or 'text'",
        ),
        (
            ("amalgamator", "init", "eu", "--entity-kind", "t", "--attributes", "absent.toml"),
            "absent.toml",
        ),
        (("amalgamator", "admit", "absent.toml", "Bad Name", "00"), "'Bad Name'"),
        (("label", "absent.toml", "T", "A", "--at", "2026-01-31T12:00:00"), "--at"),
        (("attack", "payments.csv"), "expected --mapping"),
        (("attack", "--attack", "bribe"), "got bribe"),
        (("alerts", "tail", "north"), "amalgam kafka up"),
        (("alerts", "tail", "North", "--bootstrap", "broker:1"), "'North'"),
    ],
)
def test_our_own_errors_are_one_line_and_exit_code_2(words, said):
    """It names what was wrong; no trace of the program is shown."""
    message = refused(*words)
    assert said in message
    assert "Traceback" not in message


def test_bank_and_amalgamator_are_made_from_the_command_line(folder):
    """Files lie in a folder of the name; the key that is printed is the one to admit."""
    made = invoke("bank", "init", "meridian", "--into", "members")
    assert made.exit_code == 0
    (key,) = [line.rpartition(" ")[2] for line in made.output.splitlines() if "public key" in line]
    assert load_mapping(folder / "members" / "meridian" / "mapping.toml").bank == "meridian"
    kinds = ("--entity-kind", "terminal", "--entity-kind", "device")
    assert invoke("amalgamator", "init", "eu", *kinds).exit_code == 0
    registry = folder / "eu" / "registry.toml"
    admitted = invoke("amalgamator", "admit", registry, "meridian", key)
    assert (admitted.exit_code, admitted.output) == (0, "meridian is a member\n")
    text = registry.read_text(encoding="utf-8")
    assert key in text
    assert 'entity_kinds = ["terminal", "device"]' in text
    assert "expected a new or empty folder" in refused("amalgamator", "init", "eu", *kinds)
    assert "member already" in refused("amalgamator", "admit", registry, "meridian", key)
    assert "--workers" in refused("amalgamator", "admit", registry, "two", key, "--workers", "0")
    assert invoke("amalgamator", "admit", registry, "two", key, "--workers", "2").exit_code == 0
    assert 'workers = ["0", "1"]' in registry.read_text(encoding="utf-8")


def test_attributes_are_named_by_options_and_by_a_file(folder):
    """Registry and consortium.toml hold the same ones, by name."""
    (folder / "more.toml").write_text('[attributes]\n"b.2" = "text"\n', encoding="utf-8")
    options = ("--attribute", "z=number", "--attribute", "a=text", "--attributes", "more.toml")
    assert invoke("amalgamator", "init", "eu", "--entity-kind", "ip", *options).exit_code == 0
    table = '\n[attributes]\n"a" = "text"\n"b.2" = "text"\n"z" = "number"\n'
    for name in ("registry.toml", "consortium.toml"):
        assert (folder / "eu" / name).read_text(encoding="utf-8").endswith(table)
    again = ("--attribute", "b.2=text", "--attributes", "more.toml")
    message = refused("amalgamator", "init", "us", "--entity-kind", "ip", *again)
    assert "expected each name once, got 'b.2' again" in message
    assert not (folder / "us").exists()


def test_simulate_and_backtest_a_small_file(folder, monkeypatch):
    """Really: figures on the console, figures as a file, and a report with every bank."""
    made = invoke("simulate", "days.csv", "--days", "3", "--customers", "500", "--seed", "1")
    n = len((folder / "days.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert (made.exit_code, made.output.split()[0]) == (0, f"{n:,}")
    words = ["backtest", "days.csv", "--mapping", str(MAPPING), "--label-delay-d", "1"]
    family = "lightgbm {min_n = 500, min_frauds = 1, n_trees = 3}"
    words += [
        "--family",
        family,
        "--cadence-s",
        "86400",
        "--results",
        "out/figures.json",
        "--report",
        "out/report.html",
    ]
    monkeypatch.setattr(sys, "argv", ["/opt/bin/amalgam", *words])
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    kept = json.loads((folder / "out" / "figures.json").read_text(encoding="utf-8"))
    assert kept["figures"]["n_transactions"] == n
    assert f"n_transactions                     {n:.4g}\n" in result.output
    html = (folder / "out" / "report.html").read_text(encoding="utf-8")
    for bank in (f"bank-{i}" for i in range(1, 6)):
        assert f"<td>{bank}</td>" in html
        assert bank in result.output
    assert "lightgbm" in html
    shown = shlex.join(["amalgam", *words]).replace(str(MAPPING), MAPPING.name)
    assert kept["command"] == shown
    assert f"--family '{family}'" in shown


def test_command_in_the_results_names_no_folder_of_elsewhere(monkeypatch):
    """Of an absolute path and of one that leads out the name alone is kept."""
    words = ["backtest", "/home/somebody/a.csv", "--mapping", "../secret/b.toml", "in/c.json"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/amalgam", *words])
    assert cli_common.command_line() == "amalgam backtest a.csv --mapping b.toml in/c.json"
    monkeypatch.setattr(sys, "argv", ["amalgam", "demo", "--results=/home/me/x.json", "--seed=2"])
    assert cli_common.command_line() == "amalgam demo --results=x.json --seed=2"


def test_services_replace_the_process(monkeypatch):
    """So that they get every signal themselves; settings are handed on."""
    started = []
    monkeypatch.setattr(commands, "become", lambda module, words: started.append((module, words)))
    for words in (("bank", "run", "b.toml"), ("amalgamator", "run"), ("amalgamator", "run", "a")):
        assert invoke(*words).exit_code == 0
    assert started == [
        ("stream", ["--settings", "b.toml"]), ("amalgamator", []),
        ("amalgamator", ["--settings", "a"]),
    ]  # fmt: skip


def test_become_runs_a_module_of_this_python(monkeypatch):
    """With its arguments as they are."""
    calls = []
    monkeypatch.setattr(commands.os, "execv", lambda *words: calls.append(words))
    commands.become("stream", ["--settings", "my bank.toml"])
    words = [sys.executable, "-m", "stream", "--settings", "my bank.toml"]
    assert calls == [(sys.executable, words)]


def test_alerts_of_a_bank_are_told_line_by_line(monkeypatch):
    """With the options handed on; the address is the one that was given."""
    asked = {}

    def tail(bootstrap, bank, **options):
        asked.update(options, bootstrap=bootstrap, bank=bank)
        yield commands.alert_text(alert(1, reasons=[(1.5, "odd hour")]))

    monkeypatch.setattr(commands, "tail_alerts", tail)
    words = ("alerts", "tail", "north", "--bootstrap", "broker:1", "--seconds", "5")
    result = invoke(*words, "--no-from-start")
    assert result.exit_code == 0
    assert "transaction P1" in result.output
    assert "odd hour" in result.output
    assert (asked["bootstrap"], asked["bank"], asked["seconds"]) == ("broker:1", "north", 5.0)
    assert asked["from_start"] is False


def test_verdict_and_streams_say_what_was_sent(monkeypatch):
    """One line each, with the counts or the verdict."""
    sent = Sent(transactions=1_200, labels=7)
    monkeypatch.setattr(commands, "simulate_stream", lambda _: sent)
    monkeypatch.setattr(commands, "replay_file", lambda _: sent)
    verdicts = []
    monkeypatch.setattr(
        commands, "send_label", lambda *_, is_fraud, at: verdicts.append((is_fraud, at))
    )
    line = "1,200 transactions and 7 labels sent\n"
    assert invoke("simulate", "bank.toml").output == line
    replay = ("replay", "x.csv", "--settings", "bank.toml", "--mapping", MAPPING)
    assert invoke(*replay).output == line
    assert invoke("label", "bank.toml", "T", "A").output == "sent: fraud\n"
    assert invoke("label", "bank.toml", "T", "A", "--legit").output == "sent: legitimate\n"
    assert [is_fraud for is_fraud, _ in verdicts] == [True, False]
    assert all(at.tzinfo is not None for _, at in verdicts)


def test_topics_that_are_created_are_those_of_the_plans(monkeypatch):
    """A bank's with its partitions, the consortium's with its members'."""
    asked = []

    def create(bootstrap, plans):
        asked.append((bootstrap, {plan.name: plan.partitions for plan in plans}))
        return ["north.labels"]

    monkeypatch.setattr(cli, "create_topics", create)
    words = ("--bank", "north", "--partitions", "3", "--consortium", "eu", "--member", "north")
    result = invoke("topics", "create", "--bootstrap", "broker:1", *words)
    assert (result.exit_code, result.output) == (0, "created north.labels\n")
    ((bootstrap, plans),) = asked
    assert bootstrap == "broker:1"
    assert plans["north.transactions"] == plans["north.labels"] == 3
    assert {"eu.releases", "eu.summaries.north"} <= set(plans)


def test_stopping_what_does_not_run_is_no_error():
    """It is said, and the exit code is 0."""
    for words, said in ((("kafka", "down"), "no broker was running"),
                        (("demo-stop",), "nothing was running")):  # fmt: skip
        result = invoke(*words)
        assert (result.exit_code, result.output) == (0, said + "\n")


def test_broker_that_cannot_start_is_one_line(monkeypatch):
    """Exit code 2, as of any error of ours."""

    def fail(*_):
        raise UnavailableError("no Java 17 found")

    monkeypatch.setattr(commands, "kafka_up", fail)
    assert refused("kafka", "up") == "no Java 17 found"


def test_version_is_that_of_the_project():
    """As its metadata say."""
    text = (Path(cli.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{invoke("version").output.strip()}"' in text
