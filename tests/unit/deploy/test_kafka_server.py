"""What surrounds the broker, with small programs in the place of Java and Maven."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.kafka_server import (
    BrokerRecord,
    KafkaFiles,
    find_java,
    free_port,
    is_answering,
    resolve,
    running,
    start,
    stop,
)
from models.errors import UnavailableError


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def _java(folder: Path, version: str) -> Path:
    return _program(folder / "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


def _environment(*folders: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.pathsep.join(str(folder) for folder in folders), **more}


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    """Give a process that is none of the broker's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def _record(directory: Path, pid: int, started: str) -> None:
    record = BrokerRecord(pid, started, "127.0.0.1:9")
    (directory / "broker.json").write_bytes(msgspec.json.encode(record))


def _started(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]


@pytest.mark.parametrize("version", ["17.0.15", "21", "25.0.1+9"])
def test_java_17_or_newer_is_taken(tmp_path: Path, version: str) -> None:
    """The first number of the version counts."""
    java = _java(tmp_path, version)
    assert find_java(_environment(tmp_path)) == str(java)


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.2", "16.0.1"])
def test_an_older_java_is_none(tmp_path: Path, version: str) -> None:
    """Kafka 4 does not run on it; the message says what would do."""
    _java(tmp_path, version)
    with pytest.raises(UnavailableError, match=r"^Java 17 or newer not found; set JAVA_HOME or"):
        find_java(_environment(tmp_path))


def test_java_home_comes_before_the_path_unless_it_is_too_old(tmp_path: Path) -> None:
    """The usual order of Java's own tools."""
    home, path = tmp_path / "home", tmp_path / "path"
    inner, outer = _java(home / "bin", "17.0.1"), _java(path, "21.0.1")
    assert find_java(_environment(path, JAVA_HOME=str(home))) == str(inner)
    _java(home / "bin", "11.0.1")
    assert find_java(_environment(path, JAVA_HOME=str(home))) == str(outer)


def test_a_java_that_is_no_program_is_none(tmp_path: Path) -> None:
    """A file of another machine's format, for one."""
    home = tmp_path / "bin" / "java"
    home.parent.mkdir()
    home.write_bytes(b"\x00")
    home.chmod(0o755)
    with pytest.raises(UnavailableError, match="Java 17"):
        find_java(_environment(JAVA_HOME=str(tmp_path)))


def test_kafka_home_is_used_where_it_is_set(tmp_path: Path) -> None:
    """Nothing is fetched then."""
    _java(tmp_path, "17.0.1")
    (tmp_path / "libs").mkdir()
    environment = _environment(tmp_path, KAFKA_HOME=str(tmp_path))
    with pytest.raises(UnavailableError, match="KAFKA_HOME: expected Kafka's jars"):
        resolve(tmp_path / "cache", environment)
    (tmp_path / "libs" / "kafka_2.13-4.3.0.jar").touch()
    assert resolve(tmp_path / "cache", environment).class_path == f"{tmp_path}/libs/*"
    assert not (tmp_path / "cache").exists()


def test_without_maven_the_message_says_what_would_do(tmp_path: Path) -> None:
    """One line for the demonstration to show."""
    _java(tmp_path, "17.0.1")
    with pytest.raises(UnavailableError, match=r"^Maven \(mvn\) not found.*KAFKA_HOME") as caught:
        resolve(tmp_path / "cache", _environment(tmp_path))
    assert "\n" not in str(caught.value)


