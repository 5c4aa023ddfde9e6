"""The demonstration: a real Kafka, five banks, five formats, the amalgamator, a live table."""

import os
import shutil
import time
from collections.abc import Mapping as MappingOf
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.live import Live

from amalgamator.core import Amalgamator
from amalgamator.policy import FoldConfig
from amalgamator.registry import parse_registry
from deploy.bank_formats import LabelledBatch
from deploy.consortium_files import ConsortiumFiles, ConsortiumPlan, write_consortium
from deploy.demo_feed import Feed, Watcher
from deploy.display import alerts_text, banks_table, progress_line, screen
from deploy.kafka_server import free_port, resolve, start, stop
from deploy.local import BankStream, LocalConsortium
from deploy.replay import ReplayConfig
from deploy.scoreboard import Scoreboard
from deploy.services import Services, stop_remembered
from deploy.simulator import SimulationConfig, bank_parts
from deploy.topics import bank_plan, consortium_plan, create_topics
from models.errors import UnavailableError
from models.mapping import load_mapping
from models.records import Label, concatenate_batches
from stream.answering import decisions_of
from stream.pipeline import Pipeline
from stream.scored import Scored
from stream.settings import pipeline_config, read_membership, read_settings

CONSORTIUM = "amalgam"
KINDS = ("terminal", "merchant", "device")
FAMILIES = {  # each bank runs what it likes; rhinepay relies on the scorecards alone
    "alpenkasse": ("lightgbm {refit_d = 7}",),
    "costabanco": ('river {model = "river.linear_model.LogisticRegression"}',),
    "nordbank": ('river {model = "river.tree.HoeffdingAdaptiveTreeClassifier"}',),
    "polkabank": ("lightgbm {refit_d = 7, num_leaves = 7, n_trees = 100}",),
}
_DAY_MS = 86_400_000
_READY_TIMEOUT_S = 120.0
_PLAIN_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """How the demonstration runs.

    Parameters
    ----------
    directory
        Where everything lies; emptied at the start.
    kafka_libs
        Where Kafka's jars are kept between runs.
    seconds
        How long the simulated days are streamed.
    days, customers
        Of the simulation.
    label_delay_d
        Days until a fraud is reported; after them a transaction counts as legitimate.
    cadence_s
        Seconds between summaries.
    seed
        Of the simulation.
    bootstrap
        A broker to use instead of starting one.
    is_kept
        Leave everything running at the end.
    """

    directory: Path
    kafka_libs: Path
    seconds: float = 160.0
    days: int = 45
    customers: int = 2_000
    label_delay_d: int = 3
    cadence_s: float = 10.0
    seed: int = 1
    bootstrap: str | None = None
    is_kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """What the demonstration measured."""

    board: Scoreboard
    first_release_s: float | None
    services_s: float
    is_on_kafka: bool

    def figures(self) -> dict[str, float]:
        """Return the figures by name."""
        alone, together = self.board.macro()
        found = {
            "first_release_s": self.first_release_s,
            "demo_seconds": self.services_s,
            "n_transactions": float(self.board.n_scored),
            "n_releases": float(self.board.n_releases),
            "local_macro_ap": alone,
            "amalgamated_macro_ap": together,
        }
        return {name: value for name, value in found.items() if value is not None}


