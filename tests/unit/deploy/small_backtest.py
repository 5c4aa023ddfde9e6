"""What tests of the back-test share: a small simulated file, and a made-up result."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deploy.backtest import BacktestConfig, BacktestResult
from deploy.run_results import BlendNote, ReleaseNote
from deploy.scenarios import FraudRates
from deploy.simulated_files import write_days
from deploy.simulator import SimulationConfig, simulate

DAY_MS = 86_400_000
MAPPING = Path(__file__).parents[3] / "deploy" / "mappings" / "simulated.toml"
BANKS = ("bank-1", "bank-2")
DELAY_D = 2.0
SYSTEMS = ("local", "merged", "amalgamated", "pooled")


def write_small(path, *, n_days=10, n_customers=600, shares=(0.6, 0.4)):
    """Write a file of two banks that share terminals with frauds, enough for a scorecard each."""
    simulation = SimulationConfig(
        bank_shares=shares,
        n_days=n_days,
        n_customers=n_customers,
        n_terminals=60,
        n_merchants=20,
        growth=0.0,
        rates=FraudRates(terminals=1.0, customers=4.0, card_testing=2.0),
    )
    write_days(simulate(simulation, np.random.default_rng(3)), BANKS, path)
    return path


def with_column(path, name, values, into):
    """Write the file again with one column replaced."""
    table = pq.read_table(path)
    place = table.column_names.index(name)
    column = pa.array(values, table.schema.field(name).type)
    pq.write_table(table.set_column(place, name, column), into)
    return into


def small_config(file, **changes):
    """Return daily summaries and hourly ticks, so that a run is quick."""
    settings = {
        "file": file,
        "mapping": MAPPING,
        "label_delay_d": DELAY_D,
        "cadence_s": 86_400.0,
        "tick_s": 3_600.0,
        "alert_rate": 0.02,
    }
    return BacktestConfig(**(settings | changes))


class InlineContext:
    """Stands in for `multiprocessing.get_context`: a process that runs where it is started."""

    def __init__(self, _method):
        pass

    class Process:
        """Runs its target at once."""

        exitcode = 0

        def __init__(self, *, target, args):
            self._target, self._args = target, args

        def start(self):
            """Run."""
            self._target(*self._args)

        def join(self):
            """Return: it has ended."""

        def kill(self):
            """Do nothing: it has ended."""


def made_result(n=400, *, banks=("north", "south"), seed=5, days=20, **changes):
    """Return a result with drawn scores, of which some are equal, and about 1 fraud in 10."""
    rng = np.random.default_rng(seed)
    start_ms = 20_000 * DAY_MS
    fraud = rng.random(n) < 0.1
    event_ms = start_ms + np.sort(rng.integers(days * DAY_MS, size=n))
    scores = {
        name: np.round(rng.normal(size=n) + fraud * (0.5 + 0.4 * i), 1)
        for i, name in enumerate(SYSTEMS)
    }
    values = {
        "config": BacktestConfig(file=Path("made.csv"), mapping=MAPPING, alert_rate=0.05),
        "banks": banks,
        "bank": rng.integers(len(banks), size=n),
        "event_ms": event_ms,
        "amount": np.round(rng.uniform(1.0, 300.0, n), 2),
        "account": rng.integers(40, size=n),
        "is_fraud": fraud,
        "evaluated": event_ms >= start_ms + 9 * DAY_MS,
        "alert": scores["amalgamated"] > 1.5,
        "releases": [
            ReleaseNote(since_ms=start_ms + d * DAY_MS, number=d, basis=b, n_weights=w)
            for d, b, w in ((3, 1, 1_234), (8, 2, 2_345))
        ],
        "blends": [
            BlendNote(
                day_ms=start_ms + d * DAY_MS,
                bank=b,
                experts=("own", "merged"),
                weights=(0.25, 0.75),
            )
            for d in range(days)
            for b in range(len(banks))
        ],
        "reasons": Counter({"terminal.f_7d x log_amount": 9, "log_amount": 4}),
        **scores,
    }
    return BacktestResult(**(values | changes))
