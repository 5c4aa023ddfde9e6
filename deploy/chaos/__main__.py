"""``python -m deploy.chaos``: disturbs a consortium on a real Kafka and compares with calm.

The same seed gives the same payments, feeds and faults. Ends with 0 where everything is equal, with
1 and a line for each difference where it is not, and with 2 where there is nothing to compare.
What was done is told in ``faults.jsonl`` in the working folder, beside the processes' logs.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from deploy.chaos.compare import EXCEPTIONS, Verdict
from deploy.chaos.fault_plan import SORTS
from deploy.chaos.planted import BUGS
from deploy.chaos.run import ChaosConfig, run_chaos
from deploy.chaos.small_world import BANKS
from deploy.results import merge_results
from deploy.services import ROOT
from models.errors import AmalgamError

WORK = ROOT / ".amalgam" / "chaos"
LIBS = ROOT / ".amalgam" / "kafka" / "libs"
_SHOWN = 12


def main() -> int:
    """Run, show, perhaps write the figures down."""
    parser = argparse.ArgumentParser(prog="python -m deploy.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of payments, feeds and faults")
    parser.add_argument("--faults", type=int, default=100, help="how many; 0: none")
    parser.add_argument("--days", type=int, default=14, help="of made-up payments")
    parser.add_argument("--customers", type=int, default=200, help="of all banks")
    parser.add_argument("--only", nargs="+", choices=SORTS, default=(), help="sorts of faults")
    parser.add_argument("--plant", choices=sorted(BUGS), help="run the banks with a known bug")
    parser.add_argument("--results", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--work", type=Path, default=WORK, help="a folder, emptied at the start")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # as Ctrl-C: what was started is stopped
    for client in ("aiokafka", "kafka"):  # that a broker is away is the plan's doing
        logging.getLogger(client).setLevel(logging.CRITICAL)
    config = ChaosConfig(
        directory=given.work,
        kafka_libs=LIBS,
        seed=given.seed,
        faults=given.faults,
        days=given.days,
        customers=given.customers,
        only=given.only,
        plants=dict.fromkeys(BANKS, given.plant) if given.plant else {},
    )
    try:
        verdict = run_chaos(config, os.environ)
    except AmalgamError as error:
        sys.stderr.write(f"NOTHING TO COMPARE: {error}; see {given.work}\n")
        return 2
    sys.stdout.write(shown(verdict))
    if given.results is not None:
        command = shlex.join(["python", "-m", "deploy.chaos", *sys.argv[1:]])
        merge_results(given.results, command, verdict.figures, now=datetime.now(UTC))
    return 1 if verdict.differences else 0


def shown(verdict: Verdict) -> str:
    """Return figures, and what differs figure by figure, as text."""
    lines = [f"{name:<20} {value:14,.2f}" for name, value in verdict.figures.items()]
    if not verdict.differences:
        lines += ["", "nothing differs; not compared:"]
        return "\n".join([*lines, *(f"  {name}: {why}" for name, why in EXCEPTIONS.items())]) + "\n"
    lines += ["", "WHAT DIFFERS", f"{'figure':<20} {'where':<28} {'n':>6}  what"]
    for figure in dict.fromkeys(one.figure for one in verdict.differences):
        found = [one for one in verdict.differences if one.figure == figure]
        lines += [f"{d.figure:<20} {d.where:<28} {d.n:>6}  {d.what}" for d in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"{figure:<20} and {len(found) - _SHOWN} more")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