class Demo:
    """One run of the demonstration.

    Parameters
    ----------
    config
        How.
    console
        Where it is shown.
    """

    def __init__(self, config: DemoConfig, console: Console) -> None:
        self._config = config
        self._console = console
        folder = resources.files("deploy") / "demo_banks"
        self._mapping_files = {
            Path(entry.name).stem: Path(str(entry))
            for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
            if entry.name.endswith(".toml")
        }
        self._mappings = {bank: load_mapping(p) for bank, p in self._mapping_files.items()}
        simulation = SimulationConfig(n_days=config.days, n_customers=config.customers)
        self._parts: MappingOf[str, list[LabelledBatch]] = {
            bank: list(bank_parts(simulation, i, mapping, seed=config.seed))
            for i, (bank, mapping) in enumerate(self._mappings.items())
        }
        self._board = Scoreboard({bank: _frauds(parts) for bank, parts in self._parts.items()})

    def run(self) -> DemoResult:
        """Run on a broker, or where none can be had in this process, saying so in one line."""
        config = self._config
        shutil.rmtree(config.directory, ignore_errors=True)
        config.directory.mkdir(parents=True)
        try:
            bootstrap = config.bootstrap or self._start_broker()
        except UnavailableError as error:
            self._console.print(
                f"No Kafka ({error}); running in one process instead.", style="yellow"
            )
            return self._run_in_process()
        try:
            return self._run_on_kafka(bootstrap)
        finally:
            if not config.is_kept and config.bootstrap is None:
                stop(config.directory / "kafka")

    def _start_broker(self) -> str:
        self._console.print("starting Apache Kafka ...")
        files = resolve(self._config.kafka_libs, os.environ)
        return start(self._config.directory / "kafka", files).bootstrap

    def _files(self, bootstrap: str, *, is_replay: bool) -> ConsortiumFiles:
        config = self._config
        plan = ConsortiumPlan(
            name=CONSORTIUM,
            entity_kinds=KINDS,
            mappings=self._mapping_files,
            bank_bootstrap=bootstrap,
            consortium_bootstrap=bootstrap,
            is_replay=is_replay,
            bank_settings={
                "cadence_s": 86_400.0 if is_replay else config.cadence_s,
                "tick_s": 3_600.0,
                "label_horizon_s": config.label_delay_d * 86_400.0,
                "alert_rate": 0.015,
            },
            families=FAMILIES,
        )
        return write_consortium(config.directory, plan)

    def _run_on_kafka(self, bootstrap: str) -> DemoResult:
        config = self._config
        files = self._files(bootstrap, is_replay=False)
        for bank in self._mappings:
            create_topics(bootstrap, bank_plan(bank, partitions=2))
        create_topics(bootstrap, consortium_plan(CONSORTIUM, list(self._mappings)))
        with ExitStack() as stack:
            services = stack.enter_context(Services(config.directory / "logs"))
            started_s = time.monotonic()
            self._start_services(services, files)
            services.wait_ready(_READY_TIMEOUT_S)
            ready_s = time.monotonic() - started_s
            self._console.print(f"five workers and the amalgamator are ready after {ready_s:.0f} s")
            span_s = config.days * 86_400.0
            replay = ReplayConfig(label_delay_ms=config.label_delay_d * _DAY_MS)
            feed = Feed(bootstrap, replay, span_s / config.seconds)
            stack.callback(feed.stop)
            watcher = Watcher(bootstrap, CONSORTIUM, list(self._mappings), self._board)
            stack.callback(watcher.close)
            for bank, mapping in self._mappings.items():
                feed.start(bank, self._parts[bank], mapping)
            first_release_s = self._watch(services, feed, watcher, started_s)
            services.is_kept = config.is_kept
            if config.is_kept:
                services.remember(config.directory / "services.json")
                self._say_where(services, bootstrap)
        return DemoResult(
            board=self._board,
            first_release_s=first_release_s,
            services_s=time.monotonic() - started_s,
            is_on_kafka=True,
        )

    def _start_services(self, services: Services, files: ConsortiumFiles) -> None:
        port = str(free_port())
        environment = {
            **files.amalgamator,
            "AMALGAM_AMALGAMATOR_HEALTH_PORT": port,
            "AMALGAM_AMALGAMATOR_FOLD_EVERY_S": str(self._config.cadence_s / 2),
            "HEALTH_PORT": port,
        }
        services.start("amalgamator", "amalgamator", [], environment)
        for bank, path in files.settings.items():
            port = str(free_port())
            services.start(
                bank,
                "stream",
                ["--settings", str(path)],
                {"AMALGAM_STREAM_HEALTH_PORT": port, "HEALTH_PORT": port},
            )

    def _watch(
        self, services: Services, feed: Feed, watcher: Watcher, started_s: float
    ) -> float | None:
        """Show what comes until all is answered; return when the first release came."""
        total = sum(len(part.batch) for parts in self._parts.values() for part in parts)
        patience_s = self._config.seconds + 90.0
        first_release_s: float | None = None
        plain_s = shown_s = 0.0
        with Live(
            screen(self._board, ""), console=self._console, auto_refresh=False, transient=True
        ) as live:
            while self._board.n_scored < total:
                watcher.poll(0.25)
                services.check()
                if feed.error is not None:
                    raise feed.error
                elapsed_s = time.monotonic() - started_s
                if first_release_s is None and self._board.n_releases:
                    first_release_s = elapsed_s
                if elapsed_s > patience_s:
                    missing = total - self._board.n_scored
                    raise UnavailableError(f"{missing} answers missing after {elapsed_s:.0f} s")
                if not self._console.is_terminal and elapsed_s - plain_s >= _PLAIN_EVERY_S:
                    plain_s = elapsed_s
                    self._console.print(progress_line(self._board, elapsed_s))
                elif self._console.is_terminal and elapsed_s - shown_s >= 1.0:
                    shown_s = elapsed_s
                    live.update(screen(self._board, self._status(elapsed_s, total)), refresh=True)
            watcher.poll(1.0)
        return first_release_s

    def _status(self, elapsed_s: float, total: int) -> str:
        return (
            f"{elapsed_s:.0f} s, {self._board.n_scored:,} of {total:,} transactions, "
            f"{self._board.n_releases} releases; precision counts what both scorecards scored"
        )

    def _say_where(self, services: Services, bootstrap: str) -> None:
        self._console.print(f"\nleft running: Kafka at {bootstrap}")
        for service in services.running:
            self._console.print(
                f"  {service.name:<12} {service.url}/metrics   pid {service.process.pid}"
            )
        self._console.print("  see them work: amalgam alerts tail nordbank")
        self._console.print("  stop them:     amalgam demo-stop")

    def _run_in_process(self) -> DemoResult:
        started_s = time.monotonic()
        files = self._files("127.0.0.1:1", is_replay=True)
        pipelines, streams = {}, {}
        for bank, path in files.settings.items():
            settings = read_settings(path, {})
            membership = read_membership(settings)
            pipelines[bank] = Pipeline(pipeline_config(settings, membership, self._mappings[bank]))
            streams[bank] = bank_stream(self._parts[bank], self._config.label_delay_d * _DAY_MS)
        registry_file = Path(files.amalgamator["AMALGAM_AMALGAMATOR_REGISTRY_FILE"])
        amalgamator = Amalgamator(
            parse_registry(registry_file.read_text(encoding="utf-8")),
            FoldConfig(schema=membership.schema),
            lockstep=True,
        )

        def take(bank: str, rows: slice, scored: Scored) -> None:
            for decision in decisions_of(streams[bank].transactions.rows(rows), scored):
                self._board.add_decision(bank, decision)
            for alert in scored.alerts:
                self._board.add_alert(bank, alert)

        def count(_: object) -> None:
            self._board.n_releases += 1

        LocalConsortium(pipelines, amalgamator, cadence_ms=_DAY_MS).run(
            streams, on_scored=take, on_release=count
        )
        return DemoResult(
            board=self._board,
            first_release_s=None,
            services_s=time.monotonic() - started_s,
            is_on_kafka=False,
        )

    def show_result(self, result: DemoResult) -> None:
        """Print the final table, the latest alerts and what it says."""
        self._console.print(banks_table(result.board, "each bank alone and amalgamated"))
        self._console.print("\nlatest alerts and why", style="bold")
        self._console.print(alerts_text(result.board))
        first = result.first_release_s
        when = f", the first {first:.0f} s after the services' start" if first is not None else ""
        where = "Kafka" if result.is_on_kafka else "one process"
        self._console.print(
            f"\n{result.board.n_releases} releases came back{when}; "
            f"{result.services_s:.0f} s in all on {where}"
        )


def _frauds(parts: list[LabelledBatch]) -> frozenset[str]:
    return frozenset(
        part.batch.transaction_id[i] for part in parts for i in part.is_fraud.nonzero()[0].tolist()
    )


def bank_stream(parts: list[LabelledBatch], delay_ms: int) -> BankStream:
    """Return one bank's payments, frauds labelled after a delay."""
    batch = concatenate_batches([part.batch for part in parts])
    labels = [
        Label(
            transaction_id=part.batch.transaction_id[i],
            is_fraud=True,
            source="chargeback",
            labelled_at_ms=int(part.batch.event_time_ms[i]) + delay_ms,
        )
        for part in parts
        for i in part.is_fraud.nonzero()[0].tolist()
    ]
    return BankStream(transactions=batch, labels=labels)


def stop_demo(directory: Path) -> list[str]:
    """Stop what a kept demonstration left running; return the names."""
    names = stop_remembered(directory / "services.json")
    return [*names, "kafka"] if stop(directory / "kafka") else names
