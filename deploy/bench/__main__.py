"""``python -m deploy.bench``: measures the pieces into ``deploy/bench/results/pieces.json``."""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from deploy.bench.pieces import make_workload, measure_pieces
from deploy.results import write_results

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, print and write."""
    with tempfile.TemporaryDirectory() as directory:
        figures = measure_pieces(make_workload(), Path(directory))
    for name, value in figures.items():
        sys.stdout.write(f"{name:<24} {value:12,.2f}\n")
    command = "python -m deploy.bench"
    write_results(RESULTS / "pieces.json", command, figures, now=datetime.now(UTC))
    return 0


if __name__ == "__main__":
    sys.exit(main())
