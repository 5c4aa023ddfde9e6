"""How long a back-test of the Handbook's data takes: consortium and pooled data, side by side."""

import sys
from pathlib import Path

from deploy.backtest import BacktestConfig, run_backtest
from deploy.commands import day_of

MAPPING = Path(__file__).parents[1] / "mappings" / "handbook.toml"
_STEP = 0.1


def measure_backtest(file: Path) -> dict[str, float]:
    """Return the seconds of one back-test, as ``make backtest`` runs it, of the wall clock.

    Parameters
    ----------
    file
        The Handbook's transactions, CSV or Parquet.

    Raises
    ------
    InvalidInputError
        If it cannot be read.
    """
    config = BacktestConfig(
        file=file,
        mapping=MAPPING,
        split="handbook",
        scored_from=day_of("2018-07-15"),
        scored_to=day_of("2018-09-30"),
    )
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        if share >= told + _STEP:
            told = share
            sys.stdout.write(f"back-test: {share:.0%}\n")
            sys.stdout.flush()

    result = run_backtest(config, tell)
    return {"backtest_handbook_s": result.seconds, "backtest_handbook_mb": result.peak_memory_mb}
