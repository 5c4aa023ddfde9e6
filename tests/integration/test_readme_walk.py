"""The README's commands as a new user types them: founding, joining, an analyst's day, the demo.

The demonstration runs in a short form; everything it starts must be gone afterwards.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka_server import free_port
from models.records import Decision
from tests.integration.bank_process import eventually, read_topic
from tests.integration.conftest import LIBS

pytestmark = pytest.mark.integration

AMALGAM = str(Path(sys.executable).with_name("amalgam"))


def amalgam(*arguments: str, cwd: Path) -> str:
    """Run the command to its end and return what it printed."""
    done = subprocess.run(
        [AMALGAM, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, f"amalgam {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def background(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Give a list of processes that are stopped as a user stops them, with Ctrl-C."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for one in processes:
        one.send_signal(signal.SIGINT)
    for one in processes:
        assert one.wait(30) in (0, -signal.SIGINT)


def found(directory: Path, broker: str) -> dict[str, Path]:
    """Found a consortium of two banks; return each bank's settings file."""
    kinds = ("terminal", "merchant", "device")
    options = [word for kind in kinds for word in ("--entity-kind", kind)]
    amalgam("amalgamator", "init", "walkers", *options, cwd=directory)
    settings = {}
    for bank in ("northwalk", "southwalk"):
        said = amalgam("bank", "init", bank, cwd=directory)
        key = re.search(r"\b[0-9a-f]{64}\b", said)
        assert key is not None
        amalgam("amalgamator", "admit", "walkers/registry.toml", bank, key[0], cwd=directory)
        for name in ("consortium.toml", "pseudonyms.key"):
            (directory / bank / name).write_bytes((directory / "walkers" / name).read_bytes())
        (directory / bank / "pseudonyms.key").chmod(0o600)
        settings[bank] = directory / bank / "bank.toml"
    for path in (*settings.values(), directory / "walkers" / "amalgamator.toml"):
        text = path.read_text().replace("127.0.0.1:9092", broker)
        path.write_text(re.sub(r"health_port = \d+", f"health_port = {free_port()}", text))
    members = [word for bank in settings for word in ("--bank", bank, "--member", bank)]
    amalgam(
        *("topics", "create", "--bootstrap", broker, "--consortium", "walkers", *members),
        cwd=directory,
    )
    return settings


def test_two_banks_join_stream_alert_and_are_told(
    broker: str, tmp_path: Path, background: list[subprocess.Popen[bytes]]
) -> None:
    """Releases come, alerts have reasons, an analyst's verdict is taken, nothing is refused."""
    settings = found(tmp_path, broker)
    pace = {"AMALGAM_STREAM_CADENCE_S": "4", "AMALGAM_AMALGAMATOR_FOLD_EVERY_S": "2"}
    pace["AMALGAM_AMALGAMATOR_HEALTH_PORT"] = str(free_port())
    commands = [["amalgamator", "run", "walkers/amalgamator.toml"]]
    commands += [["bank", "run", str(path)] for path in settings.values()]
    for command in commands:
        log = (tmp_path / f"{len(background)}.log").open("wb")
        background.append(
            subprocess.Popen(
                [AMALGAM, *command], cwd=tmp_path, env=os.environ | pace, stdout=log, stderr=log
            )
        )
    for number, path in enumerate(settings.values(), start=1):
        options = ("--bank", str(number), "--days", "30", "--rate", "3000")
        said = amalgam("simulate", str(path), *options, cwd=tmp_path)
        assert re.search(r"[\d,]{5,} transactions and \d+ labels sent", said)
    logs = [tmp_path / f"{i}.log" for i in range(3)]
    eventually(lambda: "released number=2" in logs[0].read_text(), "a second release")
    eventually(lambda: all("installed" in log.read_text() for log in logs[1:]), "installed")

    alerts = eventually(
        lambda: amalgam(
            "alerts", "tail", "northwalk", "--bootstrap", broker, "--seconds", "3", cwd=tmp_path
        ),
        "alerts",
    )
    alert = re.search(r"transaction (\S+)  account (\S+)", alerts)
    assert alert is not None
    assert re.search(r"\n +\+\d\.\d  \w+", alerts), "reasons in words"
    amalgam("label", "northwalk/bank.toml", alert[1], alert[2], "--fraud", cwd=tmp_path)
    decided = read_topic(broker, "northwalk.decisions", Decision)
    assert alert[1] in {one.transaction_id for one in decided}
    assert read_topic(broker, "northwalk.dead-letters", dict) == []
    assert read_topic(broker, "walkers.quarantine", dict) == []


def running_in(directory: Path) -> list[str]:
    """Return the command lines of processes that name a directory."""
    lines = subprocess.run(
        ["ps", "-ewwo", "args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in lines.splitlines() if str(directory) in line]


def test_the_demonstration_ends_with_a_table_and_leaves_nothing_running(tmp_path: Path) -> None:
    """In a short form: a real broker of its own, five banks, releases, alerts, figures."""
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "libs").symlink_to(LIBS)
    said = amalgam(
        *("demo", "--seconds", "30", "--state", str(tmp_path), "--results", "demo.json"),
        cwd=tmp_path,
    )
    assert "latest alerts and why" in said
    for bank in ("alpenkasse", "costabanco", "nordbank", "polkabank", "rhinepay"):
        assert bank in said
    figures = json.loads((tmp_path / "demo.json").read_text())["figures"]
    assert figures["n_releases"] >= 2
    assert figures["n_transactions"] > 100_000
    assert running_in(tmp_path) == []


def test_a_local_broker_comes_and_goes(tmp_path: Path) -> None:
    """`amalgam kafka up` twice is once; after `down` nothing runs."""
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka" / "libs").symlink_to(LIBS)
    state = ("--state", str(tmp_path))
    port = ("--port", str(free_port()))
    first = amalgam("kafka", "up", *port, *state, cwd=tmp_path)
    assert amalgam("kafka", "up", *port, *state, cwd=tmp_path) == first
    assert running_in(tmp_path)
    assert "stopped" in amalgam("kafka", "down", *state, cwd=tmp_path)
    time.sleep(0.2)
    assert running_in(tmp_path) == []
    assert "no broker was running" in amalgam("kafka", "down", *state, cwd=tmp_path)