def test_maven_fetches_once_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    """The folder of jars is whole or absent; a whole one is used again."""
    _java(tmp_path, "17.0.1")
    libs, environment = tmp_path / "cache" / "libs", _environment(tmp_path, Path("/bin"))
    _program(tmp_path / "mvn", "echo '[ERROR] no network here'; exit 1")
    with pytest.raises(UnavailableError, match="Maven could not fetch Kafka: no network here"):
        resolve(libs, environment)
    assert list((tmp_path / "cache").iterdir()) == []
    fetch = 'for a in "$@"; do case $a in -DoutputDirectory=*) d=${a#*=};; esac; done'
    _program(tmp_path / "mvn", f"{fetch}; mkdir -p $d; touch $d/kafka_2.13.jar")
    assert resolve(libs, environment).class_path == f"{libs}/*"
    assert (libs / "kafka_2.13.jar").exists()
    _program(tmp_path / "mvn", "exit 1")
    assert resolve(libs, environment).class_path == f"{libs}/*"


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    link, _ = listener.accept()
    with link:
        link.recv(64)
        link.sendall(answer)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (struct.pack(">iih", 6, 4_711, 0), True),
        (struct.pack(">iih", 6, 1, 0), False),
        (b"HTTP/1.1 400 Bad Request\r\n", False),
        (b"", False),
    ],
)
def test_only_a_broker_counts_as_answering(answer: bytes, expected: bool) -> None:
    """It sends the number of the request back; an open port alone says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_once, args=(listener, answer))
        thread.start()
        assert is_answering("127.0.0.1", listener.getsockname()[1]) is expected
        thread.join()


def test_a_closed_port_is_not_answering() -> None:
    """And is no error: the broker is still starting."""
    assert not is_answering("127.0.0.1", free_port())


def test_nothing_runs_where_no_record_or_a_damaged_one_lies(tmp_path: Path) -> None:
    """Both are what a crash may leave."""
    assert running(tmp_path) is None
    (tmp_path / "broker.json").write_bytes(b'{"pid": ')
    assert running(tmp_path) is None
    assert not stop(tmp_path)


def test_a_process_id_that_was_given_again_is_left_alone(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    """Another program has it now: it started at another time."""
    _record(tmp_path, sleeper.pid, str(int(_started(sleeper.pid)) - 1))
    assert running(tmp_path) is None
    assert not stop(tmp_path)
    assert sleeper.poll() is None


def test_stop_ends_the_process_of_the_record(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    """And takes the record away; a second stop finds nothing."""
    _record(tmp_path, sleeper.pid, _started(sleeper.pid))
    assert running(tmp_path) is not None
    assert stop(tmp_path)
    assert not Path(f"/proc/{sleeper.pid}").exists()
    assert not (tmp_path / "broker.json").exists()
    assert not stop(tmp_path)


def test_stop_kills_what_does_not_heed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience; a hung broker must not stay."""
    monkeypatch.setattr("deploy.kafka_server._STOP_TIMEOUT_S", 0.2)
    deaf = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _record(tmp_path, process.pid, _started(process.pid))
        assert stop(tmp_path)
        assert not Path(f"/proc/{process.pid}").exists()


def test_a_broker_that_ends_at_once_is_reported_with_its_log(tmp_path: Path) -> None:
    """And leaves no record."""
    java = _program(tmp_path / "java", "case $* in *StorageTool*) exit 0;; *) exit 3;; esac")
    with pytest.raises(UnavailableError, match=r"Kafka ended with 3, see .*broker\.log"):
        start(tmp_path / "k", KafkaFiles(str(java), "jars/*"))
    assert not (tmp_path / "k" / "broker.json").exists()


def test_storage_that_cannot_be_formatted_is_reported_in_one_line(tmp_path: Path) -> None:
    """With the last line of what the tool said."""
    java = _program(tmp_path / "java", "echo first >&2; echo 'disk is full' >&2; exit 1")
    with pytest.raises(UnavailableError, match=r"^Kafka's storage could not .*: disk is full$"):
        start(tmp_path / "k", KafkaFiles(str(java), "jars/*"))


def test_a_broker_that_never_answers_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left running after a start that failed."""
    monkeypatch.setattr("deploy.kafka_server._START_TIMEOUT_S", 0.3)
    script = "case $* in *StorageTool*) exit 0;; *) echo $$ > $0.pid; exec sleep 60;; esac"
    java = _program(tmp_path / "java", script)
    with pytest.raises(UnavailableError, match=r"did not answer in 0 s"):
        start(tmp_path / "k", KafkaFiles(str(java), "jars/*"))
    pid = int((tmp_path / "java.pid").read_text(encoding="utf-8"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_taken_port_is_chosen_again(tmp_path: Path) -> None:
    """Between the choice and the start another program may have taken it."""
    script = "case $* in *StorageTool*) exit 0;; *) echo java.net.BindException; "
    java = _program(tmp_path / "java", script + "echo x >> $0.n; exit 1;; esac")
    with pytest.raises(UnavailableError, match="a port of Kafka was taken"):
        start(tmp_path / "k", KafkaFiles(str(java), "jars/*"))
    assert len((tmp_path / "java.n").read_text(encoding="utf-8").split()) == 3


def test_an_interrupt_while_it_starts_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of `amalgam kafka up`."""
    script = "case $* in *StorageTool*) exit 0;; *) echo $$ > $0.pid; exec sleep 60;; esac"
    java = _program(tmp_path / "java", script)

    def interrupt(_: float) -> None:
        if (tmp_path / "java.pid").exists():
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("deploy.kafka_server.time.sleep", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "k", KafkaFiles(str(java), "jars/*"))
    finally:
        signal.signal(signal.SIGINT, before)
    pid = int((tmp_path / "java.pid").read_text(encoding="utf-8"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_second_broker_in_the_same_place_is_refused(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    """Its record would be lost, and with it the means to stop the first."""
    _record(tmp_path, sleeper.pid, _started(sleeper.pid))
    began_s = time.monotonic()
    with pytest.raises(UnavailableError, match=r"runs in .* already, at 127\.0\.0\.1:9"):
        start(tmp_path, KafkaFiles("/nowhere/java", "jars/*"))
    assert time.monotonic() - began_s < 5.0
    assert sleeper.poll() is None
