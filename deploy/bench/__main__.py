"""``python -m deploy.bench [pieces|job|latency|scale|backtest|recovery|all]``: measures.

``pieces``, ``scale`` and ``backtest`` need no broker. The others start a Kafka of their own in a
temporary folder, and stop it and whatever else they started, also when they fail. ``all`` writes
``results/pieces.json``, ``results/speed.json`` and the plot ``results/speed.svg``; ``scale`` alone
and ``backtest``, which needs the Handbook's data and is left out of ``all``, put their figures into
``results/speed.json`` beside the rest, ``recovery``, which ``all`` leaves out too, into
``results/chaos.json`` beside those of a chaos run.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.bench.bank import BenchBank, BenchConfig, BenchStream, make_stream, now
from deploy.bench.chart import draw_speed
from deploy.bench.handbook import measure_backtest
from deploy.bench.job import ROOT, WORKERS, measure_job
from deploy.bench.latency import measure_latency
from deploy.bench.pieces import make_workload, measure_pieces
from deploy.bench.recovery import config_of, many_accounts, measure_recovery
from deploy.bench.scale import measure_scale
from deploy.kafka_server import local_kafka
from deploy.results import merge_results, write_results
from models.errors import AmalgamError

RESULTS = Path(__file__).parent / "results"
LIBS = ROOT / ".amalgam" / "kafka" / "libs"
LOGS = ROOT / ".amalgam" / "bench-logs"
Figures = dict[str, float]
Measure = Callable[[BenchBank, BenchConfig], Figures]


def run_pieces() -> Figures:
    """Measure the pieces in this process."""
    with tempfile.TemporaryDirectory() as directory:
        return measure_pieces(make_workload(), Path(directory))


def run_on_kafka(
    config: BenchConfig, *parts: Measure, stream: BenchStream | None = None
) -> Figures:
    """Start a broker, warm a bank's worker up, measure, stop everything."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as directory:
        stream = stream or make_stream(config)
        with local_kafka(Path(directory) / "kafka", LIBS, os.environ) as bootstrap:
            bank = BenchBank(Path(directory) / "bank", bootstrap, stream)
            try:
                bank.warm_up(config.warm)
                for part in parts:
                    figures |= part(bank, config)
            finally:  # what went wrong can be read after the folder is gone
                shutil.copytree(Path(directory) / "bank" / "logs", LOGS, dirs_exist_ok=True)
    return figures


def latency_of(bank: BenchBank, _: BenchConfig) -> Figures:
    """Measure latency."""
    return measure_latency(bank)


def run_recovery() -> Figures:
    """Measure how fast a worker is back, and what that costs, and write it down."""
    config = config_of()
    stream, plan = many_accounts(make_stream(config), config.warm)

    def measure(bank: BenchBank, _: BenchConfig) -> Figures:
        return measure_recovery(bank, plan)

    figures = run_on_kafka(config, measure, stream=stream)
    merge_results(RESULTS / "chaos.json", "python -m deploy.bench recovery", figures, now=now())
    return figures


def run_scale() -> Figures:
    """Measure what accounts and members cost, and write it down beside the other costs."""
    figures = measure_scale()
    merge_results(RESULTS / "speed.json", "python -m deploy.bench scale", figures, now=now())
    return figures


def run_backtest_time(file: Path) -> Figures:
    """Measure how long a back-test takes, and write it down beside the other costs."""
    figures = measure_backtest(file)
    merge_results(RESULTS / "speed.json", "python -m deploy.bench backtest", figures, now=now())
    return figures


def show(figures: Mapping[str, float]) -> None:
    """Print figures."""
    for name, value in figures.items():
        sys.stdout.write(f"{name:<28} {value:14,.2f}\n")


def run_all(config: BenchConfig) -> Figures:
    """Measure everything and write it down."""
    command = "python -m deploy.bench all"
    pieces = run_pieces()
    show(pieces)
    write_results(RESULTS / "pieces.json", command, pieces, now=now())
    speed = run_on_kafka(config, measure_job, latency_of) | measure_scale()
    merge_results(RESULTS / "speed.json", command, speed, now=now())
    draw_speed(speed, RESULTS / "speed.svg")
    return speed


def main() -> int:
    """Measure what was asked for, print it, and with ``all`` write it down."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench", description=__doc__)
    parser.add_argument(
        "part",
        nargs="?",
        default="all",
        choices=("pieces", "job", "latency", "scale", "backtest", "recovery", "all"),
    )
    parser.add_argument(
        "--handbook", type=Path, default=Path("handbook.parquet"), help="data of the back-test"
    )
    parser.add_argument(
        "--rounds", type=int, default=BenchConfig().rounds, help="of the job beside its peers"
    )
    given = parser.parse_args()
    config = BenchConfig(rounds=given.rounds, workers=len(WORKERS))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ctrl-C: what was started is stopped
    parts: Mapping[str, Callable[[], Figures]] = {
        "pieces": run_pieces,
        "job": lambda: run_on_kafka(config, measure_job),
        "latency": lambda: run_on_kafka(config, latency_of),
        "scale": run_scale,
        "backtest": lambda: run_backtest_time(given.handbook),
        "recovery": run_recovery,
        "all": lambda: run_all(config),
    }
    try:
        show(parts[given.part]())
    except AmalgamError as error:
        sys.stderr.write(f"NOT MEASURED: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
