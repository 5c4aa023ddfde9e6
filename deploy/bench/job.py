"""The whole job beside its peers: processor time and pace of each, in turn, round after round.

Every contestant is a process of its own that reads the same bank's records from the same broker.
Times count from a fifth of the records to the last one; with a worker from a half, since it finds
what it knows of an account or terminal again at the first payment after its start, and runs for
weeks. What differs, for or against us: the worker reads labels too, stores its state, and a day of
its bank passes in some seconds, so that a day's work is done all the time; the peers do less
(`peers`). The worker runs twice in each round: as by default, with a summary an hour, so that most
likely none is published meanwhile; and ``renewed``, which stores its state three times as often,
publishes a summary each time and installs the release that comes of it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from deploy.bench.bank import (
    BANK,
    SELDOM,
    USUAL_SHARE,
    BenchBank,
    BenchConfig,
    DecisionLog,
    cpu_s,
    steps,
)
from models.errors import UnavailableError
from stream.settings import CHECKPOINT_SHARE

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".amalgam" / "peers"
PINS = Path(__file__).parent / "peers.txt"
_TIMEOUT_S = 240.0
_SAMPLE_S = 0.05
_SETTLE_S = 4.0
_WARM_HALF = 0.5
WORKERS = {
    "job": {**SELDOM, **USUAL_SHARE},
    "job_renewed": {
        "AMALGAM_STREAM_CADENCE_S": "5",
        "AMALGAM_STREAM_CHECKPOINT_SHARE": str(3 * CHECKPOINT_SHARE),
    },
}
_IN_PRODUCT = {"floor": "floor", "transport": "transport", "faust_stock_noop": "faust"}
_IN_PEERS = {"quix_json_noop": "quix-json", "quix_river": "quix-river"}
_SLOW = frozenset({"faust_stock_noop", "quix_river"})


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement.

    Parameters
    ----------
    us
        Processor microseconds a record.
    per_s
        Records a second.
    steps
        Of the worker: step that it times -> wall microseconds a record.
    """

    us: float
    per_s: float
    steps: Mapping[str, float] = field(default_factory=dict)


def install_peers() -> Path | None:
    """Return the Python of the peers' environment, made if absent; None, told, without them."""
    python, copied = PEERS / "bin" / "python", PEERS / "peers.txt"
    if python.exists() and copied.exists() and copied.read_bytes() == PINS.read_bytes():
        return python
    uv = str(Path(sys.executable).parent / "uv")
    commands = (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(PEERS)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(PINS)],
    )
    try:
        for command in commands:
            subprocess.run(command, check=True, cwd=ROOT)
        shutil.copyfile(PINS, copied)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stdout.write(f"\nNO PEERS: QUIX STREAMS AND RIVER ARE NOT MEASURED ({error})\n\n")
        return None
    return python


def measure_job(bank: BenchBank, config: BenchConfig) -> dict[str, float]:
    """Return the figures of all rounds; the bank is warm.

    Figures end in ``_us_per_tx`` (processor microseconds a record) and ``_tx_per_s`` (pace of one
    process); ``job_vs_X`` is the worker's processor time over X's, below 1 where the worker's is
    less. All are medians, ratios of the rounds' ratios. ``job_us_per_tx_round_N`` are the worker's
    rounds one by one, because its state, and what it costs to store and to go through at a day's
    end, grows from round to round; ``job_STEP_wall_us_per_tx`` is what its own clocks say, of the
    one that is renewed, which takes every step.
    """
    peers = install_peers()
    names = [*WORKERS, *_IN_PRODUCT, *(_IN_PEERS if peers else ())]
    readings: dict[str, list[Reading]] = {name: [] for name in names}
    for i in range(config.rounds):
        for name in names:
            readings[name].append(_measure(name, i, bank, config, peers))
            one = readings[name][-1]
            line = f"round {i + 1}  {name:<18} {one.us:9.2f} us {one.per_s:12,.0f} tx/s\n"
            sys.stdout.write(line)
            sys.stdout.flush()
    return figures_of(readings) | {
        "accounts": float(config.customers),
        "records": float(config.backlog),
        "records_of_slow": float(config.few),
        "rounds": float(config.rounds),
    }


