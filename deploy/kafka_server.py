"""A single-node Apache Kafka on this machine: jars by Maven (or ``KAFKA_HOME``), Java 17 or newer.

The broker runs in a process group of its own and is stopped by its own process id; what is needed
to stop it from another process lies in ``broker.json`` in its directory.
"""

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import msgspec

from models.errors import UnavailableError

_JVM = ["-Xms256m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
_OLDEST_JAVA = 17
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 20.0


class BrokerRecord(msgspec.Struct, frozen=True):
    """What a running broker leaves on disk: process id, its start time in ticks, address."""

    pid: int
    started_ticks: int
    bootstrap: str


@dataclass(frozen=True, slots=True)
class KafkaFiles:
    """Where the pieces of a broker lie: Java's program and the class path of Kafka's jars."""

    java: str
    class_path: str


def find_java(environment: Mapping[str, str]) -> str:
    """Return a Java of version 17 or newer, ``JAVA_HOME``'s first.

    Raises
    ------
    UnavailableError
        If there is none.
    """
    home = environment.get("JAVA_HOME")
    found = [str(Path(home) / "bin" / "java")] if home else []
    on_path = shutil.which("java", path=environment.get("PATH"))
    for java in [*found, *([on_path] if on_path else [])]:
        if Path(java).is_file() and _java_version(java) >= _OLDEST_JAVA:
            return java
    raise UnavailableError(f"Java {_OLDEST_JAVA} or newer not found; set JAVA_HOME or --bootstrap")


def _java_version(java: str) -> int:
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', text)
    return int(found.group(1)) if found else 0


def resolve(libs: Path, environment: Mapping[str, str]) -> KafkaFiles:
    """Return what a broker needs; ``libs`` is filled by Maven unless it is already, or KAFKA_HOME.

    Raises
    ------
    UnavailableError
        If Java, or both KAFKA_HOME and Maven, are missing or Maven fails.
    """
    java = find_java(environment)
    home = environment.get("KAFKA_HOME")
    if home:
        jars = Path(home) / "libs"
        if not any(jars.glob("kafka_*.jar")):
            raise UnavailableError(f"KAFKA_HOME: expected Kafka's jars in its libs, got {home}")
        return KafkaFiles(java, f"{jars}/*")
    if not (libs / ".complete").exists():
        _download(libs, environment)
    return KafkaFiles(java, f"{libs}/*")


def _download(libs: Path, environment: Mapping[str, str]) -> None:
    maven = shutil.which("mvn", path=environment.get("PATH"))
    if maven is None:
        raise UnavailableError(
            "Maven (mvn) not found to fetch Kafka; set KAFKA_HOME or --bootstrap"
        )
    libs.mkdir(parents=True, exist_ok=True)
    with resources.as_file(resources.files("deploy") / "kafka" / "pom.xml") as pom:
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        options = [f"-DoutputDirectory={libs.resolve()}", "-DincludeScope=runtime"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise UnavailableError(f"Maven could not fetch Kafka: {' '.join(last)}")
    (libs / ".complete").touch()


def free_port() -> int:
    """Return a TCP port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(directory: Path, files: KafkaFiles, *, port: int | None = None) -> BrokerRecord:
    """Start a broker with its data in ``directory`` and wait until it answers.

    Raises
    ------
    UnavailableError
        If it does not answer in time; its log is ``directory/broker.log``.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    properties = _write_properties(directory, port)
    log_path = directory / "broker.log"
    java = [files.java, *_JVM, "-cp", files.class_path, f"-Dkafka.logs.dir={directory}"]
    if not (directory / "data" / "meta.properties").exists():
        cluster = base64.urlsafe_b64encode(b"A" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
        done = subprocess.run([*java, *tool], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(
                f"Kafka's storage could not be formatted, see {done.stderr[-200:]}"
            )
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log, start_new_session=True
        )
    record = BrokerRecord(process.pid, _start_ticks(process.pid) or 0, f"127.0.0.1:{port}")
    (directory / "broker.json").write_bytes(msgspec.json.encode(record))
    try:
        _wait_until_answering(process, port, log_path)
    except BaseException:
        stop(directory)
        raise
    return record


def _write_properties(directory: Path, port: int) -> Path:
    template = (resources.files("deploy") / "kafka" / "server.properties").read_text()
    text = template.replace("@PORT@", str(port)).replace("@CONTROLLER_PORT@", str(free_port()))
    path = directory / "server.properties"
    path.write_text(text.replace("@DATA@", str((directory / "data").resolve())))
    return path


def _wait_until_answering(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise UnavailableError(f"Kafka ended with {process.returncode}, see {log_path}")
        started = b"Kafka Server started" in log_path.read_bytes()
        if started and _is_open(port):
            return
        time.sleep(0.1)
    raise UnavailableError(f"Kafka did not answer in {_START_TIMEOUT_S:.0f} s, see {log_path}")


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def running(directory: Path) -> BrokerRecord | None:
    """Return the broker that runs in ``directory``, None if none does."""
    try:
        record = msgspec.json.decode((directory / "broker.json").read_bytes(), type=BrokerRecord)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return record if _start_ticks(record.pid) == record.started_ticks else None


def stop(directory: Path) -> bool:
    """Stop the broker of ``directory`` and return whether one ran."""
    record = running(directory)
    (directory / "broker.json").unlink(missing_ok=True)
    if record is None:
        return False
    for sign, patience_s in ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
        try:
            os.kill(record.pid, sign)
        except ProcessLookupError:
            return True
        if _wait_gone(record, patience_s):
            return True
    return True


def _wait_gone(record: BrokerRecord, patience_s: float) -> bool:
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        try:
            os.waitpid(record.pid, os.WNOHANG)
        except ChildProcessError:
            pass
        if _start_ticks(record.pid) != record.started_ticks:
            return True
        time.sleep(0.05)
    return False


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, so that a process id that was given again is told apart."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


@contextmanager
def local_kafka(directory: Path, libs: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a broker for the length of a block; gives its bootstrap address."""
    record = start(directory, resolve(libs, environment))
    try:
        yield record.bootstrap
    finally:
        stop(directory)
