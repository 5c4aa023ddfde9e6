"""A single-node Apache Kafka on this machine: jars by Maven (or ``KAFKA_HOME``), Java 17 or newer.

The broker runs in a session of its own and is stopped by its own process id; what is needed to stop
it from another process lies in ``broker.json`` in its directory. A process id that was given again
to another program is told apart by when that program started, and is left alone.
"""

import base64
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import msgspec

from models.errors import UnavailableError

# one node with little data: a small heap, and a compiler that is ready soon rather than best
_JVM = ("-Xms256m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_STARTS = 3  # a port that was free can be taken before the broker has it
_OLDEST_JAVA = 17
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 20.0
_CORRELATION = 4_711


class BrokerRecord(msgspec.Struct, frozen=True):
    """What a running broker leaves on disk: process id, when that process started, address."""

    pid: int
    started: str
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
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    except OSError:  # not a program of this machine
        return 0
    found = re.search(r'version "(\d+)', done.stderr)
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
    libs.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=libs.parent, prefix=".kafka-") as scratch,
        resources.as_file(resources.files("deploy") / "kafka" / "pom.xml") as pom,
    ):
        jars = Path(scratch) / "libs"
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        options = [f"-DoutputDirectory={jars.resolve()}", "-DincludeScope=runtime"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if done.returncode:
            raise UnavailableError(f"Maven could not fetch Kafka: {_first_error(done)}")
        (jars / ".complete").touch()
        _put_in_place(jars, libs)


def _first_error(done: "subprocess.CompletedProcess[str]") -> str:
    lines = (done.stdout + done.stderr).splitlines()
    errors = [line.partition("[ERROR]")[2].strip() for line in lines if "[ERROR]" in line]
    return (errors or [f"it ended with {done.returncode}"])[0]


def _put_in_place(jars: Path, libs: Path) -> None:
    """Rename, so that a folder of jars is whole or absent; another process may have been first."""
    if not (libs / ".complete").exists():
        shutil.rmtree(libs, ignore_errors=True)
    with suppress(OSError):
        jars.rename(libs)
    if not (libs / ".complete").exists():
        raise UnavailableError(f"Kafka's jars could not be put into {libs}")


def free_port() -> int:
    """Return a TCP port of this machine that is free now."""
    return _free_ports(1)[0]


def _free_ports(n: int) -> list[int]:
    probes = [socket.socket() for _ in range(n)]
    try:
        for probe in probes:  # all held at once, so that no two are the same
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def start(directory: Path, files: KafkaFiles, *, port: int | None = None) -> BrokerRecord:
    """Start a broker with its data in ``directory`` and wait until it answers.

    1 format the storage, once; 2 start; 3 leave the record for `stop`; 4 wait for an answer.

    Parameters
    ----------
    directory
        Its home: data, log, settings. A broker started here again has the topics that it had.
    files
        See `resolve`.
    port
        TCP port on 127.0.0.1; None takes a free one.

    Raises
    ------
    UnavailableError
        If one runs there already, or it does not answer in time; its log is
        ``directory/broker.log``.
    """
    found = running(directory)
    if found is not None:
        raise UnavailableError(f"a broker runs in {directory} already, at {found.bootstrap}")
    directory.mkdir(parents=True, exist_ok=True)
    for _ in range(_STARTS - 1 if port is None else 0):
        with suppress(_PortTakenError):
            return _start_once(directory, files, _free_ports(2))
    broker_port = free_port() if port is None else port
    return _start_once(directory, files, [broker_port, free_port()])


class _PortTakenError(UnavailableError):
    """Another program took the port between the choice and the start; choose again."""


def _start_once(directory: Path, files: KafkaFiles, ports: Sequence[int]) -> BrokerRecord:
    properties = _write_properties(directory, ports)
    java = [files.java, *_JVM, "-cp", files.class_path, f"-Dkafka.logs.dir={directory}"]
    _format(directory, java, properties)
    log_path = directory / "broker.log"
    process: subprocess.Popen[bytes] | None = None
    try:
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*java, "kafka.Kafka", str(properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        address = f"127.0.0.1:{ports[0]}"
        record = BrokerRecord(process.pid, _started(process.pid) or "", address)
        (directory / "broker.json").write_bytes(msgspec.json.encode(record))
        _wait_until_answering(process, ports[0], log_path)
        process.returncode = 0  # it is to outlive this object, which warns of that otherwise
    except BaseException:  # an interrupt too: nothing may be left running
        if process is not None:
            process.kill()
            process.wait()
        (directory / "broker.json").unlink(missing_ok=True)
        raise
    return record


def _format(directory: Path, java: Sequence[str], properties: Path) -> None:
    if (directory / "data" / "meta.properties").exists():
        return
    cluster = base64.urlsafe_b64encode(b"A" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
    tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties)]
    done = subprocess.run([*java, *tool], capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise UnavailableError(f"Kafka's storage could not be formatted: {' '.join(last)}")


def _write_properties(directory: Path, ports: Sequence[int]) -> Path:
    template = (resources.files("deploy") / "kafka" / "server.properties").read_text("utf-8")
    filled = {
        "@PORT@": str(ports[0]),
        "@CONTROLLER_PORT@": str(ports[1]),
        "@DATA@": (directory / "data").resolve().as_posix(),
    }
    for mark, value in filled.items():
        template = template.replace(mark, value)
    path = directory / "server.properties"
    path.write_text(template, encoding="utf-8")
    return path


def _wait_until_answering(process: "subprocess.Popen[bytes]", port: int, log_path: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        code = process.poll()
        if code is not None:
            if b"java.net.BindException" in log_path.read_bytes():
                raise _PortTakenError(f"a port of Kafka was taken, see {log_path}")
            raise UnavailableError(f"Kafka ended with {code}, see {log_path}")
        if is_answering("127.0.0.1", port):
            return
        time.sleep(0.1)
    raise UnavailableError(f"Kafka did not answer in {_START_TIMEOUT_S:.0f} s, see {log_path}")


def is_answering(host: str, port: int, *, timeout_s: float = 2.0) -> bool:
    """Ask which requests a broker knows (ApiVersions, version 0); False where none answers.

    A broker opens its port once the controller let it in, so the answer means that it serves.
    """
    body = struct.pack(">hhih", 18, 0, _CORRELATION, -1)  # -1: no client name
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as link:
            link.sendall(struct.pack(">i", len(body)) + body)
            with link.makefile("rb") as answer:
                head = answer.read(8)
    except OSError:
        return False
    return len(head) == 8 and struct.unpack(">ii", head)[1] == _CORRELATION


def running(directory: Path) -> BrokerRecord | None:
    """Return the broker that runs in ``directory``, None if none does."""
    try:
        record = msgspec.json.decode((directory / "broker.json").read_bytes(), type=BrokerRecord)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return record if _started(record.pid) == record.started else None


def stop(directory: Path) -> bool:
    """Stop the broker of ``directory`` and return whether one ran."""
    record = running(directory)
    (directory / "broker.json").unlink(missing_ok=True)
    if record is None:
        return False
    for number, patience_s in ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(record.pid, number)
        if _is_gone(record, patience_s):
            break
    return True


def _is_gone(record: BrokerRecord, patience_s: float) -> bool:
    """Wait until the process has ended, and reap it where it is our child."""
    deadline_s = time.monotonic() + patience_s
    while _started(record.pid) == record.started:
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    with suppress(ChildProcessError):
        os.waitpid(record.pid, 0)  # its last threads may still be ending
    return True


def _started(pid: int) -> str | None:
    """Return when a process started, None if there is none or it only waits to be reaped."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    command = ["ps", "-o", "lstart=,stat=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return " ".join(shown[:-1]) if shown and not shown[-1].startswith("Z") else None


@contextmanager
def local_kafka(directory: Path, libs: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a broker for the length of a block; gives its bootstrap address."""
    record = start(directory, resolve(libs, environment))
    try:
        yield record.bootstrap
    finally:
        stop(directory)