def figures_of(readings: Mapping[str, Sequence[Reading]]) -> dict[str, float]:
    """Return medians and ratios by name.

    Examples
    --------
    >>> figures_of({"job": [Reading(8.0, 9.0)], "floor": [Reading(2.0, 5.0)]})["job_vs_floor"]
    4.0
    """
    figures: dict[str, float] = {}
    for name, found in readings.items():
        figures[f"{name}_us_per_tx"] = median(one.us for one in found)
        figures[f"{name}_tx_per_s"] = median(one.per_s for one in found)
        if name != "job":
            pairs = zip(readings["job"], found, strict=True)
            figures[f"job_vs_{name}"] = median(ours.us / theirs.us for ours, theirs in pairs)
    for i, one in enumerate(readings["job"]):
        figures[f"job_us_per_tx_round_{i + 1}"] = one.us
    renewed = readings.get("job_renewed", [])
    for step in dict.fromkeys(step for one in renewed for step in one.steps):
        found_us = [one.steps[step] for one in renewed if step in one.steps]
        figures[f"job_{step}_wall_us_per_tx"] = median(found_us)
    figures["tx_per_core_s"] = 1e6 / figures["job_us_per_tx"]
    return figures


def _measure(
    name: str, i: int, bank: BenchBank, config: BenchConfig, peers: Path | None
) -> Reading:
    if name in WORKERS:
        turn = i * len(WORKERS) + list(WORKERS).index(name)
        first = config.warm + turn * config.backlog
        return _measure_worker(bank, slice(first, first + config.backlog), WORKERS[name])
    n = config.few if name in _SLOW else config.backlog
    common = ["--bootstrap", bank.bootstrap, "--bank", BANK, "--group", f"{name}-{i}"]
    common += ["--records", str(n)]
    if name in _IN_PRODUCT:
        command = [sys.executable, "-m", "deploy.bench.contestants", _IN_PRODUCT[name], *common]
        command += ["--settings", str(bank.settings)]
    else:
        command = [str(peers), "-m", "deploy.bench.peers", _IN_PEERS[name], *common]
        command += ["--frauds", str(bank.frauds_file)]
    return _measure_process(name, command, bank.directory / "logs" / f"{name}.log")


def _measure_worker(bank: BenchBank, rows: slice, settings: Mapping[str, str]) -> Reading:
    """Have the worker answer a backlog, watching its decisions from outside.

    The first part is answered, and what a start brings with it is over, before the rest is there:
    the worker is stopped while that is sent.
    """
    first = rows.start + int((rows.stop - rows.start) * _WARM_HALF)
    with DecisionLog(bank.bootstrap) as log, bank.services(settings) as worker:
        pid, before = worker.process.pid, log.end()
        bank.send(slice(rows.start, first))
        _reached(log, before + first - rows.start, pid)
        time.sleep(_SETTLE_S)
        begun = steps(worker)
        os.kill(pid, signal.SIGSTOP)
        try:
            bank.send(slice(first, rows.stop))
            at_start = log.end(), cpu_s(pid), time.perf_counter()
        finally:
            os.kill(pid, signal.SIGCONT)
        end = _reached(log, before + rows.stop - rows.start, pid)
        ended = steps(worker)
    n = end[0] - at_start[0]
    took = {
        step: (total_s - begun.get(step, (0.0, 0.0))[1]) / n * 1e6
        for step, (_, total_s) in ended.items()
    }
    return Reading((end[1] - at_start[1]) / n * 1e6, n / (end[2] - at_start[2]), took)


def _reached(log: DecisionLog, n: int, pid: int) -> tuple[int, float, float]:
    """Return decisions, processor seconds and wall seconds once there are ``n`` decisions."""
    until_s = time.perf_counter() + _TIMEOUT_S
    while time.perf_counter() < until_s:
        mark = (log.end(), cpu_s(pid), time.perf_counter())
        if mark[0] >= n:
            return mark
        time.sleep(_SAMPLE_S)
    raise UnavailableError(f"expected {n} decisions within {_TIMEOUT_S:.0f} s, got {log.end()}")


def _measure_process(name: str, command: Sequence[str], log: Path) -> Reading:
    """Run a contestant to its end, and kill it, by its own id, where it does not come to one."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=sink, stdin=subprocess.DEVNULL
        )
        try:
            told, _ = process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"{name}: no end in {_TIMEOUT_S:.0f} s, see {log}") from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode or not told:
        raise UnavailableError(f"{name} ended with {process.returncode}, see {log}")
    found = json.loads(told.splitlines()[-1])
    n = found["records"]
    return Reading(found["cpu_s"] / n * 1e6, n / found["wall_s"])
